// Package hardening knows the kernel arguments and sysctls that a machine's
// security stands on, checks the first and sets the second.
//
// It owns the two tables and their reasons. What is built into the kernel is in
// the folder kernel; what the user wants of sysctls (machine.sysctls) is set
// after Apply and Defaults, by others, and may differ. Containers have their
// host's kernel: nothing here is for them.
//
// Functions keep no state. Apply and Defaults write files of the kernel, so they
// are called once, at boot, before anything else runs.
package hardening

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Sysctl is a setting of the kernel that Talos gives a value.
type Sysctl struct {
	// Name is written with dots. An element "*" stands for every network link
	// that is there, and for "all" and "default".
	Name  string
	Value string
	Why   string
	// Absent says that the kernel may not have it, because what it restricts or
	// tunes is not built in or was switched off by an argument (ipv6.disable).
	Absent bool
}

// Apply sets the sysctls of Enforced below root (/proc/sys) and reads each
// back. The error names all that could not be set: machined does not boot then.
func Apply(root string) error { return set(root, Enforced()) }

// Defaults does the same for the sysctls of Tuned. A machine works without,
// less well: an error is for the log.
func Defaults(root string) error { return set(root, Tuned()) }

func set(root string, sysctls []Sysctl) error {
	var errs []error
	for _, s := range sysctls {
		if err := s.set(root); err != nil {
			errs = append(errs, fmt.Errorf("set %s to %s: %w", s.Name, s.Value, err))
		}
	}
	return errors.Join(errs...)
}

func (s Sysctl) set(root string) error {
	path := filepath.Join(root, filepath.FromSlash(strings.ReplaceAll(s.Name, ".", "/")))
	paths := []string{path}
	if strings.Contains(s.Name, "*") {
		var err error
		if paths, err = filepath.Glob(path); err != nil {
			return err
		}
	}
	if len(paths) == 0 && !s.Absent {
		return &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	var errs []error
	for _, path := range paths {
		if err := write(path, s.Value); err != nil && !(s.Absent && errors.Is(err, fs.ErrNotExist)) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// write sets one file of /proc/sys and reads it back: the kernel takes some
// values without a word and keeps what it had.
func write(path, value string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if got := string(bytes.Join(bytes.Fields(data), []byte(" "))); got != value {
		return &fs.PathError{Op: "read back", Path: path, Err: fmt.Errorf("it is %q", got)}
	}
	return nil
}
