package fit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"talos/config"
	"talos/internal/netconfig"
	"talos/internal/resources/network"
)

const interfacesKey = "machine.network.interfaces"

// interfaces looks for the links that are named.
func (c *checker) interfaces() {
	for _, d := range config.Of(config.Of(c.cfg.Machine).Network).Interfaces {
		if config.Bool(d.Ignore, false) {
			continue
		}
		if d.Bond != nil {
			c.bond(*d.Bond)
		}
		if made(d) {
			continue
		}
		selected := netconfig.Selected(d, c.Links)
		if len(selected) == 0 {
			c.add(Misfit, interfacesKey+".deviceSelector", fmt.Sprintf("no link of this machine is like %s; it has %s", describe(d.DeviceSelector), c.links()))
		}
		for _, name := range selected {
			if _, ok := c.Links[name]; !ok {
				c.add(Misfit, interfacesKey+".interface", fmt.Sprintf("this machine has no link %s; it has %s", name, c.links()))
			}
		}
	}
}

// bond looks for the links that a bond is made of.
func (c *checker) bond(b config.Bond) {
	parts := netconfig.BondLinks(b, c.Links)
	if len(parts) == 0 {
		c.add(Misfit, interfacesKey+".bond", fmt.Sprintf("no link of this machine is what the bond is made of; it has %s", c.links()))
	}
	for _, name := range parts {
		if _, ok := c.Links[name]; !ok {
			c.add(Misfit, interfacesKey+".bond.interfaces", fmt.Sprintf("this machine has no link %s; it has %s", name, c.links()))
		}
	}
}

// describe shows what a selector asks for.
func describe(s *config.NetworkDeviceSelector) string {
	text, err := yaml.Marshal(config.Of(s))
	if err != nil {
		return "that"
	}
	return "{" + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", ", ") + "}"
}

// made says whether the entry is about a link that is made by it.
func made(d config.Device) bool {
	return d.Bond != nil || d.Bridge != nil || d.Wireguard != nil || config.Bool(d.Dummy, false)
}

// addresses looks for addresses that can't be a link's, or are another link's.
func (c *checker) addresses() {
	for _, want := range c.then.Addresses {
		if want.LinkName == "lo" {
			continue
		}
		a := want.Address.Addr()
		key := interfacesKey + ".addresses"
		if text := unfit(want.Address); text != "" {
			c.add(Misfit, key, fmt.Sprintf("%s of %s %s", want.Address, want.LinkName, text))
		}
		for _, have := range c.future {
			if have.Prefix.Addr() == a && have.Link != want.LinkName {
				c.add(Misfit, key, fmt.Sprintf("%s of %s is an address of %s too", a, want.LinkName, have.Link))
			}
			if have.Prefix.Addr() == a && have.Link == want.LinkName && have.Prefix != want.Address {
				c.add(Misfit, key, fmt.Sprintf("%s of %s is there with another prefix length: %s", want.Address, want.LinkName, have.Prefix))
			}
		}
	}
}

// unfit says why an address can't be a machine's.
func unfit(p netip.Prefix) string {
	a := p.Addr()
	if a.IsMulticast() || a.IsUnspecified() {
		return "is no address of a machine"
	}
	if !a.Is4() || p.Bits() > 30 {
		return ""
	}
	switch {
	case a == p.Masked().Addr():
		return "is the address of the network itself"
	case !p.Contains(a.Next()):
		return "is the broadcast address of its network"
	}
	return ""
}

// gateways looks for gateways that nothing leads to.
func (c *checker) gateways() {
	for _, r := range c.then.Routes {
		g := r.Gateway
		if !g.IsValid() || g.IsLinkLocalUnicast() || c.unknown[r.OutLinkName] {
			continue
		}
		key := interfacesKey + ".routes"
		subnets := c.on(r.OutLinkName)
		switch {
		case slices.ContainsFunc(c.future, func(a Address) bool { return a.Prefix.Addr() == g }):
			c.add(Misfit, key, fmt.Sprintf("gateway %s is this machine itself", g))
		case !slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(g) }):
			c.add(Misfit, key, fmt.Sprintf("gateway %s is in no network of %s, which has %s", g, r.OutLinkName, orNone(subnets)))
		}
	}
}

// subnets looks at what chooses among the machine's addresses, and at networks
// of the cluster that are the machine's already.
func (c *checker) subnets() {
	if len(c.unknown) > 0 {
		return
	}
	var own []netip.Addr
	for _, a := range c.future {
		status, ok := c.Links[a.Link]
		if !ok || !netconfig.Hardware(a.Link, status) {
			continue
		}
		own = append(own, a.Prefix.Addr())
		for key, list := range map[string][]netip.Prefix{
			"cluster.network.podSubnets": c.cfg.PodSubnets(), "cluster.network.serviceSubnets": c.cfg.ServiceSubnets(),
		} {
			for _, p := range list {
				if p.Contains(a.Prefix.Addr()) {
					c.add(Misfit, key, fmt.Sprintf("%s holds this machine's own address %s", p, a.Prefix.Addr()))
				}
			}
		}
	}
	cluster := config.Of(c.cfg.Cluster)
	for key, list := range map[string][]string{
		"machine.kubelet.nodeIP.validSubnets": config.Of(config.Of(config.Of(c.cfg.Machine).Kubelet).NodeIP).ValidSubnets,
		"cluster.etcd.advertisedSubnets":      config.Of(cluster.Etcd).AdvertisedSubnets,
		"cluster.etcd.listenSubnets":          config.Of(cluster.Etcd).ListenSubnets,
	} {
		if len(own) > 0 && !slices.ContainsFunc(own, func(a netip.Addr) bool { return within(a, list) }) {
			c.add(Misfit, key, fmt.Sprintf("no address of this machine is in %s; it has %s", strings.Join(list, ", "), orNone(own)))
		}
	}
}

// within says whether a list of subnets takes an address; ! leaves one out, and
// a list that only leaves out takes the rest.
func within(a netip.Addr, list []string) bool {
	taken, takes := false, false
	for _, text := range list {
		text, not := strings.CutPrefix(text, "!")
		p, err := netip.ParsePrefix(text)
		if err != nil { // validated before
			continue
		}
		if not && p.Contains(a) {
			return false
		}
		if !not {
			takes = true
			taken = taken || p.Contains(a)
		}
	}
	return taken || !takes
}

func orNone[T fmt.Stringer](list []T) string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// endpoint looks at the cluster's endpoint, if that is this machine.
func (c *checker) endpoint() {
	host, err := netip.ParseAddr(c.cfg.Endpoint().Hostname())
	if err != nil {
		return
	}
	had := func(a Address) bool { return a.Prefix.Addr() == host }
	if slices.ContainsFunc(c.Addresses, had) && !slices.ContainsFunc(c.future, had) {
		c.add(Lockout, "cluster.controlPlane.endpoint", fmt.Sprintf("%s is an address that this machine loses", host))
	}
}

// caller looks for the way back to who applies the configuration.
func (c *checker) caller() {
	who := c.Caller.Unmap()
	if !who.IsValid() || who.IsLoopback() {
		return
	}
	way, ok := wayTo(who, c.Routes)
	if !ok || c.unknown[way.OutLinkName] {
		return
	}
	link := way.OutLinkName
	if status, ok := c.Links[link]; !ok || !netconfig.Hardware(link, status) {
		return // from a pod of this machine, or from itself
	}
	var had, kept []string
	for _, a := range c.Addresses {
		if a.Link != link || a.Prefix.Addr().Is4() != who.Is4() || a.Prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		had = append(had, a.Prefix.String())
		// Also on a VLAN or a bond: the network may be the same.
		if slices.ContainsFunc(c.future, func(f Address) bool { return f.Prefix == a.Prefix }) {
			kept = append(kept, a.Prefix.String())
		}
	}
	switch {
	case len(had) > 0 && len(kept) == 0:
		c.add(Lockout, interfacesKey, fmt.Sprintf("%s loses %s, and with it the way by which you (%s) reach this machine", link, strings.Join(had, ", "), who))
	case !c.reaches(who):
		c.add(Lockout, interfacesKey, fmt.Sprintf("no route leads back to you (%s) any more", who))
	}
}

// reaches says whether a way will lead to an address.
func (c *checker) reaches(who netip.Addr) bool {
	for _, a := range c.future {
		if a.Prefix.Contains(who) {
			return true
		}
	}
	for _, r := range c.then.Routes {
		if leads(r.Dst, r.Family, who) {
			return true
		}
	}
	for _, r := range c.Routes {
		if r.Table == network.TableMain && leads(r.Dst, r.Family, who) && c.routeStays(r) {
			return true
		}
	}
	return false
}

// routeStays says whether a route that the new configuration does not name will
// still be there.
func (c *checker) routeStays(r network.RouteStatusSpec) bool {
	if !r.Gateway.IsValid() && r.Dst.IsValid() { // of an address, and looked at with it
		return false
	}
	for _, s := range c.now.Routes {
		if s.OutLinkName == r.OutLinkName && s.Dst == r.Dst && s.Gateway == r.Gateway {
			return false
		}
	}
	if c.now.DHCP[r.OutLinkName] && !c.then.DHCP[r.OutLinkName] {
		return false
	}
	return len(c.on(r.OutLinkName)) > 0
}

func leads(dst netip.Prefix, family network.Family, to netip.Addr) bool {
	if !dst.IsValid() {
		return (family == network.FamilyInet4) == to.Is4()
	}
	return dst.Contains(to)
}

// wayTo is the route by which the machine reaches an address now.
func wayTo(to netip.Addr, routes []network.RouteStatusSpec) (network.RouteStatusSpec, bool) {
	var best network.RouteStatusSpec
	bits := -1
	for _, r := range routes {
		if r.Table != network.TableMain || !leads(r.Dst, r.Family, to) {
			continue
		}
		n := max(0, r.Dst.Bits())
		if n > bits || n == bits && r.Priority < best.Priority {
			best, bits = r, n
		}
	}
	return best, bits >= 0
}
