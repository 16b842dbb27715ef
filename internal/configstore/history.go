package configstore

import (
	"slices"
	"time"

	"talos/internal/configstore/journal"
)

// The states of a configuration; those of package journal's outcomes beside.
const (
	StateActive    = "active"
	StateStaged    = "staged"
	StateTrying    = "trying"
	StateConfirmed = "confirmed"
)

// Entry is a configuration and what it is now.
type Entry struct {
	journal.Entry
	State string
}

// History is what a node knows of its configurations.
type History struct {
	Entries []Entry // the newest first
	Active  uint64  // number of the one in force
	Stored  uint64  // number of the one to boot with
	Problem string  // of a stored one

	Pending   *journal.Pending
	Remaining time.Duration // until the node goes back; meaningful if the pending one is in force
}

// History lists the configurations.
func (s *Store) History() History {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.index.Clone()
	h := History{Active: s.inForce, Stored: x.Boot, Problem: x.Problem, Pending: x.Pending}
	if !s.deadline.IsZero() {
		h.Remaining = max(0, time.Until(s.deadline))
	}
	for _, e := range slices.Backward(x.Entries) {
		h.Entries = append(h.Entries, Entry{Entry: e, State: s.state(e)})
	}
	return h
}

// state is what a configuration is now.
func (s *Store) state(e journal.Entry) string {
	p := s.index.Pending
	switch {
	case p != nil && p.Number == e.Number && p.Number == s.inForce:
		return StateTrying
	case e.Number == s.inForce:
		return StateActive
	case e.Number == s.index.Boot && (p == nil || e.Number != p.Fallback):
		return StateStaged
	case e.Outcome != journal.Good:
		return string(e.Outcome)
	}
	return StateConfirmed
}

// Document reads one configuration; 0 is the one that a new one is to be made
// from.
func (s *Store) Document(number uint64) (uint64, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		return 0, nil, s.starting()
	}
	if number == 0 {
		number = s.head()
	}
	e, ok := s.index.Find(number)
	if !ok {
		if number == 0 {
			return 0, nil, refuse(ErrNotFound, "this node has no configuration")
		}
		return 0, nil, refuse(ErrNotFound, "no configuration has number %d", number)
	}
	document, err := s.journal.Document(e)
	return number, document, err
}
