// Package sysfs reads devices from the kernel's device tree: where they are,
// what they are attached to, their attributes.
//
// It only reads, and bounded amounts: what attributes say comes from hardware
// and is not to be trusted. It keeps nothing between calls, except where the
// tree is. Everything in it is safe for concurrent use; a device may be
// unplugged at any time, which shows as attributes that are not there.
package sysfs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// maxAttr bounds an attribute: most are a page at the most.
const maxAttr = 4096

// maxText bounds what a property is shown as.
const maxText = 256

// FS is where sysfs is mounted, usually "/sys".
type FS string

// Device is a directory below /sys/devices. The zero value is no device.
type Device struct {
	fs   FS
	path string // "/devices/…", without symbolic links
}

// ErrNoDevice is what is returned for a path that is no device.
var ErrNoDevice = errors.New("no such device")

// Device resolves a path below the mount point, such as "/class/block/sda" or
// "/devices/virtual/net/lo".
func (f FS) Device(name string) (Device, error) {
	root, err := filepath.EvalSymlinks(string(f))
	if err != nil {
		return Device{}, err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return Device{}, fmt.Errorf("%s: %w", name, ErrNoDevice)
	}
	if err != nil {
		return Device{}, err
	}
	below, ok := strings.CutPrefix(real, root)
	if !ok || !strings.HasPrefix(below, "/devices/") {
		return Device{}, fmt.Errorf("%s is %s: %w", name, real, ErrNoDevice)
	}
	return Device{fs: f, path: below}, nil
}

// At is the device at a path as uevents name it, whether it is still there or
// not. A path that tries to leave the tree is none.
func (f FS) At(devpath string) (Device, error) {
	if !strings.HasPrefix(devpath, "/devices/") || path.Clean(devpath) != devpath {
		return Device{}, fmt.Errorf("%q: %w", devpath, ErrNoDevice)
	}
	return Device{fs: f, path: devpath}, nil
}

// Class lists the devices of a class, such as "block", in the order of their
// names. A kernel without the class has none of them.
func (f FS) Class(name string) ([]Device, error) { return present(f.list("/class/" + name)) }

// Bus lists the devices on a bus, such as "pci", in the order of their names.
func (f FS) Bus(name string) ([]Device, error) { return present(f.list("/bus/" + name + "/devices")) }

// present leaves out devices that are unplugged just now.
func present(devs []Device, err error) ([]Device, error) {
	return slices.DeleteFunc(devs, func(d Device) bool { return !d.Has("uevent") }), err
}

func (f FS) list(dir string) ([]Device, error) {
	entries, err := os.ReadDir(filepath.Join(string(f), dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Device
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(string(f), dir, e.Name()))
		if err != nil {
			continue // unplugged, or a file such as bonding_masters
		}
		// These links lead straight there; whether it still is, its attributes tell.
		if d, err := f.At(path.Join(dir, to)); err == nil {
			out = append(out, d)
		}
	}
	return out, nil
}

// Nodes lists the devices that have a node in /dev, those above others first.
// They are few among all devices.
func (f FS) Nodes() ([]Device, error) { return f.union([]string{"/dev/block", "/dev/char"}) }

// All lists every device that has a class or a bus, those above others first.
func (f FS) All() ([]Device, error) {
	var dirs []string
	for _, kind := range []struct{ dir, below string }{{"/class", ""}, {"/bus", "/devices"}} {
		entries, err := os.ReadDir(filepath.Join(string(f), kind.dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			dirs = append(dirs, path.Join(kind.dir, e.Name(), kind.below))
		}
	}
	return f.union(dirs)
}

// union lists the devices that folders of links lead to, each once.
func (f FS) union(dirs []string) ([]Device, error) {
	seen := map[string]bool{}
	var out []Device
	for _, dir := range dirs {
		devs, err := f.list(dir)
		if err != nil && !errors.Is(err, unix.ENOTDIR) {
			return nil, err
		}
		for _, d := range devs {
			if !seen[d.path] {
				seen[d.path] = true
				out = append(out, d)
			}
		}
	}
	slices.SortFunc(out, func(a, b Device) int {
		return cmp.Or(cmp.Compare(strings.Count(a.path, "/"), strings.Count(b.path, "/")), cmp.Compare(a.path, b.path))
	})
	return out, nil
}

// Valid says whether d is a device at all.
func (d Device) Valid() bool { return d.path != "" }

// Exists says whether the device is there now.
func (d Device) Exists() bool {
	_, err := os.Lstat(d.file(""))
	return d.Valid() && err == nil
}

// Path is where the device is, from "/devices/" on, as uevents have it.
func (d Device) Path() string { return d.path }

// Name is the kernel's name, with the "!" that stands for "/" in some.
func (d Device) Name() string { return path.Base(d.path) }

func (d Device) file(name string) string { return filepath.Join(string(d.fs), d.path, name) }

// Child is a device below d, by its path from there.
func (d Device) Child(name string) Device {
	return Device{fs: d.fs, path: path.Join(d.path, path.Clean("/"+name))}
}

// Sibling is the device beside d that has the name.
func (d Device) Sibling(name string) Device {
	return Device{fs: d.fs, path: path.Join(path.Dir(d.path), path.Clean("/"+name))}
}

// Linked is the device that a symbolic link of d leads to; the zero value if
// there is no such link.
func (d Device) Linked(name string) Device {
	to, err := os.Readlink(d.file(name))
	if err != nil || !d.Valid() {
		return Device{}
	}
	other, err := d.fs.At(path.Join(d.path, path.Dir(name), to))
	if err != nil {
		return Device{}
	}
	return other
}

// Slots are the hotplug slots of PCI by name, with the address of what is in
// them, such as "0000:01:00".
func (d Device) Slots() map[string]string {
	dir := filepath.Join(string(d.fs), "bus/pci/slots")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // a machine without any
	}
	slots := map[string]string{}
	for _, e := range entries {
		if data, err := os.ReadFile(filepath.Join(dir, e.Name(), "address")); err == nil {
			slots[e.Name()] = Text(data)
		}
	}
	return slots
}

// Subsystem is the class or the bus the device belongs to, such as "block".
func (d Device) Subsystem() string { return d.link("subsystem") }

// Driver is the driver bound to the device itself.
func (d Device) Driver() string { return d.link("driver") }

func (d Device) link(name string) string {
	to, err := os.Readlink(d.file(name))
	if err != nil {
		return ""
	}
	return path.Base(to)
}

// Parent is the nearest device above d, skipping the folders in between that
// only group ("block", "net"); none is the zero value.
func (d Device) Parent() Device {
	for p := path.Dir(d.path); strings.Count(p, "/") > 1; p = path.Dir(p) {
		above := Device{fs: d.fs, path: p}
		if _, err := os.Lstat(above.file("uevent")); err == nil {
			return above
		}
	}
	return Device{}
}

// Raw reads an attribute as it is, up to a page. A folder, one that can't be
// read and one that is not there are all nil: hardware differs.
func (d Device) Raw(name string) []byte {
	if !d.Valid() || strings.Contains(name, "..") {
		return nil
	}
	// Not by package os, whose poller would be told of each: there are thousands
	// when a machine starts.
	fd, err := unix.Open(d.file(name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	buf := make([]byte, maxAttr)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil
		}
		return buf[:n:n] // the kernel gives an attribute in one piece
	}
}

// Attr reads an attribute as text fit to be shown: see Text.
func (d Device) Attr(name string) string { return Text(d.Raw(name)) }

// Has says whether an attribute, or a folder, is there.
func (d Device) Has(name string) bool {
	_, err := os.Lstat(d.file(name))
	return d.Valid() && err == nil
}

// Entries lists the names in a folder of the device; none if it is not there.
func (d Device) Entries(name string) []string {
	entries, err := os.ReadDir(d.file(name))
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// Uevent reads the properties that the kernel has in the file uevent.
func (d Device) Uevent() map[string]string {
	props := map[string]string{}
	for line := range strings.Lines(string(d.Raw("uevent"))) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && key != "" {
			props[key] = value
		}
	}
	return props
}

// Text makes what hardware says fit for people and protobuf: valid UTF-8
// without control characters, the blanks around it cut off, at the most 256 bytes.
func Text(raw []byte) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, string(bytes.ToValidUTF8(firstLine(raw), nil)))
	s = strings.TrimSpace(s)
	for len(s) > maxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimSpace(s)
}

// firstLine is what comes before a line ends; leading NULs and blanks don't count.
func firstLine(raw []byte) []byte {
	raw = bytes.TrimLeft(raw, "\x00 \t\r\n")
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	return line
}
