package boot

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/layout"
	"talos/internal/linux/mount"
)

// persistent are the file systems that must not lose anything.
var persistent = []string{layout.EphemeralDir, layout.StateDir, layout.MetaDir}

// KillAll ends every process but this one: SIGTERM, two seconds, SIGKILL. It
// must only be called by PID 1, for whom kill(2) of -1 means its own namespace.
func KillAll(ctx context.Context) error {
	if os.Getpid() != 1 {
		return errors.New("kill every process: this is not PID 1")
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.Kill(-1, sig); errors.Is(err, unix.ESRCH) {
			return nil
		} else if err != nil {
			return os.NewSyscallError("kill", err)
		}
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
			if errors.Is(unix.Kill(-1, 0), unix.ESRCH) {
				return nil
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return errors.New("processes outlived SIGKILL")
}

// Sync writes out the persistent file systems, and only those: in a container
// sync(2) would wait for all of the host's.
func Sync(context.Context) error {
	var errs []error
	for _, dir := range persistent {
		file, err := os.Open(dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := unix.Syncfs(int(file.Fd())); err != nil {
			errs = append(errs, &os.PathError{Op: "syncfs", Path: dir, Err: err})
		}
		file.Close()
	}
	return errors.Join(errs...)
}

// Unmount takes away what is mounted from or on EPHEMERAL, the last made first;
// the kernel finishes it when the last user has ended.
func Unmount(context.Context) error {
	all, err := mount.Below("")
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range all {
		if unmountable(m.Mountpoint) {
			errs = append(errs, mount.Detach(m.Mountpoint))
		}
	}
	return errors.Join(errs...)
}

// UnmountInner takes away what is mounted below the persistent folders, but not
// these, so that they can be emptied.
func UnmountInner(context.Context) error {
	var errs []error
	for _, dir := range persistent {
		all, err := mount.Below(dir)
		if err != nil {
			return err
		}
		for _, m := range all {
			if m.Mountpoint != dir {
				errs = append(errs, mount.Detach(m.Mountpoint))
			}
		}
	}
	return errors.Join(errs...)
}

// unmountable says whether a mount is on EPHEMERAL, its bind elsewhere, or was
// made by the container runtime.
func unmountable(path string) bool {
	for _, dir := range []string{layout.EphemeralDir, "/opt", "/etc/cni", "/run/containerd", "/run/netns"} {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}
