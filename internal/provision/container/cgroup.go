package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"talos/internal/loop"
	"talos/internal/provision/process"
)

// cgroupPatience is how long the kernel may take to let go of an emptied group.
const cgroupPatience = 10 * time.Second

// hierarchies lists where control groups are mounted, of both versions.
func hierarchies() ([]string, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != "cgroup" && m.FSType != "cgroup2" || !strings.HasPrefix(m.Mountpoint, "/sys/fs/cgroup"), false
	})
	if err != nil {
		return nil, fmt.Errorf("list control group hierarchies: %w", err)
	}
	var out []string
	for _, m := range mounts {
		if !slices.Contains(out, m.Mountpoint) {
			out = append(out, m.Mountpoint)
		}
	}
	return out, nil
}

// RemoveCgroup ends every process in a group and below it and removes the
// groups, in all hierarchies. path is never the root.
func RemoveCgroup(ctx context.Context, path string) error {
	if path = filepath.Clean(path); path == "/" || path == "." {
		return fmt.Errorf("remove control group %q: refused", path)
	}
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	if err := setFrozen(path, false); err != nil { // what is frozen does not end
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cgroupPatience)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		var errs []error
		for _, root := range roots {
			errs = append(errs, removeTree(filepath.Join(root, path)))
		}
		if err = errors.Join(errs...); err == nil {
			return nil
		}
		if !loop.Sleep(ctx, pause) {
			return fmt.Errorf("remove control group %s: %w", path, err)
		}
	}
}

// removeTree makes one attempt: children first, processes on the way.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	killAll(dir)
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, &fs.PathError{Op: "rmdir", Path: dir, Err: err})
	}
	return errors.Join(errs...)
}

// killAll ends the processes of one group. The group is opened by id only after
// the process is held, so that an id used again is not hit.
func killAll(dir string) {
	for _, pid := range members(dir) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // gone
		}
		if slices.Contains(members(dir), pid) {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // gone by now is fine
		}
		unix.Close(fd)
	}
}

func members(dir string) []int {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Usage reads the node's control groups; zero for what cannot be read.
func (n Node) Usage() process.Usage {
	roots, err := hierarchies()
	if err != nil {
		return process.Usage{}
	}
	var u process.Usage
	for _, root := range roots {
		dir := filepath.Join(root, n.Cgroup)
		for _, f := range []string{"memory.usage_in_bytes", "memory.current"} {
			if v, ok := number(filepath.Join(dir, f)); ok {
				u.Memory = v - field(filepath.Join(dir, "memory.stat"), "total_inactive_file", "inactive_file")
			}
		}
		if v, ok := number(filepath.Join(dir, "cpuacct.usage")); ok {
			u.CPU = time.Duration(v)
		}
		if v := field(filepath.Join(dir, "cpu.stat"), "usage_usec"); v > 0 {
			u.CPU = time.Duration(v) * time.Microsecond
		}
	}
	return u
}

func number(path string) (int64, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	v, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return v, err == nil
}

// field reads the first of names that a file of "name value" lines has.
func field(path string, names ...string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for _, name := range names {
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == name {
				v, err := strconv.ParseInt(f[1], 10, 64)
				if err == nil {
					return v
				}
			}
		}
	}
	return 0
}

// RemoveEmptyCgroup removes a group in all hierarchies where nothing is in it.
func RemoveEmptyCgroup(path string) {
	roots, err := hierarchies()
	if err != nil {
		return // nothing mounted, nothing to remove
	}
	for _, root := range roots {
		unix.Rmdir(filepath.Join(root, path)) // refused where somebody uses it
	}
}
