package networkd

import (
	"context"
	"log/slog"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/internal/networkd/plan"
	"talos/internal/reconcile"
	"talos/internal/resources/network"
)

// merger makes the controller that merges the layers of one kind of spec.
func merger[R reconcile.Resource[S], S any](log *slog.Logger, name string, make func(resource.Namespace, resource.ID) R, merge func([]S) map[string]S) controller.Controller {
	kind := make(network.ConfigNamespace, "").Metadata()
	c := &reconcile.Controller{
		ID: "network." + name, Log: log,
		In:     []controller.Input{reconcile.InputIn[R](network.ConfigNamespace)},
		Shared: []resource.Type{kind.Type()},
	}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		layers, err := reconcile.Specs[R, S](ctx, r, kind)
		if err != nil {
			return err
		}
		return reconcile.Output(ctx, r, c.Name(), func(id resource.ID) R { return make(network.Namespace, id) }, merge(layers), nil)
	}
	return c
}

func mergers(log *slog.Logger) []controller.Controller {
	return []controller.Controller{
		merger(log, "AddressMergeController", network.NewAddressSpec, plan.MergeAddresses),
		merger(log, "RouteMergeController", network.NewRouteSpec, plan.MergeRoutes),
		merger(log, "LinkMergeController", network.NewLinkSpec, plan.MergeLinks),
		merger(log, "OperatorMergeController", network.NewOperatorSpec, plan.MergeOperators),
		merger(log, "HostnameMergeController", network.NewHostnameSpec, plan.MergeHostnames),
		merger(log, "ResolverMergeController", network.NewResolverSpec, plan.MergeResolvers),
		merger(log, "TimeServerMergeController", network.NewTimeServerSpec, plan.MergeTimeServers),
	}
}

// settler makes the controller that turns a merged spec, which needs nothing
// from the kernel, into its status.
func settler[R reconcile.Resource[S], Q reconcile.Resource[T], S, T any](log *slog.Logger, name string, from func(resource.Namespace, resource.ID) R, to func(resource.ID) Q, id resource.ID, turn func(S) T) controller.Controller {
	kind := from(network.Namespace, "").Metadata()
	c := &reconcile.Controller{
		ID: "network." + name, Log: log,
		In:     []controller.Input{reconcile.InputIn[R](network.Namespace)},
		Shared: []resource.Type{to("").Metadata().Type()},
	}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		list, err := reconcile.Specs[R, S](ctx, r, kind)
		if err != nil {
			return err
		}
		want := map[resource.ID]T{}
		for _, s := range list {
			want[id] = turn(s)
		}
		return reconcile.Output(ctx, r, c.Name(), to, want, nil)
	}
	return c
}

func settlers(log *slog.Logger) []controller.Controller {
	return []controller.Controller{
		settler(log, "HostnameSpecController", network.NewHostnameSpec, network.NewHostnameStatus, network.HostnameID,
			func(s network.HostnameSpecSpec) network.HostnameStatusSpec {
				return network.HostnameStatusSpec{Hostname: s.Hostname, Domainname: s.Domainname}
			}),
		settler(log, "ResolverSpecController", network.NewResolverSpec, network.NewResolverStatus, network.ResolverID,
			func(s network.ResolverSpecSpec) network.ResolverStatusSpec {
				return network.ResolverStatusSpec{DNSServers: s.DNSServers, NameServers: s.NameServers, SearchDomains: s.SearchDomains}
			}),
		settler(log, "TimeServerSpecController", network.NewTimeServerSpec, network.NewTimeServerStatus, network.TimeServerID,
			func(s network.TimeServerSpecSpec) network.TimeServerStatusSpec {
				return network.TimeServerStatusSpec{TimeServers: s.TimeServers, UseNTS: s.UseNTS, BootTimeout: s.BootTimeout, Disabled: s.Disabled}
			}),
	}
}
