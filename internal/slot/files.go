package slot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"talos/internal/fat"
)

// Files are those of an EFI system partition. Paths have slashes and no first
// one. What a method has done is on the disk when it returns. Errors about
// what is not there are fs.ErrNotExist.
type Files interface {
	List(dir string) ([]string, error) // names; of a folder that is not there, none
	Read(name string) ([]byte, error)  // what is on the disk
	Write(name string, data []byte) error
	Rename(from, to string) error // replaces to
	Remove(name string) error
}

// Dir is a folder that the partition is mounted at.
type Dir string

func (d Dir) at(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

// List implements Files.
func (d Dir) List(dir string) ([]string, error) {
	list, err := os.ReadDir(d.at(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, nil
}

// Read implements Files. What the kernel remembers of the file is dropped
// first, so that it comes from the disk.
func (d Dir) Read(name string) ([]byte, error) {
	f, err := os.Open(d.at(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, &fs.PathError{Op: "fadvise", Path: f.Name(), Err: err}
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if n < len(data) {
		return nil, err
	}
	return data, nil
}

// Write implements Files.
func (d Dir) Write(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(d.at(name)), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(d.at(name), data, 0o644); err != nil {
		return err
	}
	return d.sync()
}

// Rename implements Files.
func (d Dir) Rename(from, to string) error {
	if err := os.Rename(d.at(from), d.at(to)); err != nil {
		return err
	}
	return d.sync()
}

// Remove implements Files.
func (d Dir) Remove(name string) error {
	if err := os.Remove(d.at(name)); err != nil {
		return err
	}
	return d.sync()
}

// sync writes all of the file system: on FAT a file is more than what belongs
// to it alone.
func (d Dir) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: string(d), Err: err}
	}
	return nil
}

// Memory are files in memory, by path. FAT takes no notice of the case of
// names, and neither does it.
type Memory map[string][]byte

// Of takes of a partition's files what Read looks at: the names of the kernel
// images, and boot entries with what is in them.
func Of(list []fat.File) (Memory, error) {
	m := Memory{}
	for _, f := range list {
		switch dir := path.Dir(f.Name); {
		case strings.EqualFold(dir, kernelDir):
			m[f.Name] = nil
		case strings.EqualFold(dir, EntriesDir) && f.Data.Size() <= maxContent:
			content := make([]byte, f.Data.Size())
			if _, err := f.Data.ReadAt(content, 0); err != nil && !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("%s: %w", f.Name, err)
			}
			m[f.Name] = content
		}
	}
	return m, nil
}

func (m Memory) find(name string) (string, bool) {
	for have := range m {
		if strings.EqualFold(have, name) {
			return have, true
		}
	}
	return name, false
}

// List implements Files.
func (m Memory) List(dir string) ([]string, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if strings.EqualFold(path.Dir(name), dir) {
			names = append(names, path.Base(name))
		}
	}
	return names, nil
}

// Read implements Files.
func (m Memory) Read(name string) ([]byte, error) {
	have, ok := m.find(name)
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(m[have]), nil
}

// Write implements Files.
func (m Memory) Write(name string, data []byte) error {
	have, _ := m.find(name)
	m[have] = slices.Clone(data)
	return nil
}

// Rename implements Files.
func (m Memory) Rename(from, to string) error {
	have, ok := m.find(from)
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	data := m[have]
	delete(m, have)
	if old, ok := m.find(to); ok {
		delete(m, old)
	}
	m[to] = data
	return nil
}

// Remove implements Files.
func (m Memory) Remove(name string) error {
	have, ok := m.find(name)
	if !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	delete(m, have)
	return nil
}
