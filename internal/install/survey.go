package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/gpt"
)

// Survey looks at what is on disks. boot is the id of the partition that the
// running system came from; "" if it is none. A disk that can't be read, or does not
// answer, has something on it that is not known.
func Survey(ctx context.Context, disks []disk.Disk, boot string) []Candidate {
	disks = slices.DeleteFunc(slices.Clone(disks), func(d disk.Disk) bool { return !d.Physical() })
	looked := disk.Ask(ctx, disks, disk.Patience, func(d disk.Disk) (Candidate, error) {
		c := Candidate{Disk: d}
		err := c.look(boot)
		return c, err
	})
	var out []Candidate
	for i, d := range disks {
		c := looked[i].Value
		if err := looked[i].Err; err != nil && !errors.Is(err, unix.ENOMEDIUM) {
			c.Found = []Found{{Kind: fmt.Sprintf("what can't be read: %v", err)}}
		}
		c.Disk = d
		out = append(out, c)
	}
	return out
}

func (c *Candidate) look(boot string) error {
	d, err := gpt.OpenReadOnly(c.DevPath)
	if err != nil {
		return err
	}
	defer d.Close()
	c.Boot = boot != "" && holds(d, boot)
	c.Found, c.Unfinished, err = inspect(d)
	return err
}

// holds says whether a disk has the partition with that id.
func holds(d gpt.Device, id string) bool {
	v, err := disk.Recognise(d, uint64(d.Size()), uint(d.SectorSize()))
	return err == nil && slices.ContainsFunc(v.Table, func(e disk.Entry) bool { return strings.EqualFold(e.UUID, id) })
}

// inspect says what is on a disk, and whether an installation was begun there.
func inspect(d gpt.Device) ([]Found, bool, error) {
	unfinished, err := Unfinished(d)
	if err != nil || unfinished {
		return nil, unfinished, err
	}
	v, err := disk.Recognise(d, uint64(d.Size()), uint(d.SectorSize()))
	if err != nil {
		return nil, false, err
	}
	if v.Empty() {
		return nil, false, nil
	}
	var out []Found
	if v.Kind != "gpt" || len(v.Table) == 0 {
		out = append(out, Found{Kind: v.Kind, Label: v.Label})
	}
	for _, kind := range v.Others {
		if kind != "gpt" {
			out = append(out, Found{Kind: kind})
		}
	}
	for _, e := range v.Table {
		if e.Offset >= uint64(d.Size()) || e.Size > uint64(d.Size())-e.Offset {
			out = append(out, Found{Partition: e.Number, Label: e.Label, Kind: "beyond the end of the disk"})
			continue
		}
		inner, err := disk.Recognise(io.NewSectionReader(d, int64(e.Offset), int64(e.Size)), e.Size, uint(d.SectorSize()))
		if err != nil {
			return nil, false, err
		}
		out = append(out, Found{Partition: e.Number, Label: e.Label, Kind: inner.Kind, Size: int64(e.Size)})
	}
	return out, false, nil
}

// unfinished is what the first sector holds while we write. No firmware and no
// kernel takes it for a partition table.
const unfinished = "talos: an installation was begun here and not finished\n"

// Unfinished says whether an installation was begun on a disk and cut short. The
// table may be there already, but for the sector by which it counts.
func Unfinished(d gpt.Device) (bool, error) {
	first := make([]byte, d.SectorSize())
	if _, err := d.ReadAt(first, 0); err != nil {
		return false, err
	}
	return bytes.HasPrefix(first, []byte(unfinished)) && !bytes.Equal(first[510:512], []byte("\x55\xaa")), nil
}
