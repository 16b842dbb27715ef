package install

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/config"
	"talos/internal/disk"
	"talos/internal/disk/match"
	"talos/internal/slot"
	"talos/internal/wipe"
)

// machine has a disk of each kind: vda empty, sda with an earlier installation,
// nvme0n1 with another system, sdb the stick that it was started from.
func machine() []Candidate {
	base := func(name, transport, model, serial string, size uint64) disk.Disk {
		return disk.Disk{Name: name, DevPath: "/dev/" + name, Size: size, SectorSize: 512, Transport: transport, Model: model, Serial: serial,
			BusPath: "/pci0000:00/0000:00:1f.2/" + name, Symlinks: []string{"/dev/disk/by-id/" + transport + "-" + serial}}
	}
	sda := base("sda", "sata", "WDC WD40EFRX", "WD-1", 4e12)
	sda.Rotational, sda.WWID = true, "naa.50014ee2b1"
	nvme := base("nvme0n1", "nvme", "Samsung SSD 980", "S64D", 1e12)
	nvme.WWID = "eui.0025385"
	var old []Found
	for i, label := range []string{EFILabel, slot.A.RootLabel(), slot.B.RootLabel(), wipe.Meta, wipe.State} {
		old = append(old, Found{Partition: i + 1, Label: label, Kind: []string{"vfat", "squashfs", "", "talosmeta", "xfs"}[i], Size: 100e6})
	}
	loop := base("loop0", "", "", "", 50e9)
	cd := base("sr0", "sata", "QEMU DVD-ROM", "QM1", 1e9)
	cd.CDROM = true
	return []Candidate{
		{Disk: base("vda", "virtio", "", "talos-1", 10737418240)},
		{Disk: sda, Found: old},
		{Disk: nvme, Found: []Found{{Partition: 1, Label: "", Kind: "ntfs", Size: 999e9}}},
		{Disk: base("sdb", "usb", "Cruzer", "123", 16e9), Found: []Found{{Kind: "iso9660", Label: "TALOS"}}, Boot: true},
		{Disk: loop}, {Disk: cd},
	}
}

func TestMakePlan(t *testing.T) {
	edit := func(at int, f func(*Candidate)) func([]Candidate) {
		return func(c []Candidate) { f(&c[at]) }
	}
	for _, tt := range []struct {
		name string
		r    Request
		edit func([]Candidate)
		want string // the disk, or part of the error
	}{
		{"disk", Request{Disk: "/dev/vda"}, nil, "/dev/vda"},
		{"link", Request{Disk: "/dev/disk/by-id/virtio-talos-1"}, nil, "/dev/vda"},
		{"wipe", Request{Disk: "/dev/sda", Wipe: true}, nil, "/dev/sda"},
		{"unfinished", Request{Disk: "/dev/vda"}, edit(0, func(c *Candidate) { c.Unfinished = true }), "/dev/vda"},
		{"model", Request{Selector: &config.InstallDiskSelector{Model: "samsung*"}, Wipe: true}, nil, "/dev/nvme0n1"},
		{"type", Request{Selector: &config.InstallDiskSelector{Type: "hdd"}, Wipe: true}, nil, "/dev/sda"},
		{"wwid", Request{Selector: &config.InstallDiskSelector{WWID: "eui.*"}, Wipe: true}, nil, "/dev/nvme0n1"},
		{"bus", Request{Selector: &config.InstallDiskSelector{BusPath: "/pci0000:00/*/vda"}}, nil, "/dev/vda"},
		{"selector before disk", Request{Disk: "/dev/sda", Selector: &config.InstallDiskSelector{Name: "vda"}}, nil, "/dev/vda"},
		{"empty selector", Request{Disk: "/dev/vda", Selector: &config.InstallDiskSelector{}}, nil, "/dev/vda"},
		{"not the stick", Request{Selector: &config.InstallDiskSelector{Size: "< 20GB"}}, nil, "/dev/vda"},
		{"exact size", Request{Selector: &config.InstallDiskSelector{Size: "10GiB"}}, nil, "/dev/vda"},
		{"all must match", Request{Selector: &config.InstallDiskSelector{Size: ">= 1TB", Type: "nvme"}, Wipe: true}, nil, "/dev/nvme0n1"},

		{"expression", Request{Selector: &config.InstallDiskSelector{Match: `disk.size < 20u * GB`}}, nil, "/dev/vda"},
		{"expression and more", Request{Selector: &config.InstallDiskSelector{Match: `!system_disk`, Type: "nvme"}, Wipe: true}, nil, "/dev/nvme0n1"},
		{"expression over links", Request{Selector: &config.InstallDiskSelector{Match: `"/dev/disk/by-id/sata-WD-1" in disk.symlinks && disk.rotational`}, Wipe: true}, nil, "/dev/sda"},

		{"no disk", Request{Disk: "/dev/vda"}, func(c []Candidate) {
			for i := range c {
				c[i].Transport = ""
			}
		}, "this machine has no disk"},
		{"nothing said", Request{}, nil, "neither disk nor diskSelector; there are: /dev/vda (11 GB, serial talos-1, virtio); /dev/sda (4.0 TB, WDC WD40EFRX, serial WD-1, wwid naa.50014ee2b1, sata)"},
		{"missing", Request{Disk: "/dev/sdc"}, nil, "there is no disk /dev/sdc; there are: /dev/vda"},
		{"a CD", Request{Disk: "/dev/sr0"}, nil, "there is no disk /dev/sr0"},
		{"matches none", Request{Selector: &config.InstallDiskSelector{Model: "Intel*", Size: "> 1GB"}}, nil, `no disk has model "Intel*", size "> 1GB"; there are: /dev/vda`},
		{"matches several", Request{Selector: &config.InstallDiskSelector{Size: ">= 1TB"}, Wipe: true}, nil, `2 disks have size ">= 1TB", and one must be meant: /dev/sda (4.0 TB, WDC WD40EFRX, serial WD-1, wwid naa.50014ee2b1, sata); /dev/nvme0n1 (1.0 TB`},
		{"expression matches none", Request{Selector: &config.InstallDiskSelector{Match: `disk.transport == "xen"`}}, nil, `no disk has match "disk.transport == \"xen\""; there are: /dev/vda (11 GB`},
		{"expression matches several", Request{Selector: &config.InstallDiskSelector{Match: `!system_disk`}, Wipe: true}, nil, `3 disks have match "!system_disk", and one must be meant: /dev/vda (11 GB, serial talos-1, virtio); /dev/sda (4.0 TB`},
		{"expression of the stick", Request{Selector: &config.InstallDiskSelector{Match: `system_disk`}, Wipe: true}, nil, "/dev/sdb (16 GB, Cruzer, serial 123, usb) is what this system was started from"},
		{"expression that fails", Request{Selector: &config.InstallDiskSelector{Match: `disk.symlinks[1] == ""`}}, nil, `match "disk.symlinks[1] == \"\"" of /dev/vda (11 GB, serial talos-1, virtio): index out of bounds: 1; there are: /dev/vda`},
		{"no expression", Request{Selector: &config.InstallDiskSelector{Match: `disk.size >`}}, nil, `match "disk.size >": line 1, column 12`},
		{"bad size", Request{Selector: &config.InstallDiskSelector{Size: "large"}}, nil, `size "large": want a number with a unit`},
		{"only the stick", Request{Selector: &config.InstallDiskSelector{Model: "Cruzer"}, Wipe: true}, nil, "/dev/sdb (16 GB, Cruzer, serial 123, usb) is what this system was started from"},
		{"the stick", Request{Disk: "/dev/sdb", Wipe: true}, nil, "is what this system was started from"},
		{"read-only", Request{Disk: "/dev/vda"}, edit(0, func(c *Candidate) { c.ReadOnly = true }), "/dev/vda (11 GB, serial talos-1, virtio) is read-only"},
		{"too small", Request{Disk: "/dev/vda"}, edit(0, func(c *Candidate) { c.Size = uint64(MinSize(512)) - 1 }), "is too small: at least 2927624192 bytes are needed (2.9 GB), it has 2927624191"},
		{"just large enough", Request{Disk: "/dev/vda"}, edit(0, func(c *Candidate) { c.Size = uint64(MinSize(512)) }), "/dev/vda"},
		{"sectors", Request{Disk: "/dev/vda"}, edit(0, func(c *Candidate) { c.SectorSize = 8192 }), "sectors of 8192 bytes"},
		{"not empty", Request{Disk: "/dev/nvme0n1"}, nil, "is not empty: partition 1 (999 GB, ntfs); set machine.install.wipe to lose that"},
		{"installed", Request{Disk: "/dev/sda"}, nil, "is not empty: an earlier installation, partition 1 EFI (100 MB, vfat), partition 2 ROOT-A (100 MB, squashfs), partition 3 ROOT-B (100 MB, empty or not known)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disks := machine()
			if tt.edit != nil {
				tt.edit(disks)
			}
			p, err := MakePlan(disks, tt.r)
			if strings.HasPrefix(tt.want, "/dev/") && !strings.Contains(tt.want, " ") {
				if p.Disk.Path != tt.want || err != nil {
					t.Errorf("MakePlan = %s, %v, want %s", p.Disk.Path, err, tt.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("MakePlan = %s, %v, want an error with %q", p.Disk.Path, err, tt.want)
			}
		})
	}
}

// TestFacts: an expression is told all that it may ask for, and in the types
// that it asks for.
func TestFacts(t *testing.T) {
	d := disk.Disk{
		DevPath: "/dev/sda", Size: 1, IOSize: 2, SectorSize: 3, ReadOnly: true, CDROM: true, Rotational: true, Model: "m", Firmware: "f", Serial: "s", Modalias: "a",
		WWID: "w", UUID: "u", BusPath: "b", Subsystem: "y", Transport: "t", Secondaries: []string{"sdb"}, Symlinks: []string{"l"},
	}
	e, err := match.Compile(`disk.dev_path == "/dev/sda" && disk.size == 1u && disk.pretty_size == "1 B" && disk.io_size == 2u && disk.sector_size == 3u &&
		disk.readonly && disk.cdrom && disk.rotational && disk.model == "m" && disk.firmware_version == "f" && disk.serial == "s" && disk.modalias == "a" &&
		disk.wwid == "w" && disk.uuid == "u" && disk.bus_path == "b" && disk.sub_system == "y" && disk.transport == "t" &&
		disk.secondary_disks == ["sdb"] && disk.symlinks == ["l"]`)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := e.Matches(facts(d), false); !ok || err != nil {
		t.Errorf("Matches = %t, %v, want every fact as it is in %+v", ok, err, d)
	}
	for _, name := range match.Fields() {
		if _, ok := facts(d)[name]; !ok {
			t.Errorf("facts has no %s", name)
		}
	}
}

func TestPlanShown(t *testing.T) {
	yes := true
	p, err := MakePlan(machine(), FromConfig(&config.Install{Disk: "/dev/nvme0n1", Wipe: &yes}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `install on /dev/nvme0n1 (1.0 TB, Samsung SSD 980, serial S64D, wwid eui.0025385, nvme)
  lost: partition 1 (999 GB, ntfs)
  written: EFI (268 MB): boot loader and kernel images
  written: ROOT-A (201 MB): the system
  written: ROOT-B (201 MB): empty, for the next version
  written: META (1.0 MB): facts about the machine
  written: STATE (105 MB): configuration and identity
  written: EPHEMERAL (the rest): what pods, images and logs need; made at the first boot
`
	if diff := cmp.Diff(want, p.String()); diff != "" {
		t.Errorf("String (-want +got):\n%s", diff)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var again Plan
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, again); diff != "" {
		t.Errorf("JSON there and back (-want +got):\n%s", diff)
	}
	if r := FromConfig(nil); r != (Request{}) {
		t.Errorf("FromConfig(nil) = %+v", r)
	}
	for c, want := range map[*Candidate]string{
		{Disk: machine()[0].Disk}:                   "  on it: nothing\n",
		{Disk: machine()[0].Disk, Unfinished: true}: "  on it: an installation that was not finished\n",
	} {
		p, err := MakePlan([]Candidate{*c}, Request{Disk: "/dev/vda"})
		if err != nil || !strings.Contains(p.String(), want) {
			t.Errorf("MakePlan = %v, %v, want %q", p, err, want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, value string
		want           bool
	}{
		{"WDC*", "WDC WD40EFRX ", true}, {"*40*", "WDC WD40EFRX", true}, {"wdc wd40efrx", "WDC WD40EFRX", true},
		{"WDC", "WDC WD40EFRX", false}, {"*X", "WDC WD40EFRX", true}, {"*Y", "WDC WD40EFRX", false}, {"*", "", true},
		{"", "", true}, {"?", "", false}, {"a?c", "abc", true}, {"a*b*c", "aXbXbYc", true}, {"a*b*c", "aXcXb", false},
		{"/pci*/ata1/*", "/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0", true}, {"***", "x", true}, {"[ab]", "a", false}, {"[ab]", "[ab]", true},
	} {
		if got := glob(tt.pattern, tt.value); got != tt.want {
			t.Errorf("glob(%q, %q) = %t", tt.pattern, tt.value, got)
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		text string
		size uint64
		want bool
	}{
		{"4GB", 4e9, true}, {"4GB", 4e9 + 1, false}, {"4GiB", 4 << 30, true}, {"== 4 gb", 4e9, true}, {"=4g", 4e9, true},
		{">= 1TB", 1e12, true}, {"> 1TB", 1e12, false}, {"<= 1TB", 1e12, true}, {"< 1TB", 1e12, false}, {"<1.5kB", 1499, true},
		{"1048576", 1 << 20, true}, {"1000 B", 1000, true}, {">0", 1, true}, {"1PiB", 1 << 50, true},
	} {
		test, err := parseSize(tt.text)
		if err != nil {
			t.Errorf("parseSize(%q): %v", tt.text, err)
			continue
		}
		if got := test(tt.size); got != tt.want {
			t.Errorf("parseSize(%q)(%d) = %t", tt.text, tt.size, got)
		}
	}
	for _, text := range []string{"", "GB", "-1GB", "1 2", "1XB", "=> 1GB", "9999999999PB", "1e9", "1iB"} {
		if _, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) succeeded", text)
		}
	}
}

// FuzzSelector: whatever a user writes is an error or matches one way or the other.
func FuzzSelector(f *testing.F) {
	f.Add(">= 1TB", "WDC*", "WDC WD40EFRX")
	f.Add("99999999999999999999999999999999999P", "*?*", "")
	f.Fuzz(func(t *testing.T, size, pattern, value string) {
		test, err := parseSize(size)
		if err == nil && test(0) && test(1<<62) && !strings.ContainsAny(size, "<>") {
			t.Errorf("size %q is that of every disk", size)
		}
		if got := glob(pattern+"*", value); glob(pattern, value) && !got {
			t.Errorf("glob(%q, %q) but not with a * more", pattern, value)
		}
	})
}
