package qemu

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Disk is one disk of a machine, a raw file on the host. To QEMU the i-th is
// diskN, and what it is attached by deviceN, counted from 0.
type Disk struct {
	Path     string
	Size     int64  // bytes; a smaller file is grown
	From     string // image that a new disk is a copy of; with none it is empty
	Driver   string // one of Drivers; the first when empty
	Serial   string // at most 20 characters; one of the machine's own when empty
	ReadOnly bool
	// Unreadable has every read fail until Mend.
	Unreadable bool

	// WriteLog is a file that every write and flush is recorded in; see Replay.
	WriteLog string
}

// Drivers are the ways in which a disk is attached.
var Drivers = []string{"virtio", "scsi", "nvme", "sata", "usb"}

// devices are how Linux names the disks of each driver.
var devices = map[string]string{"virtio": "/dev/vd%c", "scsi": "/dev/sd%c", "nvme": "/dev/nvme%dn1", "sata": "/dev/sd%c", "usb": "/dev/sd%c"}

// firstBoot is the place of the first disk in the order in which the firmware
// tries to start the machine; before it is a kernel that was handed to it.
const firstBoot = 1

// sataPorts are those of the board; the last is the CD drive's.
const (
	sataPorts = 5
	cdPort    = 5
)

// Device is the name that a driver's first disk gets under Linux, where all
// others are of the same driver.
func Device(driver string) string {
	name := devices[driver]
	if strings.Contains(name, "%c") {
		return fmt.Sprintf(name, 'a')
	}
	return fmt.Sprintf(name, 0)
}

// CheckDriver says whether a disk can be attached so.
func CheckDriver(driver string) error {
	if !slices.Contains(Drivers, driver) {
		return fmt.Errorf("disk driver %q: want one of %s", driver, strings.Join(Drivers, ", "))
	}
	return nil
}

// ensure makes the disk's files, or grows it.
func (d Disk) ensure() error {
	if d.WriteLog != "" {
		if err := makeEmpty(d.WriteLog); err != nil {
			return err
		}
	}
	return d.ensureFile()
}

// makeEmpty makes an empty file where there is none.
func makeEmpty(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (d Disk) ensureFile() error {
	_, err := os.Stat(d.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && d.From != "":
		if err := CopyImage(d.Path, d.From); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist) && d.ReadOnly:
		return err
	case errors.Is(err, fs.ErrNotExist):
		if err := makeEmpty(d.Path); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	info, err := os.Stat(d.Path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() >= d.Size || d.ReadOnly {
		return nil
	}
	return os.Truncate(d.Path, d.Size)
}

// args attaches the disk as a machine's i-th.
func (d Disk) args(i int, uuid string) ([]string, error) {
	driver := d.Driver
	if driver == "" {
		driver = Drivers[0]
	}
	if err := CheckDriver(driver); err != nil {
		return nil, err
	}
	id := fmt.Sprintf("disk%d", i)
	serial := d.Serial
	if serial == "" {
		serial = fmt.Sprintf("%08x-%d", crc32.ChecksumIEEE([]byte(uuid)), i)
	}
	with := fmt.Sprintf(",id=device%d,drive=%s,serial=%s,bootindex=%d", i, id, escape(serial), firstBoot+i)
	out := []string{"-blockdev", d.blockdev(id)}
	switch driver {
	case "virtio":
		out = append(out, "-device", "virtio-blk-pci"+with)
	case "scsi":
		out = append(out, "-device", "virtio-scsi-pci,id="+id+"-bus", "-device", "scsi-hd,bus="+id+"-bus.0"+with)
	case "nvme":
		out = append(out, "-device", "nvme"+with)
	case "sata":
		if i >= sataPorts {
			return nil, fmt.Errorf("at most %d disks can be attached by sata", sataPorts)
		}
		out = append(out, "-device", fmt.Sprintf("ide-hd,bus=ide.%d", i)+with)
	case "usb":
		out = append(out, "-device", "qemu-xhci,id="+id+"-bus", "-device", "usb-storage,bus="+id+"-bus.0"+with)
	}
	return out, nil
}

func (d Disk) blockdev(id string) string {
	if d.Unreadable {
		return d.unreadable(id)
	}
	if d.WriteLog == "" {
		return blockdev(id, d.Path, d.ReadOnly)
	}
	return object(map[string]any{
		"driver": "blklogwrites", "node-name": id, "log-sector-size": 512, "discard": "unmap",
		"file": map[string]any{"driver": "raw", "discard": "unmap", "file": fileNode(d.Path, false)},
		"log":  map[string]any{"driver": "raw", "file": fileNode(d.WriteLog, false)},
	})
}
