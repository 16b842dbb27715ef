package wipe

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// empty removes what is in a folder, except names in keep. It goes on after what
// can't be removed and tells of each.
func empty(ctx context.Context, path string, keep []string) error {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return emptyOpen(ctx, dir, keep)
}

// emptyOpen removes what is in dir. The file system is walked by descriptors, so
// that nobody can move a link into the way.
func emptyOpen(ctx context.Context, dir *os.File, keep []string) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if slices.Contains(keep, name) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, remove(ctx, dir, name))
	}
	return errors.Join(errs...)
}

// remove removes a name in dir with all that is below it on the same mount.
func remove(ctx context.Context, dir *os.File, name string) error {
	path := filepath.Join(dir.Name(), name)
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	})
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return unlink(dir, name, path, 0)
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EXDEV):
		return &fs.PathError{Op: "wipe", Path: path, Err: errors.New("something is mounted there")}
	case err != nil:
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	inner := os.NewFile(uintptr(fd), path)
	err = emptyOpen(ctx, inner, nil)
	inner.Close()
	if err != nil {
		return err
	}
	return unlink(dir, name, path, unix.AT_REMOVEDIR)
}

func unlink(dir *os.File, name, path string, flags int) error {
	if err := unix.Unlinkat(int(dir.Fd()), name, flags); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}
