package qemu

import (
	"errors"
	"fmt"
	"os"

	"talos/internal/gpt"
	"talos/internal/volume"
)

// Erase empties partitions of the machine's first disk, by their labels, as a
// reset would; those that are not there are left alone. The machine must be off.
func (v VM) Erase(labels ...string) error {
	if err := v.mustBeOff("erase partitions"); err != nil {
		return err
	}
	disk, err := gpt.Open(v.Disks[0].Path, false)
	if err != nil {
		return err
	}
	defer disk.Close()
	table, err := gpt.Read(disk)
	if errors.Is(err, gpt.ErrNone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("erase partitions of %s: %w", v.Name, err)
	}
	for _, label := range labels {
		p, ok := table.Find(label)
		if !ok {
			continue
		}
		if err := errors.Join(disk.Zero(p.Offset, p.Size), volume.MarkUnmade(disk, p.Offset, p.Size)); err != nil {
			return fmt.Errorf("erase %s of %s: %w", label, v.Name, err)
		}
	}
	return disk.Sync()
}

// Replace takes the machine's first disk out; the next start puts a new one in.
// The machine must be off.
func (v VM) Replace() error {
	if err := v.mustBeOff("replace the disk"); err != nil {
		return err
	}
	if err := os.Remove(v.Disks[0].Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (v VM) mustBeOff(what string) error {
	if _, running := v.Running(); running {
		return fmt.Errorf("%s of %s: it runs", what, v.Name)
	}
	return nil
}
