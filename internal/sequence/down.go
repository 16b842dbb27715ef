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
	"talos/internal/layout"
	"talos/internal/power"
	"talos/internal/service"
)

// Limits of a way down. The whole has one deadline that starts before anything
// else; the parts share it.
const (
	gracefulLimit = 90 * time.Second
	forceLimit    = 15 * time.Second
	podGrace      = 10 * time.Second
	serverGrace   = 2 * time.Second // an API server waits for the ends of watches, which nobody ends
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

// Options are what a Controller works on.
type Options struct {
	Log      *slog.Logger
	Services Services
	Pods     Pods
	// PowerFile is where the action is noted.
	PowerFile string
	// KillAll ends every process that is left, Unmount and Sync take care of
	// the file systems, Down is reboot(2).
	KillAll func(ctx context.Context) error
	Unmount func(ctx context.Context) error
	Sync    func(ctx context.Context) error
	Down    func(power.Action) error

	scale time.Duration // tests divide the deadlines by it
}

// Controller takes the node down, once.
type Controller struct {
	o    Options
	done chan struct{} // closed when Down has returned, which only tests see

	mu      sync.Mutex // guards the fields below
	current string     // "", "reboot" or "shutdown"
	actor   string
	observe []func(Event)
}

// New makes a controller.
func New(o Options) *Controller { return &Controller{o: o, done: make(chan struct{})} }

// OnEvent makes fn called for every event of a sequence, also of the boot's if
// that is given Tell.
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
func (c *Controller) Current() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// Reboot begins a reboot and returns the id under which its events are known.
// With FORCE services are killed and pods not asked; a POWERCYCLE, which means
// the firmware's own restart rather than kexec, is a plain reboot here.
func (c *Controller) Reboot(_ context.Context, mode machine.RebootRequest_Mode) (actor string, err error) {
	return c.begin("reboot", power.Reboot, mode == machine.RebootRequest_FORCE)
}

// Shutdown begins a shutdown; force kills instead of asking.
func (c *Controller) Shutdown(_ context.Context, force bool) (actor string, err error) {
	return c.begin("shutdown", power.PowerOff, force)
}

// begin starts the way down in a goroutine that lives until the machine doesn't.
func (c *Controller) begin(name string, action power.Action, force bool) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == name {
		return c.actor, nil
	}
	if c.current != "" {
		return "", fmt.Errorf("%s: a %s is under way", name, c.current)
	}
	c.current, c.actor = name, rand.Text()
	go c.down(name, action, force)
	return c.actor, nil
}

// down never gives up: whatever fails, the last thing is reboot(2).
func (c *Controller) down(name string, action power.Action, force bool) {
	defer close(c.done)
	limit := gracefulLimit
	if force {
		limit = forceLimit
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c.o.Log.Info("going down", "sequence", name, "action", string(action), "force", force, "limit", limit)
	if err := Run(ctx, c.o.Log, name, c.phases(action, force), c.Tell); err != nil {
		c.o.Log.Error("going down nevertheless", "sequence", name, "err", err)
	}
	if err := c.o.Down(action); err != nil {
		c.o.Log.Error("the machine did not go down", "action", string(action), "err", err)
	}
}

// phases are the way down. All steps are optional: none may keep the next
// from being tried.
func (c *Controller) phases(action power.Action, force bool) []Phase {
	one := func(name string, deadline time.Duration, run func(context.Context) error) Phase {
		deadline /= max(c.o.scale, 1)
		return Phase{Name: name, Deadline: deadline, Steps: []Step{{Name: name, Optional: true, Run: run}}}
	}
	note := one("note action", 3*time.Second, func(context.Context) error { return power.Note(c.o.PowerFile, action) })
	end := []Phase{
		one("kill what is left", 5*time.Second, c.o.KillAll),
		one("sync", 10*time.Second, c.o.Sync),
		one("unmount", 10*time.Second, c.o.Unmount),
		one("sync again", 5*time.Second, c.o.Sync),
	}
	if force {
		return append([]Phase{note}, end...)
	}
	return append([]Phase{
		note,
		one("stop kubelet", 15*time.Second, c.stopKubelet), // first: it would start pods again
		one("stop pods", podGrace+5*time.Second, c.stopPods),
		one("stop services", 40*time.Second, func(ctx context.Context) error { return c.o.Services.StopAll(ctx) }),
	}, end...)
}

func (c *Controller) stopKubelet(ctx context.Context) error {
	err := c.o.Services.Stop(ctx, "kubelet")
	if errors.Is(err, service.ErrUnknown) {
		return nil
	}
	return err
}

// stopPods asks the containers of pods to end, the API server's after all others,
// which may have something to say over it: a leader gives up its lease. Then it
// kills what is left, and the sandboxes.
func (c *Controller) stopPods(ctx context.Context) error {
	server := func(p containers.Container) bool {
		return p.PodNamespace == "kube-system" && p.Name == "kube-apiserver"
	}
	others := func(p containers.Container) bool { return !p.Sandbox && !server(p) }
	everything := func(containers.Container) bool { return true }
	err := c.endPods(ctx, podGrace, others)
	if err == nil {
		err = c.endPods(ctx, serverGrace, func(p containers.Container) bool { return !p.Sandbox && server(p) })
	}
	if err != nil {
		return err
	}
	_, err = c.signalPods(ctx, syscall.SIGKILL, everything)
	return err
}

// endPods sends SIGTERM to the containers that match and waits for their end,
// but not longer than grace.
func (c *Controller) endPods(ctx context.Context, grace time.Duration, match func(containers.Container) bool) error {
	left, err := c.signalPods(ctx, syscall.SIGTERM, match)
	for deadline := time.Now().Add(grace); err == nil && left > 0 && time.Now().Before(deadline); {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		left, err = c.signalPods(ctx, 0, match)
	}
	return err
}

// signalPods counts the running containers that match, and signals them
// unless sig is 0.
func (c *Controller) signalPods(ctx context.Context, sig syscall.Signal, match func(containers.Container) bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	list, err := c.o.Pods.List(ctx, containers.CRI, layout.KubeNamespace)
	if err != nil {
		return 0, err
	}
	running := 0
	var errs []error
	for _, p := range list {
		if p.PID == 0 || !match(p) {
			continue
		}
		running++
		if sig == 0 {
			continue
		}
		err := c.o.Pods.Kill(ctx, containers.CRI, layout.KubeNamespace, p.ID, sig, sig == syscall.SIGKILL)
		if err != nil && !errors.Is(err, containers.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return running, errors.Join(errs...)
}
