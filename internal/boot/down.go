package boot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
			if left, err := alive("/proc"); err != nil || left == 0 {
				return err
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
		errs = append(errs, syncfs(dir))
	}
	return errors.Join(errs...)
}

// UnmountInner takes away what is mounted below the persistent folders or from
// EPHEMERAL, but not these folders themselves, so that they can be emptied, and
// nobody has the file system of a partition in use.
func UnmountInner(context.Context) error {
	all, err := mount.Below("")
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range all {
		if inner(m.Mountpoint) {
			errs = append(errs, mount.Detach(m.Mountpoint))
		}
	}
	return errors.Join(errs...)
}

// inner says whether a mount keeps a persistent folder in use.
func inner(path string) bool {
	if slices.Contains(persistent, path) {
		return false
	}
	return within(path, persistent...) || unmountable(path)
}

// unmountable says whether a mount is on EPHEMERAL, its bind elsewhere, or was
// made by the container runtime.
func unmountable(path string) bool {
	return within(path, layout.EphemeralDir, "/opt", "/etc/cni", "/run/containerd", "/run/netns")
}

// alive counts the processes beside the first one. The kernel's own threads,
// which a machine of its own shows among them, never end, and those that have
// ended only wait for their parent.
func alive(proc string) (n int, err error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err != nil || pid == 1 {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(proc, e.Name(), "stat"))
		if err != nil {
			continue // it has ended meanwhile
		}
		if runs(string(stat)) {
			n++
		}
	}
	return n, nil
}

// kernelThread is PF_KTHREAD of include/linux/sched.h.
const kernelThread = 0x00200000

// runs reads a process's stat file (proc(5)): behind the name in parentheses,
// which may hold anything, come the state and, sixth after that, the flags.
func runs(stat string) bool {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 7 || fields[0] == "Z" || fields[0] == "X" {
		return false
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	return err == nil && flags&kernelThread == 0
}
