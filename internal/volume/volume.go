// Package volume makes, grows, mounts and wipes the file systems of a machine:
// STATE and EPHEMERAL on the system disk, and those of the user's extra disks.
//
// What is to be done is planned by pure functions (System, PlanEphemeral,
// PlanDisk); the rest takes paths of devices and mount points and does it, so
// that doing it again changes nothing. A file system is made only where a mark at
// the end of the device asks for one: whoever makes or empties the partition
// leaves it there, and it stays until the file system is whole. Zeros are no such
// mark: a disk may also have lost what it held. Anything else that can't be
// mounted is an error that says what to do; nothing is repaired or replaced by
// guesswork. When which volume is mounted,
// and what runs before, is the caller's business. One process at a time works
// on a device; functions keep no state.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"talos/internal/cmdline"
	"talos/internal/layout"
	"talos/internal/linux/mount"
	"talos/internal/wipe"
)

// Volume is a file system and where it belongs.
type Volume struct {
	Label  string // STATE, EPHEMERAL, or that of a user's partition
	Device string // of the partition
	Target string // where it is mounted
	Flags  uintptr
	Data   string // options of the file system
	Mode   fs.FileMode
}

// State is the volume of configuration and identity: nothing is ever run from it.
func State(device string) Volume {
	return Volume{Label: wipe.State, Device: device, Target: layout.StateDir, Mode: 0o700,
		Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}
}

// Ephemeral is the volume of all that may be lost. Project quotas are on: the
// kubelet counts what pods write by them.
func Ephemeral(device string) Volume {
	return Volume{Label: wipe.Ephemeral, Device: device, Target: layout.EphemeralDir, Mode: 0o755,
		Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "prjquota"}
}

// Result is what Mount had to do.
type Result struct {
	Formatted bool
	Grown     bool // the file system fills its partition again
}

// Mount makes the file system if that is still to be done, mounts it, and lets it fill its
// partition. One that is mounted already is only grown.
func (v Volume) Mount(ctx context.Context, run Run) (Result, error) {
	r, err := v.mount(ctx, run)
	if err != nil {
		return r, fmt.Errorf("volume %s on %s: %w", v.Label, v.Device, err)
	}
	return r, nil
}

func (v Volume) mount(ctx context.Context, run Run) (r Result, err error) {
	folder, err := mount.OpenFolder(v.Target) // those below EPHEMERAL anybody may have replaced who could write there
	if err != nil {
		return r, err
	}
	defer folder.Close()
	mounted, err := folder.Mounted()
	if err != nil {
		return r, err
	}
	if !mounted {
		if r.Formatted, err = v.ensure(ctx, run); err != nil {
			return r, err
		}
		p := mount.Point{Source: v.Device, Target: v.Target, Type: "xfs", Flags: v.Flags, Data: v.Data}
		if err := p.On(folder); err != nil {
			return r, v.advise(err)
		}
	}
	root, err := mount.OpenFolder(v.Target) // what is mounted there now
	if err != nil {
		return r, err
	}
	defer root.Close()
	if r.Formatted {
		if err := root.Chmod(v.Mode); err != nil {
			return r, err
		}
	}
	r.Grown, err = growXFS(v.Device, root)
	return r, err
}

// ensure makes the file system where one is asked for.
func (v Volume) ensure(ctx context.Context, run Run) (made bool, err error) {
	c, err := examine(v.Device)
	if err != nil {
		return false, err
	}
	switch c.state {
	case filled:
		return false, nil
	case unmade:
		return true, formatDevice(ctx, run, v.Device, v.Label)
	}
	return false, v.advise(fmt.Errorf("it holds no XFS but %s", c.kind))
}

// ErrUnusable is what an error is when the volume holds something that can't be
// mounted. Only wiping it helps.
var ErrUnusable = errors.New("it can't be used as it is")

// advise adds to an error what to do about it.
func (v Volume) advise(err error) error {
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return err
	}
	switch v.Label {
	case wipe.State: // nobody is served without it
		return fmt.Errorf("%w: %w; what it holds is lost by starting the machine once with the kernel argument %s=system:%s", err, ErrUnusable, cmdline.WipeArgument, v.Label)
	case wipe.Ephemeral:
		return fmt.Errorf("%w: %w; what it holds is lost by: talosctl reset -n NODE --system-labels-to-wipe %s --reboot", err, ErrUnusable, v.Label)
	}
	return fmt.Errorf("%w: %w; what it holds is lost by wiping the disk", err, ErrUnusable)
}

// Unmount takes the volume away. Nothing mounted there is no error; one that is
// in use is.
func (v Volume) Unmount() error {
	err := unix.Unmount(v.Target, unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "unmount", Path: v.Target, Err: err}
	}
	return nil
}
