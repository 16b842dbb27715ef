package gpt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// loop makes a block device of a file, with sectors of that size.
func loop(t *testing.T, name string, sector int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("loop devices need root")
		}
		t.Skip("loop devices need root")
	}
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", strconv.Itoa(sector), name).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return dev
}

func file(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	return name
}

// sysSize is the size of a partition as the kernel has it; 0 if it has none.
func sysSize(t *testing.T, dev string, number int) int64 {
	t.Helper()
	base := filepath.Base(dev)
	data, err := os.ReadFile(fmt.Sprintf("/sys/class/block/%s/%sp%d/size", base, base, number))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * 512
}

// TestKernel: the kernel's partitions follow the table, also beside one that is
// in use.
func TestKernel(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			name := file(t, 64*mib)
			dev := loop(t, name, sector)
			d, err := Open(dev, true)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if d.Size() != 64*mib || d.SectorSize() != sector {
				t.Errorf("size %d, sector %d, want 64 MiB and %d", d.Size(), d.SectorSize(), sector)
			}
			t.Cleanup(func() {
				for n := 1; n <= 4; n++ {
					if sysSize(t, dev, n) > 0 {
						if err := d.deletePartition(n); err != nil {
							t.Errorf("delete partition %d: %v", n, err)
						}
					}
				}
			})
			three(t, d)
			if got := sysSize(t, dev, 3); got != 3*mib {
				t.Errorf("partition 3 has %d bytes, want 3 MiB", got)
			}
			d.Close()

			used, err := os.OpenFile(dev+"p3", os.O_RDWR|unix.O_EXCL, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer used.Close()
			if _, err := Open(dev, true); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "mounted or part of another device") {
				t.Errorf("Open of a disk in use = %v, want EBUSY in words", err)
			}
			if err := os.Truncate(name, 96*mib); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("losetup", "--set-capacity", dev).CombinedOutput(); err != nil {
				t.Fatalf("losetup: %v: %s", err, out)
			}
			if d, err = Open(dev, false); err != nil {
				t.Fatal(err)
			}
			change := func(edit func(*Table) error) {
				t.Helper()
				table := read(t, d)
				if err := edit(table); err != nil {
					t.Fatal(err)
				}
				if err := table.Write(); err != nil {
					t.Fatal(err)
				}
			}
			change(func(table *Table) error { _, err := table.Add("MORE", TypeLinux, uuid.Nil, 40*mib); return err })
			if got := sysSize(t, dev, 4); got != 40*mib {
				t.Errorf("partition 4 has %d bytes, want 40 MiB", got)
			}
			change(func(table *Table) error { _, err := table.Grow(4); return err })
			if got := sysSize(t, dev, 4); got != 88*mib {
				t.Errorf("partition 4 has %d bytes, want 88 MiB", got)
			}
		})
	}
}

// TestZero: zeros and only where they belong, and what is read after DropCache
// is what is on the device.
func TestZero(t *testing.T) {
	for _, kind := range []string{"file", "device"} {
		t.Run(kind, func(t *testing.T) {
			name := file(t, 8*mib)
			path := name
			if kind == "device" {
				path = loop(t, name, 512)
			}
			d, err := Open(path, false)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			want := bytes.Repeat([]byte("x"), 8*mib)
			if _, err := d.WriteAt(want, 0); err != nil {
				t.Fatal(err)
			}
			for _, span := range [][2]int64{{1 * mib, 2 * mib}, {5 * mib, 512}, {7 * mib, 0}, {6*mib + 512, 4096}} {
				if err := d.Zero(span[0], span[1]); err != nil {
					t.Fatal(err)
				}
				clear(want[span[0] : span[0]+span[1]])
			}
			if err := errors.Join(d.Sync(), d.DropCache()); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 8*mib)
			if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("what is read differs (%v)", err)
			}
			if onDisk, err := os.ReadFile(name); err != nil || !bytes.Equal(onDisk, want) {
				t.Errorf("what is on the disk differs (%v)", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open("/dev/null", false); err == nil || !strings.Contains(err.Error(), "neither a block device nor a file") {
		t.Errorf("Open(/dev/null) = %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing = %v", err)
	}
}
