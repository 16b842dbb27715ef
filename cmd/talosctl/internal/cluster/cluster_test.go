package cluster

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func TestSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "2048": 2 << 30, "2GiB": 2 << 30, "1.5Gi": 3 << 29, "512MiB": 512 << 20, "2GB": 2e9, "1G": 1e9, "4 GiB": 4 << 30,
	} {
		var got size
		if err := got.Set(in); err != nil || int64(got) != want {
			t.Errorf("Set(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "lots", "-1GiB", "GiB", "1TiBs", "1e30GiB"} {
		var got size
		if err := got.Set(in); err == nil {
			t.Errorf("Set(%q) = %d, want an error", in, got)
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"plain ütf\r\n\ttext\n":                             "plain ütf\n\ttext\n",
		"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: \x1b[1mload":     "BdsDxe: load",
		"\x1b]0;title\aafter, \x1bP1$r\x1b\\and":            "after, and",
		"\x1bcreset \x1b(Bset\x00\x08\x7f":                  "reset set",
		"cut \x1b[3":                                        "cut ",
		"5\u00b0 is no \u009b31mcontrol \u009f\u00a7\x1b[m": "5\u00b0 is no 31mcontrol \u00a7",
	} {
		for _, size := range []int{1, 3, len(in)} { // however it is cut
			var got strings.Builder
			p := &plain{to: &got}
			for part := range slices.Chunk([]byte(in), size) {
				if n, err := p.Write(part); n != len(part) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			if got.String() != want {
				t.Errorf("%q in parts of %d = %q, want %q", in, size, got.String(), want)
			}
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add([]byte("\x1b[2Jtext\x1b]0;x\a\x1b\x1b["))
	f.Fuzz(func(t *testing.T, in []byte) {
		var got strings.Builder
		if _, err := (&plain{to: &got}).Write(in); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(got.String(), func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
			t.Errorf("%q: control characters in %q", in, got.String())
		}
	})
}

// TestConsole follows a console that is started anew.
func TestConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := console(ctx, io.Discard, path, true); err == nil {
		t.Error("no console: want an error")
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- console(ctx, w, path, true) }()
	read := func(want string) {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			t.Fatalf("console = %q, %v; want %q", got, err, want)
		}
	}
	read("one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("two")
	read("two")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("console = %v after its end was asked for", err)
	}
}
