package platform

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"talos/internal/netsetup"
)

// device is a link of version 2, netplan's. Keys that change nothing here, such
// as set-name, optional and wakeonlan, are left alone: links keep their names.
type device struct {
	Match struct {
		Name   string `yaml:"name"`
		MAC    string `yaml:"macaddress"`
		Driver list   `yaml:"driver"`
	} `yaml:"match"`
	DHCP4       bool           `yaml:"dhcp4"`
	DHCP6       bool           `yaml:"dhcp6"`
	Overrides   overrides      `yaml:"dhcp4-overrides"`
	Addresses   []netplanEntry `yaml:"addresses"`
	Gateway4    string         `yaml:"gateway4"`
	Gateway6    string         `yaml:"gateway6"`
	MTU         number         `yaml:"mtu"`
	MAC         string         `yaml:"macaddress"`
	Nameservers struct {
		Addresses list `yaml:"addresses"`
		Search    list `yaml:"search"`
	} `yaml:"nameservers"`
	Routes []struct {
		To     string `yaml:"to"`
		Via    string `yaml:"via"`
		From   string `yaml:"from"`
		Metric number `yaml:"metric"`
		MTU    number `yaml:"mtu"`
		OnLink bool   `yaml:"on-link"`
	} `yaml:"routes"`

	Interfaces list      `yaml:"interfaces"` // of a bond
	Parameters yaml.Node `yaml:"parameters"`
	ID         number    `yaml:"id"` // of a VLAN
	Link       string    `yaml:"link"`
}

type overrides struct {
	Metric number `yaml:"route-metric"`
}

// netplanEntry is an address, alone or as the key of its options.
type netplanEntry string

// UnmarshalYAML reads either.
func (e *netplanEntry) UnmarshalYAML(n *yaml.Node) error {
	switch {
	case n.Kind == yaml.ScalarNode:
		*e = netplanEntry(n.Value)
	case n.Kind == yaml.MappingNode && len(n.Content) == 2:
		*e = netplanEntry(n.Content[0].Value)
	default:
		return fmt.Errorf("line %d: want an address", n.Line)
	}
	return nil
}

// parseV2 reads version 2: mappings of links by kind.
func parseV2(document *yaml.Node) (netsetup.Network, error) {
	var d struct {
		Ethernets map[string]device    `yaml:"ethernets"`
		Bonds     map[string]device    `yaml:"bonds"`
		VLANs     map[string]device    `yaml:"vlans"`
		Bridges   map[string]yaml.Node `yaml:"bridges"`
		WiFis     map[string]yaml.Node `yaml:"wifis"`
		Tunnels   map[string]yaml.Node `yaml:"tunnels"`
	}
	if err := document.Decode(&d); err != nil {
		return netsetup.Network{}, err
	}
	r := &reader{refs: map[string]netsetup.Match{}}
	for _, id := range sorted(d.Ethernets) {
		e := d.Ethernets[id]
		m := netsetup.Match{Name: e.Match.Name, HardwareAddr: r.hardware(id, e.Match.MAC)}
		if m.First() {
			m.Name = id
		}
		if len(e.Match.Driver) > 0 {
			r.problem("%s: links are not found by their driver", id)
		}
		r.refs[id] = m
	}
	for _, id := range sorted(d.Ethernets) {
		r.device(id, netsetup.Link{}, d.Ethernets[id])
	}
	for _, id := range sorted(d.Bonds) {
		b := d.Bonds[id]
		if bond := r.bond(id, b.Interfaces, r.netplanBond(id, b.Parameters)); bond != nil {
			r.device(id, netsetup.Link{Bond: bond}, b)
		}
	}
	for _, id := range sorted(d.VLANs) {
		v := d.VLANs[id]
		if vlan := r.vlan(id, int(v.ID), v.Link); vlan != nil {
			r.device(id, netsetup.Link{VLAN: vlan}, v)
		}
	}
	for _, others := range []map[string]yaml.Node{d.Bridges, d.WiFis, d.Tunnels} {
		for _, id := range sorted(others) {
			r.problem("%s: this system makes bonds and VLANs only", id)
		}
	}
	return r.Network, nil
}

// device is what all kinds of links have.
func (r *reader) device(id string, l netsetup.Link, d device) {
	l.Match, l.MTU, l.DHCP, l.Metric = r.ref(id), r.mtu(id, int(d.MTU)), d.DHCP4, uint32(max(0, d.Overrides.Metric))
	l.HardwareAddr = r.hardware(id, d.MAC)
	if d.DHCP6 {
		r.problem("%s: this system does not do DHCPv6", id)
	}
	for _, text := range d.Addresses {
		if p, ok := r.address(id, string(text), ""); ok {
			l.Addresses = append(l.Addresses, p)
		}
	}
	for _, gateway := range []string{d.Gateway4, d.Gateway6} {
		if gateway == "" {
			continue
		}
		if route, ok := r.route(id, "", "", gateway); ok {
			l.Routes = append(l.Routes, route)
		}
	}
	for _, i := range d.Routes {
		route, ok := r.route(id, i.To, "", i.Via)
		if !ok {
			continue
		}
		route.Metric, route.MTU, route.OnLink = uint32(max(0, i.Metric)), r.mtu(id, int(i.MTU)), i.OnLink
		if i.From != "" {
			p, ok := r.address(id, i.From, "")
			if !ok {
				continue
			}
			route.Source = p.Addr()
		}
		l.Routes = append(l.Routes, route)
	}
	r.servers(id, d.Nameservers.Addresses, d.Nameservers.Search)
	reachable(&l)
	r.Links = append(r.Links, l)
}

// netplanOptions are the kernel's names of options whose name differs by more
// than dashes.
var netplanOptions = map[string]string{
	"mii-monitor-interval": "miimon", "transmit-hash-policy": "xmit_hash_policy", "all-members-active": "all_slaves_active",
	"arp-ip-targets": "arp_ip_target", "up-delay": "updelay", "down-delay": "downdelay", "fail-over-mac-policy": "fail_over_mac",
	"gratuitous-arp": "num_grat_arp", "gratuitious-arp": "num_grat_arp", "packets-per-member": "packets_per_slave",
	"primary-reselect-policy": "primary_reselect", "learn-packet-interval": "lp_interval",
}

// netplanBond gives a bond's parameters the kernel's names.
func (r *reader) netplanBond(id string, parameters yaml.Node) map[string]string {
	var values map[string]list
	if parameters.IsZero() {
		return nil
	}
	if err := parameters.Decode(&values); err != nil {
		r.problem("%s: parameters: %v", id, err)
		return nil
	}
	out := map[string]string{}
	for key, value := range values {
		name, ok := netplanOptions[key]
		if !ok {
			name = strings.ReplaceAll(key, "-", "_")
		}
		text := strings.Join(value, ",")
		if ms, ok := strings.CutSuffix(text, "ms"); ok && strings.Trim(ms, "0123456789") == "" {
			text = ms
		}
		out[name] = text
	}
	return out
}
