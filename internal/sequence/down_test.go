package sequence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/api/machine"
	"talos/internal/power"
)

// goDown runs a sequence to its end and returns how long it took.
func goDown(t *testing.T, w *world, r Request) time.Duration {
	t.Helper()
	c := w.controller(t)
	began := time.Now()
	actor, err := c.Begin(t.Context(), r)
	if err != nil || actor == "" {
		t.Fatalf("Begin = %q, %v", actor, err)
	}
	<-w.down
	took := time.Since(began)
	close(w.end)
	synctest.Wait()
	for _, e := range w.events {
		if e.Actor != actor {
			t.Errorf("event %+v is not of actor %s", e, actor)
		}
	}
	return took
}

var last = []string{"kill", "sync", "unmount", "sync"}

func TestSequences(t *testing.T) {
	stop := []string{"stop kubelet", "terminated app", "terminated side", "terminated api", "killed pod", "stop services"}
	wipe := []string{"kill", "unmount inner", "wipe", "sync", "unmount", "sync"}
	for _, tt := range []struct {
		name string
		r    Request
		want []string
	}{
		{"reboot", Request{Kind: Reboot}, slices.Concat(stop, last, []string{"down reboot"})},
		{"reboot with drain", Request{Kind: Reboot, Drain: true}, slices.Concat([]string{"cordon", "drain"}, stop, last, []string{"down reboot"})},
		{"forced reboot", Request{Kind: Reboot, Force: true}, slices.Concat(last, []string{"down reboot"})},
		{"shutdown", Request{Kind: Shutdown, Drain: true}, slices.Concat([]string{"cordon", "drain"}, stop, last, []string{"down poweroff"})},
		{"reset", Request{Kind: Reset, Drain: true, Leave: true, Wipe: []string{"EPHEMERAL"}, Again: true},
			slices.Concat([]string{"cordon", "drain", "leave", "note EPHEMERAL"}, stop, wipe, []string{"down reboot"})},
		{"reset without grace", Request{Kind: Reset, Wipe: []string{"EPHEMERAL", "STATE"}},
			slices.Concat([]string{"note EPHEMERAL STATE"}, stop, wipe, []string{"down poweroff"})},
		{"reset of a user's disk", Request{Kind: Reset, Drain: true, Disks: []string{"serial 1"}, Again: true},
			slices.Concat([]string{"cordon", "drain", "note serial 1"}, stop, wipe, []string{"down reboot"})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				goDown(t, w, tt.r)
				if diff := cmp.Diff(tt.want, w.done()); diff != "" {
					t.Errorf("steps (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestNoteAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := w.controller(t)
		if _, err := c.Reboot(t.Context(), machine.RebootRequest_DEFAULT); err != nil {
			t.Fatal(err)
		}
		<-w.down
		if w.noted != power.Reboot {
			t.Errorf("noted %q, want reboot", w.noted)
		}
	})
}

// TestTold: who follows the sequence learns of each phase, of what a step waits
// for, and of what did not succeed.
func TestTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.fail = "drain"
		goDown(t, w, Request{Kind: Reboot, Drain: true})
		want := []string{
			"reboot//", "reboot/cordon/", "reboot/cordon/ done", "reboot/drain/", "reboot/drain/drain waiting for a pod",
			"reboot/drain/drain done: boom", "reboot/drain/ done", "reboot/note action/",
		}
		if diff := cmp.Diff(want, w.told()[:len(want)]); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if all := w.told(); all[len(all)-1] != "reboot// done" {
			t.Errorf("the last event is %q", all[len(all)-1])
		}
	})
}

// steps are what can fail or hang.
var steps = []string{
	"cordon", "drain", "leave", "note EPHEMERAL", "stop kubelet", "stop services", "kill", "unmount inner", "wipe", "sync", "unmount",
}

// TestDeadline: whatever hangs, and if all hang, the node is down by the deadline,
// with what the caller chose and with the default. What hangs before the wipe is
// written down ends a reset, and the node stays: then nothing was done.
func TestDeadline(t *testing.T) {
	for _, deadline := range []time.Duration{0, MinDeadline, 30 * time.Second, 10 * time.Minute} {
		for _, how := range []string{"hang", "slow", "fail"} {
			for _, what := range append([]string{"pods"}, steps...) {
				t.Run(fmt.Sprintf("%v %s %s", deadline, what, how), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld()
						*map[string]*string{"hang": &w.hang, "slow": &w.slow, "fail": &w.fail}[how] = what
						r := Request{Kind: Reset, Drain: true, Leave: true, Insist: what == "leave", Wipe: []string{"EPHEMERAL"}, Deadline: deadline, DrainTimeout: time.Minute}
						if what == "note EPHEMERAL" {
							staysUp(t, w, r)
							return
						}
						took, limit := goDown(t, w, r), r.limits().down
						if took > limit {
							t.Errorf("took %v, the deadline is %v", took, limit)
						}
						if done := w.done(); done[len(done)-1] != "down poweroff" {
							t.Errorf("the last step is %q", done[len(done)-1])
						}
						for _, want := range steps {
							if !slices.Contains(w.done(), want) {
								t.Errorf("step %q was not tried", want)
							}
						}
					})
				})
			}
		}
	}
}

// staysUp runs a sequence that ends where there is a way back.
func staysUp(t *testing.T, w *world, r Request) {
	t.Helper()
	c := w.controller(t)
	if _, err := c.Begin(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for c.Current() != "" && time.Since(began) < r.limits().down {
		time.Sleep(time.Second)
	}
	close(w.end)
	synctest.Wait()
	if c.Current() != "" {
		t.Errorf("the sequence holds the node: %q", w.done())
	}
	for _, step := range w.done() {
		if strings.HasPrefix(step, "stop") || strings.HasPrefix(step, "down") || step == "wipe" {
			t.Errorf("after the failure: %s", step)
		}
	}
	if done := w.done(); done[len(done)-1] != "uncordon" {
		t.Errorf("the last step is %q, want uncordon", done[len(done)-1])
	}
	told := w.told()
	if end := told[len(told)-1]; !strings.HasPrefix(end, "reset// done: reset: ") {
		t.Errorf("the last event is %q, want why the reset failed", end)
	}
	time.Sleep(time.Hour) // no backstop is left
	synctest.Wait()
	if slices.Contains(w.done(), "down poweroff") {
		t.Error("the node went down later")
	}
}

// TestLeaveFails: a node that can't leave stays, and takes the next sequence.
func TestLeaveFails(t *testing.T) {
	for _, how := range []string{"hang", "slow", "fail"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			*map[string]*string{"hang": &w.hang, "slow": &w.slow, "fail": &w.fail}[how] = "leave"
			staysUp(t, w, Request{Kind: Reset, Drain: true, Leave: true, Wipe: []string{"EPHEMERAL"}})
		})
	}
}

// TestBackstop: even what reboots is not trusted to come by.
func TestBackstop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := w.controller(t)
		c.OnEvent(func(e Event) {
			if e.Phase == "sync" {
				<-w.end // an observer must not block; this one does
			}
		})
		began := time.Now()
		if _, err := c.Begin(t.Context(), Request{Kind: Shutdown}); err != nil {
			t.Fatal(err)
		}
		<-w.down
		if took := time.Since(began); took != 100*time.Second+backstop {
			t.Errorf("took %v, want the deadline and %v", took, backstop)
		}
		w.down = make(chan struct{}) // it comes by after all
		close(w.end)
		synctest.Wait()
	})
}

// deaf is a log on a disk that does not answer.
type deaf struct {
	slog.Handler
	end <-chan struct{}
}

func (d deaf) Enabled(context.Context, slog.Level) bool { return true }

func (d deaf) Handle(context.Context, slog.Record) error {
	<-d.end
	return nil
}

// TestLogHangs: whoever can't log goes down all the same, also when it takes over
// a sequence.
func TestLogHangs(t *testing.T) {
	for _, taken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			c := w.controller(t)
			c.o.Log = slog.New(deaf{slog.DiscardHandler, w.end})
			if taken {
				if _, err := c.Begin(t.Context(), Request{Kind: Shutdown}); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			go c.Begin(t.Context(), Request{Kind: Reboot, Force: true})
			<-w.down
			if took := time.Since(began); took > forceLimit+backstop {
				t.Errorf("after another one: %t: took %v, want at most %v", taken, took, forceLimit+backstop)
			}
			if got := w.done(); got[len(got)-1] != "down reboot" {
				t.Errorf("the last step is %q", got[len(got)-1])
			}
			w.down = make(chan struct{}) // what hung comes by after all
			close(w.end)
			synctest.Wait()
		})
	}
}

func TestTakeOver(t *testing.T) {
	weak := map[string]Request{
		"reboot": {Kind: Reboot, Drain: true}, "shutdown": {Kind: Shutdown, Drain: true}, "reset": {Kind: Reset, Wipe: []string{"EPHEMERAL"}, Drain: true, Leave: true},
	}
	for name, first := range weak {
		for _, at := range []string{"drain", "stop services", "kill"} {
			t.Run(name+" at "+at, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					w.hang = at
					c := w.controller(t)
					actor, err := c.Begin(t.Context(), first)
					if err != nil {
						t.Fatal(err)
					}
					for !slices.Contains(w.done(), at) {
						time.Sleep(100 * time.Millisecond)
					}
					if again, err := c.Begin(t.Context(), first); name != "reset" && (err != nil || again != actor) {
						t.Errorf("the same again = %q, %v, want to join %q", again, err, actor)
					}
					if _, err := c.Begin(t.Context(), Request{Kind: Reset, Wipe: []string{"STATE"}}); !errors.Is(err, ErrBusy) {
						t.Errorf("a sequence that is not stronger = %v, want ErrBusy", err)
					}
					w.mu.Lock()
					w.hang, w.notes = "", nil
					w.mu.Unlock()
					began := time.Now()
					forced, err := c.Begin(t.Context(), Request{Kind: Reboot, Force: true})
					if err != nil || forced == actor {
						t.Fatalf("a forced reboot = %q, %v, want it to take over", forced, err)
					}
					<-w.down
					if took := time.Since(began); took > forceLimit {
						t.Errorf("took %v", took)
					}
					if want := slices.Concat(last, []string{"down reboot"}); !slices.Equal(w.done(), want) {
						t.Errorf("steps = %q, want %q", w.done(), want)
					}
					if w.noted != power.Reboot {
						t.Errorf("noted %q, want reboot", w.noted)
					}
					close(w.end)
					time.Sleep(time.Hour) // the first one's backstop
					synctest.Wait()
					if done := w.done(); strings.HasPrefix(done[len(done)-1], "down") && slices.Contains(done, "down poweroff") {
						t.Errorf("the first sequence went on: %q", done)
					}
				})
			})
		}
	}
}

func TestStubbornPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.stays = true
		took := goDown(t, w, Request{Kind: Shutdown})
		if took < podGrace || took > podGrace+time.Second {
			t.Errorf("took %v, want the pods' grace of %v: the API server ends beside the others", took, podGrace)
		}
		for _, want := range []string{"killed app", "killed side", "killed pod", "down poweroff"} {
			if !slices.Contains(w.done(), want) {
				t.Errorf("no %q in %q", want, w.done())
			}
		}
	})
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		r    Request
		want limits
	}{
		{Request{Kind: Reboot}, limits{10 * time.Second, 70 * time.Second, 100 * time.Second}},
		{Request{Kind: Reboot, Drain: true}, limits{310 * time.Second, 370 * time.Second, 400 * time.Second}},
		{Request{Kind: Reboot, Drain: true, DrainTimeout: time.Minute}, limits{70 * time.Second, 130 * time.Second, 160 * time.Second}},
		{Request{Kind: Reboot, Drain: true, DrainTimeout: time.Minute, Deadline: 16 * time.Second}, limits{7 * time.Second, 13 * time.Second, 16 * time.Second}},
		{Request{Kind: Reboot, Deadline: time.Hour}, limits{10 * time.Second, 70 * time.Second, time.Hour}},
		{Request{Kind: Reboot, Force: true}, limits{5 * time.Second, 5 * time.Second, 20 * time.Second}},
	} {
		if got := tt.r.limits(); got != tt.want {
			t.Errorf("limits of %+v = %+v, want %+v", tt.r, got, tt.want)
		}
	}
}
