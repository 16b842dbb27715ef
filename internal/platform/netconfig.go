package platform

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"talos/internal/netsetup"
	"talos/internal/resources/network"
)

// parseNetworkConfig reads cloud-init's network configuration, version 1 or 2,
// under a key network or without. What can't be done is told in the result;
// the error is that the document as a whole can't be read.
func parseNetworkConfig(data []byte) (netsetup.Network, error) {
	var outer struct {
		Network yaml.Node `yaml:"network"`
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return netsetup.Network{}, err
	}
	if document.IsZero() {
		return netsetup.Network{}, nil
	}
	if err := document.Decode(&outer); err == nil && !outer.Network.IsZero() {
		document = outer.Network
	}
	var version struct {
		Version int       `yaml:"version"`
		Config  yaml.Node `yaml:"config"`
	}
	if err := document.Decode(&version); err != nil {
		return netsetup.Network{}, err
	}
	switch {
	case version.Config.Value == "disabled": // by us: what links do anyhow
		return netsetup.Network{}, nil
	case version.Version == 1:
		return parseV1(&document)
	case version.Version == 2:
		return parseV2(&document)
	}
	return netsetup.Network{}, fmt.Errorf("version %d: want 1 or 2", version.Version)
}

// reader collects what a document says.
type reader struct {
	netsetup.Network
	refs map[string]netsetup.Match // links by the names that the document has for them
}

func (r *reader) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// ref is a link of the document, or one of the machine by its name.
func (r *reader) ref(name string) netsetup.Match {
	if m, ok := r.refs[name]; ok {
		return m
	}
	return netsetup.Match{Name: name}
}

func (r *reader) refsOf(names []string) []netsetup.Match {
	var out []netsetup.Match
	for _, name := range names {
		out = append(out, r.ref(name))
	}
	return out
}

// servers adds name servers and domains. Both are the machine's, not a link's.
func (r *reader) servers(at string, addresses, search []string) {
	for _, text := range addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			r.problem("%s: name server %q is not an address", at, text)
			continue
		}
		r.Nameservers = add(r.Nameservers, a)
	}
	for _, domain := range search {
		r.Search = add(r.Search, domain)
	}
}

func add[T comparable](list []T, v T) []T {
	for _, have := range list {
		if have == v {
			return list
		}
	}
	return append(list, v)
}

// address reads an address with its length, or with a mask beside it.
func (r *reader) address(at, text, mask string) (netip.Prefix, bool) {
	p, err := parsePrefix(text, mask)
	if err != nil {
		r.problem("%s: address %v", at, err)
	}
	return p, err == nil
}

// parsePrefix reads 10.0.0.2/24, or 10.0.0.2 with 255.255.255.0 or 24; without
// both it is the address alone.
func parsePrefix(text, mask string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is none", text)
	}
	bits := a.BitLen()
	if m, err := netip.ParseAddr(mask); err == nil {
		ones, size := net.IPMask(m.AsSlice()).Size()
		if size != a.BitLen() {
			return netip.Prefix{}, fmt.Errorf("%s has no netmask %s", text, mask)
		}
		bits = ones
	} else if mask != "" {
		if bits, err = strconv.Atoi(mask); err != nil || bits < 0 || bits > a.BitLen() {
			return netip.Prefix{}, fmt.Errorf("%s has no netmask %q", text, mask)
		}
	}
	return netip.PrefixFrom(a, bits), nil
}

// route reads a route; "", default and /0 are the default one.
func (r *reader) route(at, to, mask, via string) (netsetup.Route, bool) {
	var out netsetup.Route
	var err error
	if via != "" {
		if out.Gateway, err = netip.ParseAddr(via); err != nil {
			r.problem("%s: gateway %q is not an address", at, via)
			return out, false
		}
	}
	if to != "" && to != "default" {
		if out.Network, err = parsePrefix(to, mask); err != nil {
			r.problem("%s: route to %v", at, err)
			return out, false
		}
		out.Network = out.Network.Masked()
	}
	if !out.Network.IsValid() && !out.Gateway.IsValid() {
		r.problem("%s: a route has neither network nor gateway", at)
		return out, false
	}
	return out, true
}

// reachable has each gateway be reached through the link itself where no
// address says so.
func reachable(l *netsetup.Link) {
	for i := range l.Routes {
		g := l.Routes[i].Gateway
		if !g.IsValid() || g.IsLinkLocalUnicast() || len(l.Addresses) == 0 {
			continue
		}
		onLink := true
		for _, p := range l.Addresses {
			onLink = onLink && !p.Contains(g)
		}
		l.Routes[i].OnLink = l.Routes[i].OnLink || onLink
	}
}

func (r *reader) hardware(at, text string) network.HardwareAddr {
	if text == "" {
		return nil
	}
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		r.problem("%s: %q is not a hardware address", at, text)
		return nil
	}
	return network.HardwareAddr(mac)
}

func (r *reader) mtu(at string, mtu int) uint32 {
	if mtu == 0 {
		return 0
	}
	if mtu < 68 || mtu > 65535 {
		r.problem("%s: MTU %d: want 68 to 65535", at, mtu)
		return 0
	}
	return uint32(mtu)
}

// vlan is a VLAN of a number over a link.
func (r *reader) vlan(at string, id int, over string) *netsetup.VLAN {
	if id < 1 || id > 4094 || over == "" {
		r.problem("%s: VLAN %d over %q: want a number from 1 to 4094 and a link", at, id, over)
		return nil
	}
	return &netsetup.VLAN{ID: uint16(id), Parent: r.ref(over)}
}

// bond is a bond of links, its options named as the kernel does.
func (r *reader) bond(at string, links []string, options map[string]string) *netsetup.Bond {
	if len(links) == 0 {
		r.problem("%s: a bond of no links", at)
		return nil
	}
	how, problems := netsetup.ParseBond(options)
	for _, p := range problems {
		r.problem("%s: %v", at, p)
	}
	b := &netsetup.Bond{Links: r.refsOf(links), How: how}
	if how.Primary != "" {
		b.Primary = r.ref(how.Primary)
	}
	return b
}

// list is a list, or one item of it.
type list []string

// UnmarshalYAML reads either; items on one line are separated by blanks or commas.
func (l *list) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		if n.Tag != "!!null" {
			*l = strings.FieldsFunc(n.Value, func(r rune) bool { return r == ',' || r == ' ' })
		}
		return nil
	}
	return n.Decode((*[]string)(l))
}

// number is a number, also one that stands in quotes.
type number int

// UnmarshalYAML reads either.
func (v *number) UnmarshalYAML(n *yaml.Node) error {
	i, err := strconv.Atoi(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is not a number", n.Line, n.Value)
	}
	*v = number(i)
	return nil
}
