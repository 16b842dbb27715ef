package networkd

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/networkd/plan"
	"talos/internal/networkd/rtnl"
	"talos/internal/reconcile"
	"talos/internal/resources/files"
	"talos/internal/resources/network"
)

// statuses tell what the kernel has.
func statuses(log *slog.Logger, kernel *rtnl.Monitor) []controller.Controller {
	links := &reconcile.Controller{ID: "network.LinkStatusController", Log: log, Ticks: kernel.Subscribe(rtnl.KindLink)}
	links.Shared = []resource.Type{network.LinkStatusType, network.HardwareAddressType}
	links.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		have, err := rtnl.Links()
		if err != nil {
			return err
		}
		want := map[resource.ID]network.LinkStatusSpec{}
		for _, l := range have {
			want[l.Name] = l.Status
		}
		if err := reconcile.Output(ctx, r, links.Name(), network.NewLinkStatus, want, nil); err != nil {
			return err
		}
		return reconcile.Output(ctx, r, links.Name(), network.NewHardwareAddress, firstHardware(have), nil)
	}

	addresses := &reconcile.Controller{ID: "network.AddressStatusController", Log: log, Ticks: kernel.Subscribe(rtnl.KindLink | rtnl.KindAddress)}
	addresses.Shared = []resource.Type{network.AddressStatusType}
	addresses.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		links, have, err := linksAnd(rtnl.Addresses)
		if err != nil {
			return err
		}
		return reconcile.Output(ctx, r, addresses.Name(), network.NewAddressStatus, addressStatuses(links, have), nil)
	}

	routes := &reconcile.Controller{ID: "network.RouteStatusController", Log: log, Ticks: kernel.Subscribe(rtnl.KindLink | rtnl.KindRoute)}
	routes.Shared = []resource.Type{network.RouteStatusType}
	routes.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		links, have, err := linksAnd(rtnl.Routes)
		if err != nil {
			return err
		}
		return reconcile.Output(ctx, r, routes.Name(), network.NewRouteStatus, routeStatuses(links, have), nil)
	}
	return []controller.Controller{links, addresses, routes, nodeAddresses(log, kernel), summary(log, kernel)}
}

func linkName(links []rtnl.Link, index uint32) string {
	for _, l := range links {
		if l.Status.Index == index {
			return l.Name
		}
	}
	return ""
}

// firstHardware is the ethernet link with the lowest index that is hardware,
// or, where there is none (in a container), plays the part of it.
func firstHardware(links []rtnl.Link) map[resource.ID]network.HardwareAddressSpec {
	var best *rtnl.Link
	better := func(l rtnl.Link) bool {
		if best == nil || (l.Status.Kind == "") != (best.Status.Kind == "") {
			return best == nil || l.Status.Kind == ""
		}
		return l.Status.Index < best.Status.Index
	}
	for _, l := range links {
		stands := l.Status.Kind == "" || l.Status.Kind == "veth" && l.Status.MasterIndex == 0
		if l.Status.Type == network.LinkEther && stands && better(l) {
			best = &l
		}
	}
	if best == nil {
		return nil
	}
	own := best.Status.HardwareAddr
	if best.Status.SlaveKind == network.KindBond && len(best.Status.PermanentAddr) > 0 { // it has that of the bond
		own = best.Status.PermanentAddr
	}
	return map[resource.ID]network.HardwareAddressSpec{network.FirstID: {Name: best.Name, HardwareAddr: own}}
}

func addressStatuses(links []rtnl.Link, have []rtnl.Address) map[resource.ID]network.AddressStatusSpec {
	out := map[resource.ID]network.AddressStatusSpec{}
	for _, a := range have {
		family := network.FamilyInet4
		if a.Prefix.Addr().Is6() {
			family = network.FamilyInet6
		}
		name := linkName(links, a.LinkIndex)
		out[name+"/"+a.Prefix.String()] = network.AddressStatusSpec{
			Address: a.Prefix, Local: a.Prefix.Addr(), Broadcast: a.Broadcast, LinkIndex: a.LinkIndex, LinkName: name,
			Family: family, Scope: a.Scope, Flags: a.Flags, Priority: a.Priority,
		}
	}
	return out
}

func routeStatuses(links []rtnl.Link, have []rtnl.Route) map[resource.ID]network.RouteStatusSpec {
	out := map[resource.ID]network.RouteStatusSpec{}
	for _, r := range have {
		s := r.RouteStatusSpec
		s.OutLinkName = linkName(links, s.OutLinkIndex)
		id := plan.RouteID(s)
		if _, twice := out[id]; twice || (s.Family == network.FamilyInet6 && !s.Gateway.IsValid()) {
			id = s.OutLinkName + "/" + id // the same network on several links, as fe80::/64 is
		}
		out[id] = s
	}
	return out
}

// nodeAddresses tells which addresses stand for the node. Its own links are
// those of hardware and those that specs name; the pod network's are neither.
func nodeAddresses(log *slog.Logger, kernel *rtnl.Monitor) controller.Controller {
	c := &reconcile.Controller{ID: "network.NodeAddressController", Log: log, Ticks: kernel.Subscribe(rtnl.KindAll)}
	c.In = []controller.Input{reconcile.Input[*network.LinkSpec](), reconcile.Input[*network.NodeAddressSortAlgorithm]()}
	c.Shared = []resource.Type{network.NodeAddressType}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		named, err := reconcile.Specs[*network.LinkSpec](ctx, r, network.NewLinkSpec(network.Namespace, "").Metadata())
		if err != nil {
			return err
		}
		links, have, err := linksAnd(rtnl.Addresses)
		if err != nil {
			return err
		}
		routes, err := rtnl.Routes()
		if err != nil {
			return err
		}
		own := func(l rtnl.Link) bool {
			for _, s := range named {
				if s.Name == l.Name {
					return true
				}
			}
			return l.Status.Kind == "" && l.Status.Type == network.LinkEther
		}
		var previous netip.Prefix
		before, err := safe.ReaderGet[*network.NodeAddress](ctx, r, network.NewNodeAddress(network.NodeAddressDefaultID).Metadata())
		switch {
		case err == nil && len(before.TypedSpec().Addresses) > 0:
			previous = before.TypedSpec().Addresses[0]
		case err != nil && !state.IsNotFoundError(err):
			return err
		}
		order, err := reconcile.Get[*network.NodeAddressSortAlgorithm](ctx, r, network.SortID)
		if err != nil {
			return err
		}
		algorithm := network.AddressSortV1
		if order != nil {
			algorithm = order.TypedSpec().Algorithm
		}
		want := plan.NodeAddresses(have, links, routes, own, previous, algorithm)
		// Without any address the old default stays: it may come back, and nothing is won by its absence.
		keep := func(id resource.ID) bool { return id == network.NodeAddressDefaultID }
		return reconcile.Output(ctx, r, c.Name(), network.NewNodeAddress, want, keep)
	}
	return c
}

// summary tells what others wait for.
func summary(log *slog.Logger, kernel *rtnl.Monitor) controller.Controller {
	c := &reconcile.Controller{ID: "network.StatusController", Log: log, Ticks: kernel.Subscribe(rtnl.KindRoute)}
	c.In = []controller.Input{
		reconcile.Input[*network.NodeAddress](), reconcile.Input[*network.HostnameStatus](),
		reconcile.Input[*files.EtcFileStatus](),
	}
	c.Shared = []resource.Type{network.NetworkStatusType}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		routes, err := rtnl.Routes()
		if err != nil {
			return err
		}
		routed, err := safe.ReaderGet[*network.NodeAddress](ctx, r, network.NewNodeAddress(network.NodeAddressRoutedID).Metadata())
		if err != nil && !state.IsNotFoundError(err) {
			return err
		}
		names, err := reconcile.Specs[*network.HostnameStatus](ctx, r, network.NewHostnameStatus("").Metadata())
		if err != nil {
			return err
		}
		etc, err := safe.ReaderList[*files.EtcFileStatus](ctx, r, files.NewEtcFileStatus("").Metadata())
		if err != nil {
			return err
		}
		there := map[resource.ID]bool{}
		for f := range etc.All() {
			there[f.Metadata().ID()] = true
		}
		return reconcile.Output(ctx, r, c.Name(), network.NewNetworkStatus, map[resource.ID]network.NetworkStatusSpec{network.StatusID: {
			AddressReady:      routed != nil && len(routed.TypedSpec().Addresses) > 0,
			ConnectivityReady: plan.Connected(routes),
			HostnameReady:     len(names) > 0,
			EtcFilesReady:     there["hosts"] && there["resolv.conf"] && there["hostname"],
		}}, nil)
	}
	return c
}
