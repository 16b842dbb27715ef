package platform

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// image unpacks the beginning of a file system that xorriso or mkfs.vfat made.
func image(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestIdentify(t *testing.T) {
	file := filepath.Join(t.TempDir(), "device")
	identified := func(data []byte) (kind, label string) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return identify(file)
	}
	for _, tt := range []struct{ name, kind, label string }{
		{"iso9660", "iso9660", "cidata"},
		{"fat12", "vfat", "CIDATA"},
		{"fat12-unlabelled", "vfat", ""},
		{"fat16", "vfat", "CIDATA"}, // renamed by a program that writes the root folder only
		{"fat32", "vfat", "metal-iso"},
	} {
		data := image(t, tt.name)
		if kind, label := identified(data); kind != tt.kind || label != tt.label {
			t.Errorf("identify(%s) = %q, %q, want %q, %q", tt.name, kind, label, tt.kind, tt.label)
		}
		for _, size := range []int{0, 1, 511, 512, 1000, 0x8000, 0x8000 + 71} {
			if kind, label := identified(data[:min(size, len(data))]); label == tt.label && kind == "iso9660" {
				t.Errorf("identify of the first %d bytes of %s = %q, %q", size, tt.name, kind, label)
			}
		}
	}
	// Who wrote no label has none, whatever is where it would be.
	data := image(t, "fat12-unlabelled")
	copy(data[43:], "CIDATA     ")
	for signature, want := range map[byte]string{0x28: "", 0x29: "CIDATA"} {
		data[38] = signature
		if _, label := identified(data); label != want {
			t.Errorf("identify with signature %#x = %q, want %q", signature, label, want)
		}
	}
	if kind, label := identified(make([]byte, 1<<20)); kind != "" || label != "" {
		t.Errorf("identify of zeros = %q, %q, want nothing", kind, label)
	}
	if kind, label := identify(file + "-missing"); kind != "" || label != "" {
		t.Errorf("identify of what is not there = %q, %q, want nothing", kind, label)
	}
}
