package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/cosi-project/runtime/pkg/state/impl/inmem"
	"github.com/cosi-project/runtime/pkg/state/impl/namespaced"
	"github.com/google/go-cmp/cmp"

	"talos/internal/logs"
	"talos/internal/resources/v1alpha1"
)

// fake is a program that runs until it is told to fail or its ctx ends.
type fake struct {
	fail   chan error
	starts atomic.Int32
	order  *journal
	name   string
	slow   time.Duration // how long it takes to end
}

func newFake(name string, order *journal) *fake {
	return &fake{fail: make(chan error), name: name, order: order}
}

func (f *fake) Run(ctx context.Context, out io.Writer, started func(int)) error {
	f.starts.Add(1)
	f.order.add("start " + f.name)
	started(42)
	select {
	case err := <-f.fail:
		return err
	case <-ctx.Done():
		time.Sleep(f.slow)
		f.order.add("stop " + f.name)
		return nil
	}
}

// journal notes what happens in which order; nil notes nothing.
type journal struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) add(line string) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func newSupervisor(t *testing.T, st state.State) *Supervisor {
	return New(slog.New(slog.DiscardHandler), st, logs.New(t.TempDir()))
}

func status(t *testing.T, s *Supervisor, id string) Status {
	t.Helper()
	got, err := s.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func start(t *testing.T, s *Supervisor, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := s.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

func stopAll(t *testing.T, s *Supervisor) {
	t.Helper()
	if err := s.StopAll(t.Context()); err != nil {
		t.Errorf("StopAll = %v", err)
	}
}

func TestDependencyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := new(journal)
		s := newSupervisor(t, nil)
		healthyFrom := time.Now().Add(3 * time.Second)
		slow := newFake("c", j)
		slow.slow = time.Second
		s.Add(Definition{ID: "c", DependsOn: []string{"b"}, Runner: slow})
		s.Add(Definition{ID: "b", DependsOn: []string{"a"}, Runner: newFake("b", j)})
		s.Add(Definition{ID: "a", Runner: newFake("a", j), Health: &Health{Check: func(context.Context) error {
			if time.Now().Before(healthyFrom) {
				return errors.New("not yet")
			}
			return nil
		}}})
		start(t, s, "c", "b", "a")
		time.Sleep(2 * time.Second)
		if got := status(t, s, "b"); got.State != StateWaiting || got.Events[len(got.Events)-1].Message != `waiting for service "a" to be healthy` {
			t.Errorf("b is %s, %q, want it to wait for a's health", got.State, got.Events[len(got.Events)-1].Message)
		}
		if err := s.WaitReady(t.Context(), "a", "b", "c"); err != nil {
			t.Fatal(err)
		}
		stopAll(t, s)
		want := []string{"start a", "start b", "start c", "stop c", "stop b", "stop a"}
		if diff := cmp.Diff(want, j.lines); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		if err := s.Start(t.Context(), "a"); err == nil {
			t.Error("Start after StopAll = nil, want an error")
		}
	})
}

func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(t, nil)
		f := newFake("a", nil)
		s.Add(Definition{ID: "a", Runner: f})
		start(t, s, "a")
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			f.fail <- errors.New("boom")
			synctest.Wait()
			if got := status(t, s, "a"); got.State != StateFailed || got.PID != 0 {
				t.Fatalf("after failure %d: %s, pid %d, want Failed, 0", i, got.State, got.PID)
			}
			before := f.starts.Load()
			time.Sleep(want*time.Second - time.Millisecond)
			synctest.Wait()
			if f.starts.Load() != before {
				t.Fatalf("pause %d is shorter than %d s", i, want)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if f.starts.Load() != before+1 {
				t.Fatalf("pause %d is longer than %d s", i, want)
			}
		}
		time.Sleep(stableAfter) // a stable run starts anew
		f.fail <- nil
		before := f.starts.Load()
		time.Sleep(time.Second)
		synctest.Wait()
		if f.starts.Load() != before+1 {
			t.Error("after a stable run the pause is not 1 s again")
		}
		stopAll(t, s)
	})
}

// TestEagerStart: what could not be started is tried again soon.
func TestEagerStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(t, nil)
		var tries []time.Duration
		began := time.Now()
		s.Add(Definition{ID: "a", Runner: runnerFunc(func(context.Context, io.Writer, func(int)) error {
			tries = append(tries, time.Since(began))
			return errors.New("no")
		})})
		start(t, s, "a")
		time.Sleep(2 * time.Second)
		stopAll(t, s)
		want := []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond}
		if diff := cmp.Diff(want, tries); diff != "" {
			t.Errorf("tries (-want +got):\n%s", diff)
		}
	})
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		s := newSupervisor(t, nil)
		s.Add(Definition{ID: "a", Runner: newFake("a", nil), Health: &Health{Period: time.Second, Check: func(ctx context.Context) error {
			if broken.Load() {
				<-ctx.Done() // hangs: the timeout counts as a failure
				return ctx.Err()
			}
			return nil
		}, Timeout: 100 * time.Millisecond}})
		start(t, s, "a")
		synctest.Wait()
		if got := status(t, s, "a").Health; !got.Healthy || got.Unknown {
			t.Fatalf("health = %+v, want healthy", got)
		}
		broken.Store(true)
		time.Sleep(2500 * time.Millisecond) // two failures
		if got := status(t, s, "a").Health; !got.Healthy {
			t.Errorf("health = %+v after two failures, want healthy still", got)
		}
		time.Sleep(2 * time.Second)
		if got := status(t, s, "a"); got.Health.Healthy || got.State != StateRunning {
			t.Errorf("health = %+v, %s after four failures, want unhealthy but running", got.Health, got.State)
		}
		broken.Store(false)
		time.Sleep(2 * time.Second)
		if got := status(t, s, "a").Health; !got.Healthy {
			t.Errorf("health = %+v, want healthy again", got)
		}
		stopAll(t, s)
	})
}

func TestPanics(t *testing.T) {
	boom := func() { panic("boom") }
	definitions := map[string]Definition{
		"runner": {Runner: runnerFunc(func(context.Context, io.Writer, func(int)) error { boom(); return nil })},
		"wait":   {Runner: newFake("x", nil), Wait: func(context.Context) error { boom(); return nil }},
	}
	for name, d := range definitions {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSupervisor(t, nil)
				d.ID = "a"
				s.Add(d)
				start(t, s, "a")
				synctest.Wait()
				got := status(t, s, "a")
				if last := got.Events[len(got.Events)-1].Message; got.State != StateFailed || !strings.Contains(last, "panic: boom") {
					t.Errorf("%s, %q, want Failed with the panic", got.State, last)
				}
				stopAll(t, s)
			})
		})
	}
}

type runnerFunc func(context.Context, io.Writer, func(int)) error

func (f runnerFunc) Run(ctx context.Context, out io.Writer, started func(int)) error {
	return f(ctx, out, started)
}

func TestSkipAndReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(t, nil)
		decide := make(chan error)
		s.Add(Definition{ID: "a", Runner: newFake("a", nil), WaitText: "for something", Wait: func(ctx context.Context) error {
			SetReason(ctx, "the moon")
			return <-decide
		}})
		s.Add(Definition{ID: "b", DependsOn: []string{"a"}, Runner: newFake("b", nil)})
		start(t, s, "a", "b")
		synctest.Wait()
		var said []string
		for _, e := range status(t, s, "a").Events {
			said = append(said, e.Message)
		}
		if want := []string{"waiting for something", "waiting for the moon"}; !slices.Equal(said, want) {
			t.Errorf("events = %q, want %q", said, want)
		}
		decide <- fmt.Errorf("no moon here: %w", ErrSkip)
		synctest.Wait()
		got := status(t, s, "a")
		if last := got.Events[len(got.Events)-1].Message; got.State != StateSkipped || last != "no moon here" {
			t.Errorf("%s, %q, want Skipped, no moon here", got.State, last)
		}
		if got := status(t, s, "b").State; got != StateRunning {
			t.Errorf("what depends on a skipped service is %s, want Running", got)
		}
		stopAll(t, s)
	})
}

func TestStopRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(t, nil)
		f := newFake("a", nil)
		f.slow = 5 * time.Second
		s.Add(Definition{ID: "a", Runner: f, Control: true})
		s.Add(Definition{ID: "b", Runner: newFake("b", nil)})
		start(t, s, "a", "a")
		synctest.Wait()
		if got := f.starts.Load(); got != 1 {
			t.Errorf("started %d times by two Starts, want 1", got)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Stop(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop with too little time = %v, want DeadlineExceeded", err)
		}
		if got := status(t, s, "a").State; got != StateStopping {
			t.Errorf("state = %s, want Stopping", got)
		}
		if err := s.Restart(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := status(t, s, "a").State; got != StateRunning {
			t.Errorf("state after Restart = %s, want Running", got)
		}
		if err := s.Stop(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if got := status(t, s, "a").State; got != StateFinished {
			t.Errorf("state after Stop = %s, want Finished", got)
		}
		if err := s.External().Start(t.Context(), "b"); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("Start from outside = %v, want ErrNotAllowed", err)
		}
		if err := s.Stop(t.Context(), "nobody"); !errors.Is(err, ErrUnknown) {
			t.Errorf("Stop of an unknown service = %v, want ErrUnknown", err)
		}
	})
}

// TestStopDuringPause: a service that waits for its next start stops at once.
// TestRestartWithoutCaller: who restarts apid loses his call half-way.
func TestRestartWithoutCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(t, nil)
		f := newFake("a", nil)
		f.slow = time.Second
		s.Add(Definition{ID: "a", Runner: f, Control: true, Vital: true})
		start(t, s, "a")
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if err := s.External().Restart(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("Restart of a caller who left = %v, want canceled", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := status(t, s, "a").State; got != StateRunning || f.starts.Load() != 2 {
			t.Errorf("state = %s after %d starts, want %s after 2", got, f.starts.Load(), StateRunning)
		}
		if err := s.External().Stop(t.Context(), "a"); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("Stop of what the API needs = %v, want ErrNotAllowed", err)
		}
		stopAll(t, s)
	})
}

func TestStopDuringPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(t, nil)
		s.Add(Definition{ID: "a", Runner: runnerFunc(func(context.Context, io.Writer, func(int)) error { return errors.New("no") })})
		start(t, s, "a")
		time.Sleep(10 * time.Second)
		began := time.Now()
		stopAll(t, s)
		if took := time.Since(began); took != 0 {
			t.Errorf("StopAll took %v, want no time", took)
		}
	})
}

func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := state.WrapCore(namespaced.NewState(inmem.Build))
		s := newSupervisor(t, st)
		f := newFake("a", nil)
		s.Add(Definition{ID: "a", Runner: f})
		published := func() v1alpha1.ServiceSpec {
			t.Helper()
			res, err := safe.StateGetByID[*v1alpha1.Service](t.Context(), st, "a")
			if err != nil {
				t.Fatal(err)
			}
			return *res.TypedSpec()
		}
		start(t, s, "a")
		synctest.Wait()
		if got, want := published(), (v1alpha1.ServiceSpec{Running: true, Healthy: true}); got != want {
			t.Errorf("running: %+v, want %+v", got, want)
		}
		f.fail <- errors.New("boom")
		synctest.Wait()
		if got, want := published(), (v1alpha1.ServiceSpec{Unknown: true}); got != want {
			t.Errorf("failed: %+v, want %+v", got, want)
		}
		stopAll(t, s)
	})
}

func TestStopOrder(t *testing.T) {
	for _, tt := range []struct {
		name string
		deps map[string][]string
		want [][]string
	}{
		{"none", nil, nil},
		{"node", map[string][]string{"containerd": nil, "cri": nil, "apid": {"containerd"}, "etcd": {"cri"}, "kubelet": {"cri"}},
			[][]string{{"apid", "etcd", "kubelet"}, {"containerd", "cri"}}},
		{"cycle", map[string][]string{"a": {"b"}, "b": {"a"}, "c": {"a"}}, [][]string{{"c"}, {"a", "b"}}},
	} {
		if diff := cmp.Diff(tt.want, stopOrder(tt.deps)); diff != "" {
			t.Errorf("stopOrder(%s) (-want +got):\n%s", tt.name, diff)
		}
	}
}
