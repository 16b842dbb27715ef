package netconfig

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/cosi-project/runtime/pkg/resource"

	"talos/config"
	"talos/internal/netsetup"
	"talos/internal/resources/network"
)

// Platform holds what the platform says of the network: nothing, until Set. It
// is safe for concurrent use.
type Platform struct {
	news chan struct{} // capacity 1: there is something new

	mu sync.Mutex // guards n
	n  netsetup.Network
}

// NewPlatform makes one that says nothing yet.
func NewPlatform() *Platform { return &Platform{news: make(chan struct{}, 1)} }

// Set makes n what the platform says.
func (p *Platform) Set(n netsetup.Network) {
	p.mu.Lock()
	p.n = n
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
}

func (p *Platform) get() netsetup.Network {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// claim is what a layer says of a link.
type claim int

// The claims, the lowest first.
const (
	named     claim = iota + 1
	addressed       // what addresses it has, or how it gets them
	ignored         // that it is not our business
)

// claims are what a layer says of links.
type claims map[string]claim

// raise makes the claim on a link at least c.
func (m claims) raise(name string, c claim) { m[name] = max(m[name], c) }

// sources are who says something of the network, and the links there are.
type sources struct {
	config            *config.Config
	platform, cmdline netsetup.Network
	links             []link
}

// want brings the layers together. What a link's addresses are is decided by
// the highest layer that says anything of them: those below do not add to it.
// Links that no layer names get theirs by DHCP.
func (in sources) want() (specs, []error) {
	out, claimed, problems := fromConfig(in.config, in.links)
	for _, s := range []struct {
		said  netsetup.Network
		layer network.ConfigLayer
	}{{in.platform, network.LayerPlatform}, {in.cmdline, network.LayerCmdline}} {
		low := newSpecs()
		claims, wrong := low.setup(s.said, s.layer, in.links)
		for _, p := range wrong {
			problems = append(problems, fmt.Errorf("%s: %w", s.layer, p))
		}
		low.yield(claimed)
		out.add(low)
		for name, c := range claims {
			claimed.raise(name, c)
		}
	}
	out.defaults(in, claimed)
	return out, problems
}

// defaults is what nobody needs to ask for.
func (out specs) defaults(in sources, claimed claims) {
	out.resolvers["default/resolvers"] = network.ResolverSpecSpec{DNSServers: defaultResolvers, Layer: network.LayerDefault}
	out.timeServers["default/timeservers"] = network.TimeServerSpecSpec{TimeServers: defaultTimeServers, Layer: network.LayerDefault}
	for _, l := range in.links {
		if l.status.Type == network.LinkLoopback {
			out.loopback(l.name)
		}
		if claimed[l.name] > 0 || !ethernet(l) || ignoredBy(in.cmdline, l.name) || ignoredBy(in.platform, l.name) {
			continue
		}
		out.links["default/"+l.name] = network.LinkSpecSpec{Name: l.name, Up: true, Layer: network.LayerDefault}
		if !in.cmdline.Static && !in.platform.Static {
			out.dhcp4("default/", l.name, network.LayerDefault, 0)
		}
	}
}

func ignoredBy(n netsetup.Network, name string) bool {
	return slices.ContainsFunc(n.Ignore, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// yield takes out of a layer what those above decide.
func (out specs) yield(above claims) {
	gone := func(name string, at claim) bool { return above[name] >= at }
	maps.DeleteFunc(out.addresses, func(_ resource.ID, s network.AddressSpecSpec) bool { return gone(s.LinkName, addressed) })
	maps.DeleteFunc(out.routes, func(_ resource.ID, s network.RouteSpecSpec) bool { return gone(s.OutLinkName, addressed) })
	maps.DeleteFunc(out.operators, func(_ resource.ID, s network.OperatorSpecSpec) bool { return gone(s.LinkName, addressed) })
	maps.DeleteFunc(out.links, func(_ resource.ID, s network.LinkSpecSpec) bool {
		// A link with addresses of its own is not part of a bond.
		return gone(s.Name, ignored) || s.BondSlave.MasterName != "" && gone(s.Name, addressed)
	})
}

// add takes over everything of another layer.
func (out specs) add(more specs) {
	maps.Copy(out.addresses, more.addresses)
	maps.Copy(out.routes, more.routes)
	maps.Copy(out.links, more.links)
	maps.Copy(out.operators, more.operators)
	maps.Copy(out.hostnames, more.hostnames)
	maps.Copy(out.resolvers, more.resolvers)
	maps.Copy(out.timeServers, more.timeServers)
	maps.Copy(out.staticHosts, more.staticHosts)
}

// setup is what a command line or a platform says, as specs of its layer.
func (out specs) setup(n netsetup.Network, layer network.ConfigLayer, links []link) (claims, []error) {
	at := layer.String() + "/"
	if n.Hostname != "" {
		out.hostnames[at+"hostname"] = hostname(n.Hostname, layer)
	}
	if len(n.Nameservers)+len(n.Search) > 0 {
		out.resolvers[at+"resolvers"] = network.ResolverSpecSpec{DNSServers: n.Nameservers, SearchDomains: n.Search, Layer: layer}
	}
	if len(n.TimeServers) > 0 {
		out.timeServers[at+"timeservers"] = network.TimeServerSpecSpec{TimeServers: n.TimeServers, Layer: layer}
	}
	claimed := claims{}
	var problems []error
	for _, p := range n.Problems {
		problems = append(problems, errors.New(p))
	}
	for _, l := range n.Links {
		names := []string{l.Match.Name}
		if l.VLAN == nil && l.Bond == nil {
			if names = found(l.Match, links); len(names) == 0 && len(links) > 0 {
				problems = append(problems, fmt.Errorf("there is no such link: %s", l.Match))
			}
		}
		for _, name := range names {
			out.setupLink(name, l, layer)
			if err := out.setupLogical(name, l, layer, links, claimed); err != nil {
				problems = append(problems, err)
			}
			if claimed.raise(name, named); len(l.Addresses)+len(l.Routes) > 0 || l.DHCP {
				claimed.raise(name, addressed)
			}
		}
	}
	return claimed, problems
}

// setupLink is what is said of a link of whatever kind. Several may speak of one.
func (out specs) setupLink(name string, l netsetup.Link, layer network.ConfigLayer) {
	at := layer.String() + "/" + name
	s := out.links[at]
	s.Name, s.Up, s.Layer = name, true, layer
	if l.MTU != 0 {
		s.MTU = l.MTU
	}
	if len(l.HardwareAddr) > 0 {
		s.HardwareAddr = l.HardwareAddr
	}
	out.links[at] = s
	for _, p := range l.Addresses {
		out.addresses[at+"/"+p.String()] = network.AddressSpecSpec{
			Address: p, LinkName: name, Family: familyOf(p.Addr()), Scope: network.ScopeGlobal, Layer: layer,
		}
	}
	for _, r := range l.Routes {
		out.setupRoute(name, r, layer)
	}
	if l.DHCP {
		out.dhcp4(layer.String()+"/", name, layer, l.Metric)
	}
}

// setupRoute is a route, with one to its gateway where no address leads there.
func (out specs) setupRoute(name string, r netsetup.Route, layer network.ConfigLayer) {
	s := network.RouteSpecSpec{
		OutLinkName: name, Table: network.TableMain, Priority: r.Metric, Type: network.RouteUnicast, Protocol: network.ProtocolStatic,
		Gateway: r.Gateway, Src: r.Source, MTU: r.MTU, Layer: layer,
	}
	if s.Priority == 0 {
		s.Priority = defaultMetric
	}
	if r.Gateway.IsValid() {
		s.Family = familyOf(r.Gateway)
	} else {
		s.Family, s.Scope = familyOf(r.Network.Addr()), network.ScopeLink
	}
	if r.Network.IsValid() && r.Network.Bits() > 0 {
		s.Dst = r.Network.Masked()
	}
	at := layer.String() + "/" + name
	out.routes[fmt.Sprintf("%s/%s/%s/%d", at, text(s.Dst), text(s.Gateway), s.Priority)] = s
	if !r.OnLink || !r.Gateway.IsValid() {
		return
	}
	there := netip.PrefixFrom(r.Gateway, r.Gateway.BitLen())
	s.Dst, s.Gateway, s.Scope = there, netip.Addr{}, network.ScopeLink
	out.routes[fmt.Sprintf("%s/%s//%d", at, there, s.Priority)] = s
}

// text is an address or a prefix, "" when there is none.
func text[T interface {
	IsValid() bool
	String() string
}](v T) string {
	if !v.IsValid() {
		return ""
	}
	return v.String()
}

// setupLogical is what makes a VLAN or a bond of a link.
func (out specs) setupLogical(name string, l netsetup.Link, layer network.ConfigLayer, links []link, claimed claims) error {
	if l.VLAN != nil {
		parents := found(l.VLAN.Parent, links)
		if len(parents) != 1 {
			return fmt.Errorf("VLAN %s runs over %s: there are %d such links", name, l.VLAN.Parent, len(parents))
		}
		out.vlan(layer, name, parents[0], l.VLAN.ID)
	}
	if l.Bond == nil {
		return nil
	}
	var parts []string
	for _, m := range l.Bond.Links {
		parts = append(parts, found(m, links)...)
	}
	if len(parts) == 0 {
		var texts []string
		for _, m := range l.Bond.Links {
			texts = append(texts, m.String())
		}
		return fmt.Errorf("bond %s is made of %s: there are no such links", name, strings.Join(texts, ", "))
	}
	how := l.Bond.How
	if primary := found(l.Bond.Primary, links); !l.Bond.Primary.First() && len(primary) == 1 {
		how.Primary = primary[0]
	}
	out.bond(layer, name, parts, how, claimed)
	return nil
}

// vlan makes a link a VLAN over another, which is set up for it.
func (out specs) vlan(layer network.ConfigLayer, name, parent string, id uint16) {
	at := layer.String() + "/"
	s := out.links[at+name]
	s.Name, s.Up, s.Layer = name, true, layer
	s.Logical, s.Kind, s.Type, s.ParentName = true, network.KindVLAN, network.LinkEther, parent
	s.VLAN = network.VLANSpec{VID: id, Protocol: network.VLAN8021Q}
	out.links[at+name] = s
	p := out.links[at+parent]
	p.Name, p.Up, p.Layer = parent, true, layer
	out.links[at+parent] = p
}

// bond makes a link a bond of others, which have no addresses then.
func (out specs) bond(layer network.ConfigLayer, name string, parts []string, how network.BondMasterSpec, claimed claims) {
	at := layer.String() + "/"
	s := out.links[at+name]
	s.Name, s.Up, s.Layer = name, true, layer
	s.Logical, s.Kind, s.Type, s.BondMaster = true, network.KindBond, network.LinkEther, how
	out.links[at+name] = s
	for i, part := range parts {
		p := out.links[at+part]
		p.Name, p.Up, p.Layer = part, true, layer
		p.BondSlave = network.BondSlave{MasterName: name, SlaveIndex: i}
		out.links[at+part] = p
		claimed.raise(part, addressed)
	}
}

// found lists the links that are meant. One that is named is, whether it is
// there or not.
func found(m netsetup.Match, links []link) []string {
	if m.First() {
		return first(links)
	}
	if len(m.HardwareAddr) == 0 && !strings.ContainsAny(m.Name, "*?[") {
		return []string{m.Name}
	}
	var out []string
	for _, l := range links {
		if hardware(l) && m.Matches(l.name, ownAddress(l.status)) {
			out = append(out, l.name)
		}
	}
	slices.Sort(out)
	return out
}

// first is the link that is meant where none is named: the first by the
// kernel's count.
func first(links []link) []string {
	var best *link
	for _, l := range links {
		if ethernet(l) && (best == nil || l.status.Index < best.status.Index) {
			best = &l
		}
	}
	if best == nil {
		return nil
	}
	return []string{best.name}
}

// hardware tells links that are, or stand for, hardware by whatever name, be
// they part of a bond or not; never the pod network's.
func hardware(l link) bool {
	s := l.status
	return s.Type == network.LinkEther && (s.Kind == "" || s.Kind == "veth") && (s.MasterIndex == 0 || s.SlaveKind == network.KindBond)
}

// ownAddress is a link's own hardware address: one that is part of a bond, or
// was given another, still has it.
func ownAddress(s network.LinkStatusSpec) network.HardwareAddr {
	if len(s.PermanentAddr) > 0 && strings.Trim(s.PermanentAddr.String(), "0:") != "" {
		return s.PermanentAddr
	}
	return s.HardwareAddr
}
