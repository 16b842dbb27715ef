package qemu

import (
	"errors"
	"fmt"
	"os"

	"talos/internal/fat"
)

// volumeSize is the least that makes a FAT32; what is not written takes no room.
const volumeSize = 160 << 20

// MakeVolume makes an image of a file system (FAT) with files in it, in place
// only when it is whole.
func MakeVolume(path, label string, files map[string][]byte) error {
	tmp := path + ".tmp"
	if err := fillVolume(tmp, label, files); err != nil {
		return errors.Join(fmt.Errorf("make volume %s: %w", path, err), os.RemoveAll(tmp))
	}
	return os.Rename(tmp, path)
}

func fillVolume(path, label string, files map[string][]byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(volumeSize)
	if err == nil {
		err = fat.FS{Size: volumeSize, Sector: 512, Label: label, Files: files}.Write(f)
	}
	return errors.Join(err, f.Close())
}
