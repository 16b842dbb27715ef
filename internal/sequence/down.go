package sequence

import (
	"context"
	"errors"
	"time"

	"talos/internal/service"
)

// StopServices is the phase in which the API goes away too.
const StopServices = "stop services"

// one is a phase of one step that may keep nobody from trying the next.
func one(name string, deadline time.Duration, run func(context.Context) error) Phase {
	return Phase{Name: name, Deadline: deadline, Steps: []Step{{Name: name, Optional: true, Run: run}}}
}

// prepare is what happens while everything still runs, and from where there is
// a way back.
func (c *Controller) prepare(j *job, tell func(Event)) []Phase {
	var phases []Phase
	say := func(step string) func(string) {
		return func(text string) { tell(Event{Sequence: string(j.Kind), Phase: step, Step: step, Message: text}) }
	}
	if j.Drain {
		phases = append(phases,
			one("cordon", 15*time.Second, c.o.Kubernetes.Cordon),
			one("drain", j.drainTimeout(), func(ctx context.Context) error { return c.o.Kubernetes.Drain(ctx, say("drain")) }))
	}
	if j.Leave {
		leave := one("leave the cluster", leaveNeed, func(ctx context.Context) error {
			return c.o.Leave(ctx, j.Request, say("leave the cluster"))
		})
		leave.Steps[0].Optional = j.Insist
		phases = append(phases, leave)
	}
	if j.wipes() {
		note := one("note what is wiped", 5*time.Second, func(context.Context) error { return c.o.NoteWipe(j.Wipe, j.Disks) })
		note.Steps[0].Optional = false // else it would be a reboot that looks like a reset
		phases = append(phases, note)
	}
	return append(phases, one("note action", 3*time.Second, func(context.Context) error { return c.o.NoteAction(j.action()) }))
}

// stop asks everything to end.
func (c *Controller) stop(j *job) []Phase {
	if j.Force {
		return nil
	}
	return []Phase{
		one("stop kubelet", 15*time.Second, c.stopKubelet), // first: it would start pods again
		one("stop pods", podGrace+5*time.Second, c.stopPods),
		one(StopServices, 40*time.Second, func(ctx context.Context) error { return c.o.Services.StopAll(ctx) }),
	}
}

// end is done to what is left, and to the file systems.
func (c *Controller) end(j *job) []Phase {
	phases := []Phase{one("kill what is left", 5*time.Second, c.o.KillAll)}
	if j.wipes() {
		// What of this hangs or fails is done at the next start.
		phases = append(phases,
			one("unmount what pods have mounted", 5*time.Second, c.o.UnmountInner),
			one("wipe", j.wipeNeeds(), c.o.Wipe))
	}
	return append(phases,
		one("sync", 10*time.Second, c.o.Sync),
		one("unmount", 10*time.Second, c.o.Unmount),
		one("sync again", 5*time.Second, c.o.Sync))
}

func (c *Controller) stopKubelet(ctx context.Context) error {
	err := c.o.Services.Stop(ctx, "kubelet")
	if errors.Is(err, service.ErrUnknown) {
		return nil
	}
	return err
}
