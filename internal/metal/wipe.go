package metal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/install"
	"talos/internal/meta"
	"talos/internal/volume"
	"talos/internal/wipe"
)

// keyWipe is META's note of what a reset has begun to empty. It is of our own:
// others know keys below 0x80 only.
const keyWipe meta.Key = 0xf0

// note is what is to be emptied: partitions of the system disk by their labels,
// and the user's disks by their marks.
type note struct {
	Partitions []string `json:"partitions,omitempty"`
	Disks      []string `json:"disks,omitempty"`
}

// UserDisks finds the user's disks that names mean, to be wiped, and returns
// their marks. It also says whether a path is on one of them.
func (m *Machine) UserDisks(ctx context.Context, names []string, path string) (marks []string, holds bool, err error) {
	all, err := disk.List(ctx, "/")
	if err != nil {
		return nil, false, err
	}
	disks, err := volume.UserDisks(all, names, m.SystemDisk(), install.BootPartition(install.EFIVars))
	if err != nil {
		return nil, false, err
	}
	for _, d := range disks {
		on, err := volume.Holds(d, path)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, false, err
		}
		holds = holds || on
		marks = append(marks, volume.Mark(all, d))
	}
	return marks, holds, nil
}

// NoteWipe writes down what a reset empties, so that it is done at the next
// boot if it can't be now.
func (m *Machine) NoteWipe(partitions, disks []string) error {
	partitions, err := wipe.Parse(partitions)
	if err != nil {
		return err
	}
	return m.noteWipe(note{partitions, disks})
}

func (m *Machine) noteWipe(n note) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return m.meta.Set(keyWipe, text)
}

// Wipe empties what was noted, once nothing is mounted from it any more. What
// can't be emptied stays noted, and only that. META, where the note is, is the
// last.
func (m *Machine) Wipe(ctx context.Context) error {
	text, ok := m.meta.Get(keyWipe)
	if !ok {
		return nil
	}
	var n, left note
	if err := json.Unmarshal(text, &n); err != nil {
		return fmt.Errorf("read what is to be emptied: %w", err)
	}
	partitions, err := wipe.Parse(n.Partitions)
	if err != nil {
		return err
	}
	m.Log.Info("emptying", "partitions", partitions, "disks", n.Disks)
	var errs []error
	for _, label := range partitions {
		if label == wipe.Meta || m.system == nil { // without a system disk they are memory
			continue
		}
		if err := m.wipe(ctx, label); err != nil {
			errs, left.Partitions = append(errs, err), append(left.Partitions, label)
		}
	}
	for _, mark := range n.Disks {
		if err := m.wipeDisk(ctx, mark); err != nil {
			errs, left.Disks = append(errs, err), append(left.Disks, mark)
		}
	}
	last := slices.Contains(partitions, wipe.Meta)
	switch {
	case len(errs) > 0:
		if last {
			left.Partitions = append(left.Partitions, wipe.Meta)
		}
		return errors.Join(append(errs, m.noteWipe(left))...)
	case last:
		return m.meta.Clear()
	}
	return m.meta.Delete(keyWipe)
}

// wipeDisk empties a disk of the user's. One that was taken out meanwhile is no
// error: the machine it is in next may have it for something.
func (m *Machine) wipeDisk(ctx context.Context, mark string) error {
	disks, err := disk.List(ctx, "/")
	if err != nil {
		return err
	}
	d, ok := volume.Marked(disks, mark)
	if !ok || d.DevPath == m.SystemDisk() {
		m.Log.Error("a disk that was to be wiped is not there any more", "disk", mark)
		return nil
	}
	return whileBusy(ctx, func() error { return volume.WipeDisk(ctx, d.DevPath) })
}

func (m *Machine) wipe(ctx context.Context, label string) error {
	device := m.system.Partitions[label]
	if device == "" {
		return fmt.Errorf("wipe %s: the disk has no such partition", label)
	}
	m.mu.Lock()
	mounted := slices.Clone(m.mounted)
	m.mu.Unlock()
	for _, v := range mounted {
		if v.Label != label {
			continue
		}
		if label == wipe.Ephemeral && m.LetGo != nil {
			m.LetGo()
		}
		if err := whileBusy(ctx, v.Unmount); err != nil {
			return err
		}
	}
	return volume.Wipe(ctx, label, device)
}

// whileBusy tries for a moment: who has just been told to let go, or was killed,
// may not have done so yet.
func whileBusy(ctx context.Context, try func() error) error {
	const tries, pause = 40, 50 * time.Millisecond
	for n := 1; ; n++ {
		err := try()
		if err == nil || !errors.Is(err, unix.EBUSY) || n == tries {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
