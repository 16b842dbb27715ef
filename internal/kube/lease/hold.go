package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"talos/internal/kube/api"
	"talos/internal/loop"
)

// Times of a held lease. A holder gives up well before others may take over.
const (
	Duration    = 15 * time.Second
	renewPause  = 4 * time.Second
	renewLimit  = 10 * time.Second
	waitPause   = 2 * time.Second
	requestTime = 5 * time.Second
)

var errLost = errors.New("lease lost")

// Claim is a wish to hold a lease of namespace kube-system.
type Claim struct {
	Client   *api.Client
	Log      *slog.Logger
	Name     string
	Identity string // one per machine: a lease that bears it is ours, from before a restart
	// Patience is how long a lease must have been free before it is taken: what
	// others want more urgently.
	Patience time.Duration
}

// Hold waits for the lease and runs fn while it holds it. It returns fn's
// error, or that the lease was lost; the lease is free then.
func Hold(ctx context.Context, c Claim, fn func(context.Context) error) error {
	if err := c.acquire(ctx); err != nil {
		return err
	}
	c.Log.Debug("lease acquired", "lease", c.Name)
	held, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := loop.Protect(func() error { return c.renew(held) }); err != nil {
			cancel(err)
		}
	}()
	err := loop.Protect(func() error { return fn(held) })
	if cause := context.Cause(held); cause != nil && ctx.Err() == nil {
		err = errors.Join(cause, err)
	}
	cancel(nil)
	<-done
	c.release(context.WithoutCancel(ctx))
	return err
}

// observed is what a candidate saw of a lease, and since when nothing else: by
// its own clock, because others' may be wrong.
type observed struct {
	version string
	since   time.Time
}

func (c Claim) acquire(ctx context.Context) error {
	var seen observed
	for {
		got, err := c.try(ctx, &seen, time.Now())
		if got || ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("lease %s: %w", c.Name, err)
		}
		loop.Sleep(ctx, waitPause)
	}
}

// try takes the lease if it is free.
func (c Claim) try(ctx context.Context, seen *observed, now time.Time) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	in := c.Client.Resource(leases).Namespace(metav1.NamespaceSystem)
	o, err := in.Get(ctx, c.Name, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return false, err
	}
	version, holder := "", ""
	if !missing {
		version = o.GetResourceVersion()
		holder, _, _ = unstructured.NestedString(o.Object, "spec", "holderIdentity") // malformed is nobody's
	}
	if seen.since.IsZero() || seen.version != version {
		*seen = observed{version, now}
	}
	if !mayTake(holder, c.Identity, now.Sub(seen.since), c.Patience) {
		return false, nil
	}
	if missing {
		_, err = in.Create(ctx, c.object(nil, now), metav1.CreateOptions{FieldManager: "talos"})
	} else {
		_, err = in.Update(ctx, c.object(o, now), metav1.UpdateOptions{FieldManager: "talos"})
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) { // somebody was faster
		return false, nil
	}
	return err == nil, err
}

// mayTake tells whether a lease that has not changed for a while may be taken.
func mayTake(holder, identity string, unchanged, patience time.Duration) bool {
	switch holder {
	case "":
		return unchanged >= patience
	case identity:
		return true
	}
	return unchanged >= Duration+patience
}

// object is the lease in our hands, made of what is there.
func (c Claim) object(o *unstructured.Unstructured, now time.Time) *unstructured.Unstructured {
	if o == nil {
		o = &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
			"metadata": map[string]any{"name": c.Name, "namespace": metav1.NamespaceSystem},
		}}
	}
	o.Object["spec"] = map[string]any{
		"holderIdentity": c.Identity, "leaseDurationSeconds": int64(Duration / time.Second),
		"renewTime": now.UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
	}
	return o
}

// renew keeps the lease until ctx ends; an error means that it is lost.
func (c Claim) renew(ctx context.Context) error {
	last := time.Now()
	for loop.Sleep(ctx, renewPause); ctx.Err() == nil; loop.Sleep(ctx, renewPause) {
		err := c.renewOnce(ctx)
		switch {
		case err == nil:
			last = time.Now()
		case errors.Is(err, errLost) || time.Since(last) > renewLimit:
			return fmt.Errorf("%w: %s: %w", errLost, c.Name, err)
		}
	}
	return nil
}

func (c Claim) renewOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	in := c.Client.Resource(leases).Namespace(metav1.NamespaceSystem)
	o, err := in.Get(ctx, c.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if holder, _, _ := unstructured.NestedString(o.Object, "spec", "holderIdentity"); holder != c.Identity {
		return fmt.Errorf("%w to %q", errLost, holder)
	}
	_, err = in.Update(ctx, c.object(o, time.Now()), metav1.UpdateOptions{FieldManager: "talos"})
	return err
}

// release gives the lease back, so that nobody has to wait until it runs out.
func (c Claim) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	in := c.Client.Resource(leases).Namespace(metav1.NamespaceSystem)
	o, err := in.Get(ctx, c.Name, metav1.GetOptions{})
	if err != nil {
		return // it runs out by itself
	}
	if holder, _, _ := unstructured.NestedString(o.Object, "spec", "holderIdentity"); holder != c.Identity {
		return
	}
	o.Object["spec"] = map[string]any{"holderIdentity": ""}
	in.Update(ctx, o, metav1.UpdateOptions{FieldManager: "talos"}) // best effort, as above
}
