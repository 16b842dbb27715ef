package meta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
)

// Device is the partition, or a file in its place. Sync returns when all that
// was written is where a loss of power can't reach it.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Store holds the values, in memory until there is a device for them.
//
// A change writes the first copy, syncs, writes the second, syncs. Reading
// takes the first copy that is whole: cut in the first, that is the second
// copy, with the old values; cut in the second, the first, with the new ones.
// Before a change the second copy is made to hold what is read now, if it does
// not: otherwise a cut would bring back what was there before the last one.
type Store struct {
	mu     sync.Mutex // guards the fields below, and writing
	values Values
	device Device // nil: in memory only
	second []byte // the second copy as it is on the device
}

// OpenFile opens a partition, or a regular file in its place. One that is not
// there is an error: what would be made of its name below /dev is memory, and
// forgets all that is noted there.
func OpenFile(path string) (*Store, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && info.Size() < 2*CopySize {
		err = f.Truncate(2 * CopySize)
	}
	var s *Store
	if err == nil {
		s, err = Open(f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Close lets go of the device if that can be closed. The store can't be used
// after it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.device.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// New makes a store in memory, for a machine that is not installed yet.
func New() *Store { return &Store{values: Values{}} }

// Open reads the values on a device. One on which nothing was ever written holds
// none; one on which no copy is whole is an error, for it held something.
func Open(d Device) (*Store, error) {
	values, second, err := read(d)
	if err != nil {
		return nil, err
	}
	return &Store{values: values, second: second, device: d}, nil
}

func read(d Device) (Values, []byte, error) {
	both := make([]byte, 2*CopySize)
	if n, err := d.ReadAt(both, 0); n < len(both) {
		return nil, nil, fmt.Errorf("meta: read: %w", err)
	}
	first, second := both[:CopySize], both[CopySize:]
	values, err1 := Decode(first)
	if err1 == nil {
		return values, second, nil
	}
	values, err2 := Decode(second)
	switch {
	case err2 == nil:
		return values, second, nil
	case errors.Is(err2, ErrEmpty):
		// The second copy comes after the first is safe: this is the first write, cut short, or none.
		return Values{}, second, nil
	}
	return nil, nil, fmt.Errorf("%w (first copy); %w (second copy)", err1, err2)
}

// Get returns a value; nil, false if there is none.
func (s *Store) Get(k Key) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[k]
	return slices.Clone(v), ok
}

// All returns all values.
func (s *Store) All() Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values.clone()
}

// Set sets a value; when it returns nil, also for after a loss of power.
func (s *Store) Set(k Key, value []byte) error {
	return s.change(func(v Values) { v[k] = slices.Clone(value) })
}

// Delete forgets a value; one that is not there is no error.
func (s *Store) Delete(k Key) error {
	return s.change(func(v Values) { delete(v, k) })
}

// Clear forgets all values.
func (s *Store) Clear() error {
	return s.change(func(v Values) { clear(v) })
}

func (s *Store) change(edit func(Values)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.values.clone()
	edit(next)
	return s.put(next)
}

// Attach moves a store that was in memory to a device. Values that are there
// stay unless the store has them too: what was set on this boot is newer.
func (s *Store) Attach(d Device) error {
	values, second, err := read(d)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device != nil {
		return errors.New("meta: the store has a device already")
	}
	memory, merged := s.values, values.clone()
	maps.Copy(merged, memory)
	s.values, s.device, s.second = values, d, second
	if err := s.put(merged); err != nil {
		s.values, s.device, s.second = memory, nil, nil
		return err
	}
	return nil
}

// put makes next the values, on the device first. s.mu is held.
func (s *Store) put(next Values) error {
	copyOf, err := Encode(next)
	if err != nil {
		return err
	}
	if s.device == nil {
		s.values = next
		return nil
	}
	now, err := Encode(s.values)
	if err != nil {
		return err
	}
	// The first write of all leaves the second copy alone: empty, it stands for no values.
	if first := len(s.values) == 0 && s.second != nil && allZero(s.second); !first && !bytes.Equal(s.second, now) {
		if err := s.write(now, CopySize); err != nil {
			return err
		}
	}
	if err := s.write(copyOf, 0); err != nil {
		return err
	}
	s.values = next // the first copy counts
	return s.write(copyOf, CopySize)
}

func (s *Store) write(b []byte, at int64) error {
	if at == CopySize {
		s.second = nil // unknown, should the write fail
	}
	_, err := s.device.WriteAt(b, at)
	if err == nil {
		err = s.device.Sync()
	}
	if err != nil {
		return fmt.Errorf("meta: write copy %d: %w", at/CopySize+1, err)
	}
	if at == CopySize {
		s.second = b
	}
	return nil
}
