// Package atomicfile replaces small files as a whole: whoever reads one sees
// the old content or the new, never a part of either.
//
// It owns the temporary file, whose name starts with a dot, and the rename; the
// folder must exist. Concurrent writers of one file do no harm: one of them
// wins.
package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// keepOwner leaves a new file to the user that we are.
const keepOwner = -1

// Update makes the file at path hold data. One that does so already is left
// alone, so that nobody who watches it wakes up. What was written may be lost
// with the power.
func Update(path string, data []byte, mode fs.FileMode) error {
	return UpdateAs(path, data, mode, keepOwner)
}

// UpdateAs is Update for a file that belongs to uid and its group.
func UpdateAs(path string, data []byte, mode fs.FileMode, uid int) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return replace(path, data, mode, uid, func(*os.File) error { return nil })
}

// Save makes the file at path hold data, also after a loss of power that
// follows its return; after an earlier one it holds the old content.
func Save(path string, data []byte, mode fs.FileMode) error {
	if err := replace(path, data, mode, keepOwner, (*os.File).Sync); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func replace(path string, data []byte, mode fs.FileMode, uid int, sync func(*os.File) error) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temp.Name()) // gone already when all went well
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode))
	if uid != keepOwner {
		err = errors.Join(err, temp.Chown(uid, uid))
	}
	if err = errors.Join(err, sync(temp), temp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(temp.Name(), path)
}
