package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/generic"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
)

// Resource is a typed resource with spec S.
type Resource[S any] interface {
	generic.ResourceWithRD
	TypedSpec() *S
}

// Get reads a resource of the type's own namespace; one that does not exist is
// nil without an error.
func Get[R generic.ResourceWithRD](ctx context.Context, r controller.Reader, id resource.ID) (R, error) {
	var none R
	res, err := safe.ReaderGetByID[R](ctx, r, id)
	if state.IsNotFoundError(err) {
		return none, nil
	}
	if err != nil {
		return none, fmt.Errorf("read %s %s: %w", none.ResourceDefinition().Type, id, err)
	}
	return res, nil
}

// Put writes res with spec.
func Put[R Resource[S], S any](ctx context.Context, w controller.Writer, res R, spec S) error {
	return safe.WriterModify(ctx, w, res, func(res R) error {
		*res.TypedSpec() = spec
		return nil
	})
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
	kind := make("").Metadata()
	list, err := safe.ReaderList[R](ctx, r, kind)
	if err != nil {
		return fmt.Errorf("list %s: %w", kind.Type(), err)
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
		if err := Put(ctx, r, make(id), want[id]); err != nil {
			return fmt.Errorf("write %s %s: %w", kind.Type(), id, err)
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
