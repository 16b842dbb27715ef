package cpio

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type file struct {
	Name, Data string
	Mode       fs.FileMode
}

// sample has names and sizes of every remainder.
var sample = []file{
	{"init", "#!", 0o755},
	{"install", "", fs.ModeDir | 0o700},
	{"install/a", "", 0o644},
	{"install/ab", "1", 0o644},
	{"install/abc", "123", 0o600},
	{"install/abcd", "1234", 0o644},
}

func archive(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, f := range sample {
		var err error
		if f.Mode.IsDir() {
			err = w.Dir(f.Name, f.Mode)
		} else {
			err = w.Data(f.Name, f.Mode, []byte(f.Data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readAll(r io.Reader) (files []file, err error) {
	for a := NewReader(r); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return files, err
		}
		data, err := io.ReadAll(io.LimitReader(a, 1<<20))
		if err != nil {
			return files, err
		}
		files = append(files, file{h.Name, string(data), h.Mode})
	}
}

func TestRoundTrip(t *testing.T) {
	data := archive(t)
	if len(data)%4 != 0 {
		t.Errorf("the archive has %d bytes, want a multiple of four: another may follow", len(data))
	}
	// What follows is left for the next reader.
	r := bytes.NewReader(append(bytes.Clone(data), data...))
	for range 2 {
		got, err := readAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sample, got); diff != "" {
			t.Errorf("archive differs (-want +got):\n%s", diff)
		}
	}
}

// TestReference: the program cpio takes what we write for what we meant.
func TestReference(t *testing.T) {
	path, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("cpio is not installed")
	}
	cmd := exec.Command(path, "-tv", "--quiet", "--numeric-uid-gid")
	cmd.Stdin = bytes.NewReader(archive(t))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		names = append(names, f[0]+" "+f[2]+" "+f[len(f)-1])
	}
	want := []string{
		"-rwxr-xr-x 0 init", "drwx------ 0 install", "-rw-r--r-- 0 install/a",
		"-rw-r--r-- 0 install/ab", "-rw------- 0 install/abc", "-rw-r--r-- 0 install/abcd",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("cpio -tv differs (-want +got):\n%s", diff)
	}
}

func TestWriterRefuses(t *testing.T) {
	w := NewWriter(io.Discard)
	if err := w.File("a", 0o644, 1<<32); err == nil {
		t.Error("File of 4 GiB = nil, want an error")
	}
	if err := w.File("a", 0o644, 4); err != nil {
		t.Fatal(err)
	}
	if err := w.Dir("b", 0o755); err == nil {
		t.Error("Dir inside a file = nil, want an error")
	}
	if _, err := w.Write([]byte("12345")); err == nil {
		t.Error("Write past the size = nil, want an error")
	}
}

func TestReaderRefuses(t *testing.T) {
	data := archive(t)
	tests := map[string][]byte{
		"nothing":        nil,
		"other format":   append([]byte("070707"), data[6:]...),
		"no number":      append([]byte("070701zzzzzzzz"), data[14:]...),
		"no name":        bytes.Replace(data, []byte("00000005"), []byte("00000001"), 1),
		"long name":      bytes.Replace(data, []byte("00000005"), []byte("7FFFFFFF"), 1),
		"name with zero": bytes.Replace(data, []byte("init\x00"), []byte("in\x00t\x00"), 1),
		"name's end":     bytes.Replace(data, []byte("init\x00"), []byte("init1"), 1),
	}
	for _, n := range []int{1, 110, 112, 118, 200, len(data) - 4} {
		tests["cut "+string(rune('0'+n%10))] = data[:n]
	}
	for name, in := range tests {
		if _, err := readAll(bytes.NewReader(in)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzReader: whatever the bytes, reading ends, and no file has more bytes than
// it says.
func FuzzReader(f *testing.F) {
	f.Add(archive(f))
	f.Add([]byte("070701"))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := readAll(bytes.NewReader(data))
		total := 0
		for _, f := range files {
			total += len(f.Data) + len(f.Name)
		}
		if total > len(data) {
			t.Errorf("%d bytes were read out of %d (%v)", total, len(data), err)
		}
	})
}
