package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/gpt/powercut"
	"talos/internal/meta"
	"talos/internal/slot"
	"talos/internal/slot/mtools"
	"talos/internal/uki"
	"talos/internal/verity"
	"talos/internal/volume"
	"talos/internal/wipe"
)

const gib = 1 << 30

const bootDir = "/usr/lib/systemd/boot/efi/"

// need skips the test where a file or a program is missing, unless
// REQUIRE_IMAGE=1.
func need(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := os.Stat(name)
		if !filepath.IsAbs(name) {
			_, err = exec.LookPath(name)
		}
		if err != nil {
			if os.Getenv("REQUIRE_IMAGE") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return out, err
}

// source makes an installation source with a root of random bytes.
func source(t testing.TB, version string) string {
	t.Helper()
	need(t, bootDir+"linuxx64.efi.stub", bootDir+"systemd-bootx64.efi")
	dir := t.TempDir()
	data := make([]byte, 300*4096)
	rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", version)))).Read(data) // never fails
	var tree bytes.Buffer
	p, err := verity.Build(bytes.NewReader(data), int64(len(data)), &tree)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := os.ReadFile(bootDir + "linuxx64.efi.stub")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := uki.Build(stub,
		uki.Section{Name: uki.OSRelease, Data: []byte("NAME=\"Talos\"\nVERSION_ID=" + version + "\n")},
		uki.Section{Name: uki.CommandLine, Data: []byte("console=tty0 talos.root=" + p.String())},
		uki.Section{Name: uki.Kernel, Data: bytes.Repeat([]byte(version), 50000)})
	if err != nil {
		t.Fatal(err)
	}
	loader, err := os.ReadFile(bootDir + "systemd-bootx64.efi")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		RootFile: append(data, tree.Bytes()...), KernelFile: kernel, LoaderFile: loader,
		KeysFolder + "/PK.auth": []byte("key"), KeysFolder + "/README": []byte("no key"),
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t testing.TB, dir string) *Source {
	t.Helper()
	s, err := OpenSource(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func files() map[string][]byte {
	return map[string][]byte{"config.yaml": []byte("version: v1alpha1\n"), "config/1.yaml": []byte("one"), "config/2.yaml": nil, "empty/below/x": []byte("x")}
}

// TestWrite: other programs find on the disk what should be there.
func TestWrite(t *testing.T) {
	need(t, "mcopy", "mdir", "fsck.vfat", "sgdisk", "/usr/sbin/mkfs.xfs", "xfs_repair", "xfs_db")
	s := open(t, source(t, "v1.2.3"))
	if s.Version != "v1.2.3" {
		t.Errorf("Version = %q", s.Version)
	}
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "disk")
			d, err := gpt.Create(name, 3*gib, sector)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			var done []string
			err = Write(t.Context(), d, s, Options{
				Meta: meta.Values{meta.UserReserved1: []byte("mine")}, State: files(), Enroll: "if-safe", Args: []string{"-console", "net.ifnames=0"},
				Run: run, Progress: func(step string) { done = append(done, step) },
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(done) != 8 || done[0] != "mark the disk as unfinished" {
				t.Errorf("progress = %q", done)
			}
			if ok, err := finished(d); !ok || err != nil {
				t.Errorf("finished = %t, %v", ok, err)
			}
			checkESP(t, name, d, s)
			checkRest(t, name, d, s)
			if sector == 512 {
				if out, err := run(t.Context(), "sgdisk", "-v", name); err != nil || !strings.Contains(string(out), "No problems found") {
					t.Errorf("sgdisk: %v: %s", err, out)
				}
			}
		})
	}
}

// extract writes a partition into a file with holes.
func extract(t *testing.T, d gpt.Device, label string) string {
	t.Helper()
	p, err := Place(d, label)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), label)
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, zeros := make([]byte, mib), make([]byte, mib)
	for at := int64(0); at < p.Size; at += mib {
		if _, err := d.ReadAt(b, p.Offset+at); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(b, zeros) {
			continue
		}
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(p.Size); err != nil {
		t.Fatal(err)
	}
	return name
}

func checkESP(t *testing.T, name string, d gpt.Device, s *Source) {
	t.Helper()
	p, err := Place(d, EFILabel)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := run(t.Context(), "fsck.vfat", "-n", extract(t, d, EFILabel)); err != nil {
		t.Errorf("fsck.vfat: %v: %s", err, out)
	}
	esp := mtools.Image{Path: name, Offset: p.Offset, Run: func(program string, args ...string) ([]byte, error) { return run(t.Context(), program, args...) }}
	state, err := slot.Read(esp)
	want := slot.State{Kernels: []slot.ID{slot.A}, Entries: []slot.Entry{{Slot: slot.A, Image: slot.Image{Title: "Talos v1.2.3", Version: "v1.2.3", Options: "talos.root=" + s.Root.String() + " net.ifnames=0"}, Generation: 1}}}
	if diff := cmp.Diff(want, state); diff != "" || err != nil {
		t.Errorf("slots: %v (-want +got):\n%s", err, diff)
	}
	for file, want := range map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI": s.loader, "EFI/systemd/systemd-bootx64.efi": s.loader, "EFI/talos/A.efi": s.kernel,
		"loader/loader.conf": []byte("timeout 0\neditor no\nsecure-boot-enroll if-safe\n"), "loader/keys/auto/PK.auth": []byte("key"),
	} {
		got, err := esp.Read(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, %v, want %d", file, len(got), err, len(want))
		}
	}
	if list, err := esp.List(slot.KeysDir); err != nil || len(list) != 1 {
		t.Errorf("keys = %v, %v, want only those", list, err)
	}
}

func checkRest(t *testing.T, name string, d *gpt.Disk, s *Source) {
	t.Helper()
	root, err := Place(d, slot.A.RootLabel())
	if err != nil {
		t.Fatal(err)
	}
	if root.ID.String() != s.Root.Root.PartitionID() || root.Type != gpt.TypeRoot {
		t.Errorf("ROOT-A = %+v, want id %s", root, s.Root.Root.PartitionID())
	}
	if err := verity.Check(io.NewSectionReader(d, root.Offset, root.Size), s.Root); err != nil {
		t.Errorf("ROOT-A: %v", err)
	}
	metaFile := extract(t, d, wipe.Meta)
	m, err := meta.OpenFile(metaFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(meta.Values{meta.UserReserved1: []byte("mine")}, m.All()); diff != "" {
		t.Errorf("META (-want +got):\n%s", diff)
	}
	state := extract(t, d, wipe.State)
	if out, err := run(t.Context(), "xfs_repair", "-n", state); err != nil {
		t.Errorf("xfs_repair: %v: %s", err, out)
	}
	if out, err := run(t.Context(), "xfs_db", "-r", "-c", "label", "-c", "path /config/1.yaml", "-c", "print core.size core.mode", "-c", "path /empty/below/x", "-c", "print core.uid", state); err != nil ||
		!strings.Contains(string(out), "label = \"STATE\"") || !strings.Contains(string(out), "core.size = 3\ncore.mode = 0100600\ncore.uid = 0") {
		t.Errorf("xfs_db: %v: %s", err, out)
	}
	dev, err := disk.Probe(name)
	if err != nil || dev.Kind != "gpt" && d.SectorSize() == 512 {
		t.Errorf("Probe = %+v, %v", dev, err)
	}
}

// TestSameIDs: the same system makes the same image.
func TestSameIDs(t *testing.T) {
	s := open(t, source(t, "v1"))
	var disks []*powercut.Disk
	for _, same := range []bool{true, true, false} {
		d := powercut.New(3*gib, 512)
		if err := Write(t.Context(), d, s, Options{SameIDs: same}); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, d)
	}
	if !disks[0].Same(disks[1], 0, 3*gib) {
		t.Error("two images of the same system differ")
	}
	if disks[0].Same(disks[2], 0, 3*gib) {
		t.Error("random ids make the same image")
	}
}

// old makes a disk with another system on it, with all that may confuse:
// something at the start of every partition.
func old(t *testing.T, sector int) *powercut.Disk {
	t.Helper()
	d := powercut.New(3*gib, sector)
	if err := Write(t.Context(), d, open(t, source(t, "v0")), Options{}); err != nil {
		t.Fatal(err)
	}
	last, err := Place(d, wipe.State)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{gpt.Align, last.Offset, last.Offset + last.Size, d.Size() - 100*mib} {
		if _, err := d.WriteAt(bytes.Repeat([]byte("old data"), 1000), at); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestPowerCut: whenever the power goes during an installation, the disk holds
// what it held, says that it was not finished, or is installed, with META and
// the configuration. After that it can be installed again, without wipe if the
// disk was empty at first.
func TestPowerCut(t *testing.T) {
	need(t, "/usr/sbin/mkfs.xfs")
	s := open(t, source(t, "v1"))
	o := Options{Meta: meta.Values{meta.UserReserved1: []byte("mine")}, State: files(), Run: run}
	for _, tt := range []struct {
		name  string
		start func() *powercut.Disk
	}{
		{"empty", func() *powercut.Disk { return powercut.New(3*gib, 512) }},
		{"empty, 4096", func() *powercut.Disk { return powercut.New(3*gib, 4096) }},
		{"installed before", func() *powercut.Disk { return old(t, 512) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.start()
			before := d.Clone()
			d.Record()
			if err := Write(t.Context(), d, s, o); err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			n := 0
			d.Cuts(25, func(name string, _ int, cut *powercut.Disk) {
				is := judge(t, name, cut, before, d)
				seen[is]++
				if n++; is != "installed" && n%80 == 0 {
					again(t, name, cut, tt.name != "installed before", s)
				}
			})
			for _, want := range []string{"as before", "unfinished", "installed"} {
				if seen[want] == 0 {
					t.Errorf("cuts left %v, want %q among them", seen, want)
				}
			}
			t.Logf("cuts: %v, syncs: %d", seen, d.Syncs())
		})
	}
}

// judge says what firmware and the next start make of a disk.
func judge(t *testing.T, name string, cut, before, done *powercut.Disk) string {
	t.Helper()
	unfinished, err := Unfinished(cut)
	if err != nil {
		t.Fatal(err)
	}
	if unfinished {
		if ok, err := finished(cut); ok || err != nil {
			t.Errorf("%s: unfinished, and finished = %t, %v", name, ok, err)
		}
		return "unfinished"
	}
	if cut.Same(before, 0, cut.Size()) {
		return "as before"
	}
	if ok, err := finished(cut); !ok || err != nil {
		t.Errorf("%s: neither as before nor unfinished, and finished = %t, %v", name, ok, err)
	}
	if !cut.Same(done, 0, cut.Size()) {
		t.Errorf("%s: the disk says that it is installed and lacks something", name)
	}
	return "installed"
}

func again(t *testing.T, name string, cut *powercut.Disk, wasEmpty bool, s *Source) {
	t.Helper()
	found, unfinished, err := inspect(cut)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 && wasEmpty {
		t.Errorf("%s: can't be installed again without wipe: %v", name, found)
	}
	c := Candidate{Disk: disk.Disk{DevPath: "/dev/vda", Transport: "virtio", Size: uint64(cut.Size()), SectorSize: uint(cut.SectorSize())}, Found: found, Unfinished: unfinished}
	if _, err := MakePlan([]Candidate{c}, Request{Disk: "/dev/vda", Wipe: !wasEmpty}); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if err := Write(t.Context(), cut, s, Options{}); err != nil {
		t.Fatal(err)
	}
	if ok, err := finished(cut); !ok || err != nil {
		t.Errorf("%s: written again: finished = %t, %v", name, ok, err)
	}
}

// TestNothingOld: what was on the disk can't be taken for what is to come.
func TestNothingOld(t *testing.T) {
	d := old(t, 512)
	if err := Write(t.Context(), d, open(t, source(t, "v1")), Options{}); err != nil {
		t.Fatal(err)
	}
	last, err := Place(d, wipe.State)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, mib)
	for what, at := range map[string]int64{"STATE": last.Offset, "EPHEMERAL": last.Offset + last.Size} {
		if _, err := d.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, make([]byte, mib)) {
			t.Errorf("the start of %s is not blank", what)
		}
	}
	// The first boot makes the file system only because it is told to.
	want := powercut.New(d.Size(), 512)
	if err := volume.MarkUnmade(want, last.Offset, last.Size); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(extractBytes(t, d, last), extractBytes(t, want, last)) {
		t.Error("STATE is not marked as one that gets its file system at the first boot")
	}
}

func extractBytes(t *testing.T, d *powercut.Disk, p gpt.Partition) []byte {
	t.Helper()
	b := make([]byte, p.Size)
	if _, err := d.ReadAt(b, p.Offset); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFailures: an error of the disk at any write stops the installation, and
// leaves no disk that says it is installed; so does a disk that lies, and the
// end of the context.
func TestFailures(t *testing.T) {
	s := open(t, source(t, "v1"))
	whole := powercut.New(3*gib, 512)
	calls := 0
	whole.Fail = func(powercut.Op) error { calls++; return nil }
	if err := Write(t.Context(), whole, s, Options{}); err != nil {
		t.Fatal(err)
	}
	errDisk := errors.New("medium error")
	for fail := 1; fail <= calls; fail += 1 + calls/40 {
		d := powercut.New(3*gib, 512)
		n := 0
		d.Fail = func(powercut.Op) error {
			if n++; n == fail {
				return errDisk
			}
			return nil
		}
		if err := Write(t.Context(), d, s, Options{}); !errors.Is(err, errDisk) {
			t.Errorf("operation %d of %d fails: Write = %v", fail, calls, err)
		}
		if ok, err := finished(d); (ok || err != nil) && fail < calls {
			t.Errorf("operation %d of %d failed: finished = %t, %v", fail, calls, ok, err)
		}
	}
	d := powercut.New(3*gib, 512)
	if err := Write(t.Context(), liar{d}, s, Options{}); err == nil || !strings.Contains(err.Error(), "read back: ") || !strings.Contains(err.Error(), "does not return what was written") {
		t.Errorf("Write to a disk that lies = %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	err := Write(over, powercut.New(3*gib, 512), s, Options{Progress: func(step string) {
		if step == "write the boot loader" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v, want it to end with its context", err)
	}
}

// liar is a disk that has lost a write to the system without telling.
type liar struct{ *powercut.Disk }

func (l liar) WriteAt(p []byte, at int64) (int, error) {
	if at == 258*mib { // the second megabyte of ROOT-A
		return len(p), nil
	}
	return l.Disk.WriteAt(p, at)
}

func TestTooSmall(t *testing.T) {
	s := open(t, source(t, "v1"))
	for _, sector := range []int{512, 4096} {
		for _, size := range []int64{ImageSize(sector), MinSize(sector)} {
			d := powercut.New(size, sector)
			if err := Write(t.Context(), d, s, Options{}); err != nil {
				t.Errorf("%d in sectors of %d: %v", size, sector, err)
			}
			table, err := gpt.Read(d)
			if err != nil {
				t.Fatal(err)
			}
			if free := table.Free(); free < size-ImageSize(sector) {
				t.Errorf("%d in sectors of %d: %d bytes are left for EPHEMERAL", size, sector, free)
			}
		}
		d := powercut.New(ImageSize(sector)-1, sector)
		if err := Write(t.Context(), d, s, Options{}); err == nil || d.Syncs() > 0 {
			t.Errorf("on a smaller disk: %v, %d syncs, want an error before anything is written", err, d.Syncs())
		}
	}
}

func TestOpenSource(t *testing.T) {
	good := source(t, "v1")
	other := source(t, "v2")
	for _, tt := range []struct {
		name, want string
		edit       func(dir string) error
	}{
		{"no root", "rootfs.img: no such file", func(dir string) error { return os.Remove(filepath.Join(dir, RootFile)) }},
		{"no kernel", "talos.efi: no such file", func(dir string) error { return os.Remove(filepath.Join(dir, KernelFile)) }},
		{"no loader", "systemd-bootx64.efi: no such file", func(dir string) error { return os.Remove(filepath.Join(dir, LoaderFile)) }},
		{"text", "not a PE32+ image", func(dir string) error { return os.WriteFile(filepath.Join(dir, KernelFile), []byte("text"), 0o600) }},
		{"another root", "not those of the root hash", func(dir string) error {
			return os.Rename(filepath.Join(other, RootFile), filepath.Join(dir, RootFile))
		}},
		{"a changed byte", "block 0, at byte 0,", flip(1000)},
		{"a changed tree", "the hash tree is damaged", flip(300*4096 + 100)},
		{"cut", "rootfs.img: hash tree: write: compare with the one that is there: EOF", func(dir string) error { return os.Truncate(filepath.Join(dir, RootFile), 300*4096+4096) }},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		if err := tt.edit(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSource(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: OpenSource = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func flip(at int) func(dir string) error {
	return func(dir string) error {
		name := filepath.Join(dir, RootFile)
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		b = slices.Clone(b)
		b[at] ^= 1
		return os.WriteFile(name, b, 0o600)
	}
}

// finished says whether a disk is one that Write has finished.
func finished(d gpt.Device) (bool, error) {
	found, unfinished, err := inspect(d)
	if err != nil || unfinished {
		return false, err
	}
	first := make([]byte, 512)
	if _, err := d.ReadAt(first, 0); err != nil {
		return false, err
	}
	return first[510] == 0x55 && first[511] == 0xaa && installed(found), nil
}
