package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/uuid"

	"talos/internal/fat"
	"talos/internal/gpt"
	"talos/internal/meta"
	"talos/internal/slot"
	"talos/internal/verity"
	"talos/internal/volume"
	"talos/internal/wipe"
)

// Options say what an installation is made with beside the system.
type Options struct {
	// Meta are META's first values.
	Meta meta.Values
	// State are STATE's first files, by path; they are there when the disk
	// boots for the first time, or the disk does not boot. With nil, STATE gets
	// its file system at the first boot.
	State map[string][]byte
	// Enroll is when the boot loader enrols the source's keys for Secure Boot:
	// "off", "manual", "if-safe" or "force"; "" leaves it to the loader.
	Enroll string
	// Args change the kernel's command line, as Arguments says. Under Secure
	// Boot the one in the signed image counts, whatever they are.
	Args []string
	// SameIDs makes all ids follow from the system, so that the same system
	// makes the same disk image.
	SameIDs bool
	// Run runs a program to its end and returns what it printed. It is needed
	// for State only.
	Run volume.Run
	// Progress, if not nil, is told what is done next.
	Progress func(string)
}

// Write installs on a disk, or on what stands for one, whatever is on it. It
// asks for ImageSize only; whether there is room for EPHEMERAL is the plan's.
func Write(ctx context.Context, d gpt.Device, s *Source, o Options) error {
	w := &writer{ctx: ctx, d: d, s: s, o: o, places: map[string]gpt.Partition{}}
	if err := w.prepare(); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	defer os.RemoveAll(w.temp)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"mark the disk as unfinished", w.mark},
		{"wipe what is on it", w.wipe},
		{"write the system", w.root},
		{"write the boot loader", w.esp},
		{"write META", w.meta},
		{"write STATE", w.state},
		{"read back", w.verify},
		{"write the partition table", w.finish},
	} {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("install: before: %s: %w", step.name, err)
		}
		if o.Progress != nil {
			o.Progress(step.name)
		}
		if err := step.do(); err != nil {
			return fmt.Errorf("install: %s: %w", step.name, err)
		}
	}
	return nil
}

// writer is one installation.
type writer struct {
	ctx        context.Context // of the one call that made it
	d          gpt.Device
	s          *Source
	o          Options
	table      *gpt.Table
	places     map[string]gpt.Partition // by label
	files      slot.Memory              // of the ESP
	metaCopy   []byte                   // a copy of META
	stateImage string                   // file with STATE's file system; "" for none
	temp       string
	wrote      []span
}

// span is what was written somewhere.
type span struct {
	at, size int64
	sum      [sha256.Size]byte
}

// prepare does all that can fail without the disk.
func (w *writer) prepare() (err error) {
	if w.files, err = w.s.esp(w.o); err != nil {
		return err
	}
	if w.metaCopy, err = meta.Encode(w.o.Meta); err != nil {
		return err
	}
	if least := ImageSize(w.d.SectorSize()); w.d.Size() < least {
		return fmt.Errorf("the disk has %d bytes, want at least %d", w.d.Size(), least)
	}
	if w.table, err = gpt.New(w.d, w.id("disk")); err != nil {
		return err
	}
	for _, p := range parts(w.d.SectorSize()) {
		id := w.id(p.label)
		if p.label == slot.A.RootLabel() {
			if id, err = uuid.Parse(w.s.Root.Root.PartitionID()); err != nil {
				return err
			}
		}
		if w.places[p.label], err = w.table.Add(p.label, p.kind, id, p.size); err != nil {
			return err
		}
	}
	if w.o.State == nil {
		return nil
	}
	if w.temp, err = os.MkdirTemp("", "install-"); err != nil {
		return err
	}
	w.stateImage = filepath.Join(w.temp, "state")
	if err := volume.MakeImage(w.ctx, w.o.Run, w.stateImage, wipe.State, w.places[wipe.State].Size, w.o.State); err != nil {
		return errors.Join(err, os.RemoveAll(w.temp))
	}
	return nil
}

// id is the id of a partition.
func (w *writer) id(of string) uuid.UUID {
	if !w.o.SameIDs {
		return uuid.New()
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, append(w.s.Root.Root[:], of...))
}

// WriteAt writes to the disk and remembers what.
func (w *writer) WriteAt(p []byte, at int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	w.wrote = append(w.wrote, span{at, int64(len(p)), sha256.Sum256(p)})
	return w.d.WriteAt(p, at)
}

// mark takes the old partition table's mark away.
func (w *writer) mark() error {
	first := make([]byte, w.d.SectorSize())
	copy(first, unfinished)
	if _, err := w.d.WriteAt(first, 0); err != nil {
		return err
	}
	return w.d.Sync()
}

// wipe takes away all marks by which the disk and its new partitions could be
// taken for something else.
func (w *writer) wipe() error {
	sector, end := int64(w.d.SectorSize()), w.d.Size()
	last := w.places[wipe.State]
	for _, r := range [][2]int64{
		{sector, mib - sector}, // a table; file systems of the whole disk
		{end - end%sector - mib, mib},
		{w.places[slot.B.RootLabel()].Offset, mib},
		{w.places[wipe.Meta].Offset, w.places[wipe.Meta].Size},
		{last.Offset, last.Size},
		{last.Offset + last.Size, mib}, // where EPHEMERAL will be
	} {
		if err := w.d.Zero(r[0], r[1]); err != nil {
			return err
		}
	}
	return w.d.Sync()
}

// root writes the image into its slot.
func (w *writer) root() error {
	return w.copyFrom(io.NewSectionReader(w.s.root, 0, w.s.Root.Size()), w.places[slot.A.RootLabel()].Offset, false)
}

// copyFrom copies all of r; holes says that what is zero there is so here.
func (w *writer) copyFrom(r io.Reader, at int64, holes bool) error {
	buf := make([]byte, mib)
	zeros := make([]byte, mib)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 && !(holes && bytes.Equal(buf[:n], zeros[:n])) {
			if _, err := w.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (w *writer) esp() error {
	p := w.places[EFILabel]
	id := w.id("volume")
	sector := w.d.SectorSize()
	return fat.FS{
		Size: p.Size, Sector: sector, Hidden: uint32(p.Offset / int64(sector)),
		ID: binary.BigEndian.Uint32(id[:]), Label: EFILabel, Files: w.files,
	}.Write(io.NewOffsetWriter(w, p.Offset))
}

func (w *writer) meta() error {
	at := w.places[wipe.Meta].Offset
	for _, offset := range []int64{0, meta.CopySize} {
		if _, err := w.WriteAt(w.metaCopy, at+offset); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) state() error {
	if w.stateImage == "" {
		return volume.MarkUnmade(w, w.places[wipe.State].Offset, w.places[wipe.State].Size)
	}
	f, err := os.Open(w.stateImage)
	if err != nil {
		return err
	}
	defer f.Close()
	return w.copyFrom(f, w.places[wipe.State].Offset, true) // wipe has zeroed it
}

// verify reads from the disk itself what was written to it.
func (w *writer) verify() error {
	if err := w.d.Sync(); err != nil {
		return err
	}
	if err := w.d.DropCache(); err != nil {
		return err
	}
	var buf []byte
	for _, s := range w.wrote {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		buf = slices.Grow(buf[:0], int(s.size))
		got := buf[:s.size]
		if _, err := w.d.ReadAt(got, s.at); err != nil {
			return fmt.Errorf("%d bytes at %d: %w", s.size, s.at, err)
		}
		if sha256.Sum256(got) != s.sum {
			return fmt.Errorf("%d bytes at %d: the disk does not return what was written", s.size, s.at)
		}
	}
	root := w.places[slot.A.RootLabel()]
	if err := verity.Check(io.NewSectionReader(w.d, root.Offset, root.Size), w.s.Root); err != nil {
		return fmt.Errorf("%s: %w", root.Label, err)
	}
	return nil
}

// finish writes the table, whose last write, the first sector, makes all that is
// there count. From then on the disk is installed, whatever this kernel makes of
// its partitions.
func (w *writer) finish() error {
	if err := w.table.Write(); err != nil && !errors.Is(err, gpt.ErrKernel) {
		return err
	}
	return nil
}

// Place is where a partition of an installed disk is.
func Place(d gpt.Device, label string) (gpt.Partition, error) {
	unfinished, err := Unfinished(d)
	if err != nil {
		return gpt.Partition{}, err
	}
	if unfinished {
		return gpt.Partition{}, errors.New("an installation was begun on this disk and not finished")
	}
	t, err := gpt.Read(d)
	if err != nil {
		return gpt.Partition{}, err
	}
	p, ok := t.Find(label)
	if !ok {
		return gpt.Partition{}, fmt.Errorf("the disk has no partition %s", label)
	}
	return p, nil
}
