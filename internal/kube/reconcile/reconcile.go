// Package reconcile is the shape that the Kubernetes controllers share: one
// step per event, outputs that a step did not write are taken away, and work
// that lasts longer than a step runs in a keyed Task.
//
// It knows no Kubernetes. A Controller is run by one goroutine; a Task may be
// used by that goroutine only.
package reconcile

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/generic"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/siderolabs/gen/optional"
	"go.uber.org/zap"

	"talos/config"
	resconfig "talos/internal/resources/config"
)

// Controller is a controller of the store's runtime made of one step.
type Controller struct {
	ID  string
	In  []controller.Input
	Out []resource.Kind
	Log *slog.Logger
	// Step reads the inputs and writes every output that should exist.
	Step func(ctx context.Context, r controller.Runtime, log *slog.Logger) error
	// Close, if set, ends what Step left running.
	Close func()
}

// Name is the controller's name.
func (c *Controller) Name() string { return c.ID }

// Inputs are the resources whose change leads to a step.
func (c *Controller) Inputs() []controller.Input { return c.In }

// Outputs are the types that the controller alone writes.
func (c *Controller) Outputs() []controller.Output {
	var out []controller.Output
	for _, kind := range c.Out {
		out = append(out, controller.Output{Type: kind.Type(), Kind: controller.OutputExclusive})
	}
	return out
}

// Run makes a step for each event until ctx ends. The runtime starts it again,
// ever more slowly, after an error.
func (c *Controller) Run(ctx context.Context, r controller.Runtime, _ *zap.Logger) error {
	if c.Close != nil {
		defer c.Close()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.EventCh():
		}
		r.StartTrackingOutputs()
		if err := c.Step(ctx, r, c.Log.With("controller", c.ID)); err != nil {
			return err
		}
		if err := r.CleanupOutputs(ctx, c.Out...); err != nil {
			return fmt.Errorf("remove stale outputs: %w", err)
		}
		r.ResetRestartBackoff()
	}
}

// Input watches every resource of a type.
func Input[R generic.ResourceWithRD]() controller.Input {
	return safe.Input[R](controller.InputWeak)
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

// Resource is a typed resource that knows its definition.
type Resource = generic.ResourceWithRD

// Get reads a resource; one that does not exist is nil without an error.
func Get[R Resource](ctx context.Context, r controller.Reader, id resource.ID) (R, error) {
	res, err := safe.ReaderGetByID[R](ctx, r, id)
	if state.IsNotFoundError(err) {
		var none R
		return none, nil
	}
	if err != nil {
		var none R
		return none, fmt.Errorf("read %s %s: %w", none.ResourceDefinition().Type, id, err)
	}
	return res, nil
}

// Config reads and decodes the configuration in force; none is nil. What it
// returns is shared by all controllers, which ask at each of their events:
// nobody may change it.
func Config(ctx context.Context, r controller.Reader) (*config.Config, error) {
	mc, err := Get[*resconfig.MachineConfig](ctx, r, resconfig.ActiveID)
	if err != nil || mc == nil {
		return nil, err
	}
	return decoded.load(mc.TypedSpec().Document)
}

// decoded remembers the last document.
var decoded memory

type memory struct {
	mu   sync.Mutex // guards the fields below
	text []byte
	cfg  *config.Config
}

func (m *memory) load(text []byte) (*config.Config, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cfg != nil && bytes.Equal(m.text, text) {
		return m.cfg, nil
	}
	cfg, _, err := config.Load("machine configuration", text)
	if err != nil {
		return nil, err
	}
	m.text, m.cfg = bytes.Clone(text), cfg
	return cfg, nil
}

// Of is what p points to, or the zero value: most of the configuration is
// optional, and what is missing is empty.
func Of[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// Or is *p, or def when p is nil.
func Or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}
