package initramfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/siderolabs/go-blockdevice/v2/block"
	"github.com/siderolabs/go-blockdevice/v2/partitioning/gpt"
)

const sysBlock = "/sys/block"

// partition looks on every disk for the partition with a GPT id and returns its
// device node, or "" and what was looked at. A disk that can't be read, or that
// has no such table, is none of ours; nor is one, yet, whose table the kernel has
// not taken: it does so a moment after the disk is there.
func partition(sys, dev, id string) (path string, seen []string, err error) {
	disks, err := os.ReadDir(sys)
	if err != nil {
		return "", nil, err
	}
	for _, d := range disks {
		if skip(d.Name()) {
			continue
		}
		seen = append(seen, d.Name())
		number, err := numberOf(filepath.Join(dev, d.Name()), id)
		if err != nil || number == 0 {
			continue
		}
		name, err := nameOf(filepath.Join(sys, d.Name()), number)
		if err != nil {
			continue // it goes just now
		}
		if name == "" {
			seen[len(seen)-1] += fmt.Sprintf(" (whose partition %d the kernel does not know)", number)
			continue
		}
		return filepath.Join(dev, name), seen, nil
	}
	return "", seen, nil
}

// skip leaves out what holds no partitions that we boot from.
func skip(name string) bool {
	for _, prefix := range []string{"loop", "ram", "zram", "dm-", "sr", "fd", "nbd"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// numberOf returns the number of the partition with that id, or 0.
func numberOf(disk, id string) (int, error) {
	d, err := block.NewFromPath(disk)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	device, err := gpt.DeviceFromBlockDevice(d)
	if err != nil {
		return 0, fmt.Errorf("disk %s: %w", disk, err)
	}
	table, err := gpt.Read(device)
	if err != nil {
		return 0, fmt.Errorf("read partition table of %s: %w", disk, err)
	}
	for i, p := range table.Partitions() {
		if p != nil && strings.EqualFold(p.PartGUID.String(), id) {
			return i + 1, nil
		}
	}
	return 0, nil
}

// nameOf finds the kernel's name of a disk's partition: sda1, nvme0n1p1; "" while
// it has none.
func nameOf(disk string, number int) (string, error) {
	entries, err := os.ReadDir(disk)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !e.IsDir() { // an attribute of the disk
			continue
		}
		text, err := os.ReadFile(filepath.Join(disk, e.Name(), "partition"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n == number {
			return e.Name(), nil
		}
	}
	return "", nil
}
