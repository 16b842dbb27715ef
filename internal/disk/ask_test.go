package disk

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAsk: a disk that hangs costs its own answer, and all together no more time
// than one.
func TestAsk(t *testing.T) {
	broken := errors.New("broken")
	disks := []Disk{
		{Name: "hangs", DevPath: "/dev/h"}, {Name: "slow", DevPath: "/dev/s"}, {Name: "broken"}, {Name: "hangs too", DevPath: "/dev/i"}, {Name: "well"}, {Name: "hostile"},
	}
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		ask := func(d Disk) (string, error) {
			asked.Add(1)
			switch d.Name {
			case "hangs", "hangs too":
				time.Sleep(time.Hour)
			case "slow":
				time.Sleep(Patience - time.Second)
			case "hostile":
				panic("not thought of")
			case "broken":
				return "half", broken
			}
			return d.Name, nil
		}
		began := time.Now()
		got := Ask(t.Context(), disks, Patience, ask)
		if took := time.Since(began); took != Patience {
			t.Errorf("it took %v, want %v", took, Patience)
		}
		if err := got[5].Err; err == nil || !strings.Contains(err.Error(), "not thought of") {
			t.Errorf("hostile: %v, want the panic", err)
		}
		for i, want := range []Answer[string]{{"", ErrSilent}, {"slow", nil}, {"half", broken}, {"", ErrSilent}, {"well", nil}} {
			if got[i] != want {
				t.Errorf("%s: %v, want %v", disks[i].Name, got[i], want)
			}
		}
		// What hangs is not asked again, and takes nobody's time; what was slow is.
		asked.Store(0)
		began = time.Now()
		got = Ask(t.Context(), []Disk{disks[0], disks[4], disks[3]}, Patience, ask)
		if took := time.Since(began); took != 0 || asked.Load() != 1 || got[0].Err != ErrSilent || got[1].Value != "well" || got[2].Err != ErrSilent {
			t.Errorf("asked again: %v after %v and %d questions", got, took, asked.Load())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got := Ask(ctx, disks[1:2], Patience, ask); got[0].Err != ErrSilent {
			t.Errorf("after its end: %v", got)
		}
		time.Sleep(2 * time.Hour) // all that hung is over
		if got := Ask(t.Context(), []Disk{{Name: "well", DevPath: "/dev/h"}, disks[1]}, Patience, ask); got[0].Value != "well" || got[1].Value != "slow" {
			t.Errorf("after they have come back: %v", got)
		}
		if len(silent.nodes) != 0 {
			t.Errorf("silent: %v", silent.nodes)
		}
	})
}
