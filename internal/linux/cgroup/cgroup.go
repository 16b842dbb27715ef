// Package cgroup makes the node's control groups and puts processes into them,
// on version 1 hierarchies and on version 2, and reads what a group uses.
//
// It sees the groups as they are mounted under Root: in a cgroup namespace the
// node's own subtree is the root. It keeps no state.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Root is where the hierarchies are mounted.
const Root = "/sys/fs/cgroup"

// Tree is the node's control groups.
type Tree struct {
	root string
	// V2 says that there is one hierarchy for all controllers.
	V2 bool
	// v1 are the folders of the version 1 hierarchies, each a controller's name
	// or several with commas.
	v1 []string
}

// Open looks at what is mounted.
func Open(root string) (*Tree, error) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return &Tree{root: root, V2: true}, nil
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	t := &Tree{root: root}
	for _, e := range entries {
		// A symbolic link is another name of a hierarchy; unified is version 2 without controllers.
		if !e.IsDir() || e.Name() == "unified" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, e.Name(), "cgroup.procs")); err == nil {
			t.v1 = append(t.v1, e.Name())
		}
	}
	if len(t.v1) == 0 {
		return nil, fmt.Errorf("no control groups are mounted in %s", root)
	}
	return t, nil
}

// Prepare makes the node's groups. On version 2 processes may only live in
// leaves: those of the root move to /init, then the controllers are handed
// down. On version 1 new groups get the processors and memory nodes of their
// parents, without which no process may enter.
func (t *Tree) Prepare(groups ...string) error {
	if !t.V2 {
		if err := t.inherit("/"); err != nil {
			return err
		}
		return t.makeAll(groups)
	}
	if err := t.makeAll(append([]string{"/init"}, groups...)); err != nil {
		return err
	}
	if err := t.leaveRoot(); err != nil {
		return err
	}
	for _, g := range append([]string{"/"}, groups...) {
		if err := t.delegate(g); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) makeAll(groups []string) error {
	for _, g := range groups {
		if err := t.Make(g); err != nil {
			return err
		}
	}
	return nil
}

// leaveRoot moves every process of the root into /init. Kernel threads stay.
func (t *Tree) leaveRoot() error {
	procs, err := os.ReadFile(filepath.Join(t.root, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(procs)) {
		err := write(filepath.Join(t.root, "init", "cgroup.procs"), pid)
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// delegate hands all controllers of a version 2 group down to its children.
func (t *Tree) delegate(group string) error {
	dir := filepath.Join(t.root, group)
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(text)) {
		err := write(filepath.Join(dir, "cgroup.subtree_control"), "+"+c)
		// Some controllers can't be handed down everywhere (cpu with real-time
		// processes, cpuset without an owner): those that can are enough.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// Make makes a group (a path from the node's root) with its parents.
func (t *Tree) Make(group string) error {
	if t.V2 {
		return os.MkdirAll(filepath.Join(t.root, group), 0o755)
	}
	for _, h := range t.v1 {
		if err := os.MkdirAll(filepath.Join(t.root, h, group), 0o755); err != nil {
			return err
		}
	}
	return t.inherit(group)
}

// inherit fills cpuset.cpus and cpuset.mems of a version 1 group and its
// parents where they are empty.
func (t *Tree) inherit(group string) error {
	i := slices.IndexFunc(t.v1, func(h string) bool { return slices.Contains(strings.Split(h, ","), "cpuset") })
	if i < 0 {
		return nil
	}
	base := filepath.Join(t.root, t.v1[i])
	path := base
	for _, name := range append([]string{""}, strings.Split(strings.Trim(group, "/"), "/")...) {
		parent := path
		path = filepath.Join(path, name)
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := fill(parent, path, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill copies what parent has into path's file when that is empty. A root that
// is empty takes what the kernel says is effective.
func fill(parent, path, file string) error {
	have, err := os.ReadFile(filepath.Join(path, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || strings.TrimSpace(string(have)) != "" {
		return err
	}
	from := filepath.Join(parent, file)
	if parent == path {
		kind, _ := strings.CutPrefix(file, "cpuset.")
		from = filepath.Join(path, "cpuset.effective_"+kind)
	}
	want, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return write(filepath.Join(path, file), strings.TrimSpace(string(want)))
}

// Enter moves a process into a group.
func (t *Tree) Enter(group string, pid int) error {
	text := strconv.Itoa(pid)
	if t.V2 {
		return write(filepath.Join(t.root, group, "cgroup.procs"), text)
	}
	for _, h := range t.v1 {
		if err := write(filepath.Join(t.root, h, group, "cgroup.procs"), text); err != nil {
			return err
		}
	}
	return nil
}

// Pids lists the processes of a group itself.
func (t *Tree) Pids(group string) ([]int, error) {
	path := filepath.Join(t.root, group, "cgroup.procs")
	if !t.V2 {
		path = filepath.Join(t.root, t.v1[0], group, "cgroup.procs")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// KillAll kills every process of a group and of those below it.
func (t *Tree) KillAll(group string) error {
	if t.V2 {
		return write(filepath.Join(t.root, group, "cgroup.kill"), "1")
	}
	base := filepath.Join(t.root, t.v1[0], group)
	return filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(filepath.Join(t.root, t.v1[0]), path)
		if err != nil {
			return err
		}
		pids, err := t.Pids(rel)
		for _, pid := range pids {
			if killErr := unix.Kill(pid, syscall.SIGKILL); killErr != nil && !errors.Is(killErr, unix.ESRCH) {
				err = errors.Join(err, os.NewSyscallError("kill", killErr))
			}
		}
		return err
	})
}

// Usage is what a group uses.
type Usage struct {
	MemoryBytes uint64 // working set: usage without inactive file cache
	CPU         time.Duration
}

// Usage reads what a process's group uses, with all groups below it.
func (t *Tree) Usage(pid int) (Usage, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return Usage{}, err
	}
	return t.usage(string(text))
}

func (t *Tree) usage(membership string) (Usage, error) {
	var u Usage
	if t.V2 {
		dir := filepath.Join(t.root, groupOf(membership, ""))
		memory, err := readUint(filepath.Join(dir, "memory.current"))
		if err != nil {
			return u, err
		}
		u.MemoryBytes = lessCache(memory, filepath.Join(dir, "memory.stat"), "inactive_file")
		u.CPU = time.Duration(field(filepath.Join(dir, "cpu.stat"), "usage_usec")) * time.Microsecond
		return u, nil
	}
	dir := filepath.Join(t.root, t.hierarchy("memory"), groupOf(membership, "memory"))
	memory, err := readUint(filepath.Join(dir, "memory.usage_in_bytes"))
	if err != nil {
		return u, err
	}
	u.MemoryBytes = lessCache(memory, filepath.Join(dir, "memory.stat"), "total_inactive_file")
	cpu, err := readUint(filepath.Join(t.root, t.hierarchy("cpuacct"), groupOf(membership, "cpuacct"), "cpuacct.usage"))
	u.CPU = time.Duration(cpu)
	return u, err
}

func (t *Tree) hierarchy(controller string) string {
	for _, h := range t.v1 {
		if slices.Contains(strings.Split(h, ","), controller) {
			return h
		}
	}
	return controller
}

// groupOf finds a process's group in the text of /proc/<pid>/cgroup; controller
// "" means version 2.
func groupOf(membership, controller string) string {
	for line := range strings.Lines(membership) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return parts[2]
		}
	}
	return "/"
}

func lessCache(memory uint64, stat, key string) uint64 {
	return memory - min(memory, field(stat, key))
}

// field reads a number from a file of "name value" lines, 0 if it isn't there.
func field(path, key string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == key {
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func readUint(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

func write(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
