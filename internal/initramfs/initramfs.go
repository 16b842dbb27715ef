// Package initramfs is what happens between the kernel and machined: it finds
// the image that the kernel's command line names by its hash, has every block
// of it checked from then on, and hands the machine over to it.
//
// The image is /rootfs.img where the initramfs brings it (booted from an ISO,
// the network or by hand), else the partition whose GPT id follows from the
// hash. There is no other way: an image with another hash is never started.
// The watchdog is armed before anything else, so that a boot that hangs ends.
//
// It runs once, in PID 1, and leaves configuration, networking and every other
// disk alone.
package initramfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/cmdline"
	"talos/internal/layout"
	"talos/internal/linux/dm"
	"talos/internal/linux/loopdev"
	"talos/internal/linux/mount"
	"talos/internal/linux/watchdog"
	"talos/internal/verity"
)

const (
	// Image is where an initramfs brings the root.
	Image = "/rootfs.img"
	// Install is a folder with what an installation needs beside it.
	Install = "/install"

	newRoot    = "/root"
	deviceName = "root"
	program    = "/usr/bin/init"

	// bootTime is how long machined may take to feed the watchdog, where that knows
	// such times. Firmware and disks are behind us; emulation is slow.
	bootTime = 3 * time.Minute
	// patience is for disks that show up late.
	patience = 2 * time.Minute
)

// Run hands the machine over to the image. It returns only when it can't.
func Run(ctx context.Context, log *slog.Logger) error {
	if err := mountKernel(); err != nil {
		return err
	}
	environ := []string{"PATH=/usr/bin:/usr/sbin", "TERM=linux"}
	feed := func() {}
	if w, err := watchdog.Open(watchdog.Device, bootTime); err == nil {
		feed = func() { _ = w.Feed() } // what can't be fed ends the boot, as it should
		variable, err := w.Bequeath()
		if err != nil {
			return err
		}
		environ = append(environ, variable)
		log.Info("watchdog armed", "timeout", w.Timeout())
	} else if !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the watchdog is not armed", "err", err)
	}
	line, err := cmdline.Read()
	if err != nil {
		return err
	}
	param, err := verity.FromCommandLine(line)
	if err != nil {
		return err
	}
	device, release, err := find(ctx, log, param, feed)
	if err != nil {
		return err
	}
	feed()
	log.Info("root found", "device", device, "hash", param.Root)
	if err := errors.Join(open(device, param), release()); err != nil {
		return err
	}
	return enter(environ)
}

func mountKernel() error {
	const flags = unix.MS_NOSUID | unix.MS_NOEXEC
	for _, p := range []mount.Point{
		{Source: "proc", Target: "/proc", Type: "proc", Flags: flags | unix.MS_NODEV},
		{Source: "sysfs", Target: "/sys", Type: "sysfs", Flags: flags | unix.MS_NODEV},
		{Source: "devtmpfs", Target: "/dev", Type: "devtmpfs", Flags: unix.MS_NOSUID, Data: "mode=0755"},
	} {
		if err := os.MkdirAll(p.Target, 0o755); err != nil {
			return err
		}
		if err := p.Mount(); err != nil && !errors.Is(err, unix.EBUSY) { // the kernel may have mounted /dev
			return err
		}
	}
	return nil
}

// find returns the device that holds the image, and what lets go of it once it is
// in use. The watchdog, which may have less time than a disk, is fed while it is
// waited for.
func find(ctx context.Context, log *slog.Logger, param verity.Param, feed func()) (device string, release func() error, err error) {
	if _, err := os.Stat(Image); err == nil {
		return attach(Image, param)
	}
	device, err = wait(ctx, log, param, feed)
	return device, func() error { return nil }, err
}

// attach makes a device of a file. It is gone again as soon as nobody has it open:
// until it is in use that is we.
func attach(image string, param verity.Param) (device string, release func() error, err error) {
	info, err := os.Stat(image)
	if err != nil {
		return "", nil, err
	}
	if info.Size() < param.Size() {
		return "", nil, fmt.Errorf("%s has %d bytes, want the %d that the kernel's command line tells", image, info.Size(), param.Size())
	}
	device, keep, err := loopdev.Attach(image)
	if err != nil {
		return "", nil, err
	}
	return device, keep.Close, nil
}

// wait returns the partition that holds the image, once it is there.
func wait(ctx context.Context, log *slog.Logger, param verity.Param, feed func()) (string, error) {
	id := param.Root.PartitionID()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for told := false; ; {
		path, seen, err := partition(sysBlock, "/dev", id)
		if err != nil || path != "" {
			return path, err
		}
		if !told {
			log.Info("waiting for the root partition", "id", id, "disks", strings.Join(seen, " "))
			told = true
		}
		feed()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("find the root partition %s: none in %v on the disks %q", id, patience, seen)
		}
	}
}

// open mounts the image, checked block by block.
func open(device string, param verity.Param) error {
	path, err := dm.Create(deviceName, checked(device, param))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	return mount.Point{Source: path, Target: newRoot, Type: "squashfs", Flags: unix.MS_RDONLY | unix.MS_NODEV}.Mount()
}

// enter makes the image the root and runs its init. What the initramfs held is
// removed, since its memory comes back only so; what an installation needs stays.
func enter(environ []string) error {
	if err := keepMedium(); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return &fs.PathError{Op: "move mount", Path: dir, Err: err}
		}
	}
	if err := empty("/", filepath.Base(newRoot), filepath.Base(Install)); err != nil {
		return err
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return &fs.PathError{Op: "move mount", Path: newRoot, Err: err}
	}
	if err := unix.Chroot("."); err != nil {
		return &fs.PathError{Op: "chroot", Path: newRoot, Err: err}
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return &fs.PathError{Op: "execute", Path: program, Err: unix.Exec(program, []string{program}, environ)}
}

// keepMedium shows what an installation needs at layout.MediumDir.
func keepMedium() error {
	if _, err := os.Stat(Install); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	// The loop device goes on reading it, under whichever name.
	if err := os.Rename(Image, filepath.Join(Install, filepath.Base(Image))); err != nil {
		return err
	}
	return mount.Point{
		Source: Install, Target: newRoot + layout.MediumDir, Flags: unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC,
	}.Mount()
}

// empty removes what is in a folder, but for some names and other file systems.
func empty(dir string, but ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	keep := map[string]bool{"proc": true, "sys": true, "dev": true}
	for _, name := range but {
		keep[name] = true
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
