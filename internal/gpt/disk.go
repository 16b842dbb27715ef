package gpt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
	"unsafe"

	"github.com/siderolabs/go-blockdevice/v2/block"
	"golang.org/x/sys/unix"
)

// Disk is a block device, or a regular file in its place.
type Disk struct {
	*os.File
	size   int64
	sector int
}

// Open opens a disk for writing. With exclusive it must not be in use: no file
// system of it mounted, nothing made of it. A file has sectors of 512 bytes.
func Open(path string, exclusive bool) (*Disk, error) {
	flags := os.O_RDWR
	if exclusive {
		flags |= unix.O_EXCL // of a block device; see open(2)
	}
	return open(path, flags, 512)
}

// OpenReadOnly opens a disk to look at it.
func OpenReadOnly(path string) (*Disk, error) { return open(path, os.O_RDONLY, 512) }

// Create makes a file of that size as a disk with sectors of that size.
func Create(path string, size int64, sector int) (*Disk, error) {
	d, err := open(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, sector)
	if err != nil {
		return nil, err
	}
	if err := d.Truncate(size); err != nil {
		d.Close()
		return nil, err
	}
	d.size = size
	return d, nil
}

func open(path string, flags, sector int) (*Disk, error) {
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%w: something of it is mounted or part of another device", err)
		}
		return nil, err
	}
	d := &Disk{File: f, sector: sector}
	if err := d.measure(); err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

func (d *Disk) measure() error {
	info, err := d.Stat()
	if err != nil {
		return err
	}
	switch {
	case info.Mode().IsRegular():
		d.size = info.Size()
	case info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0:
		dev := block.NewFromFile(d.File)
		size, err := dev.GetSize()
		if err != nil {
			return &fs.PathError{Op: "BLKGETSIZE64", Path: d.Name(), Err: err}
		}
		d.size, d.sector = int64(size), int(dev.GetSectorSize())
	default:
		return &fs.PathError{Op: "open", Path: d.Name(), Err: errors.New("neither a block device nor a file")}
	}
	return nil
}

// Size is its size in bytes.
func (d *Disk) Size() int64 { return d.size }

// SectorSize is the size of what can be addressed, in bytes.
func (d *Disk) SectorSize() int { return d.sector }

func (d *Disk) regular() bool {
	info, err := d.Stat()
	return err == nil && info.Mode().IsRegular()
}

// Zero makes a range read as zeros; of a file a hole, of a device whatever it
// does that with.
func (d *Disk) Zero(offset, length int64) error {
	if length == 0 {
		return nil
	}
	if d.regular() {
		if unix.Fallocate(int(d.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length) == nil {
			return nil
		}
	} else {
		span := [2]uint64{uint64(offset), uint64(length)}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span))); errno == 0 {
			return nil
		}
	}
	zeros := make([]byte, min(length, 1<<20))
	for length > 0 {
		n, err := d.WriteAt(zeros[:min(length, int64(len(zeros)))], offset)
		if err != nil {
			return err
		}
		offset, length = offset+int64(n), length-int64(n)
	}
	return nil
}

// Discard tells the device that a range holds nothing any more. Devices that
// know no such thing refuse it, which matters to nobody.
func (d *Disk) Discard(offset, length int64) {
	span := [2]uint64{uint64(offset), uint64(length)}
	// Best effort, as said.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, d.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span)))
}

// Reread has the kernel look for partitions anew.
func (d *Disk) Reread() error {
	if d.regular() {
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), unix.BLKRRPART, 0); errno != 0 {
		return &fs.PathError{Op: "BLKRRPART", Path: d.Name(), Err: errno}
	}
	return nil
}

// DropCache makes the reads that follow come from the device. What was written
// must be synced before.
func (d *Disk) DropCache() error {
	if !d.regular() {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), unix.BLKFLSBUF, 0); errno != 0 {
			return &fs.PathError{Op: "BLKFLSBUF", Path: d.Name(), Err: errno}
		}
	}
	if err := unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return &fs.PathError{Op: "fadvise", Path: d.Name(), Err: err}
	}
	return nil
}

func (d *Disk) lastPartition() (int, error) {
	if d.regular() {
		return 0, nil
	}
	return block.NewFromFile(d.File).GetKernelLastPartitionNum()
}

func (d *Disk) addPartition(number int, offset, size int64) error {
	if d.regular() {
		return nil
	}
	return block.NewFromFile(d.File).KernelPartitionAdd(number, uint64(offset), uint64(size))
}

func (d *Disk) resizePartition(number int, offset, size int64) error {
	if d.regular() {
		return nil
	}
	return block.NewFromFile(d.File).KernelPartitionResize(number, uint64(offset), uint64(size))
}

// deletePartition waits for whoever looks at the partition just now.
func (d *Disk) deletePartition(number int) error {
	if d.regular() {
		return nil
	}
	for try := 0; ; try++ {
		err := block.NewFromFile(d.File).KernelPartitionDelete(number)
		if !errors.Is(err, unix.EBUSY) || try == 50 {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
