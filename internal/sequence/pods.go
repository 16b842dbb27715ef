package sequence

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"talos/internal/containers"
	"talos/internal/layout"
)

const (
	podGrace = 10 * time.Second
	// serverNeeded is how long the API server goes on for those that end: a
	// leader gives up its lease, others say goodbye.
	serverNeeded = 2 * time.Second
	serverGrace  = 2 * time.Second // an API server waits for the ends of watches, which nobody ends
	podPoll      = 100 * time.Millisecond
)

func isServer(p containers.Container) bool {
	return !p.Sandbox && p.PodNamespace == "kube-system" && p.Name == "kube-apiserver"
}

// needsServer are the components that must have ended before the API server.
func needsServer(p containers.Container) bool {
	return p.PodNamespace == "kube-system" && slices.Contains([]string{"kube-controller-manager", "kube-scheduler"}, p.Name)
}

// stopPods asks the containers of pods to end, the API server's a little later
// than all others, and waits for their ends side by side. Then it kills what is
// left, and the sandboxes.
func (c *Controller) stopPods(ctx context.Context) error {
	began, asked := time.Now(), time.Time{} // asked: when the API server was
	_, err := c.signalPods(ctx, syscall.SIGTERM, func(p containers.Container) bool { return !p.Sandbox && !isServer(p) })
	for err == nil {
		var left []containers.Container
		if left, err = c.signalPods(ctx, 0, func(p containers.Container) bool { return !p.Sandbox }); err != nil {
			break
		}
		others := slices.DeleteFunc(slices.Clone(left), isServer)
		if asked.IsZero() && serverMayEnd(others, time.Since(began)) {
			asked = time.Now()
			_, err = c.signalPods(ctx, syscall.SIGTERM, isServer)
			continue
		}
		serverOver := !asked.IsZero() && (len(left) == len(others) || time.Since(asked) >= serverGrace)
		if serverOver && (len(others) == 0 || time.Since(began) >= podGrace) {
			_, err = c.signalPods(ctx, syscall.SIGKILL, func(containers.Container) bool { return true })
			return err
		}
		select {
		case <-time.After(podPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// serverMayEnd says whether nobody of those that still run needs the API server.
func serverMayEnd(others []containers.Container, since time.Duration) bool {
	return len(others) == 0 || since >= podGrace || since >= serverNeeded && !slices.ContainsFunc(others, needsServer)
}

// signalPods returns the running containers that match, and signals them unless
// sig is 0.
func (c *Controller) signalPods(ctx context.Context, sig syscall.Signal, match func(containers.Container) bool) ([]containers.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	list, err := c.o.Pods.List(ctx, containers.CRI, layout.KubeNamespace)
	if err != nil {
		return nil, err
	}
	var running []containers.Container
	var errs []error
	for _, p := range list {
		if p.PID == 0 || !match(p) {
			continue
		}
		running = append(running, p)
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
