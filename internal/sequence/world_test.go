package sequence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"talos/internal/containers"
	"talos/internal/power"
	"talos/internal/service"
)

// world is a node that goes down: it notes what is done to it.
type world struct {
	end chan struct{} // closed when the test ends: what hangs returns

	mu     sync.Mutex // guards the fields below
	notes  []string
	events []Event
	hang   string // what does not come back, and does not look at its context
	slow   string // what comes back when its context ends
	fail   string // what returns an error
	pods   map[string]containers.Container
	stays  bool          // pods ignore SIGTERM
	noted  power.Action  // the action that was written down
	down   chan struct{} // closed by Down
}

func (w *world) note(a power.Action) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted = a
	return nil
}

func newWorld() *world {
	return &world{
		end: make(chan struct{}), down: make(chan struct{}),
		pods: map[string]containers.Container{
			"api":  {ID: "api", PID: 13, PodNamespace: "kube-system", PodName: "kube-apiserver-n", Name: "kube-apiserver"},
			"app":  {ID: "app", PID: 10, PodName: "p", Name: "c"},
			"old":  {ID: "old", PodName: "p", Name: "c"},
			"pod":  {ID: "pod", PID: 11, PodName: "p", Sandbox: true},
			"side": {ID: "side", PID: 12, PodName: "p", Name: "d"},
		},
	}
}

func (w *world) do(ctx context.Context, what string) error {
	w.mu.Lock()
	w.notes = append(w.notes, what)
	hang, slow, fail := w.hang == what, w.slow == what, w.fail == what
	w.mu.Unlock()
	switch {
	case hang:
		<-w.end
	case slow:
		select {
		case <-ctx.Done():
		case <-w.end: // of what gets no context
		}
		return ctx.Err()
	case fail:
		return errors.New("boom")
	}
	return nil
}

// done is what was done until now.
func (w *world) done() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.notes)
}

// told are the events, in short.
func (w *world) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.events {
		text := fmt.Sprintf("%s/%s/%s", e.Sequence, e.Phase, e.Step)
		if e.Message != "" {
			text += " " + e.Message
		}
		if e.Done {
			text += " done"
		}
		if e.Err != nil {
			text += ": " + e.Err.Error()
		}
		out = append(out, text)
	}
	return out
}

func (w *world) Cordon(ctx context.Context) error { return w.do(ctx, "cordon") }
func (w *world) Drain(ctx context.Context, say func(string)) error {
	say("waiting for a pod")
	return w.do(ctx, "drain")
}
func (w *world) Uncordon(ctx context.Context) error { return w.do(ctx, "uncordon") }

func (w *world) Stop(ctx context.Context, id string) error {
	if id != "kubelet" {
		return service.ErrUnknown
	}
	return w.do(ctx, "stop "+id)
}
func (w *world) StopAll(ctx context.Context, _ ...string) error { return w.do(ctx, "stop services") }

func (w *world) List(context.Context, containers.Instance, string) ([]containers.Container, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail == "pods" {
		return nil, errors.New("containerd is away")
	}
	var list []containers.Container
	for _, p := range w.pods {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b containers.Container) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

func (w *world) Kill(_ context.Context, _ containers.Instance, _, id string, sig syscall.Signal, _ bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, fmt.Sprintf("%v %s", sig, id))
	if sig == syscall.SIGKILL || !w.stays {
		p := w.pods[id]
		p.PID = 0
		w.pods[id] = p
	}
	return nil
}

// controller works on w. What hangs is let go when the bubble ends.
func (w *world) controller(t *testing.T) *Controller {
	t.Helper()
	does := func(what string) func(context.Context) error {
		return func(ctx context.Context) error { return w.do(ctx, what) }
	}
	c := New(Options{
		Log: quiet, Services: w, Pods: w, Kubernetes: w, NoteAction: w.note,
		Leave: func(ctx context.Context, r Request, _ func(string)) error { return w.do(ctx, "leave") },
		NoteWipe: func(partitions, disks []string) error {
			return w.do(context.Background(), "note "+strings.Join(append(partitions, disks...), " "))
		},
		Wipe: does("wipe"), KillAll: does("kill"), UnmountInner: does("unmount inner"), Unmount: does("unmount"), Sync: does("sync"),
		Down: func(a power.Action) error {
			defer close(w.down)
			return w.do(context.Background(), "down "+string(a))
		},
	})
	c.OnEvent(func(e Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	})
	return c
}
