package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/slot"
	"talos/internal/verity"
	"talos/internal/wipe"
)

// MinEphemeral is the least that EPHEMERAL may have, in bytes.
const MinEphemeral = 2 << 30

// Disk is a disk and what is on it.
type Disk struct {
	disk.Disk
	Content disk.Volume
	// Unfinished says that an installation was begun on it and cut short: what is
	// there counts for nothing, a table included.
	Unfinished bool
	// Err is why not all could be read of it that tells what is on it. What could
	// be is in Content: a table there counts, whatever else is damaged.
	Err error
}

// unknown says that the system may be on the disk for all that is known of it.
// A drive without a medium is no disk.
func (d Disk) unknown() bool {
	return d.Err != nil && !errors.Is(d.Err, unix.ENOMEDIUM) && (d.Content.Kind != "gpt" || len(d.Content.Table) == 0)
}

// UnknownError is why it can't be said whether a machine has a system disk: the
// kernel has disks that do not answer or can't be read, and no other is it. Such
// a machine is not a blank one, not yet.
type UnknownError struct{ Disks []Disk }

// Error names them.
func (e *UnknownError) Error() string {
	return "this machine's system may be on a disk of which nothing is known: " + strings.Join(e.Why(), "; ")
}

// Why says of each disk what is wrong with it.
func (e *UnknownError) Why() []string {
	var out []string
	for _, d := range e.Disks {
		out = append(out, fmt.Sprintf("%s (model %q, serial %q): %v", d.DevPath, d.Model, d.Serial, d.Err))
	}
	return out
}

// System finds the system disk: the one that holds root, or, if that is on no
// disk (an ISO, the network), the one that is installed on. Two that could be
// it are an error: which of them has the machine's state can't be guessed. Where
// none is found and some can't be looked at, the error is an UnknownError.
//
// from is the name of the disk that the running system is read from, "" if it
// is none. That one is the system disk or there is an error: a machine that came
// from a disk is installed, and must not be taken for a blank one because that
// disk can't be read.
func System(disks []Disk, root verity.Root, from string) (Disk, bool, error) {
	var running, installed []Disk
	for _, d := range disks {
		labels := map[string]string{} // id by label
		for _, e := range d.Content.Table {
			labels[e.Label] = strings.ToLower(e.UUID)
		}
		_, hasState := labels[wipe.State]
		_, hasMeta := labels[wipe.Meta]
		if !hasState || !hasMeta || d.Unfinished {
			continue
		}
		installed = append(installed, d)
		if id := root.PartitionID(); labels[slot.A.RootLabel()] == id || labels[slot.B.RootLabel()] == id {
			running = append(running, d)
		}
	}
	if len(running) == 0 {
		running = installed
	}
	switch {
	case len(running) > 1: // below
	case from != "" && (len(running) == 0 || running[0].Name != from):
		return Disk{}, false, fmt.Errorf("the system is read from disk %s, on which %s and %s are not found: its partition table is damaged, or can't be read", from, wipe.State, wipe.Meta)
	case len(running) == 0:
		if unknown := slices.DeleteFunc(slices.Clone(disks), func(d Disk) bool { return !d.unknown() }); len(unknown) > 0 {
			return Disk{}, false, &UnknownError{unknown}
		}
		return Disk{}, false, nil
	default:
		return running[0], true, nil
	}
	var paths []string
	for _, d := range running {
		paths = append(paths, fmt.Sprintf("%s (serial %s)", d.DevPath, d.Serial))
	}
	return Disk{}, false, fmt.Errorf("%d disks are system disks: %s; wipe or take out all but one", len(paths), strings.Join(paths, ", "))
}

// PartitionPath is the node of a partition of a disk.
func PartitionPath(disk string, number int) string {
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		return disk + "p" + strconv.Itoa(number)
	}
	return disk + strconv.Itoa(number)
}

// Change is what is to be done to the system disk's table.
type Change int

// What can be.
const (
	Nothing Change = iota
	Create         // EPHEMERAL, in all of the gap
	Grow           // EPHEMERAL, into the gap behind it
)

// PlanEphemeral says what to do. free is the largest gap, growth the gap behind
// EPHEMERAL, both in bytes. It touches nothing.
func PlanEphemeral(partitions []gpt.Partition, free, growth int64) (Change, error) {
	has := func(label string) bool {
		return slices.ContainsFunc(partitions, func(p gpt.Partition) bool { return p.Label == label })
	}
	switch {
	case !has(wipe.State) || !has(wipe.Meta):
		return Nothing, fmt.Errorf("it has no %s or no %s: not a system disk", wipe.State, wipe.Meta)
	case has(wipe.Ephemeral) && growth > 0:
		return Grow, nil
	case has(wipe.Ephemeral):
		return Nothing, nil
	case free < MinEphemeral:
		return Nothing, fmt.Errorf("%d bytes are free on it, and %s needs at least %d", free, wipe.Ephemeral, int64(MinEphemeral))
	}
	return Create, nil
}

// Prepare makes EPHEMERAL's partition, or lets it fill a disk that has grown,
// and returns the nodes of the partitions by label, and what was done. The
// others may be in use. Nodes are returned with an error, too, where only that of
// EPHEMERAL can't be made or grown.
func Prepare(ctx context.Context, path string) (map[string]string, Change, error) {
	nodes, change, err := prepare(ctx, path)
	if err != nil {
		return nodes, Nothing, fmt.Errorf("system disk %s: %w", path, err)
	}
	return nodes, change, nil
}

func prepare(ctx context.Context, path string) (map[string]string, Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, Nothing, err
	}
	d, err := gpt.Open(path, false)
	if err != nil {
		return nil, Nothing, err
	}
	defer d.Close()
	t, err := gpt.Read(d)
	if err != nil {
		return nil, Nothing, err
	}
	nodes := nodesOf(path, t)
	change, err := apply(d, t)
	if err != nil {
		return nodes, Nothing, err
	}
	return nodesOf(path, t), change, nil
}

// nodesOf are the nodes of a disk's partitions by label; of several the first.
func nodesOf(path string, t *gpt.Table) map[string]string {
	nodes := map[string]string{}
	for _, p := range t.Partitions() {
		if _, twice := nodes[p.Label]; !twice {
			nodes[p.Label] = PartitionPath(path, p.Number)
		}
	}
	return nodes
}

// apply plans and does it.
func apply(d gpt.Device, t *gpt.Table) (Change, error) {
	growth := int64(0)
	e, ok := t.Find(wipe.Ephemeral)
	if ok {
		var err error
		if growth, err = t.Growth(e.Number); err != nil {
			return Nothing, err
		}
	}
	change, err := PlanEphemeral(t.Partitions(), t.Free(), growth)
	if err != nil || change == Nothing {
		return Nothing, err
	}
	if change == Grow {
		if e, err = t.Grow(e.Number); err == nil {
			err = moveMark(d, e, growth)
		}
	} else {
		_, err = addBlank(d, t, wipe.Ephemeral, 0)
	}
	if err != nil {
		return Nothing, err
	}
	return change, t.Write()
}

// moveMark has the end of a partition that grows say what the end said before,
// whatever was at that place.
func moveMark(d gpt.Device, p gpt.Partition, growth int64) error {
	was := make([]byte, len(making))
	if _, err := d.ReadAt(was, p.Offset+markAt(p.Size-growth)); err != nil {
		return err
	}
	n := min(growth, headSize)
	err := d.Zero(p.Offset+p.Size-n, n)
	if err == nil && string(was) == making {
		err = MarkUnmade(d, p.Offset, p.Size)
	}
	return errors.Join(err, d.Sync())
}

// addBlank adds a partition. Before it is there its ends are blank, so that what
// another system has left at that place is not taken for a part of it, and it is
// marked as one that has no file system yet.
func addBlank(d gpt.Device, t *gpt.Table, label string, size int64) (gpt.Partition, error) {
	p, err := t.Add(label, gpt.TypeLinux, uuid.Nil, size)
	if err != nil {
		return gpt.Partition{}, err
	}
	n := min(p.Size, headSize)
	return p, errors.Join(d.Zero(p.Offset, n), d.Zero(p.Offset+p.Size-n, n), MarkUnmade(d, p.Offset, p.Size), d.Sync())
}
