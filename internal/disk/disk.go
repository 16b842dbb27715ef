// Package disk tells which disks a machine has and what is on them.
//
// It owns reading sysfs about block devices (List) and recognising partition
// tables, file systems and other contents by their bytes (Probe, Recognise). It
// writes nothing, decides nothing, and keeps only which disks do not answer. What it reads comes from
// hardware and from disks that may hold anything: every read is bounded and
// every parser fuzzed. It is safe for concurrent use.
package disk

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"talos/internal/linux/sysfs"
)

// Type is the kind of a disk, as selectors name it.
type Type string

// The types of disks.
const (
	SSD  Type = "ssd"
	HDD  Type = "hdd"
	NVMe Type = "nvme"
	SD   Type = "sd"
	CD   Type = "cd"
)

// Disk is a block device that is no partition, as the kernel describes it.
// What the hardware does not tell is empty.
type Disk struct {
	Name    string // as in /sys/class/block: "sda"
	DevPath string // "/dev/sda"
	SysPath string // where it is in sysfs, from "/devices/" on
	Major   int
	Minor   int

	Size       uint64 // bytes
	SectorSize uint   // of what can be addressed, bytes
	IOSize     uint   // what reads and writes best are a multiple of, bytes
	Rotational bool
	ReadOnly   bool
	Removable  bool
	CDROM      bool

	Model     string
	Serial    string
	WWID      string // what no other disk has, as the kernel writes it
	UUID      string // of an NVMe namespace
	Firmware  string
	Modalias  string
	BusPath   string // where it is plugged in: SysPath without "/devices" and the disk itself
	Subsystem string // "/sys/class/block"
	Transport string // nvme, virtio, sata, usb, sas, fc, iscsi, scsi, mmc, xen, …; empty for what is no hardware

	Parts       []Partition // in the order of their numbers, as the kernel has them
	Secondaries []string    // names of the devices it is made of
	Symlinks    []string    // below /dev/disk, sorted
}

// Partition is a partition that the kernel knows of.
type Partition struct {
	Name     string // "sda1"
	DevPath  string // "/dev/sda1"
	Number   int
	Offset   uint64 // bytes from the start of the disk
	Size     uint64 // bytes
	ReadOnly bool
	Symlinks []string // below /dev/disk, sorted
}

// Type is what a selector may ask for; empty for what is no hardware.
func (d Disk) Type() Type {
	switch {
	case d.CDROM:
		return CD
	case d.Transport == "":
		return ""
	case d.Transport == "nvme":
		return NVMe
	case d.Transport == "mmc":
		return SD
	case d.Rotational:
		return HDD
	}
	return SSD
}

// Physical says whether d is a disk that a system can be installed on: hardware
// (or what a hypervisor shows as such), with a medium in it, no CD.
func (d Disk) Physical() bool { return d.Transport != "" && !d.CDROM && d.Size > 0 }

// List describes the disks of a machine, sorted by name with numbers in their
// order. root is where sys and dev are, usually "/". Devices without a medium
// are left out, and those whose memory is the machine's own (ram, zram).
func List(ctx context.Context, root string) ([]Disk, error) {
	tree := sysfs.FS(filepath.Join(root, "sys"))
	devices, err := tree.Class("block")
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	links := symlinks(root)
	var out []Disk
	for _, dev := range devices {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if dev.Has("partition") || dev.Attr("hidden") == "1" || inMemory.MatchString(dev.Name()) {
			continue
		}
		d := Describe(dev)
		if d.Size == 0 {
			continue
		}
		d.Symlinks = links[d.DevPath]
		for i := range d.Parts {
			d.Parts[i].Symlinks = links[d.Parts[i].DevPath]
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Disk) int { return compareNames(a.Name, b.Name) })
	return out, nil
}

var inMemory = regexp.MustCompile(`^(ram|zram)\d+$`)

// Describe reads what sysfs says of a whole disk. Symlinks stay empty: they are
// no matter of sysfs.
func Describe(dev sysfs.Device) Disk {
	props := dev.Uevent()
	d := Disk{
		Name: dev.Name(), DevPath: devPath(dev), SysPath: dev.Path(),
		Major: atoi(props["MAJOR"]), Minor: atoi(props["MINOR"]),
		Size: sectors(dev, "size"), SectorSize: uint(number(dev, "queue/logical_block_size")),
		Rotational: dev.Attr("queue/rotational") == "1", ReadOnly: dev.Attr("ro") == "1", Removable: dev.Attr("removable") == "1",
		Model: dev.Attr("device/model"), Modalias: first(dev, "device/modalias", "device/device/modalias"),
		UUID: first(dev, "uuid", "device/uuid"), Firmware: first(dev, "device/firmware_rev", "device/rev", "device/fwrev"),
		BusPath: busPath(dev), Secondaries: dev.Entries("slaves"),
	}
	if dev.Subsystem() == "block" {
		d.Subsystem = "/sys/class/block"
	}
	if d.SectorSize == 0 {
		d.SectorSize = 512
	}
	d.IOSize = ioSize(dev, d.SectorSize)
	d.Transport = transport(dev)
	if d.Transport == "mmc" {
		d.Model = first(dev, "device/name")
	}
	d.CDROM = strings.HasPrefix(d.Name, "sr") || dev.Attr("device/type") == "5"
	d.Serial, d.WWID = identify(dev)
	d.Parts = partitions(dev)
	return d
}

// partitions are those that the kernel made of the disk's table.
func partitions(dev sysfs.Device) []Partition {
	var out []Partition
	for _, name := range dev.Entries("") {
		p := dev.Child(name)
		n, err := strconv.Atoi(p.Attr("partition"))
		if err != nil {
			continue
		}
		out = append(out, Partition{
			Name: name, DevPath: devPath(p), Number: n,
			Offset: sectors(p, "start"), Size: sectors(p, "size"), ReadOnly: p.Attr("ro") == "1",
		})
	}
	slices.SortFunc(out, func(a, b Partition) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// devPath is the device's node. Names such as cciss!c0d0 are folders in /dev.
func devPath(dev sysfs.Device) string {
	if name := dev.Uevent()["DEVNAME"]; name != "" && !strings.Contains(name, "..") {
		return "/dev/" + name
	}
	return "/dev/" + strings.ReplaceAll(dev.Name(), "!", "/")
}

// busPath is where the hardware is: the disk's path without itself and the
// folder that groups ("block", "nvme0").
func busPath(dev sysfs.Device) string {
	return path.Dir(path.Dir(strings.TrimPrefix(dev.Path(), "/devices")))
}

// sectors reads a number of sectors, 512 bytes each whatever the disk's are.
func sectors(dev sysfs.Device, attr string) uint64 {
	n := number(dev, attr)
	if n > 1<<54 { // more than the kernel's own limit: not to be believed
		return 0
	}
	return n * 512
}

func number(dev sysfs.Device, attr string) uint64 {
	n, err := strconv.ParseUint(dev.Attr(attr), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// ioSize is what the disk asks for, if it is sane: some USB bridges report
// nonsense that nothing can be aligned to.
func ioSize(dev sysfs.Device, sector uint) uint {
	for _, attr := range []string{"queue/optimal_io_size", "queue/minimum_io_size", "queue/physical_block_size"} {
		if n := number(dev, attr); n >= uint64(sector) && n&(n-1) == 0 && n <= 64<<20 {
			return uint(n)
		}
	}
	return sector
}

func first(dev sysfs.Device, attrs ...string) string {
	for _, a := range attrs {
		if v := dev.Attr(a); v != "" {
			return v
		}
	}
	return ""
}

// identify finds what tells the disk from all others. Where the kernel has it
// in a page of SCSI's vital product data only, it is read from there.
func identify(dev sysfs.Device) (serial, wwid string) {
	serial = first(dev, "serial", "device/serial")
	if serial == "" {
		serial = unitSerial(dev.Raw("device/vpd_pg80"))
	}
	for up := dev.Parent(); serial == "" && up.Valid(); up = up.Parent() {
		if up.Has("idVendor") { // the USB device that the disk is in
			serial = up.Attr("serial")
			break
		}
	}
	wwid = first(dev, "wwid", "device/wwid")
	if wwid == "" && dev.Has("device/cid") { // MMC
		wwid = dev.Attr("device/cid")
	}
	return serial, wwid
}

// unitSerial reads the Unit Serial Number page of SPC-4, 7.8.15.
func unitSerial(page []byte) string {
	if len(page) < 4 || page[1] != 0x80 {
		return ""
	}
	n := int(binary.BigEndian.Uint16(page[2:]))
	return sysfs.Text(page[4:min(4+n, len(page))])
}

// compareNames orders sda before sdb before sdaa, and nvme2n1 before nvme10n1.
func compareNames(a, b string) int {
	pa, pb := nameParts.FindAllString(a, -1), nameParts.FindAllString(b, -1)
	for i := range min(len(pa), len(pb)) {
		// A longer number is a larger one, and sdaa comes when sdz is taken.
		series := pa[i][0] <= '9' && pb[i][0] <= '9' || strings.HasPrefix(pa[i], "sd") && strings.HasPrefix(pb[i], "sd") ||
			strings.HasPrefix(pa[i], "vd") && strings.HasPrefix(pb[i], "vd")
		if series && len(pa[i]) != len(pb[i]) {
			return cmp.Compare(len(pa[i]), len(pb[i]))
		}
		if c := cmp.Compare(pa[i], pb[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(pa), len(pb))
}

var nameParts = regexp.MustCompile(`\d+|\D+`)

// symlinks are the links below /dev/disk by the node they lead to.
func symlinks(root string) map[string][]string {
	out := map[string][]string{}
	dirs, err := filepath.Glob(filepath.Join(root, "dev/disk/by-*"))
	if err != nil {
		return nil // the pattern is well-formed
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			to, err := os.Readlink(filepath.Join(dir, e.Name()))
			if err != nil {
				continue
			}
			by := path.Join("/dev/disk", filepath.Base(dir))
			node := path.Join(by, to)
			if path.IsAbs(to) {
				node = path.Clean(to)
			}
			out[node] = append(out[node], path.Join(by, e.Name()))
		}
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}
