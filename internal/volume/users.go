package volume

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"talos/internal/disk"
)

// UserDisks are the disks that names mean, devices or links below /dev/disk,
// each once. Only what is the user's to lose is one: a whole disk, neither the
// system's (a device, "" for none) nor what the machine was started from (the id
// of a partition, "" for none). It touches nothing.
func UserDisks(disks []disk.Disk, names []string, system, boot string) ([]disk.Disk, error) {
	var out []disk.Disk
	var errs []error
	for _, name := range names {
		d, err := userDisk(disks, name, system, boot)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		case !slices.ContainsFunc(out, func(o disk.Disk) bool { return o.Name == d.Name }):
			out = append(out, d)
		}
	}
	return out, errors.Join(errs...)
}

func userDisk(disks []disk.Disk, name, system, boot string) (disk.Disk, error) {
	var others []string
	for _, d := range disks {
		for _, p := range d.Parts {
			if p.DevPath == name || slices.Contains(p.Symlinks, name) {
				return d, fmt.Errorf("that is a partition of %s, want a whole disk", d.DevPath)
			}
		}
		if d.DevPath == name || slices.Contains(d.Symlinks, name) {
			return d, mayLose(d, system, boot)
		}
		if mayLose(d, system, boot) == nil {
			others = append(others, d.DevPath)
		}
	}
	if len(others) == 0 {
		return disk.Disk{}, errors.New("there is no such disk, and none that could be wiped")
	}
	return disk.Disk{}, fmt.Errorf("there is no such disk; those that could be wiped are %s", strings.Join(others, ", "))
}

// mayLose says why a disk is not to be wiped.
func mayLose(d disk.Disk, system, boot string) error {
	started := func(p disk.Partition) bool { return slices.Contains(p.Symlinks, "/dev/disk/by-partuuid/"+boot) }
	switch {
	case d.DevPath == system:
		return errors.New("that is the system disk, of which partitions are wiped by their labels")
	case boot != "" && slices.ContainsFunc(d.Parts, started):
		return errors.New("that is what this system was started from")
	case !d.Physical():
		return errors.New("that is no disk of the machine's own, but a CD, or made of something else")
	case d.ReadOnly:
		return errors.New("that is read-only")
	}
	return nil
}

// Mark is what tells a disk from the machine's others also after a restart, when
// its device may have another name.
func Mark(disks []disk.Disk, d disk.Disk) string {
	for _, mark := range marks(d) {
		if found, ok := Marked(disks, mark); ok && found.Name == d.Name {
			return mark
		}
	}
	return "device " + d.DevPath // nothing better is known of it
}

// marks are from what is said to be unique in the world to what is not.
func marks(d disk.Disk) []string {
	var out []string
	for _, m := range [][2]string{{"wwid", d.WWID}, {"serial", d.Serial}, {"bus", d.BusPath}, {"device", d.DevPath}} {
		if m[1] != "" {
			out = append(out, m[0]+" "+m[1])
		}
	}
	return out
}

// Marked finds the one disk with a mark.
func Marked(disks []disk.Disk, mark string) (found disk.Disk, ok bool) {
	for _, d := range disks {
		if !slices.Contains(marks(d), mark) {
			continue
		}
		if ok {
			return disk.Disk{}, false // two have it
		}
		found, ok = d, true
	}
	return found, ok
}

// Holds says whether a path is in a file system of the disk.
func Holds(d disk.Disk, path string) (bool, error) {
	var on unix.Stat_t
	if err := unix.Stat(path, &on); err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	devices := []string{d.DevPath}
	for _, p := range d.Parts {
		devices = append(devices, p.DevPath)
	}
	for _, device := range devices {
		var st unix.Stat_t
		if err := unix.Stat(device, &st); err != nil {
			return false, fmt.Errorf("look at %s: %w", device, err)
		}
		if st.Rdev == on.Dev {
			return true, nil
		}
	}
	return false, nil
}
