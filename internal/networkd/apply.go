package networkd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cosi-project/runtime/pkg/controller"

	"talos/internal/networkd/plan"
	"talos/internal/networkd/rtnl"
	"talos/internal/reconcile"
	"talos/internal/resources/network"
)

// appliers make the kernel as the merged specs want it. They have no outputs:
// what is there, the status controllers tell.
func appliers(log *slog.Logger, kernel *rtnl.Monitor) []controller.Controller {
	links := &reconcile.Controller{ID: "network.LinkSpecController", Log: log, Ticks: kernel.Subscribe(rtnl.KindLink)}
	links.In = []controller.Input{reconcile.Input[*network.LinkSpec]()}
	links.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		want, err := reconcile.Specs[*network.LinkSpec](ctx, r, network.NewLinkSpec(network.Namespace, "").Metadata())
		if err != nil {
			return err
		}
		have, err := rtnl.Links()
		if err != nil {
			return err
		}
		return apply(log, plan.Links(want, have))
	}

	addresses := &reconcile.Controller{ID: "network.AddressSpecController", Log: log, Ticks: kernel.Subscribe(rtnl.KindLink | rtnl.KindAddress)}
	addresses.In = []controller.Input{reconcile.Input[*network.AddressSpec]()}
	addresses.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		want, err := reconcile.Specs[*network.AddressSpec](ctx, r, network.NewAddressSpec(network.Namespace, "").Metadata())
		if err != nil {
			return err
		}
		links, have, err := linksAnd(rtnl.Addresses)
		if err != nil {
			return err
		}
		return apply(log, plan.Addresses(want, have, links))
	}

	routes := &reconcile.Controller{ID: "network.RouteSpecController", Log: log, Ticks: kernel.Subscribe(rtnl.KindAll)}
	routes.In = []controller.Input{reconcile.Input[*network.RouteSpec]()}
	routes.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		want, err := reconcile.Specs[*network.RouteSpec](ctx, r, network.NewRouteSpec(network.Namespace, "").Metadata())
		if err != nil {
			return err
		}
		links, have, err := linksAnd(rtnl.Routes)
		if err != nil {
			return err
		}
		return apply(log, plan.Routes(want, have, links))
	}
	return []controller.Controller{links, addresses, routes}
}

func linksAnd[T any](list func() ([]T, error)) ([]rtnl.Link, []T, error) {
	links, err := rtnl.Links()
	if err != nil {
		return nil, nil, err
	}
	have, err := list()
	return links, have, err
}

// apply does the steps, also those after one that went wrong.
func apply(log *slog.Logger, steps []plan.Step) error {
	var errs []error
	for _, s := range steps {
		err := do(s)
		switch {
		case err == nil:
			log.Info("network changed", "step", s.String())
		default:
			errs = append(errs, fmt.Errorf("%v: %w", s, err))
		}
	}
	return errors.Join(errs...)
}

func do(s plan.Step) error {
	switch s.Op {
	case plan.CreateLink:
		return rtnl.CreateLink(s.Spec, s.Other.Status.Index)
	case plan.DeleteLink:
		return rtnl.DeleteLink(s.Link.Status.Index)
	case plan.Enslave:
		return rtnl.Enslave(s.Link.Status.Index, s.Other.Status.Index)
	case plan.Release:
		return rtnl.Release(s.Link.Status.Index)
	case plan.SetPrimary:
		return rtnl.SetPrimary(s.Link.Status.Index, s.Other.Status.Index)
	case plan.SetHardwareAddr:
		return rtnl.SetHardwareAddr(s.Link, s.Spec.HardwareAddr)
	case plan.SetUp:
		return rtnl.SetUp(s.Link.Status.Index)
	case plan.SetMTU:
		return rtnl.SetMTU(s.Link.Status.Index, s.MTU)
	case plan.AddAddress:
		return rtnl.AddAddress(s.Address)
	case plan.DeleteAddress:
		return rtnl.DeleteAddress(s.Address)
	case plan.AddRoute:
		return rtnl.AddRoute(s.Route)
	case plan.DeleteRoute:
		return rtnl.DeleteRoute(s.Route)
	}
	return fmt.Errorf("unknown step %q", s.Op)
}
