package image

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"talos/internal/verity"
)

// TestRootImage: the data are those of the file and zeros, and the written
// parameter fits them; with another file both change.
func TestRootImage(t *testing.T) {
	dir := t.TempDir()
	in, out, param := filepath.Join(dir, "squashfs"), filepath.Join(dir, "img"), filepath.Join(dir, "root")
	seen := map[string]bool{}
	for _, data := range [][]byte{make([]byte, 3*verity.BlockSize), []byte("x"), bytes.Repeat([]byte("abc"), 200_000)} {
		if err := os.WriteFile(in, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for pass, want := range []bool{true, false} {
			if written, err := WriteRootImage(in, out, param); err != nil || written != want {
				t.Fatalf("pass %d: WriteRootImage = %v, %v, want %v", pass, written, err, want)
			}
		}
		line, err := os.ReadFile(param)
		if err != nil {
			t.Fatal(err)
		}
		p, err := verity.Parse(strings.TrimSpace(string(line)))
		if err != nil {
			t.Fatal(err)
		}
		img, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(img)) != p.Size() || !bytes.HasPrefix(img, data) {
			t.Fatalf("the image of %d bytes has %d bytes, want %d that begin with them", len(data), len(img), p.Size())
		}
		var tree bytes.Buffer
		again, err := verity.Build(bytes.NewReader(img), p.DataSize(), &tree)
		if err != nil || again != p || !bytes.Equal(tree.Bytes(), img[p.DataSize():]) {
			t.Errorf("the image's tree is not that of its data: %v, %v, want %v", again, err, p)
		}
		if seen[p.String()] {
			t.Errorf("%v names two images", p)
		}
		seen[p.String()] = true
	}

	if err := os.Remove(param); err != nil {
		t.Fatal(err)
	}
	if written, err := WriteRootImage(in, out, param); err != nil || !written {
		t.Errorf("without the parameter: WriteRootImage = %v, %v, want it written", written, err)
	}
}

// TestRootImageUnderOtherNames: who has linked what was made keeps it as it was,
// parameter and stamp too; the three belong together.
func TestRootImageUnderOtherNames(t *testing.T) {
	dir := t.TempDir()
	in, out, param := filepath.Join(dir, "squashfs"), filepath.Join(dir, "img"), filepath.Join(dir, "root")
	kept := map[string]string{}
	for i, data := range []string{"one", "two"} {
		if err := os.WriteFile(in, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if written, err := WriteRootImage(in, out, param); err != nil || !written {
			t.Fatalf("WriteRootImage = %v, %v, want it written", written, err)
		}
		for _, name := range []string{out, param, stampFile(out)} {
			now, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				kept[name] = string(now)
				if err := os.Link(name, name+".kept"); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if old, err := os.ReadFile(name + ".kept"); err != nil || string(old) != kept[name] {
				t.Errorf("%s under another name: %.40q, %v, want %.40q", name, old, err, kept[name])
			}
			if string(now) == kept[name] {
				t.Errorf("%s is as it was", name)
			}
		}
	}
}
