package configstore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// running boots the node and lets it go on until the test ends.
func (b *bench) running(t *testing.T) {
	t.Helper()
	b.off()
	b.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	b.off = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(b.off)
	synctest.Wait()
}

// node runs a test in a bubble, on a node with a configuration.
func node(t *testing.T, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.running(t)
		b.apply(t, Request{Document: b.base, Mode: modeAuto})
		test(t, b)
	})
}

// locked changes what the running store looks at.
func (b *bench) locked(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// after lets time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) expect(t *testing.T, document []byte, states ...string) {
	t.Helper()
	if b.published(t) != string(document) {
		t.Error("another document is in force")
	}
	if diff := cmp.Diff(states, b.states()); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

func TestGoesBackByItself(t *testing.T) {
	for name, r := range map[string]Request{
		"confirm-timeout":         {Mode: modeAuto, Confirm: 2 * time.Minute},
		"confirm-timeout and try": {Mode: modeTry, Confirm: 2 * time.Minute},
		"try":                     {Mode: modeTry, TryFor: 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			node(t, func(t *testing.T, b *bench) {
				r.Document = b.named(t, "tried")
				result := b.apply(t, r)
				if !strings.Contains(result.Details, "goes back unless confirmed within 2m0s") {
					t.Errorf("details = %q", result.Details)
				}
				after(time.Minute)
				if h := b.History(); h.Pending == nil || h.Remaining != time.Minute || h.Pending.Fallback != 1 {
					t.Errorf("pending = %+v, %v remain", h.Pending, h.Remaining)
				}
				b.expect(t, r.Document, "confirmed", "trying")
				after(time.Minute)
				b.expect(t, b.base, "active", "reverted")
				if e := b.History().Entries[0]; e.Note != "not confirmed within 2m0s" {
					t.Errorf("note = %q", e.Note)
				}
				if b.reboots != 0 || b.read(t, b.File) != string(b.base) {
					t.Error("it rebooted, or would boot with the other")
				}
			})
		})
	}
}

func TestTryLastsAMinute(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		tried := b.named(t, "tried")
		b.apply(t, Request{Document: tried, Mode: modeTry})
		after(59 * time.Second)
		b.expect(t, tried, "confirmed", "trying")
		after(time.Second)
		b.expect(t, b.base, "active", "reverted")
	})
}

func TestConfirm(t *testing.T) {
	for name, confirm := range map[string]func(t *testing.T, b *bench, doc []byte) error{
		"by number": func(t *testing.T, b *bench, _ []byte) error { _, err := b.Confirm(t.Context(), 2); return err },
		"whichever": func(t *testing.T, b *bench, _ []byte) error { _, err := b.Confirm(t.Context(), 0); return err },
		"by applying it again": func(t *testing.T, b *bench, doc []byte) error {
			_, err := b.Apply(t.Context(), Request{Document: doc, Mode: modeAuto})
			return err
		},
	} {
		for _, r := range []Request{{Mode: modeAuto, Confirm: time.Minute}, {Mode: modeTry}} {
			t.Run(name+", "+modeName(r.Mode), func(t *testing.T) {
				node(t, func(t *testing.T, b *bench) {
					r.Document = b.named(t, "kept")
					b.apply(t, r)
					if err := confirm(t, b, r.Document); err != nil {
						t.Fatal(err)
					}
					after(time.Hour)
					b.expect(t, r.Document, "confirmed", "active")
					if b.read(t, b.File) != string(r.Document) || b.History().Pending != nil {
						t.Error("it is not stored, or still waits")
					}
					if n, err := b.Confirm(t.Context(), 2); n != 2 || err != nil {
						t.Errorf("Confirm again = %d, %v", n, err)
					}
					if _, err := b.Confirm(t.Context(), 0); !errors.Is(err, ErrNothing) {
						t.Errorf("Confirm of nothing = %v", err)
					}
				})
			})
		}
	}
}

func TestConfirmTooLate(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		b.apply(t, Request{Document: b.named(t, "late"), Mode: modeAuto, Confirm: time.Minute})
		after(time.Minute)
		_, err := b.Confirm(t.Context(), 2)
		if !errors.Is(err, ErrNothing) || !strings.Contains(err.Error(), "it was reverted (not confirmed within 1m0s)") {
			t.Errorf("Confirm = %v", err)
		}
		if _, err := b.Confirm(t.Context(), 9); !errors.Is(err, ErrNotFound) {
			t.Errorf("Confirm(9) = %v", err)
		}
	})
}

// TestAcrossReboots: the time counts anew from each boot on, and the node that
// reboots again and again comes back with the old one.
func TestAcrossReboots(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		doc := b.filed(t, "a")
		b.apply(t, Request{Document: doc, Mode: modeAuto, Confirm: 10 * time.Minute})
		if b.reboots != 1 {
			t.Fatalf("%d reboots, want 1", b.reboots)
		}
		after(time.Hour) // however long going down and up takes
		b.expect(t, b.base, "active", "staged")
		for i := range maxBoots {
			b.running(t)
			b.expect(t, doc, "confirmed", "trying")
			if h := b.History(); h.Remaining != 10*time.Minute {
				t.Errorf("boot %d: %v remain, want the whole time", i+1, h.Remaining)
			}
			after(9 * time.Minute)
		}
		b.running(t)
		b.expect(t, b.base, "active", "reverted")
		if e := b.History().Entries[0]; e.Note != "not confirmed in 3 boots" {
			t.Errorf("note = %q", e.Note)
		}
	})
}

// TestGoingBackReboots where what was changed needs it.
func TestGoingBackReboots(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		doc := b.filed(t, "a")
		b.apply(t, Request{Document: doc, Mode: modeAuto, Confirm: time.Minute})
		b.running(t)
		b.expect(t, doc, "confirmed", "trying")
		after(time.Minute)
		if b.reboots != 2 || b.read(t, b.File) != string(b.base) {
			t.Fatalf("%d reboots, want a second one, into the old one", b.reboots)
		}
		b.running(t)
		b.expect(t, b.base, "active", "reverted")
		after(time.Hour)
		if b.reboots != 2 {
			t.Errorf("%d reboots, want 2", b.reboots)
		}
	})
}

// TestGoingBackWithoutReboot: a node that can't reboot puts in force what it can.
func TestGoingBackWithoutReboot(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		b.apply(t, Request{Document: b.filed(t, "a"), Mode: modeAuto, Confirm: time.Minute})
		b.running(t)
		b.locked(func() { b.refuse = true })
		after(time.Minute)
		b.expect(t, b.base, "active", "reverted")
	})
}

// TestGoingBackWithoutSTATE: a STATE that takes nothing any more keeps no node cut off.
func TestGoingBackWithoutSTATE(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		b.apply(t, Request{Document: b.named(t, "cut-off"), Mode: modeAuto, Confirm: time.Minute})
		full(b)
		after(time.Minute)
		b.expect(t, b.base, "active", "reverted")
	})
}

func TestTryEndsWithTheBoot(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		b.apply(t, Request{Document: b.named(t, "tried"), Mode: modeTry, TryFor: time.Hour})
		b.running(t)
		b.expect(t, b.base, "active", "reverted")
	})
}

// TestTryLeavesWhatIsStaged: it stays so, whether the tried one goes or not.
func TestTryLeavesWhatIsStaged(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		staged, tried := b.named(t, "staged"), b.named(t, "tried")
		b.apply(t, Request{Document: staged, Mode: modeStaged})
		b.apply(t, Request{Document: tried, Mode: modeTry})
		b.expect(t, tried, "confirmed", "staged", "trying")
		after(time.Minute)
		b.expect(t, b.base, "active", "staged", "reverted")
		if b.read(t, b.File) != string(staged) {
			t.Error("what was staged is not stored any more")
		}
		b.apply(t, Request{Document: tried, Mode: modeTry})
		if _, err := b.Confirm(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		b.expect(t, tried, "confirmed", "discarded", "reverted", "active")
	})
}

// TestStagedToConfirm: the time begins with the boot.
func TestStagedToConfirm(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		doc := b.named(t, "staged")
		b.apply(t, Request{Document: doc, Mode: modeStaged, Confirm: time.Minute})
		after(time.Hour)
		b.expect(t, b.base, "active", "staged")
		if _, err := b.Confirm(t.Context(), 2); !errors.Is(err, ErrNothing) {
			t.Errorf("Confirm before the boot = %v, want a refusal", err)
		}
		b.running(t)
		b.expect(t, doc, "confirmed", "trying")
		after(time.Minute)
		b.expect(t, b.base, "active", "reverted")
	})
}

// TestAnotherDuringTheWait: what waits is neither lost nor confirmed by
// somebody else's change.
func TestAnotherDuringTheWait(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		first, second := b.named(t, "first"), b.named(t, "second")
		b.apply(t, Request{Document: first, Mode: modeAuto, Confirm: time.Minute, By: "alice"})
		for _, r := range []Request{{Mode: modeAuto}, {Mode: modeStaged}, {Mode: modeReboot}, {Mode: modeStaged, Confirm: time.Minute}} {
			r.Document = second
			if err := b.refused(t, r, ErrPending); !strings.Contains(err.Error(), "configuration 2 (applied by alice at") {
				t.Errorf("Apply = %v, want to read whose it is", err)
			}
		}
		after(30 * time.Second)
		b.apply(t, Request{Document: second, Mode: modeAuto, Confirm: time.Minute})
		b.expect(t, second, "confirmed", "discarded", "trying")
		after(59 * time.Second)
		b.expect(t, second, "confirmed", "discarded", "trying")
		after(time.Second)
		b.expect(t, b.base, "active", "discarded", "reverted") // not the first: nobody had confirmed it
		b.apply(t, Request{Document: first, Mode: modeAuto, Confirm: time.Minute})
		b.apply(t, Request{Document: second, Mode: modeAuto, Force: true})
		after(time.Hour)
		b.expect(t, second, "confirmed", "discarded", "reverted", "discarded", "active")
	})
}

// TestTryDuringTheWait: what was stored without confirmation is not what the
// node boots with any more.
func TestTryDuringTheWait(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		b.apply(t, Request{Document: b.named(t, "first"), Mode: modeAuto, Confirm: time.Minute})
		b.apply(t, Request{Document: b.named(t, "second"), Mode: modeTry})
		if b.read(t, b.File) != string(b.base) {
			t.Error("the node would boot with what nobody confirmed")
		}
		after(time.Minute)
		b.expect(t, b.base, "active", "discarded", "reverted")
	})
}

func TestLongerTime(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		r := Request{Document: b.named(t, "a"), Mode: modeAuto, Confirm: time.Minute}
		b.apply(t, r)
		after(50 * time.Second)
		r.Confirm = 5 * time.Minute
		if result := b.apply(t, r); result.Number != 2 {
			t.Errorf("number = %d, want 2 still", result.Number)
		}
		after(4 * time.Minute)
		b.expect(t, r.Document, "confirmed", "trying")
		after(time.Minute)
		b.expect(t, b.base, "active", "reverted")
	})
}

// TestNothingToConfirm: what is in force already is not taken back.
func TestNothingToConfirm(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		for _, mode := range []Request{{Mode: modeAuto, Confirm: time.Minute}, {Mode: modeTry}} {
			mode.Document = b.base
			if result := b.apply(t, mode); strings.Contains(result.Details, "goes back") {
				t.Errorf("details = %q", result.Details)
			}
		}
		after(time.Hour)
		b.expect(t, b.base, "active")
	})
}

func TestRollback(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		two, three := b.named(t, "two"), b.named(t, "three")
		b.apply(t, Request{Document: two, Mode: modeAuto})
		b.apply(t, Request{Document: three, Mode: modeAuto})
		roll := func(number uint64, r Request) Result {
			t.Helper()
			result, err := b.Rollback(t.Context(), number, r)
			if err != nil {
				t.Fatal(err)
			}
			return result
		}
		if result := roll(1, Request{Mode: modeAuto, DryRun: true}); result.Diff == "" || len(b.states()) != 3 {
			t.Errorf("dry run = %+v, states %v", result, b.states())
		}
		if result := roll(1, Request{Mode: modeAuto, By: "alice"}); result.Number != 4 {
			t.Errorf("number = %d, want 4", result.Number)
		}
		b.expect(t, b.base, "confirmed", "confirmed", "confirmed", "active")
		if e := b.History().Entries[0]; e.Note != "rollback to 1" || e.By != "alice" {
			t.Errorf("entry = %+v", e.Entry)
		}
		roll(0, Request{Mode: modeAuto}) // the last good one before
		b.expect(t, three, "confirmed", "confirmed", "confirmed", "confirmed", "active")
		roll(2, Request{Mode: modeAuto, Confirm: time.Minute})
		b.expect(t, two, "confirmed", "confirmed", "confirmed", "confirmed", "confirmed", "trying")
		roll(0, Request{Mode: modeAuto, By: "bob"}) // ends the wait
		b.expect(t, three, "confirmed", "confirmed", "confirmed", "confirmed", "active", "reverted")
		if e := b.History().Entries[0]; e.Note != "by bob" {
			t.Errorf("note = %q", e.Note)
		}
		if _, err := b.Rollback(t.Context(), 99, Request{Mode: modeAuto}); !errors.Is(err, ErrNotFound) {
			t.Errorf("Rollback(99) = %v", err)
		}
	})
}

func TestRollbackOfTheOnlyOne(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		if _, err := b.Rollback(t.Context(), 0, Request{Mode: modeAuto}); !errors.Is(err, ErrNothing) {
			t.Errorf("Rollback = %v", err)
		}
	})
}

// TestRollbackReboots: ending the wait for a configuration that needed a reboot.
func TestRollbackReboots(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		b.apply(t, Request{Document: b.filed(t, "a"), Mode: modeAuto, Confirm: time.Hour})
		b.running(t)
		result, err := b.Rollback(t.Context(), 1, Request{Mode: modeAuto})
		if err != nil || result.Mode != modeReboot || b.reboots != 2 {
			t.Errorf("Rollback = %+v, %v; %d reboots", result, err, b.reboots)
		}
		b.running(t)
		b.expect(t, b.base, "active", "reverted")
	})
}

// TestDamagedFallback: the time is over and the document to go back to is not
// readable: the node stays, and says so.
func TestDamagedFallback(t *testing.T) {
	node(t, func(t *testing.T, b *bench) {
		doc := b.named(t, "a")
		b.apply(t, Request{Document: doc, Mode: modeAuto, Confirm: time.Minute})
		b.put(t, b.Dir+"/1.yaml", "x")
		after(time.Minute)
		b.expect(t, doc, "confirmed", "trying")
		after(time.Minute) // tries again, and does not spin
		b.expect(t, doc, "confirmed", "trying")
	})
}

func TestManyBootsKeepTheirNumbers(t *testing.T) {
	b := configured(t)
	for range 5 {
		b.boot(t)
	}
	if got := b.states(); !slices.Equal(got, []string{"active"}) {
		t.Errorf("states = %v", got)
	}
}
