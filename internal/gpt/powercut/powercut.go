// Package powercut is a disk for tests that remembers every write and every
// sync, and shows what a loss of power at any moment may leave of them.
//
// A sync is a promise: what was written before it is there. Of what was written
// since, any part may be there, in any order. It keeps the disk in memory, only
// what is not zero. A Disk is not safe for concurrent use.
package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
)

const pageSize = 4096

// Disk is a disk in memory. It satisfies gpt.Device.
type Disk struct {
	// Fail, if not nil, is asked before every write and sync, and its error
	// returned.
	Fail func(Op) error

	size   int64
	sector int
	pages  map[int64][]byte // by number; never changed, only replaced
	start  map[int64][]byte // as they were when recording began
	log    []Op
}

// Op is what was done to a disk.
type Op struct {
	Offset int64
	Data   []byte // of a write
	Zeros  int64  // how many
	Sync   bool
}

// New makes an empty disk and begins to record.
func New(size int64, sector int) *Disk {
	return &Disk{size: size, sector: sector, pages: map[int64][]byte{}, start: map[int64][]byte{}}
}

// Record forgets what was done until now: that is where cuts begin.
func (d *Disk) Record() {
	d.log = nil
	d.start = maps.Clone(d.pages)
}

// Resize makes the disk larger.
func (d *Disk) Resize(size int64) { d.size = size }

// Clone is a disk with the same content, and nothing recorded.
func (d *Disk) Clone() *Disk {
	return &Disk{size: d.size, sector: d.sector, pages: maps.Clone(d.pages), start: maps.Clone(d.pages)}
}

// Syncs is how often the disk was synced.
func (d *Disk) Syncs() int {
	n := 0
	for _, op := range d.log {
		if op.Sync {
			n++
		}
	}
	return n
}

// Size implements gpt.Device.
func (d *Disk) Size() int64 { return d.size }

// SectorSize implements gpt.Device.
func (d *Disk) SectorSize() int { return d.sector }

// DropCache implements gpt.Device: there is none.
func (d *Disk) DropCache() error { return nil }

// ReadAt implements gpt.Device.
func (d *Disk) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 {
		return 0, errors.New("read before the start of the disk")
	}
	for n := 0; n < len(p); {
		if at+int64(n) >= d.size {
			return n, io.EOF
		}
		from := (at + int64(n)) % pageSize
		part := p[n:min(int64(len(p)), int64(n)+pageSize-from, d.size-at)]
		if page := d.pages[(at+int64(n))/pageSize]; page != nil {
			copy(part, page[from:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(p), nil
}

func (d *Disk) do(op Op) error {
	if d.Fail != nil {
		if err := d.Fail(op); err != nil {
			return err
		}
	}
	if end := op.Offset + max(op.Zeros, int64(len(op.Data))); op.Offset < 0 || end > d.size {
		return fmt.Errorf("write from %d to %d of a disk of %d bytes", op.Offset, end, d.size)
	}
	d.log = append(d.log, op)
	op.apply(d.pages)
	return nil
}

// WriteAt implements gpt.Device.
func (d *Disk) WriteAt(p []byte, at int64) (int, error) {
	if err := d.do(Op{Offset: at, Data: slices.Clone(p)}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Zero implements gpt.Device.
func (d *Disk) Zero(at, length int64) error { return d.do(Op{Offset: at, Zeros: length}) }

// Sync implements gpt.Device.
func (d *Disk) Sync() error { return d.do(Op{Sync: true}) }

func (op Op) apply(pages map[int64][]byte) {
	data, at := op.Data, op.Offset
	for left := max(op.Zeros, int64(len(data))); left > 0; {
		number, from := at/pageSize, at%pageSize
		n := min(left, pageSize-from)
		if page := pages[number]; op.Zeros == 0 || (n < pageSize && page != nil) {
			page = append(slices.Clone(page), make([]byte, pageSize-len(page))...)
			if op.Zeros == 0 {
				copy(page[from:], data[:n])
				data = data[n:]
			} else {
				clear(page[from : from+n])
			}
			pages[number] = page
		} else {
			delete(pages, number)
		}
		at, left = at+n, left-n
	}
}

// split cuts an operation into what a disk does at once: sectors, if there are
// not too many.
func (op Op) split(sector int) []Op {
	step := max(sector, len(op.Data)/64/sector*sector)
	var out []Op
	for i := 0; i < len(op.Data); i += step {
		out = append(out, Op{Offset: op.Offset + int64(i), Data: op.Data[i:min(len(op.Data), i+step)]})
	}
	if op.Zeros > 0 {
		half := op.Zeros / 2 / int64(sector) * int64(sector)
		out = append(out, Op{Offset: op.Offset, Zeros: op.Zeros - half}, Op{Offset: op.Offset + op.Zeros - half, Zeros: half})
	}
	return out
}

// Cuts calls see with disks as a loss of power may leave them. Of what was not
// synced there are the first writes, the last, and some at random; at most is
// how many of the first two kinds there are between two syncs. syncs is how
// many syncs came before.
func (d *Disk) Cuts(atMost int, see func(name string, syncs int, disk *Disk)) {
	disk := maps.Clone(d.start)
	rng := rand.New(rand.NewPCG(1, 2))
	var since []Op
	syncs := 0
	show := func(name string, which func(int) bool) {
		pages := maps.Clone(disk)
		for i, op := range since {
			if which(i) {
				op.apply(pages)
			}
		}
		see(fmt.Sprintf("after %d syncs, %s of %d writes", syncs, name, len(since)), syncs,
			&Disk{size: d.size, sector: d.sector, pages: pages, start: maps.Clone(pages)})
	}
	for _, op := range append(slices.Clone(d.log), Op{Sync: true}) {
		if !op.Sync {
			since = append(since, op.split(d.sector)...)
			continue
		}
		step := max(1, len(since)/max(1, atMost))
		for n := 0; n <= len(since); n += step {
			show(fmt.Sprintf("the first %d", n), func(i int) bool { return i < n })
			if n > 0 && n < len(since) {
				show(fmt.Sprintf("all but the first %d", n), func(i int) bool { return i >= n })
			}
		}
		for range min(4, len(since)) {
			show("some", func(int) bool { return rng.IntN(2) == 0 })
		}
		for _, op := range since {
			op.apply(disk)
		}
		since = nil
		syncs++
	}
}

// Save writes the disk into a file, with holes.
func (d *Disk) Save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for number, page := range d.pages {
		if _, err := f.WriteAt(page, number*pageSize); err != nil {
			return err
		}
	}
	return errors.Join(f.Truncate(d.size), f.Close())
}

// Same says whether two disks hold the same in a range.
func (d *Disk) Same(other *Disk, at, length int64) bool {
	numbers := map[int64]bool{}
	for _, pages := range []map[int64][]byte{d.pages, other.pages} {
		for number := range pages {
			if (number+1)*pageSize > at && number*pageSize < at+length {
				numbers[number] = true
			}
		}
	}
	a, b := make([]byte, pageSize), make([]byte, pageSize)
	for number := range numbers {
		p, q := d.pages[number], other.pages[number]
		if len(p) > 0 && len(q) > 0 && &p[0] == &q[0] {
			continue
		}
		from := max(at, number*pageSize)
		n := min(at+length, (number+1)*pageSize) - from
		if _, err := d.ReadAt(a[:n], from); err != nil {
			return false
		}
		if _, err := other.ReadAt(b[:n], from); err != nil {
			return false
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return false
		}
	}
	return true
}
