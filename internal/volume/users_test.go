package volume

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/disk"
)

// plugged are the disks of a machine that was started from a stick.
func plugged() []disk.Disk {
	on := func(name, transport string, more func(*disk.Disk)) disk.Disk {
		d := disk.Disk{Name: name, DevPath: "/dev/" + name, Transport: transport, Size: gib, Serial: "S-" + name, BusPath: "/pci/" + name}
		if more != nil {
			more(&d)
		}
		return d
	}
	return []disk.Disk{
		on("dm-0", "", nil),
		on("nvme0n1", "nvme", func(d *disk.Disk) {
			d.WWID, d.Symlinks = "eui.1", []string{"/dev/disk/by-id/nvme-eui.1"}
			d.Parts = []disk.Partition{{Name: "nvme0n1p1", DevPath: "/dev/nvme0n1p1", Symlinks: []string{"/dev/disk/by-label/data"}}}
		}),
		on("sda", "sata", nil),
		on("sdb", "usb", func(d *disk.Disk) { d.Serial = "same" }),
		on("sdc", "usb", func(d *disk.Disk) {
			d.Serial, d.Parts = "same", []disk.Partition{{DevPath: "/dev/sdc1", Symlinks: []string{"/dev/disk/by-partuuid/0a-1b"}}}
		}),
		on("sdd", "sata", func(d *disk.Disk) { d.ReadOnly = true }),
		on("sr0", "sata", func(d *disk.Disk) { d.CDROM = true }),
		on("vda", "virtio", func(d *disk.Disk) { d.Serial, d.BusPath = "", "" }),
	}
}

func TestUserDisks(t *testing.T) {
	for names, want := range map[string]string{
		"/dev/nvme0n1": "nvme0n1",
		"/dev/vda /dev/disk/by-id/nvme-eui.1 /dev/nvme0n1": "vda nvme0n1",
		"/dev/sda":                             "/dev/sda: that is the system disk, of which partitions are wiped by their labels",
		"/dev/sdc":                             "/dev/sdc: that is what this system was started from",
		"/dev/sdd":                             "/dev/sdd: that is read-only",
		"/dev/sr0":                             "/dev/sr0: that is no disk of the machine's own, but a CD, or made of something else",
		"/dev/dm-0":                            "/dev/dm-0: that is no disk of the machine's own, but a CD, or made of something else",
		"/dev/disk/by-label/data":              "/dev/disk/by-label/data: that is a partition of /dev/nvme0n1, want a whole disk",
		"nvme0n1":                              "nvme0n1: there is no such disk; those that could be wiped are /dev/nvme0n1, /dev/sdb, /dev/vda",
		"/dev/nvme0n1 /dev/sdx /dev/nvme0n1p1": "/dev/sdx: there is no such disk; those that could be wiped are /dev/nvme0n1, /dev/sdb, /dev/vda\n/dev/nvme0n1p1: that is a partition of /dev/nvme0n1, want a whole disk",
	} {
		disks, err := UserDisks(plugged(), strings.Fields(names), "/dev/sda", "0a-1b")
		var got []string
		for _, d := range disks {
			got = append(got, d.Name)
		}
		said := strings.Join(got, " ")
		if err != nil {
			said = err.Error()
		}
		if diff := cmp.Diff(want, said); diff != "" {
			t.Errorf("UserDisks(%s) (-want +got):\n%s", names, diff)
		}
	}
	if _, err := UserDisks(plugged()[:1], []string{"/dev/sda"}, "", ""); err == nil || !strings.Contains(err.Error(), "none that could be wiped") {
		t.Errorf("UserDisks of a machine without disks = %v", err)
	}
	if got, err := UserDisks(plugged(), []string{"/dev/sda", "/dev/sdc"}, "", ""); len(got) != 2 || err != nil {
		t.Errorf("UserDisks of a machine that came from the network = %v, %v", got, err)
	}
}

// TestMark: a disk is found by its mark whatever its device is called now, and
// where two could be meant none is.
func TestMark(t *testing.T) {
	disks := plugged()
	for name, want := range map[string]string{
		"nvme0n1": "wwid eui.1", "sda": "serial S-sda", "sdb": "bus /pci/sdb", "vda": "device /dev/vda",
	} {
		at := func(list []disk.Disk) int {
			for i, d := range list {
				if d.Name == name {
					return i
				}
			}
			return -1
		}
		mark := Mark(disks, disks[at(disks)])
		if mark != want {
			t.Errorf("Mark(%s) = %q, want %q", name, mark, want)
		}
		later := plugged()
		if !strings.HasPrefix(mark, "device ") {
			later[at(later)].DevPath = "/dev/other"
		}
		if found, ok := Marked(later, mark); !ok || found.Name != name {
			t.Errorf("Marked(%q) = %s, %t, want %s", mark, found.Name, ok, name)
		}
	}
	for _, mark := range []string{"serial same", "serial none", ""} {
		if found, ok := Marked(disks, mark); ok {
			t.Errorf("Marked(%q) = %s", mark, found.Name)
		}
	}
}
