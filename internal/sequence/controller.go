package sequence

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"talos/api/machine"
	"talos/internal/containers"
	"talos/internal/power"
)

// Services is what the way down needs of the supervisor.
type Services interface {
	Stop(ctx context.Context, id string) error
	StopAll(ctx context.Context, except ...string) error
}

// Pods is what the way down needs of the CRI containerd.
type Pods interface {
	List(ctx context.Context, i containers.Instance, namespace string) ([]containers.Container, error)
	Kill(ctx context.Context, i containers.Instance, namespace, id string, sig syscall.Signal, all bool) error
}

// Kubernetes takes this node out of Kubernetes's service, and back.
type Kubernetes interface {
	// Cordon keeps new pods away; the node takes it back by itself after its
	// next start. A node that somebody else cordoned is left as it is.
	Cordon(ctx context.Context) error
	// Drain moves the pods away and says which it waits for.
	Drain(ctx context.Context, say func(string)) error
	// Uncordon takes Cordon back.
	Uncordon(ctx context.Context) error
}

// Options are what a Controller works on.
type Options struct {
	Log        *slog.Logger
	Services   Services
	Pods       Pods
	Kubernetes Kubernetes
	// Leave takes the node out of the cluster for good.
	Leave func(ctx context.Context, r Request, say func(string)) error
	// NoteWipe writes down what shall be emptied, partitions of the system disk and
	// disks, so that it happens at the next start if it could not now; Wipe
	// empties it.
	NoteWipe func(partitions, disks []string) error
	Wipe     func(ctx context.Context) error
	// NoteAction writes down what the node goes down for, so that whoever starts
	// it again knows.
	NoteAction func(power.Action) error
	// KillAll ends every process that is left, Unmount and Sync take care of
	// the file systems, Down is reboot(2). UnmountInner takes away only what is
	// mounted below what is wiped.
	KillAll      func(ctx context.Context) error
	UnmountInner func(ctx context.Context) error
	Unmount      func(ctx context.Context) error
	Sync         func(ctx context.Context) error
	Down         func(power.Action) error
}

// ErrBusy is why a sequence can't begin: another one is under way.
var ErrBusy = errors.New("is under way")

// backstop is how long after the deadline reboot(2) is called whatever the
// sequence itself does.
const backstop = 5 * time.Second

// Overdue says that the node should have been down by now, whatever hangs.
func (c *Controller) Overdue() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current != nil && time.Since(c.current.began) > c.current.limits().down+2*backstop
}

// margin is what leaving a step behind may take.
const margin = 2 * lastWords

// Controller takes the node down.
type Controller struct {
	o Options

	// mu guards the fields below. Nobody logs while holding it: a log that is on
	// a disk that hangs would hold up the backstop.
	mu      sync.Mutex
	current *job // nil when no sequence is under way
	observe []func(Event)
}

// job is a sequence that is under way.
type job struct {
	Request
	actor  string
	began  time.Time
	cancel context.CancelFunc
	timer  *time.Timer   // the backstop
	done   chan struct{} // closed when the sequence has ended, or was left
}

// New makes a controller.
func New(o Options) *Controller { return &Controller{o: o} }

// OnEvent makes fn called for every event of a sequence. fn must not block.
func (c *Controller) OnEvent(fn func(Event)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.observe = append(c.observe, fn)
}

// Tell passes an event on to all observers.
func (c *Controller) Tell(e Event) {
	c.mu.Lock()
	observers := c.observe
	c.mu.Unlock()
	for _, fn := range observers {
		fn(e)
	}
}

// Current names the sequence that takes the node down, "" if none does.
func (c *Controller) Current() Kind {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		return ""
	}
	return c.current.Kind
}

// Reboot begins a plain reboot of the node's own accord, without a drain. With
// FORCE services are killed and pods not asked; a POWERCYCLE, which means the
// firmware's own restart rather than kexec, is a plain reboot here.
func (c *Controller) Reboot(ctx context.Context, mode machine.RebootRequest_Mode) (actor string, err error) {
	return c.Begin(ctx, Request{Kind: Reboot, Force: mode == machine.RebootRequest_FORCE})
}

// Begin starts a sequence and returns the id under which its events are known,
// that of one which is under way if it does the same. It does not wait.
func (c *Controller) Begin(_ context.Context, r Request) (actor string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.current
	switch {
	case before == nil:
	case r.same(before.Request):
		return before.actor, nil
	case !r.stronger(before.Request):
		return "", fmt.Errorf("%s: a %s %w since %v; force takes it over", r.Kind, before.Kind, ErrBusy, time.Since(before.began).Round(time.Second))
	}
	limit := r.limits().down
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	j := &job{Request: r, actor: rand.Text(), began: time.Now(), cancel: cancel, done: make(chan struct{})}
	j.timer = time.AfterFunc(limit+backstop, func() { c.down(j) })
	if before != nil {
		before.timer.Stop()
		before.cancel()
	}
	c.current = j
	go c.run(ctx, j, before)
	return j.actor, nil
}

// run takes the node down. Once the first service has been asked to stop it
// never gives up: whatever fails, the last thing is reboot(2).
func (c *Controller) run(ctx context.Context, j, before *job) {
	defer close(j.done)
	defer j.cancel()
	if before != nil {
		c.o.Log.Warn("sequence is taken over", "sequence", string(before.Kind), "by", string(j.Kind))
		select {
		case <-before.done: // at once: its context is over, and steps that hang are left behind
		case <-time.After(time.Second):
		}
	}
	l := j.limits()
	c.o.Log.Info("going down", "sequence", string(j.Kind), "action", string(j.action()), "force", j.Force, "drain", j.Drain, "limit", l.down)
	tell := func(e Event) { e.Actor = j.actor; c.Tell(e) }
	name := string(j.Kind)
	tell(Event{Sequence: name})
	by := func(limit time.Duration, phases []Phase) error {
		ctx, cancel := context.WithDeadline(ctx, j.began.Add(limit-margin))
		defer cancel()
		return Run(ctx, c.o.Log, name, phases, tell)
	}
	if err := by(l.prepared, c.prepare(j, tell)); err != nil {
		c.abandon(j, err, tell)
		return
	}
	err := by(l.stopped, c.stop(j))
	if c.left(j) {
		return
	}
	err = errors.Join(err, by(l.down, c.end(j)))
	if c.left(j) {
		return
	}
	if err != nil {
		c.o.Log.Error("going down nevertheless", "sequence", name, "err", err)
	}
	tell(Event{Sequence: name, Done: true, Err: err, Took: time.Since(j.began)})
	c.down(j)
}

// left says whether another sequence has taken over.
func (c *Controller) left(j *job) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current != j
}

// abandon ends a sequence before anything was stopped: the node stays.
func (c *Controller) abandon(j *job, err error, tell func(Event)) {
	if c.left(j) {
		return
	}
	if j.Drain {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		// Best effort: the next start uncordons too.
		if undo := c.o.Kubernetes.Uncordon(ctx); undo != nil {
			c.o.Log.Warn("uncordon", "err", undo)
		}
		cancel()
	}
	c.o.Log.Error("the node stays up", "err", err)
	c.mu.Lock()
	if c.current == j {
		c.current = nil
		j.timer.Stop()
	}
	c.mu.Unlock()
	tell(Event{Sequence: string(j.Kind), Done: true, Stays: true, Err: err, Took: time.Since(j.began)})
}

// down is reboot(2), by the sequence or by its backstop, once.
func (c *Controller) down(j *job) {
	if c.left(j) {
		return
	}
	j.timer.Stop()
	if err := c.o.Down(j.action()); err != nil {
		c.o.Log.Error("the machine did not go down", "action", string(j.action()), "err", err)
	}
}
