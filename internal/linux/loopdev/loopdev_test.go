package loopdev

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestAttach(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	file := filepath.Join(t.TempDir(), "image")
	want := bytes.Repeat([]byte("talos 4\n"), 1024)
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	path, keep, err := Attach(file)
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes from %s, %v, want the file's %d", len(got), path, err, len(want))
	}
	if err := os.WriteFile(path, []byte("x"), 0); err == nil {
		t.Error("a read-only device takes writes")
	}
}

func TestAttachNothing(t *testing.T) {
	if _, _, err := Attach(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Attach(a file that is not there) = %v, want ErrNotExist", err)
	}
}
