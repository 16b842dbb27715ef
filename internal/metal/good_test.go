package metal

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"talos/internal/fat"
	"talos/internal/gpt"
	"talos/internal/install"
	"talos/internal/resources/runtime"
	"talos/internal/slot"
	"talos/internal/verity"
)

func TestProved(t *testing.T) {
	for _, tt := range []struct {
		stage       runtime.MachineStage
		ready, want bool
	}{
		{runtime.StageRunning, true, true}, {runtime.StageRunning, false, false}, {runtime.StageBooting, true, false},
		{runtime.StageMaintenance, true, false}, {runtime.StageUnknown, true, false},
	} {
		if got := proved(runtime.MachineStatusSpec{Stage: tt.stage, Status: runtime.MachineStatusStatus{Ready: tt.ready}}); got != tt.want {
			t.Errorf("proved(%v, ready %t) = %t, want %t", tt.stage, tt.ready, got, tt.want)
		}
	}
}

// espFiles are an EFI system partition's after slot B was filled and, with tries,
// started once by the loader, which counts in the name.
func espFiles(t *testing.T, tries int) slot.Memory {
	t.Helper()
	files := slot.Memory{"EFI/BOOT/BOOTX64.EFI": []byte("loader"), slot.A.KernelPath(): []byte("kernel"), slot.B.KernelPath(): []byte("kernel")}
	for _, s := range []struct {
		id    slot.ID
		tries int
	}{{slot.A, 0}, {slot.B, tries}} {
		state, err := slot.Read(files)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := slot.Activate(state, "", s.id, slot.Image{Title: "Talos", Version: "v1"}, s.tries)
		if err == nil {
			err = slot.Apply(files, steps)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if tries > 0 {
		counted := fmt.Sprintf("%s/talos-B+%d-1.conf", slot.EntriesDir, tries-1)
		if err := files.Rename(fmt.Sprintf("%s/talos-B+%d.conf", slot.EntriesDir, tries), counted); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

const espSize = 192 << 20

// systemDisk is a disk with two slots, the second of that root.
func systemDisk(t *testing.T, root verity.Root, files slot.Memory) (name string, esp gpt.Partition) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "disk")
	d, err := gpt.Create(name, espSize+8<<20, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table, err := gpt.New(d, uuid.New())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		label string
		id    uuid.UUID
		size  int64
	}{{install.EFILabel, uuid.New(), espSize}, {slot.A.RootLabel(), uuid.New(), 1 << 20}, {slot.B.RootLabel(), uuid.MustParse(root.PartitionID()), 1 << 20}} {
		if _, err := table.Add(p.label, uuid.New(), p.id, p.size); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Write(); err != nil {
		t.Fatal(err)
	}
	esp, _ = table.Find(install.EFILabel)
	if err := (fat.FS{Size: esp.Size, Sector: 512, Label: "EFI", Files: files}).Write(io.NewOffsetWriter(d, esp.Offset)); err != nil {
		t.Fatal(err)
	}
	return name, esp
}

func TestFindESP(t *testing.T) {
	root := verity.Root{1, 2, 3}
	for tries, want := range map[int]esp{0: {slot.B, false}, 1: {slot.B, true}, 3: {slot.B, true}} {
		name, _ := systemDisk(t, root, espFiles(t, tries))
		if got, err := findESP(name, root); err != nil || got != want {
			t.Errorf("findESP with %d tries = %+v, %v, want %+v", tries, got, err, want)
		}
		if got, err := findESP(name, verity.Root{4}); err != nil || got != (esp{}) {
			t.Errorf("findESP for a root that is in no slot = %+v, %v, want nothing", got, err)
		}
	}
	files := espFiles(t, 0)
	if err := files.Remove(slot.EntriesDir + "/talos-B.conf"); err != nil {
		t.Fatal(err)
	}
	name, _ := systemDisk(t, root, files)
	if _, err := findESP(name, root); err == nil || !strings.Contains(err.Error(), "mark slot B good: it has no boot entry") {
		t.Errorf("findESP without an entry = %v", err)
	}
}

// TestMarkGood mounts the partition as a machine does. A kernel that lacks the
// file system is a reason to skip, but for a virtual machine under our own kernel.
func TestMarkGood(t *testing.T) {
	root := verity.Root{1, 2, 3}
	name, place := systemDisk(t, root, espFiles(t, 3))
	err := esp{slot.B, true}.markGood(loop(t, name, place))
	if errors.Is(err, unix.ENODEV) && os.Getenv("TALOS_IN_VM") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := fat.Read(io.NewSectionReader(f, place.Offset, place.Size))
	if err != nil {
		t.Fatal(err)
	}
	got := slot.Memory{}
	for _, file := range list {
		if got[file.Name], err = io.ReadAll(file.Data); err != nil {
			t.Fatal(err)
		}
	}
	want := espFiles(t, 0)
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("files = %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	for file := range want {
		if string(got[file]) != string(want[file]) {
			t.Errorf("%s = %q, want %q", file, got[file], want[file])
		}
	}
	if now, err := findESP(name, root); err != nil || now != (esp{slot.B, false}) {
		t.Errorf("findESP afterwards = %+v, %v, want slot B, good", now, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), "/run/esp-") {
		t.Errorf("the partition is still mounted: %v\n%s", err, mounts)
	}
}

// loop makes a device of a part of a file.
func loop(t *testing.T, name string, part gpt.Partition) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Offset: uint64(part.Offset), Sizelimit: uint64(part.Size)}}
	for range 20 { // others may take the one that is free
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		device, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if errors.Is(err, unix.EBUSY) {
			device.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := unix.IoctlRetInt(int(device.Fd()), unix.LOOP_CLR_FD); err != nil {
				t.Errorf("free %s: %v", path, err)
			}
			device.Close()
		})
		return path
	}
	t.Fatal("no loop device is free")
	return ""
}
