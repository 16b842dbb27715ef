package initramfs

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/siderolabs/go-blockdevice/v2/partitioning/gpt"

	"talos/internal/linux/loopdev"
	"talos/internal/verity"
)

// TestPartition finds the partition by the id that follows from the hash, among
// disks with another table, and without one.
func TestPartition(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir := t.TempDir()
	sys, dev := filepath.Join(dir, "sys"), filepath.Join(dir, "dev")
	root := verity.Root{0x12, 0x34, 0xab}
	disk(t, sys, dev, "sda", uuid.Nil)
	disk(t, sys, dev, "sdb", uuid.MustParse("11111111-2222-3333-4444-555555555555"))
	disk(t, sys, dev, "nvme0n1", uuid.MustParse(root.PartitionID()))
	for _, d := range []string{filepath.Join(sys, "loop0"), filepath.Join(sys, "sr0")} { // of no interest, and not there
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}

	got, _, err := partition(sys, dev, root.PartitionID())
	if want := filepath.Join(dev, "nvme0n1p2"); got != want || err != nil {
		t.Errorf("partition = %q, %v, want %q", got, err, want)
	}
	// The disk is there, and the kernel is still reading its table.
	late := filepath.Join(sys, "nvme0n1", "nvme0n1p2")
	if err := os.Rename(late, late+".away"); err != nil {
		t.Fatal(err)
	}
	number := filepath.Join(late+".away", "partition")
	if err := os.Rename(number, number+".away"); err != nil {
		t.Fatal(err)
	}
	got, seen, err := partition(sys, dev, root.PartitionID())
	if got != "" || err != nil || !slices.Contains(seen, "nvme0n1 (whose partition 2 the kernel does not know)") {
		t.Errorf("partition that the kernel does not know yet = %q, %q, %v", got, seen, err)
	}
	got, seen, err = partition(sys, dev, verity.Root{1}.PartitionID())
	if got != "" || err != nil {
		t.Errorf("partition of a hash that no disk has = %q, %v", got, err)
	}
	if want := []string{"nvme0n1", "sda", "sdb"}; !slices.Equal(seen, want) {
		t.Errorf("looked at %q, want %q", seen, want)
	}
}

// disk makes a block device with two partitions of which the second has that
// id, or without a table, and what sysfs would say of it.
func disk(t *testing.T, sys, dev, name string, id uuid.UUID) {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64<<20); err != nil {
		t.Fatal(err)
	}
	sep := map[bool]string{true: "p"}[name == "nvme0n1"]
	if id != uuid.Nil {
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d, err := gpt.DeviceFromFile(f)
		if err != nil {
			t.Fatal(err)
		}
		table, err := gpt.New(d)
		if err != nil {
			t.Fatal(err)
		}
		kind := uuid.MustParse("0fc63daf-8483-4772-8e79-3d69d8477de4")
		for i, opts := range [][]gpt.PartitionOption{nil, {gpt.WithUniqueGUID(id)}} {
			if _, _, err := table.AllocatePartition(1<<20, "", kind, opts...); err != nil {
				t.Fatal(err)
			}
			part := filepath.Join(sys, name, name+sep+string(rune('1'+i)))
			if err := os.MkdirAll(part, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(part, "partition"), []byte{byte('1' + i), '\n'}, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := table.Write(); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{filepath.Join(sys, name), dev} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(sys, name, "alignment_offset"), []byte("0\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	path, keep, err := loopdev.Attach(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keep.Close() })
	if err := os.Symlink(path, filepath.Join(dev, name)); err != nil {
		t.Fatal(err)
	}
}

// TestAttach: the device is there until it is let go, however often garbage is
// collected before it is in use.
func TestAttach(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, make([]byte, 2*verity.BlockSize), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := attach(file, verity.Param{Blocks: 3}); err == nil || !strings.Contains(err.Error(), "has 8192 bytes, want") {
		t.Errorf("attach of an image that is too short = %v", err)
	}
	device, release, err := attach(file, verity.Param{Blocks: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond) // finalizers have a goroutine of their own
	}
	backing := filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file")
	if text, err := os.ReadFile(backing); err != nil || strings.TrimSpace(string(text)) != file {
		t.Errorf("%s is of %q, %v, want %s", device, text, err, file)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(backing); err == nil && strings.TrimSpace(string(text)) == file {
		t.Errorf("%s is still of %s", device, file)
	}
}

func TestSkip(t *testing.T) {
	for name, want := range map[string]bool{"loop3": true, "dm-0": true, "sr0": true, "sda": false, "nvme0n1": false, "vda": false, "mmcblk0": false, "md127": false} {
		if got := skip(name); got != want {
			t.Errorf("skip(%s) = %t, want %t", name, got, want)
		}
	}
}

func TestEmpty(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"proc/1", "install/x", "root", "etc/deep/er"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "init"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := empty(dir, "root", "install"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"install", "proc", "root"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}
