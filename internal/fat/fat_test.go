package fat

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// need skips the test where a program is missing, unless REQUIRE_IMAGE=1.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("REQUIRE_IMAGE") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// example is what is on an EFI system partition, with names of every kind: a
// folder of more than a cluster, an empty file, one of exactly a cluster.
func example() map[string][]byte {
	large := make([]byte, 3<<20+17)
	rand.NewChaCha8([32]byte{1}).Read(large) // never fails
	files := map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI":             large[:100000],
		"EFI/systemd/systemd-bootx64.efi":  large[:100000],
		"EFI/talos/A.efi":                  large,
		"loader/loader.conf":               []byte("timeout 0\n"),
		"loader/entries/talos-A+3.conf":    large[:2048],
		"loader/entries/talos-A.conf":      large[:4096],
		"loader/entries/talos-A+2-1.conf":  {},
		"loader/keys/auto/PK.auth":         large[:1],
		"loader/exactly-13.ab":             {1},
		"loader/one more than it 14":       {2},
		"straße/größe – 測試 🐧.txt":          []byte("names of other letters"),
		"NOEXT":                            {3},
		"a.b.c":                            {4},
		"two words.text":                   {5},
		strings.Repeat("long", 63) + ".xy": {6},
	}
	for i := range 150 {
		files[fmt.Sprintf("many/file number %03d.data", i)] = []byte{byte(i)}
	}
	return files
}

func write(t *testing.T, f FS) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fs")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// What is on the disk before must not matter where it does.
	noise := bytes.Repeat([]byte("noise!"), 1<<19)
	if _, err := out.WriteAt(noise, 0); err != nil {
		t.Fatal(err)
	}
	if err := out.Truncate(f.Size); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(out); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestOthersRead: what we write satisfies fsck.vfat, and mtools reads the same.
func TestOthersRead(t *testing.T) {
	need(t, "fsck.vfat", "mcopy", "mdir", "minfo")
	t.Setenv("LC_ALL", "C.UTF-8")
	for _, f := range []FS{
		{Size: 256 << 20, Sector: 512, ID: 0x12345678, Label: "EFI", Hidden: 2048},
		{Size: 288 << 20, Sector: 4096, ID: 1, Label: "ELEVENCHARS", Hidden: 256},
		{Size: 300<<20 + 1000, Sector: 512},
		{Size: 300 << 20, Sector: 1024, Files: map[string][]byte{}},
	} {
		t.Run(fmt.Sprintf("%d in %d", f.Size, f.Sector), func(t *testing.T) {
			if f.Files == nil {
				f.Files = example()
			}
			name := write(t, f)
			if out := run(t, "fsck.vfat", "-n", "-v", name); strings.Contains(out, "Leaving filesystem unchanged") ||
				!strings.Contains(out, fmt.Sprintf("%10d bytes per logical sector", f.Sector)) {
				t.Errorf("fsck.vfat: %s", out)
			}
			dir := t.TempDir()
			if len(f.Files) > 0 {
				run(t, "mcopy", "-s", "-n", "-i", name, "::/*", dir)
			}
			got := map[string]string{}
			err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				data, err := os.ReadFile(p)
				got[strings.TrimPrefix(p, dir+"/")] = digest(data)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for n, data := range f.Files {
				want[n] = digest(data)
			}
			// mtools has no letters beyond its code page's two bytes.
			for _, m := range []map[string]string{got, want} {
				for n := range m {
					if strings.HasPrefix(n, "straße/") {
						delete(m, n)
					}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if f.Label != "" && !strings.Contains(run(t, "mdir", "-i", name, "::/"), "Volume in drive : is "+f.Label) {
				t.Errorf("mdir does not tell the label %s", f.Label)
			}
		})
	}
}

func digest(b []byte) string { return fmt.Sprintf("%d %x", len(b), sha256.Sum256(b)) }

// TestSameBytes: nothing but the description decides.
func TestSameBytes(t *testing.T) {
	f := FS{Size: 256 << 20, Sector: 512, ID: 7, Label: "EFI", Files: example()}
	var sums []string
	for range 2 {
		data, err := os.ReadFile(write(t, f))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, digest(data))
	}
	if sums[0] != sums[1] {
		t.Errorf("two file systems of the same files = %q", sums)
	}
}

func TestRefused(t *testing.T) {
	good := FS{Size: 256 << 20, Sector: 512}
	for _, tt := range []struct {
		name string
		edit func(*FS)
		want string
	}{
		{"small", func(f *FS) { f.Size = 100 << 20 }, "no FAT32"},
		{"4096", func(f *FS) { f.Sector = 4096 }, "no FAT32"},
		{"sector", func(f *FS) { f.Sector = 520 }, "sectors of 520 bytes"},
		{"nothing", func(f *FS) { f.Size = 0 }, "no FAT32"},
		{"label", func(f *FS) { f.Label = "lower" }, `label "lower"`},
		{"long label", func(f *FS) { f.Label = "TWELVECHARSX" }, "eleven"},
		{"full", func(f *FS) { f.Files = map[string][]byte{"a/b": make([]byte, 256<<20)} }, "no room for b"},
		{"case", func(f *FS) { f.Files = map[string][]byte{"a/b": nil, "A/B": nil} }, "B is there already"},
		{"folder", func(f *FS) { f.Files = map[string][]byte{"a": nil, "a/b": nil} }, "a is there already"},
		{"absolute", func(f *FS) { f.Files = map[string][]byte{"/a": nil} }, "not a path"},
		{"above", func(f *FS) { f.Files = map[string][]byte{"../a": nil} }, "not a path"},
		{"name", func(f *FS) { f.Files = map[string][]byte{"a?": nil} }, "can't be a name"},
		{"point", func(f *FS) { f.Files = map[string][]byte{"a.": nil} }, "can't be a name"},
		{"too long", func(f *FS) { f.Files = map[string][]byte{strings.Repeat("x", 256): nil} }, "can't be a name"},
	} {
		f := good
		tt.edit(&f)
		out := discard{}
		if err := f.Write(&out); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Write = %v, want an error with %q", tt.name, err, tt.want)
		}
		if out.n > 0 {
			t.Errorf("%s: %d bytes were written before it was refused", tt.name, out.n)
		}
	}
}

type discard struct{ n int }

func (d *discard) WriteAt(p []byte, _ int64) (int, error) {
	d.n += len(p)
	return len(p), nil
}

func TestShortNames(t *testing.T) {
	root, err := tree(map[string][]byte{"talos-A.conf": nil, "talos-B.conf": nil, "talos-A+3-1.conf": nil, "README": nil, "A.EFI": nil, "b.efi": nil, ".hidden": nil})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range root.children {
		got[c.name] = string(c.short[:])
	}
	want := map[string]string{
		"README": "README     ", "A.EFI": "A       EFI", "b.efi": "B~1     EFI", ".hidden": "~1      HID",
		"talos-A+3-1.conf": "TALOS-~1CON", "talos-A.conf": "TALOS-~2CON", "talos-B.conf": "TALOS-~3CON",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("short names (-want +got):\n%s", diff)
	}
}
