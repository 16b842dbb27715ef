// Package mtools has the programs of mtools read and change the EFI system
// partition of a disk image. Tests have it where the system itself is not to be
// the one that says what is there.
//
// It keeps no state; one process at a time may change an image.
package mtools

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Image is a FAT file system in a file, or in a part of one, that nobody has
// mounted. It is changed by the programs of mtools.
type Image struct {
	Path   string
	Offset int64 // where the file system begins, bytes
	// Run runs a program to its end and returns what it printed, both outputs in one.
	Run func(program string, args ...string) ([]byte, error)
}

func (m Image) run(program string, args ...string) ([]byte, error) {
	image := m.Path
	if m.Offset > 0 {
		image = fmt.Sprintf("%s@@%d", m.Path, m.Offset)
	}
	out, err := m.Run(program, append([]string{"-i", image}, args...)...)
	if err != nil && strings.Contains(string(out), "not found") {
		err = errors.Join(fs.ErrNotExist, err)
	}
	return out, err
}

func inside(name string) string { return "::/" + name }

// List implements slot.Files.
func (m Image) List(dir string) ([]string, error) {
	out, err := m.run("mdir", "-b", inside(dir)+"/")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		names = append(names, path.Base(strings.TrimSpace(line)))
	}
	return names, nil
}

// Read implements slot.Files.
func (m Image) Read(name string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "esp-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	local := filepath.Join(dir, "file")
	if _, err := m.run("mcopy", "-n", inside(name), local); err != nil {
		return nil, err
	}
	return os.ReadFile(local)
}

// Write implements slot.Files.
func (m Image) Write(name string, data []byte) error {
	dir, err := os.MkdirTemp("", "esp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	local := filepath.Join(dir, "file")
	if err := os.WriteFile(local, data, 0o600); err != nil {
		return err
	}
	if err := m.mkdir(path.Dir(name)); err != nil {
		return err
	}
	if _, err := m.run("mcopy", "-o", local, inside(name)); err != nil {
		return err
	}
	return m.sync()
}

// mkdir makes a folder and those above it.
func (m Image) mkdir(dir string) error {
	if dir == "." {
		return nil
	}
	if err := m.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if _, err := m.run("mdir", "-b", inside(dir)); err == nil {
		return nil
	}
	_, err := m.run("mmd", inside(dir))
	return err
}

// Rename implements slot.Files.
func (m Image) Rename(from, to string) error {
	if _, err := m.run("mdir", "-b", inside(from)); err != nil {
		return err
	}
	if _, err := m.run("mdel", inside(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := m.run("mmove", inside(from), inside(to)); err != nil {
		return err
	}
	return m.sync()
}

// Remove implements slot.Files.
func (m Image) Remove(name string) error {
	if _, err := m.run("mdel", inside(name)); err != nil {
		return err
	}
	return m.sync()
}

func (m Image) sync() error {
	f, err := os.OpenFile(m.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
