package metal

import (
	"context"
	"log/slog"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/reconcile"
	configres "talos/internal/resources/config"
	"talos/internal/resources/runtime"
)

// rulesID names what is wrong with the user's rules.
const rulesID = "udev-rules"

// ruled is what takes the user's rules for devices.
type ruled interface {
	SetRules(entries []string) error
}

// Rules makes the controller that hands machine.udev.rules to udevd. Rules that
// can't be followed leave the old ones in force, and are a Diagnostic.
func Rules(log *slog.Logger, devices ruled) controller.Controller {
	c := &reconcile.Controller{
		ID: "runtime.UdevRulesController", Log: log,
		In: []controller.Input{reconcile.Input[*configres.MachineConfig]()}, Shared: []resource.Type{runtime.DiagnosticType},
	}
	c.Step = func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
		cfg, err := active.Config(ctx, r)
		if err != nil {
			return err
		}
		problems := map[resource.ID]runtime.DiagnosticSpec{}
		if err := devices.SetRules(config.Of(config.Of(config.Of(cfg).Machine).Udev).Rules); err != nil {
			log.Error("machine.udev.rules", "err", err)
			problems[rulesID] = runtime.DiagnosticSpec{
				Message: "machine.udev.rules can't be followed; the rules before stay", Details: strings.Split(err.Error(), "\n"),
			}
		}
		return reconcile.Output(ctx, r, c.Name(), runtime.NewDiagnostic, problems, nil)
	}
	return c
}
