package containers

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFind(t *testing.T) {
	list := []Container{
		{ID: "etcd"},
		{ID: "aaaaaaaa1", PodNamespace: "ns", PodName: "p", Sandbox: true, PID: 1},
		{ID: "bbbbbbbb1", PodNamespace: "ns", PodName: "p", Name: "c"},
		{ID: "bbbbbbbb2", PodNamespace: "ns", PodName: "p", Name: "c", PID: 2},
	}
	for name, want := range map[string]string{
		"etcd": "etcd", "ns/p": "aaaaaaaa1", "ns/p:c": "bbbbbbbb2", "bbbbbbbb1": "bbbbbbbb1", "bbbbbbbb": "bbbbbbbb2", "aaaaaaaa": "aaaaaaaa1",
	} {
		if got, err := find(list, name); err != nil || got.ID != want {
			t.Errorf("find(%s) = %s, %v, want %s", name, got.ID, err, want)
		}
	}
	for _, name := range []string{"bbbb", "", "ns/p:d"} {
		if _, err := find(list, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("find(%q) = %v, want ErrNotFound", name, err)
		}
	}
}

func podLogFile(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

var ctr = Container{PodNamespace: "ns", PodName: "p", PodUID: "u", Name: "c"}

func TestPodLogs(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "ns_p_u", "c")
	podLogFile(t, dir, "0.log", "2026-01-01T00:00:00Z stdout F old\n")
	podLogFile(t, dir, "10.log", "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P tw\n2026-01-01T00:00:00Z stderr F o\n2026-01-01T00:00:00Z stdout F \n")
	for tail, want := range map[int]string{-1: "one\ntwo\n\n", 1: "\n", 2: "o\n\n", 0: "", 9: "one\ntwo\n\n"} {
		r, err := podLogs(t.Context(), root, ctr, false, tail)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != want {
			t.Errorf("tail %d = %q, %v, want %q", tail, got, err, want)
		}
		r.Close()
	}
	if _, err := podLogs(t.Context(), root, Container{ID: "etcd"}, false, -1); err == nil {
		t.Error("logs of what is no pod = nil error")
	}
}

// TestPodLogsStayInside: a pod that may write logs must not choose what readers
// of logs see, keep them waiting, or fill the memory.
func TestPodLogsStayInside(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink(outside, path) },
		"pipe": func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		root := t.TempDir()
		dir := filepath.Join(root, "ns_p_u", "c")
		podLogFile(t, dir, "0.log", "2026-01-01T00:00:00Z stdout F fine\n")
		if err := plant(filepath.Join(dir, "1.log")); err != nil {
			t.Fatal(err)
		}
		if r, err := podLogs(t.Context(), root, ctr, false, -1); err == nil {
			got, _ := io.ReadAll(r)
			t.Errorf("%s: logs = %q, want an error", name, got)
		}
	}
	root := t.TempDir()
	podLogFile(t, filepath.Join(root, "ns_p_u", "c"), "0.log",
		"2026-01-01T00:00:00Z stdout F "+strings.Repeat("x", 4*maxLine)+"\n2026-01-01T00:00:00Z stdout F next\n")
	r, err := podLogs(t.Context(), root, ctr, false, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || len(got) > maxLine+10 || !strings.HasSuffix(string(got), "x\nnext\n") {
		t.Errorf("an endless line = %d bytes, %v, want at most %d and the next line", len(got), err, maxLine)
	}
}

// TestPodLogsFollow goes on in the file of the container's next start.
func TestPodLogsFollow(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "ns_p_u", "c")
	podLogFile(t, dir, "0.log", "2026-01-01T00:00:00Z stdout F one\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := podLogs(ctx, root, ctr, true, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines := bufio.NewScanner(r)
	if !lines.Scan() || lines.Text() != "one" {
		t.Fatalf("first line = %q, %v", lines.Text(), lines.Err())
	}
	podLogFile(t, dir, "1.log", "2026-01-01T00:00:00Z stdout F two\n")
	if !lines.Scan() || lines.Text() != "two" {
		t.Fatalf("second line = %q, %v", lines.Text(), lines.Err())
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if lines.Scan() {
		t.Errorf("a line after the pod is gone: %q", lines.Text())
	}
}

func FuzzStripCRI(f *testing.F) {
	f.Add([]byte("2026-01-01T00:00:00Z stdout F text\n"))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if got := stripCRI(line); len(got) > len(line) {
			t.Errorf("stripCRI(%q) = %q, longer than the line", line, got)
		}
	})
}
