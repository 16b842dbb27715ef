package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/linux/mount"
)

// Run runs a program to its end and returns what it printed, both outputs in
// one. An error of the program carries the end of that.
type Run func(ctx context.Context, program string, args ...string) ([]byte, error)

const mkfsXFS = "/usr/sbin/mkfs.xfs"

// minXFS is what mkfs.xfs makes without being told that it may: 300 MB.
const minXFS = 300 << 20

// reserved is the end of a device, which its file system leaves alone, in bytes.
// It begins with the mark of one that is to be made; the last 128 KiB mkfs.xfs
// makes blank.
const reserved = 256 << 10

// making is that mark. It is there before and while the file system is made, until
// the disk has been told to keep it: a loss of power before may leave any part of
// what mkfs.xfs wrote, such as the beginning alone, which looks like all.
const making = "talos: a file system is being made here\n"

// markAt is where the mark is, and the file system ends, on a device of that size.
func markAt(size int64) int64 { return (size - reserved) / blockSize * blockSize }

// blockSize is that of our file systems, in bytes.
const blockSize = 4096

// formatDevice makes an XFS on a device, so that a loss of power leaves one that
// is whole, or the mark.
func formatDevice(ctx context.Context, run Run, device, label string) error {
	d, err := gpt.Open(device, true)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := errors.Join(MarkUnmade(d, 0, d.Size()), d.Sync()); err != nil { // kept before anything else is lost
		return err
	}
	const step = 2 << 30
	for at, end := int64(0), markAt(d.Size()); at < end; at += step { // mkfs.xfs would discard the mark, too
		if err := ctx.Err(); err != nil {
			return err
		}
		d.Discard(at, min(step, end-at))
	}
	d.Close() // mkfs.xfs wants it for itself
	if err := format(ctx, run, device, label, d.Size()); err != nil {
		return err
	}
	if d, err = gpt.Open(device, true); err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil { // mkfs.xfs leaves what it wrote in the cache of the disk
		return err
	}
	return errors.Join(mark(d, 0, d.Size(), ""), d.Sync())
}

// MarkUnmade has the partition at that place of a disk get its file system when it
// is mounted next, whatever it holds. The caller syncs.
func MarkUnmade(d io.WriterAt, offset, size int64) error { return mark(d, offset, size, making) }

func mark(d io.WriterAt, offset, size int64, text string) error {
	block := make([]byte, blockSize)
	copy(block, text)
	_, err := d.WriteAt(block, offset+markAt(size))
	return err
}

// format makes an XFS on a device or in a file, whatever is there. Sectors of
// 4096 bytes are right on every disk; the log then fits disks of both kinds.
func format(ctx context.Context, run Run, device, label string, size int64, args ...string) error {
	args = append([]string{"-f", "-q", "-K", "-s", "size=4096", "-b", fmt.Sprintf("size=%d", blockSize),
		"-d", fmt.Sprintf("size=%d", markAt(size)), "-L", xfsLabel(label)}, args...)
	if size <= minXFS {
		args = append([]string{"--unsupported"}, args...) // STATE; mkfs.xfs warns of the speed of small ones
	}
	if _, err := run(ctx, mkfsXFS, append(args, device)...); err != nil {
		return fmt.Errorf("make a file system on %s: %w", device, err)
	}
	return nil
}

// xfsLabel is what of a label an XFS can have.
func xfsLabel(label string) string { return label[:min(len(label), 12)] }

// MakeImage makes a file with an XFS that holds files, by path: what STATE is to
// begin with. They are root's, and only root may read them.
func MakeImage(ctx context.Context, run Run, image, label string, size int64, files map[string][]byte) error {
	dir, err := os.MkdirTemp(filepath.Dir(image), "files-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var b strings.Builder
	b.WriteString("/dev/null\n0 0\nd--700 0 0\n")
	if err := prototype(&b, dir, "", files); err != nil {
		return fmt.Errorf("files of %s: %w", label, err)
	}
	b.WriteString("$\n")
	proto := filepath.Join(dir, "prototype")
	if err := errors.Join(os.WriteFile(proto, []byte(b.String()), 0o600), os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		return err
	}
	return format(ctx, run, image, label, size, "-p", proto)
}

// prototype describes the files below a folder as mkfs.xfs reads it (its option
// -p), and lays their content into dir.
func prototype(b *strings.Builder, dir, below string, files map[string][]byte) error {
	var names []string
	for name := range files {
		if above := path.Dir(name); above != "." {
			if _, file := files[above]; file {
				return fmt.Errorf("%q is a file and has files below it", above)
			}
		}
		if path.Clean(name) != name || path.IsAbs(name) || strings.HasPrefix(name, "..") || strings.ContainsAny(name, " \t\n$:") {
			return fmt.Errorf("%q can't be a name here", name)
		}
		if rest, ok := strings.CutPrefix(name, below); ok {
			first, _, _ := strings.Cut(rest, "/")
			names = append(names, first)
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		data, isFile := files[below+name]
		if !isFile {
			fmt.Fprintf(b, "%s d--700 0 0\n", name)
			if err := prototype(b, dir, below+name+"/", files); err != nil {
				return err
			}
			b.WriteString("$\n")
			continue
		}
		local, err := os.CreateTemp(dir, "file-")
		if err != nil {
			return err
		}
		if _, err := local.Write(data); err != nil {
			return errors.Join(err, local.Close())
		}
		if err := local.Close(); err != nil {
			return err
		}
		fmt.Fprintf(b, "%s ---600 0 0 %s\n", name, local.Name())
	}
	return nil
}

// headSize is how much of a device is looked at, and made blank, in bytes: more
// than the mark of any file system needs.
const headSize = 1 << 20

// What a device may hold.
const (
	other  = iota // what we can't use
	unmade        // nothing that counts: the mark is there
	filled        // an XFS
)

type content struct {
	state int
	kind  string // in words, where it is other
}

// examine looks at the beginning of a device, and for our mark at its end.
func examine(device string) (content, error) {
	d, err := gpt.OpenReadOnly(device)
	if err != nil {
		return content{}, err
	}
	defer d.Close()
	head, tail := make([]byte, min(headSize, d.Size())), make([]byte, len(making))
	if _, err := d.ReadAt(head, 0); err != nil {
		return content{}, err
	}
	if _, err := d.ReadAt(tail, markAt(d.Size())); err != nil {
		return content{}, err
	}
	switch {
	case string(tail) == making:
		return content{state: unmade}, nil
	case bytes.Equal(head, make([]byte, len(head))):
		return content{state: other, kind: "zeros, and no mark of ours that it is to be empty: the disk has lost what was there, or does not return it"}, nil
	case bytes.HasPrefix(head, []byte("XFSB")):
		return content{state: filled}, nil
	}
	v, err := disk.Recognise(d, uint64(d.Size()), uint(d.SectorSize()))
	if err != nil {
		return content{}, err
	}
	if v.Kind == "" {
		v.Kind = "bytes that no file system begins with"
	}
	return content{state: other, kind: v.Kind}, nil
}

// Requests of xfs_fs.h.
const (
	xfsGeometry = 0x80705864 // XFS_IOC_FSGEOMETRY_V1
	xfsGrow     = 0x4010586e // XFS_IOC_FSGROWFSDATA
)

// geometryV1 is struct xfs_fsop_geom_v1.
type geometryV1 struct {
	BlockSize  uint32
	_          [5]uint32
	_          uint32
	MaxPercent uint32 // of inodes
	Blocks     uint64
	_          [9]uint64
}

// growth is struct xfs_growfs_data.
type growth struct {
	Blocks     uint64
	MaxPercent uint32
	_          uint32
}

// growXFS makes a mounted XFS fill its device; false if it does already.
func growXFS(device string, target *mount.Folder) (bool, error) {
	d, err := gpt.OpenReadOnly(device)
	if err != nil {
		return false, err
	}
	size := d.Size()
	d.Close()
	f, err := target.Open()
	if err != nil {
		return false, err
	}
	defer f.Close()
	var g geometryV1
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), xfsGeometry, uintptr(unsafe.Pointer(&g))); errno != 0 {
		return false, &fs.PathError{Op: "XFS_IOC_FSGEOMETRY", Path: f.Name(), Err: errno}
	}
	want := uint64(markAt(size)) / uint64(g.BlockSize)
	if want < g.Blocks+minAG {
		return false, nil
	}
	grow := growth{Blocks: want, MaxPercent: g.MaxPercent}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), xfsGrow, uintptr(unsafe.Pointer(&grow))); errno != 0 {
		return false, &fs.PathError{Op: "XFS_IOC_FSGROWFSDATA", Path: f.Name(), Err: errno}
	}
	return true, nil
}

// minAG is how many blocks an XFS grows by at least: a smaller allocation group
// is none, and the kernel would leave the rest unused each time.
const minAG = 64
