package main

import (
	"context"
	"fmt"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/controller/runtime/options"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/protobuf/proto"

	machineapi "talos/api/machine"
	"talos/internal/configstore"
	"talos/internal/containers"
	"talos/internal/cri"
	"talos/internal/custom"
	"talos/internal/identity"
	"talos/internal/join"
	"talos/internal/kube"
	"talos/internal/layout"
	"talos/internal/logs/send"
	"talos/internal/machine"
	"talos/internal/members"
	"talos/internal/netconfig"
	"talos/internal/sandbox"
	"talos/internal/secrets"
	"talos/internal/service"
	"talos/internal/status"
	"talos/internal/store"
	"talos/internal/trustd/signer"
)

// wire puts the parts of machined together and starts them, what takes longest
// first.
func (n *node) wire(ctx context.Context, st state.State, tasks *group) error {
	var err error
	if n.origin, err = n.findOrigin(st); err != nil {
		return err
	}
	keeper := status.New()
	n.setup = n.installation(st, keeper)
	n.workloads = &workloads{st: st, services: n.services, sandbox: sandbox.Sandbox{Reaper: n.reaper, Cgroups: n.boot.Cgroups}}
	for _, d := range n.runtimes(st) {
		n.services.Add(d)
		if err := n.services.Start(ctx, d.ID); err != nil {
			return err
		}
	}
	tasks.Go("store", func(ctx context.Context) error { return store.Serve(ctx, st, layout.StoreSocket, n.log) })

	events := machine.NewEvents()
	n.publish(events, keeper)
	if err := n.publishFacts(ctx, st); err != nil {
		return err
	}
	cfg := n.configuration(st, events)
	rt, err := n.controllers(st, keeper)
	if err != nil {
		return err
	}
	tasks.Go("controllers", rt.Run)
	tasks.Go("configuration", cfg.Run)
	tasks.Go("first configuration", n.firstConfiguration(st, cfg))
	tasks.Go("api", func(ctx context.Context) error { return n.serveAPI(ctx, st, rt, cfg, events) })
	tasks.Go("signer", func(ctx context.Context) error {
		return signer.Serve(ctx, signer.Options{State: st, Registry: n.crowd.Facts, List: n.crowd.List, Log: n.log})
	})
	n.machineTasks(st, tasks)
	late := []service.Definition{itself()}
	for _, d := range daemons(st) {
		late = append(late, d.service())
	}
	etcdService := n.member.Service()
	etcdService.Wait = allOf(n.installed, func(ctx context.Context) error { return onControlPlane(ctx, st) }, n.workloads.settle, etcdService.Wait)
	kubelet := kube.KubeletService(st)
	kubelet.Wait = allOf(n.installed, n.workloads.settle, kubelet.Wait)
	late = append(late, etcdService, kubelet)
	for _, d := range late {
		n.services.Add(d)
		if err := n.services.Start(ctx, d.ID); err != nil {
			return err
		}
	}
	return nil
}

// others is what this node knows of the cluster's nodes, and how it learns more.
func (n *node) others() (*members.Options, error) {
	who, err := identity.Load(layout.IdentityFile)
	if err != nil {
		return nil, err
	}
	return &members.Options{
		Log: n.log, Identity: who, Facts: members.NewFacts(n.member.Client), List: members.NewList(layout.MembersFile, n.log),
		Ask: &join.Client{Identity: who},
	}, nil
}

// configuration makes the store of what the node is told to be.
func (n *node) configuration(st state.State, events *machine.Events) *configstore.Store {
	o := configstore.Options{
		State: st, Log: n.log, First: n.origin.platform.AtHand,
		Notify: func(event proto.Message) { events.Publish(event, "") },
		Reboot: func(ctx context.Context) error {
			_, err := n.sequence.Reboot(ctx, machineapi.RebootRequest_DEFAULT)
			return err
		},
	}
	if !n.boot.Container {
		o.Disks, o.Plan, o.Known = "/sys/block", n.planner(), n.disksKnown
	}
	return configstore.New(o)
}

// controllers makes the runtime with every controller of machined.
func (n *node) controllers(st state.State, keeper *status.Machine) (*runtime.Runtime, error) {
	rt, err := runtime.NewRuntime(st, zapLogger(n.log), options.WithMetrics(false))
	if err != nil {
		return nil, fmt.Errorf("controller runtime: %w", err)
	}
	restartCRI := func(ctx context.Context) error { return n.services.Restart(ctx, "cri") }
	for _, family := range [][]controller.Controller{
		n.machineControllers(),
		{keeper.Controller(n.log)},
		netconfig.Controllers(netconfig.Options{Log: n.log, Cmdline: n.origin.line, Wrong: n.origin.wrong, Platform: n.origin.network}),
		secrets.Controllers(secrets.Options{Log: n.log, Ask: n.crowd.Certificate, Keep: layout.APICertificate}),
		members.Controllers(*n.crowd),
		cri.Controllers(cri.ControllerOptions{Log: n.log, Restart: restartCRI}),
		custom.Controllers(n.log, restartCRI),
		send.Controllers(n.log, n.logs),
		n.member.Controllers(),
		kube.Controllers(kube.Options{Log: n.log, Services: n.services, Pull: n.pull, Boot: n.id}),
	} {
		for _, c := range family {
			if err := rt.RegisterController(c); err != nil {
				return nil, fmt.Errorf("register %s: %w", c.Name(), err)
			}
		}
	}
	return rt, nil
}

// pull fetches an image for pods.
func (n *node) pull(ctx context.Context, image string) error {
	_, err := n.pods.Pull(ctx, containers.CRI, layout.KubeNamespace, image)
	return err
}

// allOf waits for one after the other.
func allOf(waits ...func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, wait := range waits {
			if err := wait(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}
