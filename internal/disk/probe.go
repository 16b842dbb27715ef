package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"talos/internal/linux/sysfs"
)

// Volume is what a disk, a partition or an image holds, by its bytes.
type Volume struct {
	// Kind is a file system ("xfs", "ext4", "vfat"), a table of partitions
	// ("gpt", "mbr"), or what something else has marked as its own ("luks",
	// "lvm2-pv", "linux_raid_member", "zfs"). Empty: nothing is recognised.
	Kind string
	// Others are further kinds whose marks are there too, such as the GPT of an
	// ISO image that is meant for USB sticks, or what an incomplete wipe left.
	Others []string
	// Blank says that the first and the last MiB hold nothing but zeros.
	Blank bool

	UUID                string // as its own tools write it
	Label               string
	BlockSize           uint32 // bytes; 0 where there is no such thing
	FilesystemBlockSize uint32 // bytes
	ProbedSize          uint64 // bytes that it says it covers; 0 if it does not say

	Table []Entry // of a gpt or mbr, in the order of their numbers
}

// Entry is a partition as the table has it; the kernel may not agree.
type Entry struct {
	Number int
	Offset uint64 // bytes
	Size   uint64 // bytes
	Type   string // GUID; of an MBR, two hexadecimal digits
	UUID   string
	Label  string
}

// Empty says whether nothing would be lost by writing: no mark of anything, and
// no bytes where there would be one.
func (v Volume) Empty() bool { return v.Kind == "" && v.Blank }

// Device is what Probe can say of a block device besides its contents.
type Device struct {
	Size       uint64
	SectorSize uint
	IOSize     uint
	Volume
}

// Probe looks at a block device, or at an image in a regular file, which is
// taken to have sectors of 512 bytes. A device without a medium is an error
// that is ENOMEDIUM.
func Probe(path string) (Device, error) {
	// Without O_NONBLOCK the open of a CD drive waits, and may close its tray.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Device{}, err
	}
	defer f.Close()
	d, err := geometry(f)
	if err != nil {
		return Device{}, fmt.Errorf("probe %s: %w", path, err)
	}
	// Others write around the page cache; what it has may be old. Best effort.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	if d.Volume, err = Recognise(f, d.Size, d.SectorSize); err != nil {
		return d, fmt.Errorf("probe %s: %w", path, err)
	}
	return d, nil
}

// geometry asks for the size of the device and of its sectors.
func geometry(f *os.File) (Device, error) {
	info, err := f.Stat()
	if err != nil {
		return Device{}, err
	}
	if info.Mode().IsRegular() {
		return Device{Size: uint64(info.Size()), SectorSize: 512, IOSize: 512}, nil
	}
	if info.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		return Device{}, errors.New("not a block device")
	}
	fd := int(f.Fd())
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return Device{}, err
	}
	sector, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err != nil {
		return Device{}, fmt.Errorf("sector size: %w", err)
	}
	d := Device{Size: uint64(size), SectorSize: uint(sector), IOSize: uint(sector)}
	if best, err := unix.IoctlGetInt(fd, unix.BLKIOOPT); err == nil && best >= sector && best&(best-1) == 0 {
		d.IOSize = uint(best)
	}
	return d, nil
}

// window reads parts of a device, and remembers the first read that failed.
type window struct {
	r      io.ReaderAt
	size   uint64
	sector uint64
	err    error
}

// at reads n bytes from off; nil if they are not all there.
func (w *window) at(off, n uint64) []byte {
	if off > w.size || n > w.size-off || off > 1<<62 {
		return nil
	}
	buf := make([]byte, n)
	if _, err := w.r.ReadAt(buf, int64(off)); err != nil {
		if w.err == nil && !errors.Is(err, io.EOF) {
			w.err = err
		}
		return nil
	}
	return buf
}

// recogniser finds one kind of contents; nil is none.
type recogniser func(w *window) *Volume

// recognisers in order: what holds others comes before what it may hold, for
// members of arrays and the like look like their contents.
var recognisers = []recogniser{
	raid, luks, lvm, bluestore, bcache,
	xfs, ext, btrfs, f2fs, squashfs, vfat, exfat, ntfs, iso9660, swap, verity, meta,
	gpt, mbr, zfs,
}

// Recognise says what the bytes of r are, of which there are size, in sectors
// that long. An error is one of reading; what could be recognised all the same
// is returned with it.
func Recognise(r io.ReaderAt, size uint64, sector uint) (Volume, error) {
	w := &window{r: r, size: size, sector: uint64(sector)}
	if w.sector < 512 || w.sector > 1<<16 {
		w.sector = 512
	}
	var out Volume
	for _, f := range recognisers {
		v := f(w)
		switch {
		case v == nil:
		case out.Kind == "":
			out = *v
		case v.Kind == "mbr" && (out.Kind == "gpt" || slices.Contains(out.Others, "gpt")): // the protective one
		default:
			out.Others = append(out.Others, v.Kind)
			if out.Table == nil {
				out.Table = v.Table
			}
		}
	}
	out.Label = sysfs.Text([]byte(out.Label))
	if out.Kind == "" {
		out.Blank = w.blank()
	}
	return out, w.err
}

// Medium recognises what travels on CDs and sticks, an ISO 9660 or FAT file system
// on a device of size bytes, and nothing else: it reads at the beginning only, for
// the end of a CD often can't be read, and a drive is long in saying so.
func Medium(r io.ReaderAt, size uint64) (v Volume, found bool) {
	w := &window{r: r, size: size, sector: 512}
	for _, f := range []recogniser{iso9660, vfat} {
		if v := f(w); v != nil {
			v.Label = sysfs.Text([]byte(v.Label))
			return *v, true
		}
	}
	return Volume{}, false
}

// blank says whether both ends are zeros.
func (w *window) blank() bool {
	const most = 1 << 20
	n := min(w.size, most)
	head, tail := w.at(0, n), w.at(w.size-n, n)
	zero := func(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }
	return head != nil && tail != nil && zero(head) && zero(tail)
}

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// text is a string in a field of fixed length, up to the first NUL.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// uuid writes 16 bytes in the usual way; none where they are all zero.
func uuid(b []byte) string {
	if len(b) < 16 || bytes.Equal(b[:16], make([]byte, 16)) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// guid is uuid for GPT's order of bytes.
func guid(b []byte) string {
	if len(b) < 16 {
		return ""
	}
	return uuid([]byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]})
}

// power says whether n is a power of two in the given bounds.
func power(n, low, high uint64) bool { return n >= low && n <= high && n&(n-1) == 0 }
