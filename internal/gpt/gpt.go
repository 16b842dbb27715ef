// Package gpt reads and changes partition tables, and the bytes of disks and of
// files that stand for disks.
//
// It owns the order in which a table is written: the copy at the end of the
// disk, then the one at the start, then the sector that says there is a table
// at all, each synced before the next begins. So a loss of power leaves the old
// table or the new one; with the start half written, firmware (UEFI 2.10, 5.3.2)
// and Read take the copy. What partitions are for is the caller's business. A
// Table is not safe for concurrent use, nor are two of one disk.
package gpt

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/uuid"
	blockgpt "github.com/siderolabs/go-blockdevice/v2/partitioning/gpt"
)

// Types of partitions.
var (
	TypeEFI   = uuid.MustParse("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	TypeRoot  = uuid.MustParse("4f68bce3-e8cd-4db1-96e7-fbcaf984b709") // of a system on x86-64
	TypeLinux = uuid.MustParse("0fc63daf-8483-4772-8e79-3d69d8477de4")
)

// Align is what partitions begin at multiples of, in bytes.
const Align = 1 << 20

// Device is a disk.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Zero(offset, length int64) error
	Sync() error // returns when all is where a loss of power can't reach it
	DropCache() error
	Size() int64
	SectorSize() int
}

// kernel is a device whose partitions the kernel has.
type kernel interface {
	lastPartition() (int, error)
	addPartition(number int, offset, size int64) error
	resizePartition(number int, offset, size int64) error
	deletePartition(number int) error
}

// Partition is an entry of a table.
type Partition struct {
	Number int // from 1
	Label  string
	Type   uuid.UUID
	ID     uuid.UUID
	Offset int64 // bytes from the start of the disk
	Size   int64 // bytes
}

// Table is the table of a disk, as it is there or is going to be.
type Table struct {
	d      *ordered
	t      *blockgpt.Table
	fresh  bool
	added  []int
	resize []int
}

// ErrNone is what Read says of a disk without a table.
var ErrNone = errors.New("there is no partition table")

// ErrKernel is what Write says when the table is on the disk, whole, and the
// kernel could not be told of it: it finds it at the next start.
var ErrKernel = errors.New("the kernel does not take the partition table")

// Read reads the table of a disk: the copy at its end, if the one at the start
// is not whole.
func Read(d Device) (*Table, error) {
	o := &ordered{Device: d}
	t, err := blockgpt.Read(o)
	if err != nil {
		// The library tells a disk without a table from one that can't be read in words only.
		if _, readErr := d.ReadAt(make([]byte, d.SectorSize()), 0); readErr != nil {
			return nil, fmt.Errorf("read the partition table: %w", readErr)
		}
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	table := &Table{d: o, t: t}
	if err := table.check(); err != nil {
		return nil, fmt.Errorf("partition table: %w", err)
	}
	return table, nil
}

// check refuses what a careless or hostile hand may have written.
func (t *Table) check() error {
	list := t.Partitions()
	slices.SortFunc(list, func(a, b Partition) int { return cmp.Compare(a.Offset, b.Offset) })
	end := 2*int64(t.d.SectorSize()) + 128*128 // the table itself
	for _, p := range list {
		if p.Size <= 0 || p.Offset < end || p.Offset+p.Size > t.d.Size() {
			return fmt.Errorf("partition %d, %d bytes at %d, overlaps another, the table or the end of the disk", p.Number, p.Size, p.Offset)
		}
		end = p.Offset + p.Size
	}
	return nil
}

// New makes an empty table, which is not on the disk before Write. uuid.Nil as
// its id stands for a random one.
func New(d Device, id uuid.UUID) (*Table, error) {
	o := &ordered{Device: d, fresh: true}
	t, err := blockgpt.New(o, blockgpt.WithDiskGUID(id))
	if err != nil {
		return nil, fmt.Errorf("make a partition table: %w", err)
	}
	return &Table{d: o, t: t, fresh: true}, nil
}

// Partitions are those of the table, by number.
func (t *Table) Partitions() []Partition {
	var out []Partition
	for i, p := range t.t.Partitions() {
		if p != nil {
			out = append(out, t.partition(i+1, *p))
		}
	}
	return out
}

func (t *Table) partition(number int, p blockgpt.Partition) Partition {
	sector := int64(t.d.SectorSize())
	return Partition{
		Number: number, Label: p.Name, Type: p.TypeGUID, ID: p.PartGUID,
		Offset: int64(p.FirstLBA) * sector, Size: (int64(p.LastLBA) - int64(p.FirstLBA) + 1) * sector,
	}
}

// Find returns the partition with a label; if several have it, the first.
func (t *Table) Find(label string) (Partition, bool) {
	for _, p := range t.Partitions() {
		if p.Label == label {
			return p, true
		}
	}
	return Partition{}, false
}

// Free is the size of the largest gap that a partition fits into, in bytes.
func (t *Table) Free() int64 { return int64(t.t.LargestContiguousAllocatable()) }

// Add adds a partition; all of the largest gap with size 0. uuid.Nil as its id
// stands for a random one.
func (t *Table) Add(label string, kind, id uuid.UUID, size int64) (Partition, error) {
	if size == 0 {
		size = t.Free()
	}
	if size <= 0 || size%int64(t.d.SectorSize()) != 0 {
		return Partition{}, fmt.Errorf("add partition %s of %d bytes: there is no room", label, size)
	}
	number, p, err := t.t.AllocatePartition(uint64(size), label, kind, blockgpt.WithUniqueGUID(id))
	if err != nil {
		return Partition{}, fmt.Errorf("add partition %s of %d bytes: the largest gap has %d: %w", label, size, t.Free(), err)
	}
	t.added = append(t.added, number)
	return t.partition(number, p), nil
}

// Growth is by how much a partition can grow into the gap behind it, in bytes.
func (t *Table) Growth(number int) (int64, error) {
	n, err := t.t.AvailablePartitionGrowth(number - 1)
	if err != nil {
		return 0, fmt.Errorf("grow partition: %w", err)
	}
	return int64(n), nil
}

// Grow makes a partition take the gap behind it.
func (t *Table) Grow(number int) (Partition, error) {
	n, err := t.Growth(number)
	if err == nil {
		err = t.t.GrowPartition(number-1, uint64(n))
	}
	if err != nil {
		return Partition{}, err
	}
	t.resize = append(t.resize, number)
	return t.partition(number, *t.t.Partitions()[number-1]), nil
}

// Write writes the table and tells the kernel of what is new in it. Partitions
// that were there stay as they are for the kernel, so that they may be in use,
// unless the table is new altogether.
func (t *Table) Write() error {
	if err := t.t.Write(); err != nil {
		return fmt.Errorf("write the partition table: %w", err)
	}
	k, ok := t.d.Device.(kernel)
	if !ok || t.fresh {
		return nil
	}
	for _, p := range t.Partitions() {
		var err error
		switch {
		case slices.Contains(t.added, p.Number):
			err = k.addPartition(p.Number, p.Offset, p.Size)
		case slices.Contains(t.resize, p.Number):
			err = k.resizePartition(p.Number, p.Offset, p.Size)
		}
		if err != nil {
			return fmt.Errorf("%w: partition %d: %w", ErrKernel, p.Number, err)
		}
	}
	t.added, t.resize = nil, nil
	return nil
}
