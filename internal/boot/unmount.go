package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"talos/internal/layout"
	"talos/internal/linux/mount"
)

// Unmount takes the persistent file systems away: STATE and META by themselves,
// so that nothing else which hangs is in their way, and EPHEMERAL with all that
// is mounted from it or on it, the user's disks too, the last made first. letGo
// has this process use nothing on EPHEMERAL any more. What can't be unmounted is
// made read-only, and the error says which that is and who uses it. In a
// container, where the file systems are parts of the host's, it is only synced:
// made read-only, it would be so for the host.
//
// What does not answer holds its goroutine until the machine is down.
func Unmount(container bool, letGo func()) func(context.Context) error {
	return func(ctx context.Context) error {
		all, err := mount.Below("")
		if err != nil {
			return err
		}
		groups := [][]*mountinfo.Info{nil, nil}
		for _, m := range all {
			switch {
			case within(m.Mountpoint, layout.StateDir, layout.MetaDir):
				groups[0] = append(groups[0], m)
			case unmountable(m.Mountpoint):
				groups[1] = append(groups[1], m)
			}
		}
		done := make(chan error, len(groups))
		go func() { done <- takeAway(ctx, groups[0], container) }()
		go func() {
			letGo()
			done <- takeAway(ctx, groups[1], container)
		}()
		var errs []error
		for range groups {
			select {
			case err := <-done:
				errs = append(errs, err)
			case <-ctx.Done():
				return errors.Join(append(errs, ctx.Err())...)
			}
		}
		return errors.Join(errs...)
	}
}

// Who was killed may use a file system for a moment yet.
const (
	busyTime  = time.Second
	busyPause = 50 * time.Millisecond
)

// takeAway unmounts in that order, again and again while there is progress or
// may be.
func takeAway(ctx context.Context, mounts []*mountinfo.Info, container bool) error {
	for end := time.Now().Add(busyTime); ; {
		last := time.Now().After(end) // whoever lets go until then is seen to have
		var busy []*mountinfo.Info
		var errs []error
		for _, m := range mounts {
			err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW)
			switch {
			case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // gone, maybe with the one above it
			case errors.Is(err, unix.EBUSY):
				busy = append(busy, m)
			default:
				errs = append(errs, &fs.PathError{Op: "unmount", Path: m.Mountpoint, Err: err})
			}
		}
		if len(busy) == 0 || len(errs) > 0 || ctx.Err() != nil || last {
			return errors.Join(append(errs, settle(busy, container)...)...)
		}
		mounts = busy
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
		}
	}
}

// settle makes read-only what stays mounted, which leaves it on the disk as an
// unmount would, and takes it out of sight.
func settle(mounts []*mountinfo.Info, container bool) (errs []error) {
	for _, m := range mounts {
		how := "it was made read-only"
		err := errors.New("the file system is the host's")
		if !container {
			err = unix.Mount("", m.Mountpoint, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
		if err != nil {
			how = fmt.Sprintf("it can't be made read-only either (%v), and was only synced", err)
			if err := syncfs(m.Mountpoint); err != nil {
				how = fmt.Sprintf("it could neither be made read-only nor synced: %v", err)
			}
		}
		by := strings.Join(users("/proc", m.Mountpoint), ", ")
		if by == "" {
			by = "something that is not known"
		}
		errs = append(errs, fmt.Errorf("%s, from %s, stays mounted: in use by %s; %s", m.Mountpoint, m.Source, by, how), mount.Detach(m.Mountpoint))
	}
	return errs
}

func syncfs(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Syncfs(int(file.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}

// mostUsers is how many are named.
const mostUsers = 5

// users names processes that have something below a folder open, as their own
// view of the file system calls it.
func users(proc, dir string) (out []string) {
	for _, pattern := range []string{"cwd", "root", "exe", "fd/*"} {
		links, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", pattern)) // the pattern is a good one
		for _, link := range links {
			target, err := os.Readlink(link)
			if err != nil || !within(target, dir) {
				continue // or it has ended
			}
			pid, _, _ := strings.Cut(strings.TrimPrefix(link, proc+"/"), "/")
			comm, _ := os.ReadFile(filepath.Join(proc, pid, "comm")) // as far as it is known
			if out = append(out, fmt.Sprintf("process %s (%s): %s", pid, strings.TrimSpace(string(comm)), target)); len(out) == mostUsers {
				return out
			}
		}
	}
	return out
}

// within says whether a path is one of these or below one.
func within(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}
