package secrets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"go.uber.org/zap"

	configres "talos/internal/resources/config"
	"talos/internal/resources/network"
)

// checkInterval is how often certificates are looked at without any event:
// often enough for the shortest life, whatever the clock did meanwhile.
const checkInterval = 10 * time.Minute

// errWait says that a name of the node is not known. It may be gone for a
// moment only, so what was issued stays as it is.
var errWait = errors.New("a name or an address of the node is missing")

// issuer is a controller: one step per event, and per interval, because time
// alone makes certificates due.
type issuer struct {
	id   string
	out  []resource.Kind
	step func(ctx context.Context, r controller.Runtime, now time.Time) error // writes all that should exist
	now  func() time.Time
	log  *slog.Logger
}

// Name is the controller's name.
func (c *issuer) Name() string { return "secrets." + c.id + "Controller" }

// Inputs are the configuration and the node's names.
func (c *issuer) Inputs() []controller.Input {
	return []controller.Input{
		safe.Input[*configres.MachineConfig](controller.InputWeak),
		safe.Input[*network.NodeAddress](controller.InputWeak),
		safe.Input[*network.HostnameStatus](controller.InputWeak),
	}
}

// Outputs are the types that the controller alone writes.
func (c *issuer) Outputs() []controller.Output {
	var out []controller.Output
	for _, k := range c.out {
		out = append(out, controller.Output{Type: k.Type(), Kind: controller.OutputExclusive})
	}
	return out
}

// Run steps until ctx ends. The runtime starts it again after an error.
func (c *issuer) Run(ctx context.Context, r controller.Runtime, _ *zap.Logger) error {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.EventCh():
		case <-tick.C:
		}
		r.StartTrackingOutputs()
		err := c.step(ctx, r, c.now())
		if errors.Is(err, errWait) {
			c.log.Debug("keeping what is issued", "controller", c.Name(), "why", err)
			if err := r.CleanupOutputs(ctx); err != nil { // of no type: ends the tracking only
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := r.CleanupOutputs(ctx, c.out...); err != nil {
			return fmt.Errorf("take away what is not issued any more: %w", err)
		}
		r.ResetRestartBackoff()
	}
}
