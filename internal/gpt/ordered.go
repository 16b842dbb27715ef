package gpt

import (
	"bytes"
	"fmt"
	"slices"
)

// ordered is the device that the library sees: what it writes is kept until it
// syncs, and then written in our order.
type ordered struct {
	Device
	fresh  bool // nothing of what was on the disk stays
	writes []write
}

type write struct {
	data []byte
	at   int64
}

// ReadAt hides the code that another system has left in the first sector.
func (o *ordered) ReadAt(p []byte, at int64) (int, error) {
	if o.fresh && at == 0 {
		clear(p)
		return len(p), nil
	}
	return o.Device.ReadAt(p, at)
}

func (o *ordered) WriteAt(p []byte, at int64) (int, error) {
	o.writes = append(o.writes, write{slices.Clone(p), at})
	return len(p), nil
}

// Sync writes what was kept.
func (o *ordered) Sync() error {
	stages := make([][]write, 3)
	for _, w := range o.writes {
		switch {
		case w.at > o.Size()/2:
			stages[0] = append(stages[0], w)
		case w.at > 0:
			stages[1] = append(stages[1], w)
		default:
			stages[2] = append(stages[2], w)
		}
	}
	o.writes = nil
	for _, stage := range stages {
		if err := o.flush(stage); err != nil {
			return err
		}
	}
	return nil
}

// flush writes what differs and syncs.
func (o *ordered) flush(stage []write) error {
	if len(stage) == 0 {
		return nil
	}
	for _, w := range stage {
		have := make([]byte, len(w.data))
		if n, _ := o.Device.ReadAt(have, w.at); n == len(have) && bytes.Equal(have, w.data) {
			continue // what can't be read is written
		}
		if _, err := o.Device.WriteAt(w.data, w.at); err != nil {
			return fmt.Errorf("%d bytes at %d: %w", len(w.data), w.at, err)
		}
	}
	return o.Device.Sync()
}

// What follows is how the library asks.

func (o *ordered) GetSectorSize() uint { return uint(o.SectorSize()) }
func (o *ordered) GetSize() uint64     { return uint64(o.Size()) }

// GetIOSize makes the library align to a megabyte, the same on every disk.
func (o *ordered) GetIOSize() (uint, error) { return uint(o.SectorSize()), nil }

// GetKernelLastPartitionNum makes the library replace all partitions for a new
// table, and do nothing for a changed one: see Table.Write.
func (o *ordered) GetKernelLastPartitionNum() (int, error) {
	if k, ok := o.Device.(kernel); ok && o.fresh {
		n, err := k.lastPartition()
		return n, told(err)
	}
	return 0, nil
}

func (o *ordered) KernelPartitionAdd(no int, start, length uint64) error {
	if k, ok := o.Device.(kernel); ok && o.fresh {
		return told(k.addPartition(no, int64(start), int64(length)))
	}
	return nil
}

func (o *ordered) KernelPartitionResize(int, uint64, uint64) error { return nil }

func (o *ordered) KernelPartitionDelete(no int) error {
	if k, ok := o.Device.(kernel); ok && o.fresh {
		return told(k.deletePartition(no))
	}
	return nil
}

// told marks an error of the kernel's.
func told(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrKernel, err)
}
