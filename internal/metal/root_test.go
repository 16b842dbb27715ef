package metal

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"talos/internal/linux/sysfs"
	"talos/internal/linux/sysfs/recorded"
)

const rootTree = `
/sys/class/block/nvme0n1 -> ../../devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1
/sys/class/block/nvme0n1p2 -> ../../devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p2
/sys/dev/block/254:0 -> ../../devices/virtual/block/dm-0
/sys/dev/block/254:1 -> ../../devices/virtual/block/dm-1
/sys/dev/block/254:2 -> ../../devices/virtual/block/dm-2
/sys/devices/virtual/block/dm-0/uevent = DEVNAME=dm-0\n
/sys/devices/virtual/block/dm-0/slaves/nvme0n1p2 -> ../../../../pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p2
/sys/devices/virtual/block/dm-1/uevent = DEVNAME=dm-1\n
/sys/devices/virtual/block/dm-1/slaves/loop0 -> ../../loop0
/sys/devices/virtual/block/dm-2/uevent = DEVNAME=dm-2\n
/sys/devices/virtual/block/dm-2/slaves/
/sys/devices/virtual/block/loop0/uevent = DEVNAME=loop0\n
/sys/devices/pci0000:00/0000:00:04.0/uevent = DRIVER=nvme\n
/sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/uevent = DEVNAME=nvme0n1\n
/sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p2/uevent = DEVNAME=nvme0n1p2\n
/sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p2/partition = 2\n
`

func TestRootDisk(t *testing.T) {
	tree := sysfs.FS(recorded.Lay(t, rootTree) + "/sys")
	for _, tt := range []struct {
		name      string
		minor     uint32
		want, err string
	}{
		{"a partition", 0, "nvme0n1", ""},
		{"a file of the initramfs", 1, "", ""},
		{"nothing", 2, "", "dm-2 is over []"},
		{"no device", 3, "", "no such device"},
	} {
		got, err := rootDisk(tree, unix.Mkdev(254, tt.minor))
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: rootDisk = %q, %v, want %q, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestIsPartition(t *testing.T) {
	tree := sysfs.FS(recorded.Lay(t, rootTree) + "/sys")
	for device, want := range map[string]bool{"/dev/nvme0n1": false, "/dev/nvme0n1p2": true} {
		if got, err := isPartition(tree, device); got != want || err != nil {
			t.Errorf("isPartition(%s) = %t, %v, want %t", device, got, err, want)
		}
	}
	if _, err := isPartition(tree, "/dev/../etc/passwd"); err == nil {
		t.Error("isPartition of a file = nil error")
	}
}
