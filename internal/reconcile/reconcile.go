// Package reconcile is the shape that controllers share: compare what is wanted
// with what is there, correct it, write down what came of it; and do so again
// with every change.
//
// It owns the loop with its retries, the writing and taking away of resources,
// and work that lasts longer than a step (Task); it leaves alone what is
// compared. A Controller is run by one runtime at a time; a Task is used by
// the steps of one Controller only. Everything else may be used concurrently.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/generic"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/siderolabs/gen/optional"
	"go.uber.org/zap"

	"talos/internal/loop"
)

// Times of the loop.
const (
	Resync = 5 * time.Minute        // for a change that no event told of
	settle = 10 * time.Millisecond  // changes outside the store come in groups
	retry  = 500 * time.Millisecond // after an error, then half as long again each time
	tired  = 10 * time.Second       // the longest pause after an error
)

// ErrKeep is what a step returns, bare or wrapped with the reason, when it
// cannot say now what should exist: its outputs stay as they are, and the next
// event is waited for.
var ErrKeep = errors.New("outputs stay as they are")

// Controller is a controller of the store's runtime made of one step, which is
// taken with every change of its inputs, with every tick, and every Resync.
type Controller struct {
	ID  string // such as network.LinkSpecController
	Log *slog.Logger
	// In are the resources whose change leads to a step.
	In []controller.Input
	// Out are the types that this controller alone writes. A step writes every
	// one that should exist; what it did not write is taken away after it.
	Out []resource.Kind
	// Shared are types that others write as well; see Output.
	Shared []resource.Type
	// Ticks, if set, tells that something outside the store changed.
	Ticks <-chan struct{}
	// Step makes things as they should be. An error is logged, once while it
	// stays the same, and leads to another step, ever later.
	Step func(ctx context.Context, r controller.Runtime, log *slog.Logger) error
	// Close, if set, ends what steps left running.
	Close func()
}

// Name is the controller's name.
func (c *Controller) Name() string { return c.ID }

// Inputs are the resources whose change leads to a step.
func (c *Controller) Inputs() []controller.Input { return c.In }

// Outputs are the types that the controller writes.
func (c *Controller) Outputs() []controller.Output {
	var out []controller.Output
	for _, kind := range c.Out {
		out = append(out, controller.Output{Type: kind.Type(), Kind: controller.OutputExclusive})
	}
	for _, kind := range c.Shared {
		out = append(out, controller.Output{Type: kind, Kind: controller.OutputShared})
	}
	return out
}

// Run takes steps until ctx ends. What was made stays.
func (c *Controller) Run(ctx context.Context, r controller.Runtime, _ *zap.Logger) error {
	if c.Close != nil {
		defer c.Close()
	}
	log := c.Log.With("controller", c.ID)
	timer := time.NewTimer(Resync)
	defer timer.Stop()
	pause, last := retry, ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.EventCh():
		case <-c.Ticks:
			loop.Sleep(ctx, settle)
		case <-timer.C:
		}
		next := Resync
		if err := c.step(ctx, r, log); err == nil {
			pause, last = retry, ""
		} else if ctx.Err() == nil {
			if text := err.Error(); text != last {
				log.Warn("not as wanted", "err", err)
				last = text
			}
			next, pause = pause, min(pause*3/2, tired)
		}
		timer.Reset(next)
	}
}

// step takes one step and takes away the outputs that it did not write.
func (c *Controller) step(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
	if len(c.Out) == 0 {
		return kept(c.Step(ctx, r, log), log)
	}
	r.StartTrackingOutputs()
	if err := c.Step(ctx, r, log); err != nil {
		// Of no type: this ends the tracking and removes nothing.
		return errors.Join(kept(err, log), r.CleanupOutputs(ctx))
	}
	if err := r.CleanupOutputs(ctx, c.Out...); err != nil {
		return fmt.Errorf("remove stale outputs: %w", err)
	}
	return nil
}

// kept is nil for a step that only waits.
func kept(err error, log *slog.Logger) error {
	if errors.Is(err, ErrKeep) {
		log.Debug("outputs stay", "why", err)
		return nil
	}
	return err
}

// Input watches every resource of a type, in the type's own namespace.
func Input[R generic.ResourceWithRD]() controller.Input {
	return safe.Input[R](controller.InputWeak)
}

// InputIn watches every resource of a type in another namespace.
func InputIn[R generic.ResourceWithRD](ns resource.Namespace) controller.Input {
	in := Input[R]()
	in.Namespace = ns
	return in
}

// InputID watches one resource of a type.
func InputID[R generic.ResourceWithRD](id resource.ID) controller.Input {
	in := Input[R]()
	in.ID = optional.Some(id)
	return in
}

// Kind is a type with its namespace, for a Controller's Out.
func Kind[R generic.ResourceWithRD]() resource.Kind {
	var r R
	d := r.ResourceDefinition()
	return resource.NewMetadata(d.DefaultNamespace, d.Type, "", resource.VersionUndefined)
}
