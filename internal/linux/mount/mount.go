// Package mount makes and removes mounts, keeping the kernel's error and saying
// which mount it was about.
//
// It keeps no state; who mounts what, and when, is the caller's.
package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Point is a mount as data.
type Point struct {
	Source string
	Target string
	Type   string // file system; "" for a bind
	Flags  uintptr
	Data   string
}

// Mount mounts it; the target must exist.
func (p Point) Mount() error {
	err := unix.Mount(p.Source, p.Target, p.Type, p.Flags, p.Data)
	if err == nil && p.Flags&unix.MS_BIND != 0 && p.Flags&^(unix.MS_BIND|unix.MS_REC) != 0 {
		// The kernel takes the other flags of a bind only in a second call (mount(2)).
		err = unix.Mount("", p.Target, "", p.Flags|unix.MS_REMOUNT, "")
	}
	if err != nil {
		return &fs.PathError{Op: "mount", Path: p.Target, Err: fmt.Errorf("%s from %q: %w", p.kind(), p.Source, err)}
	}
	return nil
}

func (p Point) kind() string {
	if p.Type == "" {
		return "bind"
	}
	return p.Type
}

// Ensure makes the target and mounts it unless something is mounted there.
func (p Point) Ensure() error {
	mounted, err := Mounted(p.Target)
	if err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(p.Target, 0o755); err != nil {
		return err
	}
	return p.Mount()
}

// Mounted says whether path is a mount point. A path that doesn't exist is none.
func Mounted(path string) (bool, error) {
	mounted, err := mountinfo.Mounted(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return mounted, err
}

// Share makes a mount and all below it shared: what is mounted there appears
// in the containers that were given it, and the other way round.
func Share(path string) error {
	if err := unix.Mount("", path, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return &fs.PathError{Op: "mount", Path: path, Err: fmt.Errorf("make shared: %w", err)}
	}
	return nil
}

// Below lists the mounts at or below a path, the last made first. "" lists all.
func Below(path string) ([]*mountinfo.Info, error) {
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return !(path == "" || i.Mountpoint == path || strings.HasPrefix(i.Mountpoint, strings.TrimSuffix(path, "/")+"/")), false
	})
	if err != nil {
		return nil, fmt.Errorf("list mounts below %s: %w", path, err)
	}
	for a, b := 0, len(found)-1; a < b; a, b = a+1, b-1 {
		found[a], found[b] = found[b], found[a]
	}
	return found, nil
}

// Detach takes away a mount, now for everybody new, and for good when nobody
// uses it any more. Nothing mounted there is no error.
func Detach(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "unmount", Path: path, Err: err}
	}
	return nil
}
