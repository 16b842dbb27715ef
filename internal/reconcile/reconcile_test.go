package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/controller/runtime/options"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"talos/internal/resources/k8s"
	"talos/internal/store"
)

// run runs c over an empty store, inside a bubble of synctest.
func run(t *testing.T, c *Controller) (state.State, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := runtime.NewRuntime(st, zap.NewNop(), options.WithMetrics(false))
	if err != nil {
		t.Fatal(err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := rt.RegisterController(c); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	return st, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run = %v", err)
		}
	}
}

// labels are the ids and values of the NodeLabelSpecs in st.
func labels(t *testing.T, st state.State) map[string]string {
	t.Helper()
	list, err := safe.StateListAll[*k8s.NodeLabelSpec](t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for l := range list.All() {
		have[l.Metadata().ID()] = l.TypedSpec().Value
	}
	return have
}

// TestOutputsFollowSteps: what a step does not write any more goes, unless the
// step failed or says that it cannot tell.
func TestOutputsFollowSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticks := make(chan struct{}, 1)
		write, result := []string{"a", "b"}, error(nil)
		c := &Controller{
			ID: "test.Controller", Out: []resource.Kind{Kind[*k8s.NodeLabelSpec]()}, Ticks: ticks,
			Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
				for _, id := range write {
					if err := Put(ctx, r, k8s.NewNodeLabelSpec(id), k8s.NodeLabelSpecSpec{Key: id, Value: "v"}); err != nil {
						return err
					}
				}
				return result
			},
		}
		st, stop := run(t, c)
		defer stop()
		for _, step := range []struct {
			write  []string
			result error
			want   map[string]string
		}{
			{[]string{"a", "b"}, nil, map[string]string{"a": "v", "b": "v"}},
			{[]string{"a"}, fmt.Errorf("%w: no name", ErrKeep), map[string]string{"a": "v", "b": "v"}},
			{[]string{"c"}, errors.New("disk full"), map[string]string{"a": "v", "b": "v", "c": "v"}},
			{[]string{"c"}, nil, map[string]string{"c": "v"}},
			{nil, nil, map[string]string{}},
		} {
			synctest.Wait()
			write, result = step.write, step.result
			ticks <- struct{}{}
			time.Sleep(2 * settle)
			synctest.Wait()
			if diff := cmp.Diff(step.want, labels(t, st)); diff != "" {
				t.Errorf("after a step that wrote %v and returned %v (-want +got):\n%s", step.write, step.result, diff)
			}
		}
	})
}

// TestRetries: an error leads to further steps, ever later, and is logged once;
// a step that keeps its outputs waits for an event.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		var taken []time.Duration
		began := time.Now()
		closed := false
		c := &Controller{
			ID: "test.Controller", Log: slog.New(slog.NewTextHandler(&text, nil)),
			Step: func(context.Context, controller.Runtime, *slog.Logger) error {
				taken = append(taken, time.Since(began))
				switch {
				case len(taken) <= 3:
					return errors.New("not yet")
				case len(taken) == 4:
					return ErrKeep
				}
				return nil
			},
			Close: func() { closed = true },
		}
		_, stop := run(t, c)
		time.Sleep(2 * Resync)
		synctest.Wait()
		stop()
		fourth := retry + retry*3/2 + retry*9/4
		want := []time.Duration{0, retry, retry + retry*3/2, fourth, fourth + Resync}
		if diff := cmp.Diff(want, taken); diff != "" {
			t.Errorf("steps were taken at (-want +got):\n%s", diff)
		}
		if got := strings.Count(text.String(), "not yet"); got != 1 {
			t.Errorf("the same error was logged %d times, want once:\n%s", got, text.String())
		}
		if !closed {
			t.Error("Close was not called at the end")
		}
	})
}

// TestInputs: an input that changes leads to a step, another does not.
func TestInputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := 0
		c := &Controller{
			ID: "test.Controller", In: []controller.Input{InputID[*k8s.Nodename]("nodename")},
			Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
				steps++
				_, err := Get[*k8s.Nodename](ctx, r, "nodename")
				return err
			},
		}
		st, stop := run(t, c)
		defer stop()
		synctest.Wait()
		before := steps
		for _, change := range []struct {
			res  resource.Resource
			want int
		}{{k8s.NewNodename("nodename"), 1}, {k8s.NewNodename("another"), 1}, {k8s.NewNodeIP("kubelet"), 1}} {
			if err := st.Create(t.Context(), change.res); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if got := steps - before; got != change.want {
				t.Errorf("after %s: %d steps, want %d", change.res.Metadata(), got, change.want)
			}
		}
	})
}

// TestShared: Output touches what its owner made and nothing else.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticks := make(chan struct{}, 1)
		want := map[resource.ID]k8s.NodeLabelSpecSpec{"a": {Value: "1"}, "b": {Value: "1"}}
		c := &Controller{ID: "test.Controller", Shared: []resource.Type{k8s.NodeLabelSpecType}, Ticks: ticks}
		c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
			return Output(ctx, r, c.Name(), k8s.NewNodeLabelSpec, want, func(id resource.ID) bool { return id == "b" })
		}
		st, stop := run(t, c)
		defer stop()
		foreign := k8s.NewNodeLabelSpec("foreign")
		foreign.TypedSpec().Value = "0"
		if err := st.Create(t.Context(), foreign, state.WithCreateOwner("another")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if diff := cmp.Diff(map[string]string{"a": "1", "b": "1", "foreign": "0"}, labels(t, st)); diff != "" {
			t.Errorf("first (-want +got):\n%s", diff)
		}
		want = map[resource.ID]k8s.NodeLabelSpecSpec{"c": {Value: "2"}}
		ticks <- struct{}{}
		time.Sleep(time.Second)
		synctest.Wait()
		if diff := cmp.Diff(map[string]string{"b": "1", "c": "2", "foreign": "0"}, labels(t, st)); diff != "" {
			t.Errorf("then, b being kept (-want +got):\n%s", diff)
		}
	})
}
