package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("Write = %d, %v, want %d, nil", n, err, len(text))
	}
}

func read(t *testing.T, m *Manager, id string, tail int) string {
	t.Helper()
	r, err := m.Reader(t.Context(), id, false, tail)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReader(t *testing.T) {
	m := New(filepath.Join(t.TempDir(), "made", "on", "demand"))
	w := m.Writer("a")
	write(t, w, "one\ntw")
	write(t, w, "o\nthree\n")
	write(t, w, "unfinished")
	for _, tt := range []struct {
		tail int
		want string
	}{{-1, "one\ntwo\nthree\n"}, {0, ""}, {2, "two\nthree\n"}, {9, "one\ntwo\nthree\n"}} {
		if got := read(t, m, "a", tt.tail); got != tt.want {
			t.Errorf("Reader(tail %d) = %q, want %q", tt.tail, got, tt.want)
		}
	}
	if _, err := m.Reader(t.Context(), "nobody", false, -1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Reader of an unknown log = %v, want ErrNotExist", err)
	}
	if got := fmt.Sprint(m.IDs()); got != "[a]" {
		t.Errorf("IDs = %s, want [a]", got)
	}
}

// TestLoad reads what an earlier manager has written.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write(t, New(dir).Writer("a"), "one\n")
	if err := os.WriteFile(filepath.Join(dir, "boot.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(m.IDs()); got != "[a]" {
		t.Errorf("IDs = %s, want [a]", got)
	}
	if got := read(t, m, "a", -1); got != "one\n" {
		t.Errorf("log = %q, want one line", got)
	}
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load of a folder that is not there = %v, want ErrNotExist", err)
	}
}

func TestEntriesTime(t *testing.T) {
	m := New(t.TempDir())
	want := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	m.now = func() time.Time { return want }
	write(t, m.Writer("a"), "x\n")
	e, err := m.Entries(t.Context(), "a", false, -1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Next(); err != nil || !got.Time.Equal(want) || got.Line != "x" {
		t.Errorf("Next = %v, %v, want x at %v", got, err, want)
	}
}

func TestLongLine(t *testing.T) {
	m := New(t.TempDir())
	long := strings.Repeat("x", maxLine+10)
	write(t, m.Writer("a"), long+"\n")
	want := long[:maxLine] + "\n" + long[maxLine:] + "\n"
	if got := read(t, m, "a", -1); got != want {
		t.Errorf("a line of %d bytes is read as %d bytes, want it broken after %d", len(long), len(got), maxLine)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	m := New(dir)
	line := strings.Repeat("y", 1000) + "\n"
	for range 5000 {
		write(t, m.Writer("a"), line)
	}
	var total int64
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if len(entries) != 2 || total > 2*maxFile {
		t.Errorf("%d files of %d bytes, want 2 of at most %d", len(entries), total, 2*maxFile)
	}
	if got := read(t, m, "a", 1500); got != strings.Repeat(line, 1500) {
		t.Errorf("the last 1500 lines are %d bytes, want %d: the older file must be read too", len(got), 1500*len(line))
	}
}

// TestFollow reads across rotations while somebody writes.
func TestFollow(t *testing.T) {
	m := New(t.TempDir())
	w := m.Writer("a")
	write(t, w, "0\n")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := m.Reader(ctx, "a", true, -1)
	if err != nil {
		t.Fatal(err)
	}
	const lines = 3000 // of 1 kB: two rotations
	seen := make(chan int, lines)
	go func() {
		defer close(seen)
		scanner := bufio.NewScanner(r)
		for scanner.Scan() {
			var n int
			if _, err := fmt.Sscan(scanner.Text(), &n); err == nil {
				seen <- n
			}
		}
	}()
	if n := <-seen; n != 0 {
		t.Fatalf("first line is %d, want 0", n)
	}
	for i := 1; i < lines; i++ {
		write(t, w, fmt.Sprintf("%d %s\n", i, strings.Repeat("z", 1000)))
		if n := <-seen; n != i {
			t.Fatalf("line %d follows as %d", i, n)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-seen; open {
		t.Error("a line came after Close")
	}
}

// TestDropped: what can't be stored is counted, and the writer doesn't learn of it.
func TestDropped(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := New(filepath.Join(file, "below"))
	write(t, m.Writer("a"), "x\ny\n")
	if got := m.Dropped("a"); got != 2 {
		t.Errorf("Dropped = %d, want 2", got)
	}
}

// TestMove: after it nobody has a file of the old folder open, neither writers
// nor those who follow, and nothing is lost.
func TestMove(t *testing.T) {
	before, after := t.TempDir(), filepath.Join(t.TempDir(), "not made yet")
	m := New(before)
	w := m.Writer("kubelet")
	fmt.Fprintln(w, "one")
	entries, err := m.Entries(t.Context(), "kubelet", true, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer entries.Close()
	got := make(chan string)
	go func() {
		for {
			e, err := entries.Next()
			if err != nil {
				close(got)
				return
			}
			got <- e.Line
		}
	}()
	fmt.Fprintln(w, "two")
	for _, want := range []string{"one", "two"} {
		if line := <-got; line != want {
			t.Errorf("read %q, want %q", line, want)
		}
	}
	m.Move(after)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		open := openBelow(t, before)
		if len(open) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still open: %q", open)
		}
	}
	fmt.Fprintln(w, "three")
	fmt.Fprintln(m.Writer("etcd"), "new")
	if line := <-got; line != "three" {
		t.Errorf("read %q, want three", line)
	}
	for file, want := range map[string]string{filepath.Join(before, "kubelet.log"): "two\n", filepath.Join(after, "kubelet.log"): "three\n", filepath.Join(after, "etcd.log"): "new\n"} {
		if text, err := os.ReadFile(file); err != nil || !strings.HasSuffix(string(text), want) {
			t.Errorf("%s = %q, %v, want it to end in %q", file, text, err, want)
		}
	}
}

// openBelow lists what this process has open below a folder.
func openBelow(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, dir+"/") {
			out = append(out, to)
		}
	}
	return out
}
