package slot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
)

// State is what is on the EFI system partition.
type State struct {
	// Entries are those that can be started, in the loader's order: it starts
	// the first.
	Entries []Entry
	// Kernels are the slots that have a kernel image.
	Kernels []ID
	// Stale are files of ours that nothing needs: entries without an image,
	// damaged ones, and what a change that was cut short left.
	Stale []string
}

// Read reads it.
func Read(f Files) (State, error) {
	var s State
	for _, id := range []ID{A, B} {
		names, err := f.List(kernelDir)
		if err != nil {
			return State{}, fmt.Errorf("read kernel images: %w", err)
		}
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, string(id)+".efi") }) {
			s.Kernels = append(s.Kernels, id)
		}
	}
	names, err := f.List(EntriesDir)
	if err != nil {
		return State{}, fmt.Errorf("read boot entries: %w", err)
	}
	for _, name := range names {
		file := EntriesDir + "/" + name
		id, _, ours := ParseName(name)
		if !ours {
			if strings.HasPrefix(name, namePrefix) && strings.HasSuffix(name, newSuffix) {
				s.Stale = append(s.Stale, file)
			}
			continue
		}
		content, err := f.Read(file)
		if err != nil {
			return State{}, fmt.Errorf("read boot entry: %w", err)
		}
		e, err := Parse(name, content)
		if err != nil || !slices.Contains(s.Kernels, id) {
			s.Stale = append(s.Stale, file)
			continue
		}
		s.Entries = append(s.Entries, e)
	}
	slices.SortStableFunc(s.Entries, Less)
	return s, nil
}

// Default is the entry that the loader starts.
func (s State) Default() (Entry, bool) {
	if len(s.Entries) == 0 {
		return Entry{}, false
	}
	return s.Entries[0], true
}

// Entry is the entry of a slot: the one that is good, if a change of its name
// that was cut short has left two.
func (s State) Entry(id ID) (Entry, bool) {
	of := s.of(id)
	for _, e := range of {
		if e.Tries == nil {
			return e, true
		}
	}
	if len(of) == 0 {
		return Entry{}, false
	}
	return of[0], true
}

func (s State) of(id ID) []Entry {
	var out []Entry
	for _, e := range s.Entries {
		if e.Slot == id {
			out = append(out, e)
		}
	}
	return out
}

// next is a generation newer than all.
func (s State) next() (uint32, error) {
	var last uint32
	for _, e := range s.Entries {
		last = max(last, e.Generation)
	}
	if last == math.MaxUint32 {
		return 0, errors.New("there is no newer generation")
	}
	return last + 1, nil
}

// Step is one change of one file.
type Step struct {
	Op   Op
	Path string
	To   string // of Rename
	Data []byte // of Write
}

// Op is what a step does. All are on the disk when they are done.
type Op int

// What steps do.
const (
	Write  Op = iota // a whole file, read back
	Rename           // replaces what has the new name
	Remove           // a file that is not there is none
)

func (s Step) String() string {
	switch s.Op {
	case Write:
		return fmt.Sprintf("write %s, %d bytes", s.Path, len(s.Data))
	case Rename:
		return "rename " + s.Path + " to " + s.To
	}
	return "remove " + s.Path
}

// newSuffix is what the loader does not take for an entry.
const newSuffix = ".new"

// Fill makes slot id ready for another image: its entry goes first, so that no
// entry ever names an image that is half written, then the image is written.
// The root partition is to be written before Activate. running is the slot in
// use, which is refused; "" if none is (first installation).
func Fill(s State, running, id ID, kernel []byte) ([]Step, error) {
	if id == running {
		return nil, fmt.Errorf("fill slot %s: it is running", id)
	}
	var steps []Step
	for _, e := range s.of(id) {
		steps = append(steps, Step{Op: Remove, Path: e.path()})
	}
	for _, name := range s.Stale {
		if of, _, ours := ParseName(path.Base(name)); !ours || of != running {
			steps = append(steps, Step{Op: Remove, Path: name})
		}
	}
	return append(steps, Step{Op: Write, Path: id.KernelPath(), Data: kernel}), nil
}

// Activate makes slot id the one that is started next, tries times at most
// before it has proved good. 0 makes it good at once: the first installation,
// with nothing to go back to. s is read after what Fill says was done.
func Activate(s State, running, id ID, image Image, tries int) ([]Step, error) {
	switch {
	case id == running:
		return nil, fmt.Errorf("activate slot %s: it is running", id)
	case !slices.Contains(s.Kernels, id):
		return nil, fmt.Errorf("activate slot %s: it has no kernel image", id)
	case tries < 0 || tries > maxTries:
		return nil, fmt.Errorf("activate slot %s: %d tries, want 0 to %d", id, tries, maxTries)
	}
	generation, err := s.next()
	if err != nil {
		return nil, fmt.Errorf("activate slot %s: %w", id, err)
	}
	e := Entry{Image: image, Slot: id, Generation: generation}
	if tries > 0 {
		e.Tries = &Tries{Left: tries}
	}
	if again, err := Parse(e.Name(), []byte(e.Content())); err != nil || again.Image != image || len(e.Content()) > maxContent {
		return nil, fmt.Errorf("activate slot %s: title %q, version %q and options %q can't be written into a boot entry", id, image.Title, image.Version, image.Options)
	}
	return replace(s.of(id), e), nil
}

// replace writes e beside the entries of its slot, gives it its name, and
// removes those with other names.
func replace(old []Entry, e Entry) []Step {
	fresh := EntriesDir + "/" + namePrefix + string(e.Slot) + newSuffix
	steps := []Step{
		{Op: Write, Path: fresh, Data: []byte(e.Content())},
		{Op: Rename, Path: fresh, To: e.path()},
	}
	for _, o := range old {
		if o.Name() != e.Name() {
			steps = append(steps, Step{Op: Remove, Path: o.path()})
		}
	}
	return steps
}

// MarkGood makes the running slot permanent: its entry is renamed to have no
// tries. Nothing is to be done for one that is good already.
func MarkGood(s State, running ID) ([]Step, error) {
	e, ok := s.Entry(running)
	if !ok {
		return nil, fmt.Errorf("mark slot %s good: it has no boot entry", running)
	}
	var steps []Step
	good := e
	if e.Tries != nil {
		good.Tries = nil
		steps = append(steps, Step{Op: Rename, Path: e.path(), To: good.path()})
	}
	for _, o := range s.of(running) {
		if o.Name() != e.Name() && o.Name() != good.Name() {
			steps = append(steps, Step{Op: Remove, Path: o.path()})
		}
	}
	return steps, nil
}

// Rollback makes the slot that is not running the one that is started next, as
// a newer generation of the same image. One that was never good keeps its
// tries; one that has used them up is refused.
func Rollback(s State, running ID) ([]Step, error) {
	id := running.Other()
	e, ok := s.Entry(id)
	if !ok {
		return nil, fmt.Errorf("roll back to slot %s: it is empty", id)
	}
	if e.Exhausted() {
		return nil, fmt.Errorf("roll back to slot %s: %s was started there %d times and never proved good", id, e.Version, e.Tries.Done)
	}
	if first, _ := s.Default(); first.Slot == id {
		return nil, nil
	}
	generation, err := s.next()
	if err != nil {
		return nil, fmt.Errorf("roll back to slot %s: %w", id, err)
	}
	e.Generation = generation
	return replace(s.of(id), e), nil
}

// Apply does the steps in order and stops at the first that fails.
func Apply(f Files, steps []Step) error {
	for _, s := range steps {
		if err := apply(f, s); err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
	}
	return nil
}

func apply(f Files, s Step) error {
	switch s.Op {
	case Rename:
		return f.Rename(s.Path, s.To)
	case Remove:
		if err := f.Remove(s.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := f.Write(s.Path, s.Data); err != nil {
		return err
	}
	back, err := f.Read(s.Path)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(back, s.Data) {
		return errors.New("what is read back is not what was written")
	}
	return nil
}
