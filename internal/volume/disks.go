package volume

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/layout"
)

// ExtraDisk is an entry of machine.disks: a disk that is the user's.
type ExtraDisk struct {
	Device     string
	Partitions []ExtraPartition
}

// ExtraPartition is a partition of it with its file system.
type ExtraPartition struct {
	Size       int64 // bytes; 0 is the rest, for the last
	Mountpoint string
}

// label is what the partition is known by: its mount point, as far as a
// partition's name goes.
func (p ExtraPartition) label() string {
	name := strings.ReplaceAll(strings.Trim(p.Mountpoint, "/"), "/", "-")
	const most = 36 // characters, in a GPT
	if len(name) > most {
		name = name[len(name)-most:] // the end tells more
	}
	return name
}

// PlanDisk says whether the disk is to be partitioned (true), or has those
// partitions already. A disk that holds anything else is refused: it is not
// wiped. resolved is the disk's device if Device is a link, system that of the
// system disk. It touches nothing.
func PlanDisk(x ExtraDisk, resolved, system string, content disk.Volume) (bool, error) {
	if err := x.check(resolved, system); err != nil {
		return false, fmt.Errorf("machine.disks: %s: %w", x.Device, err)
	}
	if content.Empty() {
		return true, nil
	}
	have := map[string]bool{}
	for _, e := range content.Table {
		have[e.Label] = true
	}
	missing := slices.ContainsFunc(x.Partitions, func(p ExtraPartition) bool { return !have[p.label()] })
	switch {
	case content.Kind == "gpt" && len(content.Table) == 0 && len(content.Others) == 0:
		return true, nil // a table and nothing in it
	case content.Kind != "gpt" || missing:
		return false, fmt.Errorf("machine.disks: %s is not empty: it holds %s; it is partitioned only when it is blank", x.Device, words(content))
	}
	return false, nil
}

func words(v disk.Volume) string {
	if v.Kind == "" {
		return "something that is not known"
	}
	out := v.Kind
	for _, e := range v.Table {
		out += fmt.Sprintf(", partition %d %s", e.Number, e.Label)
	}
	return out
}

// check refuses what can't be meant.
func (x ExtraDisk) check(resolved, system string) error {
	if resolved == system {
		return fmt.Errorf("that is the system disk")
	}
	if len(x.Partitions) == 0 {
		return fmt.Errorf("it has no partitions")
	}
	seen := map[string]bool{}
	for i, p := range x.Partitions {
		m := p.Mountpoint
		switch {
		case path.Clean(m) != m || !strings.HasPrefix(m, layout.EphemeralDir+"/"):
			return fmt.Errorf("mountpoint %q: want a path below %s, where alone something can be mounted", m, layout.EphemeralDir)
		case seen[p.label()]:
			return fmt.Errorf("mountpoint %q: there is another like it", m)
		case p.Size < 0 || (p.Size > 0 && p.Size < minXFS+gpt.Align):
			return fmt.Errorf("mountpoint %q: %d bytes are too few for a file system, at least %d are needed", m, p.Size, minXFS+gpt.Align)
		case p.Size == 0 && i < len(x.Partitions)-1:
			return fmt.Errorf("mountpoint %q: only the last partition may have no size", m)
		}
		seen[p.label()] = true
	}
	return nil
}

// MountDisk partitions the disk if PlanDisk says so, and mounts its file
// systems. resolved is the disk's device if Device is a link.
func MountDisk(ctx context.Context, run Run, x ExtraDisk, resolved string, partition bool) ([]Volume, error) {
	volumes, err := x.partitions(resolved, partition)
	if err != nil {
		return nil, fmt.Errorf("machine.disks: %s: %w", x.Device, err)
	}
	for _, v := range volumes {
		if _, err := v.Mount(ctx, run); err != nil {
			return nil, fmt.Errorf("machine.disks: %s: %w", x.Device, err)
		}
	}
	return volumes, nil
}

func (x ExtraDisk) partitions(device string, partition bool) ([]Volume, error) {
	d, err := gpt.Open(device, partition)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var t *gpt.Table
	if partition {
		t, err = x.create(d)
	} else {
		t, err = gpt.Read(d)
	}
	if err != nil {
		return nil, err
	}
	var out []Volume
	for _, p := range x.Partitions {
		found, ok := t.Find(p.label())
		if !ok {
			return nil, fmt.Errorf("it has no partition %s", p.label())
		}
		out = append(out, Volume{
			Label: found.Label, Device: PartitionPath(device, found.Number), Target: p.Mountpoint,
			Flags: unix.MS_NOSUID | unix.MS_NODEV, Mode: 0o755,
		})
	}
	return out, nil
}

func (x ExtraDisk) create(d *gpt.Disk) (*gpt.Table, error) {
	t, err := gpt.New(d, [16]byte{})
	if err != nil {
		return nil, err
	}
	for _, p := range x.Partitions {
		size := p.Size
		if size > 0 {
			size = (size + gpt.Align - 1) / gpt.Align * gpt.Align
		}
		if _, err := addBlank(d, t, p.label(), size); err != nil {
			return nil, err
		}
	}
	return t, t.Write()
}
