package udevd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"talos/internal/linux/atomicfile"
)

// effects does actions. The folders are /dev, /sys and /run/udev but in tests.
type effects struct{ dev, sys, run string }

func (e effects) do(a Action) error {
	switch a := a.(type) {
	case SetNode:
		return e.setNode(a)
	case Link:
		return e.link(a)
	case Unlink:
		return e.unlink(a.Name)
	case Rename:
		return rename(a)
	case SetAttr:
		return e.setAttr(a)
	case Record:
		return e.record(a)
	case Forget:
		if err := os.Remove(e.recordFile(a.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return fmt.Errorf("unknown action %T", a)
}

// setNode changes a node that still has the device's number. Between events a
// name may have come to mean another device.
func (e effects) setNode(a SetNode) error {
	name := filepath.Join(e.dev, a.Name)
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // unplugged
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	kind := uint32(unix.S_IFCHR)
	if a.Block {
		kind = unix.S_IFBLK
	}
	if st.Mode&unix.S_IFMT != kind || st.Rdev != unix.Mkdev(a.Major, a.Minor) {
		return nil // another's
	}
	// A descriptor opened with O_PATH is changed through its name in /proc.
	self := fmt.Sprintf("/proc/self/fd/%d", fd)
	if int(st.Uid) != a.UID || int(st.Gid) != a.GID {
		if err := os.Chown(self, a.UID, a.GID); err != nil {
			return fmt.Errorf("owner of %s: %w", name, err)
		}
	}
	if st.Mode&0o7777 != a.Mode {
		if err := unix.Chmod(self, a.Mode); err != nil {
			return fmt.Errorf("mode of %s: %w", name, err)
		}
	}
	return nil
}

// inside says whether a name stays below /dev.
func inside(name string) bool { return name != "" && path.Join("/", name) == "/"+name }

// link makes a relative link, in place of one that leads elsewhere. What is no
// link stays: a node's name is the kernel's.
func (e effects) link(a Link) error {
	if !inside(a.Name) || !inside(a.Node) {
		return fmt.Errorf("link %q to %q: not below %s", a.Name, a.Node, e.dev)
	}
	target := strings.Repeat("../", strings.Count(a.Name, "/")) + a.Node
	name := filepath.Join(e.dev, a.Name)
	info, err := os.Lstat(name)
	switch {
	case err == nil && info.Mode()&fs.ModeSymlink == 0:
		return fmt.Errorf("link %s: %w, and is no link", name, fs.ErrExist)
	case err == nil:
		if to, err := os.Readlink(name); err == nil && to == target {
			return nil
		}
	case errors.Is(err, fs.ErrNotExist):
		if os.Symlink(target, name) == nil {
			return nil
		}
		// Its folder is not there yet, or somebody was faster.
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	// Whoever looks sees the old one or the new one.
	temporary := filepath.Join(filepath.Dir(name), ".new-"+strings.ReplaceAll(a.Node, "/", "-"))
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}

// unlink removes a link, and folders that are empty without it.
func (e effects) unlink(link string) error {
	name := filepath.Join(e.dev, link)
	if info, err := os.Lstat(name); !inside(link) || err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return nil // gone, or not ours
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir := path.Dir(link); dir != "."; dir = path.Dir(dir) {
		if os.Remove(filepath.Join(e.dev, dir)) != nil {
			break // not empty
		}
	}
	return nil
}

// rename renames a link, which must still have the name that it had.
func rename(a Rename) error {
	link, err := netlink.LinkByIndex(a.Index)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", a.From, err)
	}
	if have := link.Attrs().Name; have != a.From {
		return nil // somebody was faster
	}
	if err := netlink.LinkSetName(link, a.To); err != nil {
		return fmt.Errorf("rename link %s to %s: %w", a.From, a.To, err)
	}
	return nil
}

func (e effects) setAttr(a SetAttr) error {
	name := filepath.Join(e.sys, a.Path, a.Name)
	if !strings.HasPrefix(name, filepath.Join(e.sys, "devices")+"/") {
		return fmt.Errorf("write to %s: no attribute of a device", name)
	}
	if have, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(have)) == strings.TrimSpace(a.Value) {
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(a.Value)
	return errors.Join(err, f.Close())
}

// recordFile is where libudev looks for a device. A key has no slashes: only
// devices with a number are recorded.
func (e effects) recordFile(key string) string {
	return filepath.Join(e.run, "data", filepath.Base(key))
}

// record writes a record whole: readers are other programs.
func (e effects) record(a Record) error {
	name := e.recordFile(a.Key)
	err := atomicfile.Update(name, []byte(a.Text), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return atomicfile.Update(name, []byte(a.Text), 0o644)
	}
	return err
}
