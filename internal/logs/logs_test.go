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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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
