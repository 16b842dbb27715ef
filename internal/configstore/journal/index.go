package journal

import (
	"fmt"
	"slices"
	"time"
)

// Outcome is what became of a configuration that is not in force any more.
type Outcome string

// The outcomes.
const (
	Good      Outcome = "" // nothing was wrong with it
	Reverted  Outcome = "reverted"
	Discarded Outcome = "discarded" // replaced before it was in force, or confirmed
	Damaged   Outcome = "damaged"   // not readable
)

// Entry is one configuration.
type Entry struct {
	Number  uint64    `json:"number"`
	Time    time.Time `json:"time"` // when it was applied, as the node's clock said
	By      string    `json:"by,omitempty"`
	Mode    string    `json:"mode,omitempty"`
	Note    string    `json:"note,omitempty"`
	Outcome Outcome   `json:"outcome,omitempty"`
	Changed []string  `json:"changed,omitempty"`
	Digest  string    `json:"digest"`
}

// Pending is a configuration that the node goes back from unless it is
// confirmed.
type Pending struct {
	Number   uint64        `json:"number"`
	Fallback uint64        `json:"fallback"`      // what the node goes back to: the last confirmed one
	Timeout  time.Duration `json:"timeout"`       // nanoseconds; how long it may be in force in one boot
	Boots    int           `json:"boots"`         // how often the node has booted with it
	Try      bool          `json:"try,omitempty"` // in force, but not what the node boots with
}

// Index is the history. Its methods change a copy: an Index that was handed out
// stays what it is.
type Index struct {
	Format  int      `json:"format"`
	Last    uint64   `json:"last"` // highest number ever given
	Boot    uint64   `json:"boot"` // what the node boots with; 0: none
	Pending *Pending `json:"pending,omitempty"`
	Entries []Entry  `json:"entries"`           // the oldest first
	Problem string   `json:"problem,omitempty"` // of a stored configuration, until another is applied
}

func (x Index) check() error {
	seen := uint64(0)
	for _, e := range x.Entries {
		if e.Number <= seen || e.Number > x.Last {
			return fmt.Errorf("entry %d after %d, the last being %d", e.Number, seen, x.Last)
		}
		seen = e.Number
	}
	var named []uint64
	if x.Boot != 0 {
		named = append(named, x.Boot)
	}
	if x.Pending != nil {
		named = append(named, x.Pending.Number, x.Pending.Fallback)
	}
	for _, n := range named {
		if _, ok := x.Find(n); !ok {
			return fmt.Errorf("configuration %d is not in the index", n)
		}
	}
	return nil
}

// Clone is a copy that shares nothing with x.
func (x Index) Clone() Index {
	x.Entries = slices.Clone(x.Entries)
	if x.Pending != nil {
		p := *x.Pending
		x.Pending = &p
	}
	return x
}

// Find finds a configuration.
func (x Index) Find(number uint64) (Entry, bool) {
	for _, e := range x.Entries {
		if e.Number == number {
			return e, true
		}
	}
	return Entry{}, false
}

// Add appends a configuration under the next number, and forgets the oldest
// ones that are not needed; keep are numbers that are.
func (x Index) Add(e Entry, keep ...uint64) Index {
	x = x.Clone()
	x.Last++
	e.Number = x.Last
	x.Entries = append(x.Entries, e)
	keep = append(keep, x.Boot, e.Number)
	if last, ok := x.LastGood(x.Boot, e.Number); ok {
		keep = append(keep, last.Number)
	}
	if x.Pending != nil {
		keep = append(keep, x.Pending.Number, x.Pending.Fallback)
	}
	for i := 0; len(x.Entries) > Kept && i < len(x.Entries); {
		if slices.Contains(keep, x.Entries[i].Number) {
			i++
			continue
		}
		x.Entries = slices.Delete(x.Entries, i, i+1)
	}
	return x
}

// Mark records what became of a configuration, and why.
func (x Index) Mark(number uint64, outcome Outcome, note string) Index {
	x = x.Clone()
	for i := range x.Entries {
		if x.Entries[i].Number == number {
			x.Entries[i].Outcome, x.Entries[i].Note = outcome, note
		}
	}
	return x
}

// LastGood is the newest configuration that nothing was wrong with, others
// than those left out.
func (x Index) LastGood(without ...uint64) (Entry, bool) {
	for _, e := range slices.Backward(x.Entries) {
		pending := x.Pending != nil && x.Pending.Number == e.Number
		if e.Outcome == Good && !pending && !slices.Contains(without, e.Number) {
			return e, true
		}
	}
	return Entry{}, false
}
