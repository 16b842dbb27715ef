package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"talos/internal/networkd/rtnl"
	"talos/internal/resources/network"
)

// byLayer sorts so that what wins comes last. Specs of one layer keep their
// order, which is that of their ids.
func byLayer[S any](specs []S, layer func(S) network.ConfigLayer) []S {
	return slices.SortedStableFunc(slices.Values(specs), func(a, b S) int { return cmp.Compare(layer(a), layer(b)) })
}

// MergeAddresses keeps every address once per link, from its highest layer.
func MergeAddresses(specs []network.AddressSpecSpec) map[string]network.AddressSpecSpec {
	out := map[string]network.AddressSpecSpec{}
	for _, s := range byLayer(specs, func(s network.AddressSpecSpec) network.ConfigLayer { return s.Layer }) {
		out[s.LinkName+"/"+s.Address.String()] = s
	}
	return out
}

// MergeRoutes keeps one route per table, destination and metric, from its
// highest layer: the kernel could not hold more.
func MergeRoutes(specs []network.RouteSpecSpec) map[string]network.RouteSpecSpec {
	last := map[routeKey]network.RouteSpecSpec{}
	for _, s := range byLayer(specs, func(s network.RouteSpecSpec) network.ConfigLayer { return s.Layer }) {
		r := network.RouteStatusSpec{Table: s.Table, Family: s.Family, Dst: s.Dst, Priority: s.Priority}
		last[keyOf(r)] = s
	}
	out := map[string]network.RouteSpecSpec{}
	for _, s := range last {
		out[RouteID(network.RouteStatusSpec{Family: s.Family, Gateway: s.Gateway, Dst: s.Dst, Priority: s.Priority, Table: s.Table})] = s
	}
	return out
}

// MergeLinks keeps one spec per link: the highest layer's, with what that one
// leaves open taken from below.
func MergeLinks(specs []network.LinkSpecSpec) map[string]network.LinkSpecSpec {
	out := map[string]network.LinkSpecSpec{}
	for _, s := range byLayer(specs, func(s network.LinkSpecSpec) network.ConfigLayer { return s.Layer }) {
		low := out[s.Name]
		s.Up = s.Up || low.Up
		s.MTU = cmp.Or(s.MTU, low.MTU)
		s.BondSlave = cmp.Or(s.BondSlave, low.BondSlave)
		if len(s.HardwareAddr) == 0 {
			s.HardwareAddr = low.HardwareAddr
		}
		if !s.Logical && low.Logical {
			s.Logical, s.Kind, s.Type, s.ParentName, s.VLAN, s.BondMaster = true, low.Kind, low.Type, low.ParentName, low.VLAN, low.BondMaster
		}
		out[s.Name] = s
	}
	return out
}

// MergeOperators keeps one spec per protocol and link.
func MergeOperators(specs []network.OperatorSpecSpec) map[string]network.OperatorSpecSpec {
	out := map[string]network.OperatorSpecSpec{}
	for _, s := range byLayer(specs, func(s network.OperatorSpecSpec) network.ConfigLayer { return s.Layer }) {
		out[s.Operator.String()+"/"+s.LinkName] = s
	}
	return out
}

// MergeHostnames takes the name of the highest layer that gives one; of two
// in one layer, the first.
func MergeHostnames(specs []network.HostnameSpecSpec) map[string]network.HostnameSpecSpec {
	var best *network.HostnameSpecSpec
	for _, s := range specs {
		if s.Hostname != "" && (best == nil || s.Layer > best.Layer) {
			best = &s
		}
	}
	if best == nil {
		return nil
	}
	return map[string]network.HostnameSpecSpec{network.HostnameID: *best}
}

// MergeResolvers takes servers and search domains, each from the highest layer
// that gives any; within a layer they add up.
func MergeResolvers(specs []network.ResolverSpecSpec) map[string]network.ResolverSpecSpec {
	if len(specs) == 0 {
		return nil
	}
	var out network.ResolverSpecSpec
	servers, domains := network.ConfigLayer(-1), network.ConfigLayer(-1)
	for _, s := range byLayer(specs, func(s network.ResolverSpecSpec) network.ConfigLayer { return s.Layer }) {
		out.Layer = s.Layer
		if len(s.DNSServers) > 0 {
			if s.Layer != servers {
				out.DNSServers, servers = nil, s.Layer
			}
			out.DNSServers = appendNew(out.DNSServers, s.DNSServers)
		}
		if len(s.SearchDomains) > 0 || s.SearchDomainsOverridden {
			if s.Layer != domains {
				out.SearchDomains, domains = nil, s.Layer
			}
			out.SearchDomains = appendNew(out.SearchDomains, s.SearchDomains)
			out.SearchDomainsOverridden = s.SearchDomainsOverridden
		}
	}
	for _, a := range out.DNSServers {
		out.NameServers = append(out.NameServers, network.NameServerSpec{Addr: a})
	}
	return map[string]network.ResolverSpecSpec{network.ResolverID: out}
}

// MergeTimeServers takes the servers of the highest layer that gives any;
// within a layer they add up. A layer that disables keeps them, disabled.
func MergeTimeServers(specs []network.TimeServerSpecSpec) map[string]network.TimeServerSpecSpec {
	if len(specs) == 0 {
		return nil
	}
	var out network.TimeServerSpecSpec
	servers := network.ConfigLayer(-1)
	for _, s := range byLayer(specs, func(s network.TimeServerSpecSpec) network.ConfigLayer { return s.Layer }) {
		out.Layer = s.Layer
		out.Disabled = out.Disabled || s.Disabled
		out.BootTimeout = cmp.Or(s.BootTimeout, out.BootTimeout)
		if len(s.TimeServers) > 0 {
			if s.Layer != servers {
				out.TimeServers, servers = nil, s.Layer
			}
			out.TimeServers = appendNew(out.TimeServers, s.TimeServers)
			out.UseNTS = s.UseNTS
		}
	}
	return map[string]network.TimeServerSpecSpec{network.TimeServerID: out}
}

func appendNew[T comparable](list, more []T) []T {
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// NodeAddresses sorts the node's addresses into the lists of NodeAddress.
// Previous is the default address until now: it stays while it exists, so
// that certificates and members keep their name. Own tells the node's own
// links from those of the pod network.
func NodeAddresses(have []rtnl.Address, links []rtnl.Link, routes []rtnl.Route, own func(rtnl.Link) bool, previous netip.Prefix, order network.AddressSortAlgorithm) map[string]network.NodeAddressSpec {
	exit := defaultLinks(routes)
	type entry struct {
		prefix netip.Prefix
		rank   int // links with a default route first, by metric
		index  uint32
		own    bool
	}
	var list []entry
	for _, a := range have {
		ip := a.Prefix.Addr()
		link := linkByIndex(links, a.LinkIndex)
		if a.Scope >= network.ScopeLink || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || !link.Up {
			continue
		}
		rank := slices.Index(exit, a.LinkIndex)
		if rank < 0 {
			rank = len(exit)
		}
		list = append(list, entry{prefix: a.Prefix, rank: rank, index: a.LinkIndex, own: own(link)})
	}
	slices.SortStableFunc(list, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.index, b.index), comparePrefixes(a.prefix, b.prefix, order))
	})
	var current, routed, first []netip.Prefix
	for _, e := range list {
		current = appendNew(current, []netip.Prefix{e.prefix})
		if e.own {
			routed = appendNew(routed, []netip.Prefix{e.prefix})
		}
	}
	switch {
	case slices.Contains(routed, previous):
		first = []netip.Prefix{previous}
	case len(routed) > 0:
		first = routed[:1:1]
	}
	out := map[string]network.NodeAddressSpec{
		network.NodeAddressCurrentID: {Addresses: current, SortAlgorithm: order},
		network.NodeAddressRoutedID:  {Addresses: routed, SortAlgorithm: order},
	}
	if len(first) > 0 {
		out[network.NodeAddressDefaultID] = network.NodeAddressSpec{Addresses: first, SortAlgorithm: order}
	}
	return out
}

// comparePrefixes puts the addresses of one link in order: IPv4 first, then as
// the algorithm says.
func comparePrefixes(a, b netip.Prefix, order network.AddressSortAlgorithm) int {
	specific := 0
	if order == network.AddressSortV2 {
		specific = cmp.Compare(b.Bits(), a.Bits())
	}
	return cmp.Or(cmp.Compare(a.Addr().BitLen(), b.Addr().BitLen()), specific, a.Addr().Compare(b.Addr()))
}

// defaultLinks lists the links that default routes leave by, best first.
func defaultLinks(routes []rtnl.Route) []uint32 {
	var defaults []rtnl.Route
	for _, r := range routes {
		if !r.Dst.IsValid() && r.Type == network.RouteUnicast {
			defaults = append(defaults, r)
		}
	}
	slices.SortStableFunc(defaults, func(a, b rtnl.Route) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Priority, b.Priority))
	})
	var out []uint32
	for _, r := range defaults {
		out = appendNew(out, []uint32{r.OutLinkIndex})
	}
	return out
}

// Connected tells whether there is a default route.
func Connected(routes []rtnl.Route) bool { return len(defaultLinks(routes)) > 0 }
