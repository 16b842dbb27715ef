package udevd

import (
	"context"
	"log/slog"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/internal/reconcile"
	"talos/internal/resources/runtime"
)

// DiagnosticID is the id of the Diagnostic that says what is wrong with devices.
const DiagnosticID = resource.ID("devices")

// Diagnose makes the controller that tells of what devices did not take: links
// whose names are taken, owners that nobody knows, names that links could not get.
func Diagnose(log *slog.Logger, d *Daemon) controller.Controller {
	c := &reconcile.Controller{ID: "runtime.DevicesStatusController", Log: log, Ticks: d.Subscribe(), Shared: []resource.Type{runtime.DiagnosticType}}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		want := map[resource.ID]runtime.DiagnosticSpec{}
		if problems := d.Problems(); len(problems) > 0 {
			want[DiagnosticID] = runtime.DiagnosticSpec{Message: "some devices are not as they should be", Details: problems}
		}
		return reconcile.Output(ctx, r, c.Name(), runtime.NewDiagnostic, want, nil)
	}
	return c
}
