package disk

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/linux/sysfs"
	"talos/internal/linux/sysfs/recorded"
)

// virtio is a disk of a hypervisor, as recorded, with two partitions.
const virtio = `
/sys/class/block/vda -> ../../devices/pci0000:00/0000:00:02.0/virtio1/block/vda
/sys/class/block/vda1 -> ../../devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1
/sys/class/block/vda10 -> ../../devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda10
/sys/devices/pci0000:00/0000:00:02.0/uevent = DRIVER=virtio-pci\nPCI_CLASS=10000\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/uevent = DRIVER=virtio_blk\nMODALIAS=virtio:d00000002v00001AF4\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/modalias = virtio:d00000002v00001AF4\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/uevent = MAJOR=254\nMINOR=0\nDEVNAME=vda\nDEVTYPE=disk\nDISKSEQ=9\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/device -> ../../../virtio1
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/subsystem -> ../../../../../../class/block
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/size = 536870912\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/ro = 0\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/removable = 0\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/serial = 8f2-\x01 a\xff\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/queue/rotational = 1\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/queue/logical_block_size = 512\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/queue/minimum_io_size = 4096\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/queue/optimal_io_size = 33553920\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1/uevent = MAJOR=254\nMINOR=1\nDEVNAME=vda1\nDEVTYPE=partition\nPARTN=1\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1/partition = 1\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1/start = 2048\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1/size = 524288\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda10/uevent = MAJOR=254\nMINOR=10\nDEVNAME=vda10\nDEVTYPE=partition\nPARTN=10\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda10/partition = 10\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda10/start = 526336\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda10/size = 2048\n
/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda10/ro = 1\n
/dev/disk/by-path/pci-0000:00:02.0 -> ../../vda
/dev/disk/by-id/virtio-8f2 -> ../../vda
/dev/disk/by-partlabel/EFI -> /dev/vda1
`

// others are a loop device, an empty one, and memory.
const others = `
/sys/class/block/loop0 -> ../../devices/virtual/block/loop0
/sys/devices/virtual/block/loop0/uevent = MAJOR=7\nMINOR=0\nDEVNAME=loop0\nDEVTYPE=disk\nDISKSEQ=1\n
/sys/devices/virtual/block/loop0/size = 163840\n
/sys/devices/virtual/block/loop0/ro = 1\n
/sys/devices/virtual/block/loop0/queue/logical_block_size = 512\n
/sys/devices/virtual/block/loop0/subsystem -> ../../../../class/block
/sys/class/block/loop1 -> ../../devices/virtual/block/loop1
/sys/devices/virtual/block/loop1/uevent = MAJOR=7\nMINOR=1\nDEVNAME=loop1\nDEVTYPE=disk\nDISKSEQ=2\n
/sys/devices/virtual/block/loop1/size = 0\n
/sys/class/block/zram0 -> ../../devices/virtual/block/zram0
/sys/devices/virtual/block/zram0/uevent = MAJOR=253\nMINOR=0\nDEVNAME=zram0\nDEVTYPE=disk\nDISKSEQ=10\n
/sys/devices/virtual/block/zram0/size = 4096\n
/sys/class/block/bad -> ../../nowhere
`

func TestList(t *testing.T) {
	got, err := List(t.Context(), recorded.Lay(t, virtio, others))
	if err != nil {
		t.Fatal(err)
	}
	want := []Disk{
		{
			Name: "loop0", DevPath: "/dev/loop0", SysPath: "/devices/virtual/block/loop0", Major: 7, Size: 80 << 20,
			SectorSize: 512, IOSize: 512, ReadOnly: true, BusPath: "/virtual", Subsystem: "/sys/class/block",
		},
		{
			Name: "vda", DevPath: "/dev/vda", SysPath: "/devices/pci0000:00/0000:00:02.0/virtio1/block/vda", Major: 254,
			Size: 256 << 30, SectorSize: 512, IOSize: 4096, Rotational: true, Serial: "8f2- a",
			Modalias: "virtio:d00000002v00001AF4", BusPath: "/pci0000:00/0000:00:02.0/virtio1", Subsystem: "/sys/class/block", Transport: "virtio",
			Parts: []Partition{
				{Name: "vda1", DevPath: "/dev/vda1", Number: 1, Offset: 1 << 20, Size: 256 << 20, Symlinks: []string{"/dev/disk/by-partlabel/EFI"}},
				{Name: "vda10", DevPath: "/dev/vda10", Number: 10, Offset: 257 << 20, Size: 1 << 20, ReadOnly: true},
			},
			Symlinks: []string{"/dev/disk/by-id/virtio-8f2", "/dev/disk/by-path/pci-0000:00:02.0"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	if got[0].Physical() || !got[1].Physical() {
		t.Errorf("Physical: loop0 = %t, vda = %t, want false, true", got[0].Physical(), got[1].Physical())
	}
	if got[0].Type() != "" || got[1].Type() != HDD {
		t.Errorf("Type: loop0 = %q, vda = %q, want none, hdd", got[0].Type(), got[1].Type())
	}
}

// TestListMachine: what a machine with a disk of each kind tells of them.
func TestListMachine(t *testing.T) {
	disks, err := List(t.Context(), recorded.Lay(t, recorded.Machine))
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		Type                                  Type
		Transport, Model, Serial, WWID, Where string
	}
	got := map[string]facts{}
	for _, d := range disks {
		got[d.Name] = facts{d.Type(), d.Transport, d.Model, d.Serial, d.WWID, d.BusPath}
	}
	want := map[string]facts{
		"mmcblk0": {SD, "mmc", "QEMU!", "0xdeadbeef", "aa585951454d552101deadbeef006200", "/pci0000:00/0000:00:07.0/mmc_host/mmc0/mmc0:4567"},
		"nvme0n1": {NVMe, "nvme", "QEMU NVMe Ctrl", "NVME-1", "nvme.1b36-4e564d452d31-51454d55204e564d65204374726c-00000001", "/pci0000:00/0000:00:03.0/nvme"},
		"sda":     {HDD, "sata", "QEMUSATA", "SATA001", "naa.5000c50012345678", "/pci0000:00/0000:00:1f.2/ata2/host2/target2:0:0/2:0:0:0"},
		"sdb":     {HDD, "virtio", "QEMU HARDDISK", "SCSI-1", "naa.5000c500aabbccdd", "/pci0000:00/0000:00:04.0/virtio1/host0/target0:0:1/0:0:1:2"},
		"sdc":     {HDD, "megaraid_sas", "QEMU HARDDISK", "", "", "/pci0000:00/0000:00:06.0/host7/target7:2:0/7:2:0:0"},
		"sdd":     {HDD, "usb", "QEMU HARDDISK", "USB123", "", "/pci0000:00/0000:00:05.0/usb2/2-1/2-1:1.0/host8/target8:0:0/8:0:0:0"},
		"sr0":     {CD, "sata", "QEMU DVD-ROM", "", "", "/pci0000:00/0000:00:1f.2/ata3/host3/target3:0:0/3:0:0:0"},
		"vda":     {HDD, "virtio", "", "VIRT0001", "", "/pci0000:00/0000:00:02.0/virtio0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}

// TestListNothing: a container that shows no block devices has none.
func TestListNothing(t *testing.T) {
	got, err := List(t.Context(), recorded.Lay(t, "/sys/class/"))
	if err != nil || len(got) != 0 {
		t.Errorf("List = %v, %v, want nothing", got, err)
	}
}

// TestListHere: this machine's own, whatever they are, make sense.
func TestListHere(t *testing.T) {
	disks, err := List(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		if d.Size == 0 || d.SectorSize == 0 || d.Size%uint64(d.SectorSize) != 0 || d.IOSize < d.SectorSize {
			t.Errorf("%s: size %d, sectors of %d, reads of %d", d.Name, d.Size, d.SectorSize, d.IOSize)
		}
		for _, p := range d.Parts {
			if p.Offset == 0 || p.Offset+p.Size > d.Size {
				t.Errorf("%s: from %d, %d bytes, on a disk of %d", p.Name, p.Offset, p.Size, d.Size)
			}
		}
	}
}

func TestCompareNames(t *testing.T) {
	names := []string{"sdaa", "nvme10n1", "sdb", "nvme2n1", "sda", "md0", "nvme2n2", "vda"}
	slices.SortFunc(names, compareNames)
	want := []string{"md0", "nvme2n1", "nvme2n2", "nvme10n1", "sda", "sdb", "sdaa", "vda"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestUnitSerial(t *testing.T) {
	for _, c := range []struct{ page, want string }{
		{"\x00\x80\x00\x08  WD-123", "WD-123"},
		{"\x00\x80\x00\xffshort", "short"},
		{"\x00\x83\x00\x04abcd", ""}, {"", ""}, {"\x00\x80\x00", ""}, {"\x00\x80\x00\x00junk", ""},
	} {
		if got := unitSerial([]byte(c.page)); got != c.want {
			t.Errorf("unitSerial(%q) = %q, want %q", c.page, got, c.want)
		}
	}
}

// TestHostileAttributes: what a disk says of itself can't harm who reads it.
func TestHostileAttributes(t *testing.T) {
	root := recorded.Lay(t, `
/sys/class/block/sda -> ../../devices/virtual/block/sda
/sys/devices/virtual/block/sda/uevent = MAJOR=x\nMINOR=\nDEVNAME=../../etc/shadow\n=\nnonsense
/sys/devices/virtual/block/sda/size = 99999999999999999999\n
/sys/devices/virtual/block/sda/queue/optimal_io_size = -1\n
/sys/devices/virtual/block/sda/device/vpd_pg80 = \x00\x80\xff\xff\x1b[2J\xff\xfe serial\nsecond
`)
	dev, err := sysfs.FS(root + "/sys").Device("/class/block/sda")
	if err != nil {
		t.Fatal(err)
	}
	got := Describe(dev)
	if got.DevPath != "/dev/sda" || got.Size != 0 || got.Serial != "[2J serial" || got.IOSize != 512 {
		t.Errorf("Describe = %+v", got)
	}
}
