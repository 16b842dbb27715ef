// Package reconcile is the usual shape of a controller: compare what is wanted
// with what is there, correct it, write down what came of it; and do so again
// with every change.
//
// It owns loop, retry and the writing of resources that differ, not what is
// compared. A Controller is run by one runtime at a time.
package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/generic"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.uber.org/zap"
)

// Times of the loop.
const (
	Resync = 5 * time.Minute // for a change that no event told of
	Retry  = time.Second     // after an error
	settle = 10 * time.Millisecond
)

// Controller compares and corrects: with every change of its inputs, of
// what Ticks tells of, and after a while in any case. An error is logged, once
// while it stays the same, and tried again.
type Controller struct {
	ID    string // such as network.LinkSpecController
	Reads []controller.Input
	Makes []controller.Output
	Ticks <-chan struct{} // something outside the store changed; may be nil
	Log   *slog.Logger
	Do    func(context.Context, controller.Runtime) error
}

// Name of the controller.
func (c *Controller) Name() string { return c.ID }

// Inputs of the controller.
func (c *Controller) Inputs() []controller.Input { return slices.Clone(c.Reads) }

// Outputs of the controller.
func (c *Controller) Outputs() []controller.Output { return slices.Clone(c.Makes) }

// Run reconciles until ctx ends. What was made stays.
func (c *Controller) Run(ctx context.Context, r controller.Runtime, _ *zap.Logger) error {
	timer := time.NewTimer(Resync)
	defer timer.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.EventCh():
		case <-c.Ticks:
			sleep(ctx, settle) // changes come in groups
		case <-timer.C:
		}
		next := Resync
		if err := c.Do(ctx, r); err != nil && ctx.Err() == nil {
			if err.Error() != last {
				c.Log.Warn("not as wanted", "controller", c.ID, "err", err)
			}
			last, next = err.Error(), Retry
		} else {
			last = ""
		}
		timer.Reset(next)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Resource is a typed resource with spec S.
type Resource[S any] interface {
	generic.ResourceWithRD
	TypedSpec() *S
}

// Input is a weak input of all resources of a type.
func Input(ns resource.Namespace, kind resource.Type) controller.Input {
	return controller.Input{Namespace: ns, Type: kind, Kind: controller.InputWeak}
}

// Shared lists outputs that other controllers may make as well.
func Shared(kinds ...resource.Type) []controller.Output {
	var out []controller.Output
	for _, k := range kinds {
		out = append(out, controller.Output{Type: k, Kind: controller.OutputShared})
	}
	return out
}

// Specs lists the specs of a kind in the order of their ids.
func Specs[R Resource[S], S any](ctx context.Context, r controller.Reader, kind resource.Kind) ([]S, error) {
	list, err := safe.ReaderList[R](ctx, r, kind)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind.Type(), err)
	}
	var items []R
	for item := range list.All() {
		if item.Metadata().Phase() == resource.PhaseRunning {
			items = append(items, item)
		}
	}
	slices.SortFunc(items, func(a, b R) int { return cmp.Compare(a.Metadata().ID(), b.Metadata().ID()) })
	out := make([]S, 0, len(items))
	for _, item := range items {
		out = append(out, *item.TypedSpec())
	}
	return out, nil
}

// Output makes the resources that owner has of one kind those of want, and
// writes only what differs. Keep spares what an id says is not at stake.
func Output[R Resource[S], S any](ctx context.Context, r controller.Runtime, owner string, make func(resource.ID) R, want map[resource.ID]S, keep func(resource.ID) bool) error {
	list, err := safe.ReaderList[R](ctx, r, make("").Metadata())
	if err != nil {
		return fmt.Errorf("list %s: %w", make("").Metadata().Type(), err)
	}
	same := map[resource.ID]bool{}
	for item := range list.All() {
		id := item.Metadata().ID()
		spec, wanted := want[id]
		switch {
		case item.Metadata().Owner() != owner:
		case wanted:
			same[id] = reflect.DeepEqual(*item.TypedSpec(), spec)
		case keep != nil && keep(id):
		default:
			if err := destroy(ctx, r, item.Metadata()); err != nil {
				return err
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if same[id] {
			continue
		}
		if err := safe.WriterModify(ctx, r, make(id), func(item R) error {
			*item.TypedSpec() = want[id]
			return nil
		}); err != nil {
			return fmt.Errorf("write %s %s: %w", make(id).Metadata().Type(), id, err)
		}
	}
	return nil
}

func destroy(ctx context.Context, r controller.Runtime, ptr resource.Pointer) error {
	if err := r.Destroy(ctx, ptr); err != nil && !state.IsNotFoundError(err) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("destroy %s %s: %w", ptr.Type(), ptr.ID(), err)
	}
	return nil
}
