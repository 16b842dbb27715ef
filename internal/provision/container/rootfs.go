package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// loopAttempts bounds the race for a free loop device with other programs.
const loopAttempts = 20

// MountImage mounts a SquashFS read-only on dir, unless it is already. The loop
// device goes away with the last mount of it.
func MountImage(image, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	mounted, err := mountinfo.Mounted(dir)
	if err != nil {
		return fmt.Errorf("look for a mount on %s: %w", dir, err)
	}
	if mounted {
		return nil
	}
	device, err := attachLoop(image)
	if err != nil {
		return fmt.Errorf("attach %s to a loop device: %w", image, err)
	}
	defer device.Close() // the mount holds it from now on
	if err := unix.Mount(device.Name(), dir, "squashfs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return &fs.PathError{Op: "mount", Path: dir, Err: fmt.Errorf("squashfs from %s: %w", image, err)}
	}
	// What nodes mount below it stays theirs.
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return &fs.PathError{Op: "make private", Path: dir, Err: err}
	}
	return nil
}

// Unmount removes all mounts on dir; none is fine.
func Unmount(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // not a mount
			return nil
		case err != nil:
			return &fs.PathError{Op: "unmount", Path: dir, Err: err}
		}
	}
}

func attachLoop(image string) (*os.File, error) {
	backing, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range loopAttempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("ask for a free loop device: %w", err)
		}
		device, err := openLoop(n)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd())}
		config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
		copy(config.Info.File_name[:len(config.Info.File_name)-1], image)
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("configure %s: %w", device.Name(), err)
		}
	}
	return nil, fmt.Errorf("every free loop device was taken by another program")
}

// openLoop opens a loop device, and makes its node where nobody does (as in a
// container with a /dev of its own).
func openLoop(n int) (*os.File, error) {
	const loopMajor = 7
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mknod", Path: path, Err: err}
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// CopyFile copies a file as cheaply as the file system can.
func CopyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in) // copy_file_range
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s to %s: %w", src, dst, err)
	}
	return nil
}
