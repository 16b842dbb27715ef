package networkd

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

const (
	resync = 5 * time.Minute // for a change that no event told of
	settle = 10 * time.Millisecond
	retry  = time.Second
)

// reconciler is a controller that compares and corrects: with every change of
// its inputs, of the kernel, and after a while in any case. An error is
// logged, once while it stays the same, and tried again.
type reconciler struct {
	name    string
	inputs  []controller.Input
	outputs []controller.Output
	ticks   <-chan struct{} // the kernel changed; may be nil
	log     *slog.Logger
	run     func(context.Context, controller.Runtime) error
}

// Name of the controller.
func (c *reconciler) Name() string { return "network." + c.name }

// Inputs of the controller.
func (c *reconciler) Inputs() []controller.Input { return slices.Clone(c.inputs) }

// Outputs of the controller.
func (c *reconciler) Outputs() []controller.Output { return slices.Clone(c.outputs) }

// Run reconciles until ctx ends. What was made stays.
func (c *reconciler) Run(ctx context.Context, r controller.Runtime, _ *zap.Logger) error {
	timer := time.NewTimer(resync)
	defer timer.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.EventCh():
		case <-c.ticks:
			sleep(ctx, settle) // changes come in groups
		case <-timer.C:
		}
		next := resync
		if err := c.run(ctx, r); err != nil && ctx.Err() == nil {
			if err.Error() != last {
				c.log.Warn("network is not as wanted", "controller", c.name, "err", err)
			}
			last, next = err.Error(), retry
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

// resourceOf is a typed resource with spec S.
type resourceOf[S any] interface {
	generic.ResourceWithRD
	TypedSpec() *S
}

func input(ns resource.Namespace, kind resource.Type) controller.Input {
	return controller.Input{Namespace: ns, Type: kind, Kind: controller.InputWeak}
}

func shared(kinds ...resource.Type) []controller.Output {
	var out []controller.Output
	for _, k := range kinds {
		out = append(out, controller.Output{Type: k, Kind: controller.OutputShared})
	}
	return out
}

// specs lists the specs of a kind in the order of their ids.
func specs[R resourceOf[S], S any](ctx context.Context, r controller.Reader, kind resource.Kind) ([]S, error) {
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

// output makes the resources that owner has of one kind those of want, and
// writes only what differs. Keep spares what an id says is not at stake.
func output[R resourceOf[S], S any](ctx context.Context, r controller.Runtime, owner string, make func(resource.ID) R, want map[resource.ID]S, keep func(resource.ID) bool) error {
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
