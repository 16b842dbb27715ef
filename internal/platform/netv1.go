package platform

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"talos/internal/netsetup"
)

// item is one entry of version 1.
type item struct {
	Type    string   `yaml:"type"`
	Name    string   `yaml:"name"`
	MAC     string   `yaml:"mac_address"`
	MTU     number   `yaml:"mtu"`
	Subnets []subnet `yaml:"subnets"`

	BondLinks list            `yaml:"bond_interfaces"`
	Params    map[string]list `yaml:"params"`
	VLANLink  string          `yaml:"vlan_link"`
	VLANID    number          `yaml:"vlan_id"`

	Address     list   `yaml:"address"` // of type nameserver
	Search      list   `yaml:"search"`
	Destination string `yaml:"destination"` // of type route
	Netmask     string `yaml:"netmask"`
	Gateway     string `yaml:"gateway"`
	Metric      number `yaml:"metric"`
}

// subnet is an address of a link, or a way to get one.
type subnet struct {
	Type       string `yaml:"type"`
	Address    string `yaml:"address"`
	Netmask    string `yaml:"netmask"`
	Gateway    string `yaml:"gateway"`
	DNS        list   `yaml:"dns_nameservers"`
	Search     list   `yaml:"dns_search"`
	RouteItems []struct {
		Network     string `yaml:"network"`
		Destination string `yaml:"destination"`
		Netmask     string `yaml:"netmask"`
		Gateway     string `yaml:"gateway"`
		Metric      number `yaml:"metric"`
	} `yaml:"routes"`
}

// parseV1 reads version 1: a list of links and other things.
func parseV1(document *yaml.Node) (netsetup.Network, error) {
	var d struct {
		Config []item `yaml:"config"`
	}
	if err := document.Decode(&d); err != nil {
		return netsetup.Network{}, err
	}
	r := &reader{refs: map[string]netsetup.Match{}}
	for _, i := range d.Config {
		if i.Type == "physical" && i.Name != "" {
			r.refs[i.Name] = netsetup.Match{Name: i.Name, HardwareAddr: r.hardware(i.Name, i.MAC)}
		}
	}
	for n, i := range d.Config {
		r.item(cmp.Or(i.Name, fmt.Sprintf("entry %d", n+1)), i)
	}
	for _, i := range d.Config {
		if i.Type == "route" {
			r.looseRoute(i)
		}
	}
	return r.Network, nil
}

func (r *reader) item(at string, i item) {
	l := netsetup.Link{Match: r.ref(i.Name), MTU: r.mtu(at, int(i.MTU))}
	switch i.Type {
	case "physical":
		if l.Match.First() {
			r.problem("%s: a physical link without name", at)
			return
		}
	case "bond":
		options := map[string]string{}
		for key, value := range i.Params {
			options[kernelOption(key)] = strings.Join(value, ",")
		}
		l.Bond, l.HardwareAddr = r.bond(at, i.BondLinks, options), r.hardware(at, i.MAC)
	case "vlan":
		l.VLAN, l.HardwareAddr = r.vlan(at, int(i.VLANID), i.VLANLink), r.hardware(at, i.MAC)
	case "nameserver":
		r.servers(at, i.Address, i.Search)
		return
	case "route", "loopback":
		return
	default:
		r.problem("%s: type %q: this system makes bonds and VLANs only", at, i.Type)
		return
	}
	if made := i.Type != "physical"; made && (i.Name == "" || l.Bond == nil && l.VLAN == nil) {
		return // told before, but for the name
	}
	for _, s := range i.Subnets {
		r.subnet(at, &l, s)
	}
	reachable(&l)
	r.Links = append(r.Links, l)
}

// kernelOption is the name of a bond's option: bond-mode and bond_mode are mode.
func kernelOption(key string) string {
	key = strings.ReplaceAll(key, "-", "_")
	key = strings.TrimPrefix(key, "bond_")
	return key
}

func (r *reader) subnet(at string, l *netsetup.Link, s subnet) {
	switch s.Type {
	case "dhcp", "dhcp4":
		l.DHCP = true
	case "static", "static6":
		if p, ok := r.address(at, s.Address, s.Netmask); ok {
			l.Addresses = append(l.Addresses, p)
		}
	case "manual":
	default:
		r.problem("%s: subnet of type %q: this system knows dhcp, static and manual", at, s.Type)
	}
	if s.Gateway != "" {
		if route, ok := r.route(at, "", "", s.Gateway); ok {
			l.Routes = append(l.Routes, route)
		}
	}
	for _, i := range s.RouteItems {
		if route, ok := r.route(at, cmp.Or(i.Network, i.Destination), i.Netmask, i.Gateway); ok {
			route.Metric = uint32(max(0, i.Metric))
			l.Routes = append(l.Routes, route)
		}
	}
	r.servers(at, s.DNS, s.Search)
}

// looseRoute is one that names no link: it belongs where its gateway is.
func (r *reader) looseRoute(i item) {
	route, ok := r.route("route", i.Destination, i.Netmask, i.Gateway)
	if !ok {
		return
	}
	route.Metric = uint32(max(0, i.Metric))
	for n, l := range r.Links {
		for _, p := range l.Addresses {
			if p.Contains(route.Gateway) {
				r.Links[n].Routes = append(r.Links[n].Routes, route)
				return
			}
		}
	}
	r.problem("route: no address leads to the gateway %q", i.Gateway)
}

// sorted is the keys of a mapping in order: what a document says must not
// depend on chance.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
