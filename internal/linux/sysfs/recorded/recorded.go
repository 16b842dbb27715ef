// Package recorded lays out device trees for tests, as they were recorded on
// machines with tools that only read.
//
// A recording is text, a line each: "/path = value", where value may have the
// escapes of Go's strings, "/path -> target" for a symbolic link, and "/path/"
// for a folder. Lines that start with # are comments.
package recorded

import (
	_ "embed"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Machine is the device tree of a virtual machine with disks behind virtio,
// NVMe, SATA, SCSI, USB, a RAID controller and a card reader, a CD drive, and
// five network cards.
//
//go:embed machine.txt
var Machine string

//go:embed events.txt
var events string

// Events are the kernel's messages about devices that came while that machine
// loaded its drivers, in their order.
func Events(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	for line := range strings.Lines(events) {
		text, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, []byte(text))
	}
	return out
}

// Lay makes a root folder with what the recordings say, one after the other,
// and returns it. A device's folder is the one that has a file uevent.
func Lay(t testing.TB, recordings ...string) string {
	t.Helper()
	root := folder(t)
	l := layer{root: root, made: map[string]bool{}}
	for _, text := range recordings {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			if err := l.lay(line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	return root
}

// File is Lay with recordings from files.
func File(t testing.TB, names ...string) string {
	t.Helper()
	var texts []string
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(data))
	}
	return Lay(t, texts...)
}

// folder is a temporary one, in memory where there is a place for it: hundreds
// of small files take seconds on a busy disk.
func folder(t testing.TB) string {
	t.Helper()
	root, err := os.MkdirTemp("/dev/shm", "recorded-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Errorf("remove %s: %v", root, err)
		}
	})
	return root
}

type layer struct {
	root string
	made map[string]bool
}

func (l layer) folder(name string) error {
	if l.made[name] {
		return nil
	}
	l.made[name] = true
	return os.MkdirAll(name, 0o755)
}

func (l layer) lay(line string) error {
	if name, target, ok := strings.Cut(line, " -> "); ok {
		name = filepath.Join(l.root, name)
		if err := l.folder(filepath.Dir(name)); err != nil {
			return err
		}
		return os.Symlink(target, name)
	}
	name, value, ok := strings.Cut(line, " = ")
	if !ok {
		return l.file(strings.TrimSuffix(line, " ="), "")
	}
	text, err := strconv.Unquote(`"` + value + `"`)
	if err != nil {
		return err
	}
	return l.file(name, text)
}

// file writes a file; a name that ends in a slash is a folder's.
func (l layer) file(name, text string) error {
	full := filepath.Join(l.root, name)
	if strings.HasSuffix(name, "/") {
		return l.folder(full)
	}
	if err := l.folder(filepath.Dir(full)); err != nil {
		return err
	}
	return os.WriteFile(full, []byte(text), 0o644)
}

//go:embed udev.txt
var udev string

// Udev is what systemd-udevd made of that machine: links below /dev by what they
// lead to, modes and groups of nodes, and names of network links.
type Udev struct {
	Links map[string]string // "/dev/disk/by-id/…" to "../../sda"
	Nodes map[string][2]int // "/dev/sda" to mode and group
	Net   map[string]string // the link's place in sysfs to its name
}

// ByUdev reads the recording.
func ByUdev(t testing.TB) Udev {
	t.Helper()
	out := Udev{Links: map[string]string{}, Nodes: map[string][2]int{}, Net: map[string]string{}}
	for line := range strings.Lines(udev) {
		f := strings.Fields(line)
		switch {
		case f[0] == "LINK":
			out.Links[f[1]] = f[2]
		case f[0] == "NET":
			out.Net[filepath.Dir(strings.TrimPrefix(f[2], "../.."))] = f[1]
		case f[0] == "NODE":
			mode, err := strconv.ParseInt(f[2], 8, 32)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			group, err := strconv.Atoi(f[3])
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			out.Nodes[f[1]] = [2]int{int(mode), group}
		}
	}
	return out
}
