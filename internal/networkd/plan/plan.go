// Package plan decides what to change so that links, addresses and routes
// become as they are wanted, which layer of configuration wins, and which
// addresses stand for the node.
//
// Everything in it is a pure function: no kernel, no store, no clock.
package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"talos/internal/networkd/rtnl"
	"talos/internal/resources/network"
)

// Step is one change of the kernel's state.
type Step struct {
	Op      Op
	Link    rtnl.Link // for those about one that is there
	MTU     uint32
	Spec    network.LinkSpecSpec // for CreateLink and SetHardwareAddr
	Other   rtnl.Link            // for CreateLink the parent, for Enslave the bond, for SetPrimary the link; may be none
	Address rtnl.Address
	Route   network.RouteStatusSpec
}

// Op is what a Step does.
type Op string

// The kinds of steps.
const (
	CreateLink      Op = "create"
	DeleteLink      Op = "delete"
	Enslave         Op = "enslave"
	Release         Op = "release"
	SetPrimary      Op = "set primary"
	SetUp           Op = "set up"
	SetMTU          Op = "set mtu"
	SetHardwareAddr Op = "set hardware address"
	AddAddress      Op = "add address"
	DeleteAddress   Op = "delete address"
	AddRoute        Op = "add route"
	DeleteRoute     Op = "delete route"
)

// String says what the step does, for logs.
func (s Step) String() string {
	switch s.Op {
	case CreateLink:
		text := fmt.Sprintf("%s %s %s", s.Op, s.Spec.Kind, s.Spec.Name)
		if s.Spec.Kind == network.KindVLAN {
			text += fmt.Sprintf(" (%d) on %s", s.Spec.VLAN.VID, s.Other.Name)
		}
		return text
	case DeleteLink, SetUp:
		return fmt.Sprintf("%s %s", s.Op, s.Link.Name)
	case Enslave:
		return fmt.Sprintf("%s %s to %s", s.Op, s.Link.Name, s.Other.Name)
	case Release:
		return fmt.Sprintf("%s %s from its bond", s.Op, s.Link.Name)
	case SetPrimary:
		return fmt.Sprintf("%s %s of %s", s.Op, cmp.Or(s.Other.Name, "none"), s.Link.Name)
	case SetHardwareAddr:
		return fmt.Sprintf("%s %s on %s", s.Op, s.Spec.HardwareAddr, s.Link.Name)
	case SetMTU:
		return fmt.Sprintf("%s %d on %s", s.Op, s.MTU, s.Link.Name)
	case AddAddress, DeleteAddress:
		return fmt.Sprintf("%s %s on %s", s.Op, s.Address.Prefix, s.Link.Name)
	default:
		return fmt.Sprintf("%s %s on %s", s.Op, RouteID(s.Route), s.Route.OutLinkName)
	}
}

// Addresses plans the addresses: those of ours that nobody wants go first,
// then the missing ones come. Foreign addresses are left alone, also where one
// happens to be what is wanted.
func Addresses(want []network.AddressSpecSpec, have []rtnl.Address, links []rtnl.Link) []Step {
	type key struct {
		index  uint32
		prefix netip.Prefix
	}
	wanted := map[key]bool{}
	var add, del []Step
	for _, w := range want {
		i := slices.IndexFunc(links, func(l rtnl.Link) bool { return l.Name == w.LinkName })
		if i < 0 || !w.Address.IsValid() {
			continue
		}
		k := key{links[i].Status.Index, w.Address}
		if wanted[k] {
			continue
		}
		wanted[k] = true
		if slices.ContainsFunc(have, func(a rtnl.Address) bool { return a.LinkIndex == k.index && a.Prefix == k.prefix }) {
			continue
		}
		if w.Address.Addr().Is6() && !links[i].Up {
			continue // a link that is down keeps no IPv6 address
		}
		add = append(add, Step{Op: AddAddress, Link: links[i], Address: rtnl.Address{
			Prefix: w.Address, LinkIndex: k.index, Scope: w.Scope, Flags: w.Flags, Priority: w.Priority,
		}})
	}
	for _, a := range have {
		if a.Ours && !wanted[key{a.LinkIndex, a.Prefix}] {
			del = append(del, Step{Op: DeleteAddress, Link: linkByIndex(links, a.LinkIndex), Address: a})
		}
	}
	return append(del, add...)
}

func linkByIndex(links []rtnl.Link, index uint32) rtnl.Link {
	for _, l := range links {
		if l.Status.Index == index {
			return l
		}
	}
	return rtnl.Link{}
}

// Routes plans the routes: those of ours that nobody wants go first, then the
// missing ones come. A route is ours when its protocol is static or DHCP; no
// other is touched. Routes over a link that is missing or down wait for it.
func Routes(want []network.RouteSpecSpec, have []rtnl.Route, links []rtnl.Link) []Step {
	wanted := map[routeKey]network.RouteStatusSpec{}
	var order []routeKey
	for _, w := range want {
		r, ok := normalize(w, links)
		if !ok {
			continue
		}
		k := keyOf(r)
		if _, twice := wanted[k]; !twice {
			order = append(order, k)
		}
		wanted[k] = r
	}
	var steps []Step
	satisfied := map[routeKey]bool{}
	for _, h := range have {
		w, ok := wanted[keyOf(h.RouteStatusSpec)]
		same := ok && sameRoute(w, h.RouteStatusSpec) && !h.Multipath
		switch {
		case same:
			satisfied[keyOf(w)] = true
		case Ours(h):
			r := h.RouteStatusSpec
			r.OutLinkName = linkByIndex(links, r.OutLinkIndex).Name
			steps = append(steps, Step{Op: DeleteRoute, Route: r})
		}
	}
	for _, viaGateway := range []bool{false, true} { // a gateway must be reachable first
		for _, k := range order {
			if !satisfied[k] && wanted[k].Gateway.IsValid() == viaGateway {
				steps = append(steps, Step{Op: AddRoute, Route: wanted[k]})
			}
		}
	}
	return steps
}

// Ours tells whether networkd made the route.
func Ours(r rtnl.Route) bool {
	return !r.Multipath && r.Type == network.RouteUnicast && (r.Protocol == network.ProtocolStatic || r.Protocol == network.ProtocolDHCP)
}

// routeKey is what the kernel holds to be one route.
type routeKey struct {
	table    network.RoutingTable
	family   network.Family
	dst      netip.Prefix
	priority uint32
}

func keyOf(r network.RouteStatusSpec) routeKey {
	return routeKey{table: r.Table, family: r.Family, dst: r.Dst, priority: r.Priority}
}

func sameRoute(want, have network.RouteStatusSpec) bool {
	return want.Gateway == have.Gateway && want.OutLinkIndex == have.OutLinkIndex && want.Src == have.Src && want.Type == have.Type &&
		want.MTU == have.MTU && (want.Scope == have.Scope || want.Family == network.FamilyInet6)
}

// normalize gives the spec the form in which the kernel shows the route.
func normalize(w network.RouteSpecSpec, links []rtnl.Link) (network.RouteStatusSpec, bool) {
	i := slices.IndexFunc(links, func(l rtnl.Link) bool { return l.Name == w.OutLinkName })
	if i < 0 || !links[i].Up {
		return network.RouteStatusSpec{}, false
	}
	r := network.RouteStatusSpec{
		Family: w.Family, Src: w.Src, Gateway: w.Gateway, OutLinkIndex: links[i].Status.Index, OutLinkName: w.OutLinkName,
		Table: w.Table, Priority: w.Priority, Scope: w.Scope, Type: w.Type, Flags: w.Flags, Protocol: w.Protocol, MTU: w.MTU,
	}
	if w.Dst.IsValid() && w.Dst.Bits() > 0 {
		r.Dst = w.Dst.Masked()
	}
	if r.Family == 0 {
		r.Family = network.FamilyInet4
		if w.Dst.Addr().Is6() || w.Gateway.Is6() {
			r.Family = network.FamilyInet6
		}
	}
	if r.Table == 0 {
		r.Table = network.TableMain
	}
	if r.Type == 0 {
		r.Type = network.RouteUnicast
	}
	if r.Protocol == 0 {
		r.Protocol = network.ProtocolStatic
	}
	if r.Family == network.FamilyInet6 {
		r.Scope = network.ScopeGlobal
		if r.Priority == 0 {
			r.Priority = 1024 // IP6_RT_PRIO_USER
		}
	}
	return r, true
}

// RouteID names a route as RouteStatus does: family/destination/metric, with
// the gateway where there is one.
func RouteID(r network.RouteStatusSpec) string {
	var b strings.Builder
	b.WriteString(r.Family.String())
	for _, part := range []string{addrText(r.Gateway), prefixText(r.Dst)} {
		b.WriteString("/" + part)
	}
	fmt.Fprintf(&b, "/%d", r.Priority)
	if r.Table != network.TableMain && r.Table != 0 {
		return r.Table.String() + "/" + b.String()
	}
	return b.String()
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}
