package configstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// full is a STATE that takes nothing any more.
func full(b *bench) {
	b.locked(func() { b.journal.Save = func(string, []byte) error { return syscall.ENOSPC } })
}

var errPower = errors.New("the power is gone")

// cut loses the power at the n-th file that is written, before or after that,
// or in the middle of it, and answers whether it came to that.
func cut(b *bench, n int, when string) *bool {
	gone := new(bool)
	save := b.journal.Save
	count := 0
	b.journal.Save = func(path string, data []byte) error {
		if *gone {
			return errPower
		}
		if count++; count < n {
			return save(path, data)
		}
		*gone = true
		switch when {
		case "after":
			if err := save(path, data); err != nil {
				return err
			}
		case "during": // the rename has not been: a part of it lies beside
			if err := os.WriteFile(filepath.Join(filepath.Dir(path), ".new-123"), data[:len(data)/2], 0o600); err != nil {
				return err
			}
		}
		return errPower
	}
	return gone
}

// TestPowerCuts loses the power at every write of a life: the next boot finds
// the configuration from before the step or the one from after it, whole, and
// everything goes on.
func TestPowerCuts(t *testing.T) {
	for _, when := range []string{"before", "during", "after"} {
		for n := 1; ; n++ {
			done := false
			t.Run(fmt.Sprintf("%s write %d", when, n), func(t *testing.T) { done = !powerCut(t, when, n) })
			if done || t.Failed() {
				if n < 15 {
					t.Errorf("a life of %d writes is none", n)
				}
				break
			}
		}
	}
}

func powerCut(t *testing.T, when string, n int) (happened bool) {
	b := newBench(t)
	a, c, d := b.named(t, "a"), b.named(t, "c"), b.filed(t, "d")
	gone := new(bool)
	written := 0 // in all
	restart := func() {
		b.start(t)
		if !*gone {
			gone = cut(b, n-written, when)
		}
		counting := b.journal.Save
		b.journal.Save = func(path string, data []byte) error { written++; return counting(path, data) }
		if found, err := b.load(t.Context()); err == nil && !found { // with the power gone, an error is of no concern
			_ = b.Offer(t.Context(), b.base, "the platform")
		}
	}
	// Errors are those of the power that is gone; which step it was shows in what is on STATE.
	apply := func(r Request) { _, _ = b.Apply(t.Context(), r) }
	steps := []struct {
		do  func()
		out []byte // what a boot after it finds
	}{
		{restart, b.base},
		{func() { apply(Request{Document: a, Mode: modeAuto}) }, a},
		{func() { apply(Request{Document: c, Mode: modeTry}) }, a},
		{func() { _, _ = b.Confirm(t.Context(), 0) }, c},
		{func() { apply(Request{Document: d, Mode: modeAuto, Confirm: time.Minute}) }, d},
		{restart, d},
		{func() { _, _ = b.Rollback(t.Context(), 0, Request{Mode: modeAuto}) }, c},
		{restart, c},
		{func() { apply(Request{Document: a, Mode: modeStaged}) }, a},
		{func() { apply(Request{Document: b.base, Mode: modeAuto}) }, b.base},
	}
	before := b.base
	for i, step := range steps {
		step.do()
		if !*gone {
			before = step.out
			continue
		}
		if !b.boot(t) {
			if i > 0 {
				t.Fatalf("step %d: nothing is in force after the power came back", i)
			}
			if err := b.Offer(t.Context(), b.base, "the platform"); err != nil { // it was not stored yet, and comes again
				t.Fatal(err)
			}
		}
		found := b.published(t)
		if found != string(before) && found != string(step.out) {
			t.Fatalf("step %d: neither the old nor the new configuration is in force, states %v", i, b.states())
		}
		if d := b.diagnostics(t); d != nil {
			t.Errorf("step %d: diagnostics %q: a lost power is no damage", i, d)
		}
		if b.read(t, b.File) != found {
			t.Errorf("step %d: the copy is not what is in force", i)
		}
		next := b.named(t, "next")
		if result := b.apply(t, Request{Document: next, Mode: modeAuto, Force: true}); slices.ContainsFunc(b.History().Entries[1:], func(e Entry) bool { return e.Number >= result.Number }) {
			t.Errorf("step %d: number %d is not a new one", i, result.Number)
		}
		if b.boot(t); b.published(t) != string(next) {
			t.Errorf("step %d: what was applied afterwards is not in force", i)
		}
		return true
	}
	return false
}

// TestFullDisk: what can't be stored is refused, and changes nothing.
func TestFullDisk(t *testing.T) {
	b := configured(t)
	full(b)
	_, err := b.Apply(t.Context(), Request{Document: b.named(t, "a"), Mode: modeAuto})
	if !errors.Is(err, syscall.ENOSPC) || b.published(t) != string(b.base) || len(b.states()) != 1 {
		t.Errorf("Apply = %v, states %v", err, b.states())
	}
	b.start(t)
	full(b)
	if found, err := b.load(t.Context()); !found || err != nil || b.published(t) != string(b.base) {
		t.Errorf("load with a full disk = %v, %v", found, err)
	}
}
