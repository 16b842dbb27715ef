package cri

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"talos/internal/linux/mount"
)

// ChooseSnapshotter tries whether overlayfs works on the file system of dir,
// where images will be kept, and names the snapshotter to use. err says why
// overlayfs was not chosen.
func ChooseSnapshotter(dir string) (name string, err error) {
	if err := tryOverlay(dir); err != nil {
		return "native", err
	}
	return "overlayfs", nil
}

func tryOverlay(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	probe, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(probe)) }()
	at := func(name string) string { return filepath.Join(probe, name) }
	for _, name := range []string{"lower1", "lower2", "upper", "work", "merged"} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			return err
		}
	}
	overlay := mount.Point{
		Source: "overlay", Target: at("merged"), Type: "overlay",
		// volatile: the end of the probe must not wait until all of dir's file
		// system is written out.
		Data: fmt.Sprintf("volatile,lowerdir=%s:%s,upperdir=%s,workdir=%s", at("lower2"), at("lower1"), at("upper"), at("work")),
	}
	if err := overlay.Mount(); err != nil {
		return err
	}
	defer func() {
		// Detached: a child that is just being started may hold the file below for
		// as long as it has not called exec.
		if e := unix.Unmount(overlay.Target, unix.MNT_DETACH); e != nil {
			err = errors.Join(err, &os.PathError{Op: "unmount", Path: overlay.Target, Err: e})
		}
	}()
	return os.WriteFile(filepath.Join(overlay.Target, "file"), []byte("x"), 0o600)
}
