package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/api/machine"
	"talos/config"
	"talos/internal/block"
	"talos/internal/bootlog"
	"talos/internal/cmdline/redact"
	"talos/internal/console"
	"talos/internal/hardening"
	"talos/internal/hardware"
	"talos/internal/kernelparam"
	"talos/internal/layout"
	"talos/internal/linux/button"
	"talos/internal/linux/kmsg"
	"talos/internal/metal"
	runtimeres "talos/internal/resources/runtime"
	"talos/internal/sequence"
	"talos/internal/setup"
	"talos/internal/status"
	"talos/internal/udevd"
)

// installation puts together what makes a machine start from its own disk; nil
// in a container.
func (n *node) installation(st state.State, keeper *status.Machine) *setup.Setup {
	if n.machine == nil {
		return nil
	}
	return setup.New(setup.Options{
		State: st, Log: n.log, Installed: n.machine.Installed(), Medium: layout.MediumDir, StateDir: layout.StateDir,
		Meta: n.machine.Meta().All, Args: n.origin.installArgs(), Exec: n.reaper.Run, Trouble: n.machine.Trouble, Extra: n.machine.MountExtra,
		Begin: func() { keeper.SetStage(runtimeres.StageInstalling) },
		Restart: func(ctx context.Context) error {
			_, err := n.sequence.Begin(ctx, sequence.Request{Kind: sequence.Reboot})
			return err
		},
	})
}

// installed waits until the node has a place for what it keeps.
func (n *node) installed(ctx context.Context) error {
	if n.setup == nil {
		return nil
	}
	return n.setup.Wait(ctx)
}

// disksKnown waits until it is known of every disk whether the system is on it.
// On one that was silent when the machine came up, and is not now, the machine
// starts anew with all that it has there.
func (n *node) disksKnown(ctx context.Context, say func(why []string)) error {
	found, err := n.machine.AwaitDisks(ctx, say)
	if err != nil {
		n.log.Error("disks", "err", err)
	}
	if !found {
		return ctx.Err()
	}
	n.log.Warn("this machine's system is on a disk that has only now answered: it starts anew")
	if _, err := n.sequence.Reboot(ctx, machine.RebootRequest_DEFAULT); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// planner tells what a configuration does to the disks; nil in a container.
func (n *node) planner() func(context.Context, *config.Config) (string, error) {
	if n.setup == nil {
		return nil
	}
	return n.setup.Plan
}

// machineControllers keep what only a machine of its own has.
func (n *node) machineControllers() []controller.Controller {
	if n.machine == nil {
		return nil
	}
	defaults := map[string]string{}
	for _, s := range append(hardening.Enforced(), hardening.Tuned()...) {
		defaults[s.Name] = s.Value
	}
	return slices.Concat(
		block.Controllers(block.Options{Log: n.log, Devices: n.machine.Udev, SystemDisk: n.machine.SystemDisk}),
		hardware.Controllers(n.log, "/", n.machine.Udev.Subscribe()),
		kernelparam.Controllers(kernelparam.Options{Log: n.log, Defaults: defaults, Modules: layout.BuiltinModules}),
		[]controller.Controller{
			metal.Rules(n.log, n.machine.Udev), metal.Security(n.log, "/"), udevd.Diagnose(n.log, n.machine.Udev), n.machine.Heart.Controller(), n.machine.Good(),
		},
	)
}

// machineTasks does what only a machine of its own needs done.
func (n *node) machineTasks(st state.State, tasks *group) {
	if n.machine == nil {
		return
	}
	tasks.Go("installation", n.setup.Run)
	tasks.Go("console", func(ctx context.Context) error {
		return console.Run(ctx, console.Options{State: st, Log: n.log, Logs: n.logs, Services: n.services.External(), Activity: n.setup.Activity})
	})
	tasks.Go("kernel log", func(ctx context.Context) error {
		w := n.logs.Writer(bootlog.KernelLog)
		return kmsg.Lines(ctx, true, false, func(line string) error {
			_, err := w.Write([]byte(redact.Text(line)))
			return err
		})
	})
	tasks.Go("power button", func(ctx context.Context) error {
		for {
			if err := button.Wait(ctx); err != nil {
				return err
			}
			n.log.Info("the power button was pressed")
			if _, err := n.sequence.Begin(ctx, sequence.Request{Kind: sequence.Shutdown}); err != nil {
				n.log.Warn("the power button has no effect", "err", err)
			}
		}
	})
	tasks.Go("watchdog", func(ctx context.Context) error {
		return n.machine.Heart.Beat(ctx, func(ctx context.Context) error { return n.alive(ctx, st) })
	})
}

// alive says whether machined makes progress: its main loop turns, its store
// answers, and a way down that has begun is not late.
func (n *node) alive(ctx context.Context, st state.State) error {
	if n.sequence.Overdue() {
		return errors.New("the way down has no end")
	}
	turned := make(chan struct{})
	select {
	case n.pulse <- turned:
	case <-ctx.Done():
		return fmt.Errorf("the main loop does not turn: %w", ctx.Err())
	}
	select {
	case <-turned:
	case <-ctx.Done():
		return fmt.Errorf("the main loop does not turn: %w", ctx.Err())
	}
	if _, err := st.Get(ctx, runtimeres.NewBootID(bootID).Metadata()); err != nil {
		return fmt.Errorf("the store does not answer: %w", err)
	}
	return nil
}
