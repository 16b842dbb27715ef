package qemu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Of the log of writes, as the kernel's dm-log-writes has it: a superblock, then
// entries of a sector each, those with data followed by it.
const (
	writeLogMagic   = 0x6a736677736872
	writeLogVersion = 1
	logFlush        = 1 << 0 // what came before is on the disk now
	logFUA          = 1 << 1 // this is on the disk when it is done
	logDiscard      = 1 << 2 // has no data
	maxLogSector    = 64 << 10
)

// Target is the disk that a log is replayed on, such as a gpt.Disk.
type Target interface {
	io.WriterAt
	Zero(offset, length int64) error
	Size() int64
}

// Replay does to a disk what a write log has recorded, in order. After each
// write that the system was told is safe, it calls safe with how many these
// were so far: that is a state in which a loss of power may have left the disk
// at the least. What was recorded after the last of them is done, too.
//
// The disk must be as it was when the log began; where that was an empty one,
// an empty file of its size.
func Replay(log string, disk Target, safe func(n int) error) error {
	f, err := os.Open(log)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := replay(bufio.NewReaderSize(f, 1<<20), disk, safe); err != nil {
		return fmt.Errorf("replay %s: %w", log, err)
	}
	return nil
}

func replay(log io.Reader, disk Target, safe func(int) error) error {
	var super struct {
		Magic, Version, Entries uint64
		Sector                  uint32
	}
	if err := binary.Read(log, binary.LittleEndian, &super); err != nil {
		return fmt.Errorf("read its head: %w", err)
	}
	sector := int64(super.Sector)
	if super.Magic != writeLogMagic || super.Version != writeLogVersion || sector < 512 || sector > maxLogSector {
		return errors.New("it is no log of writes")
	}
	if _, err := io.CopyN(io.Discard, log, sector-int64(binary.Size(super))); err != nil {
		return err
	}
	flushes := 0
	for i := range super.Entries {
		flags, err := replayEntry(log, disk, sector)
		if err != nil {
			return fmt.Errorf("entry %d of %d: %w", i, super.Entries, err)
		}
		if flags&(logFlush|logFUA) == 0 {
			continue
		}
		flushes++
		if err := safe(flushes); err != nil {
			return err
		}
	}
	return nil
}

func replayEntry(log io.Reader, disk Target, sector int64) (flags uint64, err error) {
	var e struct{ Sector, Sectors, Flags, Len uint64 }
	if err := binary.Read(log, binary.LittleEndian, &e); err != nil {
		return 0, err
	}
	if _, err := io.CopyN(io.Discard, log, sector-int64(binary.Size(e))); err != nil {
		return 0, err
	}
	all := uint64(disk.Size() / sector)
	if e.Sector > all || e.Sectors > all-e.Sector {
		return 0, fmt.Errorf("%d sectors at %d: the disk has %d", e.Sectors, e.Sector, all)
	}
	offset, length := int64(e.Sector)*sector, int64(e.Sectors)*sector
	if e.Flags&logDiscard != 0 {
		return e.Flags, disk.Zero(offset, length)
	}
	_, err = io.CopyN(io.NewOffsetWriter(disk, offset), log, length)
	return e.Flags, err
}
