package main

import (
	"context"
	"fmt"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/controller/runtime/options"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/api/machine"
	"talos/internal/configstore"
	"talos/internal/cri"
	"talos/internal/layout"
	"talos/internal/netconfig"
	"talos/internal/secrets"
	"talos/internal/status"
	"talos/internal/store"
)

// wire puts the parts of machined together and starts them, what takes longest
// first.
func (n *node) wire(ctx context.Context, st state.State, tasks *group) error {
	for _, d := range n.runtimes(st) {
		n.services.Add(d)
		if err := n.services.Start(ctx, d.ID); err != nil {
			return err
		}
	}
	tasks.Go("store", func(ctx context.Context) error { return store.Serve(ctx, st, layout.StoreSocket, n.log) })

	cfg := configstore.New(st, n.log, func(ctx context.Context) error {
		_, err := n.sequence.Reboot(ctx, machine.RebootRequest_DEFAULT)
		return err
	})
	keeper := status.New()
	rt, err := n.controllers(st, keeper)
	if err != nil {
		return err
	}
	tasks.Go("controllers", rt.Run)
	tasks.Go("configuration", func(ctx context.Context) error {
		found, err := cfg.Load(ctx)
		if err == nil && !found {
			n.log.Info("no configuration: waiting for one over the API")
		}
		return err
	})
	for _, d := range daemons(st) {
		n.services.Add(d.service())
		if err := n.services.Start(ctx, d.name); err != nil {
			return err
		}
	}
	return nil
}

// controllers makes the runtime with every controller of machined.
func (n *node) controllers(st state.State, keeper *status.Machine) (*runtime.Runtime, error) {
	rt, err := runtime.NewRuntime(st, zapLogger(n.log), options.WithMetrics(false))
	if err != nil {
		return nil, fmt.Errorf("controller runtime: %w", err)
	}
	restartCRI := func(ctx context.Context) error { return n.services.Restart(ctx, "cri") }
	for _, family := range [][]controller.Controller{
		{keeper},
		netconfig.Controllers(netconfig.Options{Log: n.log}),
		secrets.Controllers(secrets.Options{Log: n.log}),
		cri.Controllers(cri.ControllerOptions{Log: n.log, Restart: restartCRI}),
	} {
		for _, c := range family {
			if err := rt.RegisterController(c); err != nil {
				return nil, fmt.Errorf("register %s: %w", c.Name(), err)
			}
		}
	}
	return rt, nil
}
