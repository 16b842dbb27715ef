package slot

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/slot/mtools"
)

// run runs a program of this machine.
func run(program string, args ...string) ([]byte, error) {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		err = errors.New(program + ": " + err.Error() + ": " + string(out))
	}
	return out, err
}

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

// backends are all of them, empty.
func backends(t *testing.T, test func(t *testing.T, f Files)) {
	t.Run("memory", func(t *testing.T) { test(t, Memory{}) })
	t.Run("folder", func(t *testing.T) { test(t, Dir(t.TempDir())) })
	t.Run("image", func(t *testing.T) {
		need(t, "mkfs.vfat", "mcopy")
		name := filepath.Join(t.TempDir(), "esp")
		if err := os.WriteFile(name, make([]byte, 8<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		const offset = 1 << 20
		if _, err := run("mkfs.vfat", "-S", "512", "--offset", "2048", name, "7000"); err != nil {
			t.Fatal(err)
		}
		test(t, mtools.Image{Path: name, Offset: offset, Run: run})
	})
}

// TestFiles: every backend does what the interface says.
func TestFiles(t *testing.T) {
	backends(t, func(t *testing.T, f Files) {
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		list := func(want ...string) {
			t.Helper()
			got, err := f.List(EntriesDir)
			check(err)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("List (-want +got):\n%s", diff)
			}
		}
		content := func(name, want string) {
			t.Helper()
			got, err := f.Read(name)
			check(err)
			if string(got) != want {
				t.Errorf("Read(%s) = %.20q, want %.20q", name, got, want)
			}
		}
		list()
		large := string(bytes.Repeat([]byte("0123456789abcdef"), 20000))
		check(f.Write("EFI/talos/A.efi", []byte(large)))
		check(f.Write(EntriesDir+"/talos-A+3.conf", []byte("first")))
		check(f.Write(EntriesDir+"/talos-B.conf", []byte("other")))
		content("EFI/talos/A.efi", large)
		list("talos-A+3.conf", "talos-B.conf")
		check(f.Write(EntriesDir+"/talos-A+3.conf", []byte("second, longer")))
		content(EntriesDir+"/talos-A+3.conf", "second, longer")
		check(f.Rename(EntriesDir+"/talos-A+3.conf", EntriesDir+"/talos-A+2-1.conf"))
		list("talos-A+2-1.conf", "talos-B.conf")
		check(f.Rename(EntriesDir+"/talos-A+2-1.conf", EntriesDir+"/talos-B.conf"))
		list("talos-B.conf")
		content(EntriesDir+"/talos-B.conf", "second, longer")
		check(f.Remove(EntriesDir + "/talos-B.conf"))
		list()
		check(f.Write("EFI/talos/A.efi", nil))
		content("EFI/talos/A.efi", "")

		for name, err := range map[string]error{
			"Read":   func() error { _, err := f.Read("EFI/talos/B.efi"); return err }(),
			"Rename": f.Rename("EFI/talos/B.efi", "EFI/talos/C.efi"),
			"Remove": f.Remove("EFI/talos/B.efi"),
		} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of what is not there = %v, want fs.ErrNotExist", name, err)
			}
		}
	})
}

// TestBackends: the steps do the same on all of them.
func TestBackends(t *testing.T) {
	backends(t, func(t *testing.T, f Files) {
		change(t, f, func(s State) ([]Step, error) { return Fill(s, "", A, image("v1")) })
		change(t, f, func(s State) ([]Step, error) {
			return Activate(s, "", A, Image{Title: "Talos", Version: "v1", Options: "quiet"}, 0)
		})
		upgrade(t, f, A, "v2", 3)
		change(t, f, func(s State) ([]Step, error) { return MarkGood(s, B) })
		change(t, f, func(s State) ([]Step, error) { return Rollback(s, B) })
		want := State{Kernels: []ID{A, B}, Entries: []Entry{
			{Slot: A, Image: Image{"Talos", "v1", "quiet"}, Generation: 3}, {Slot: B, Image: Image{"Talos", "v2", ""}, Generation: 2},
		}}
		if diff := cmp.Diff(want, read(t, f)); diff != "" {
			t.Errorf("Read (-want +got):\n%s", diff)
		}
	})
}

// TestMtoolsError: what mtools says is passed on.
func TestMtoolsError(t *testing.T) {
	need(t, "mcopy")
	f := mtools.Image{Path: filepath.Join(t.TempDir(), "none"), Run: run}
	if err := f.Write("a", nil); err == nil || !strings.Contains(err.Error(), "mcopy") {
		t.Errorf("Write to no image = %v", err)
	}
}
