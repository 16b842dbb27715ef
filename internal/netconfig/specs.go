package netconfig

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"

	"talos/config"
	"talos/internal/resources/network"
)

// Defaults where no layer says anything else.
var (
	defaultResolvers   = []netip.Addr{netip.AddrFrom4([4]byte{1, 1, 1, 1}), netip.AddrFrom4([4]byte{8, 8, 8, 8})}
	defaultTimeServers = []string{"time.cloudflare.com"}
)

// specs is everything that one layer wants of the network, by id.
type specs struct {
	addresses   map[resource.ID]network.AddressSpecSpec
	routes      map[resource.ID]network.RouteSpecSpec
	links       map[resource.ID]network.LinkSpecSpec
	operators   map[resource.ID]network.OperatorSpecSpec
	hostnames   map[resource.ID]network.HostnameSpecSpec
	resolvers   map[resource.ID]network.ResolverSpecSpec
	timeServers map[resource.ID]network.TimeServerSpecSpec
	staticHosts map[resource.ID]network.StaticHostSpec
}

func newSpecs() specs {
	return specs{
		addresses: map[resource.ID]network.AddressSpecSpec{}, routes: map[resource.ID]network.RouteSpecSpec{},
		links: map[resource.ID]network.LinkSpecSpec{}, operators: map[resource.ID]network.OperatorSpecSpec{},
		hostnames: map[resource.ID]network.HostnameSpecSpec{}, resolvers: map[resource.ID]network.ResolverSpecSpec{},
		timeServers: map[resource.ID]network.TimeServerSpecSpec{}, staticHosts: map[resource.ID]network.StaticHostSpec{},
	}
}

// link is what decides about a link: its name and what selectors look at.
type link struct {
	name   string
	status network.LinkStatusSpec
}

// fromConfig turns the configuration into specs, and says which links it is
// about. It may be empty. What cannot be read is left out and told: the
// configuration was validated before it came here.
func fromConfig(cfg *config.Config, links []link) (specs, claims, []error) {
	out, claimed := newSpecs(), claims{}
	var problems []error
	if cfg != nil && cfg.Machine != nil {
		if n := cfg.Machine.Network; n != nil {
			problems = append(problems, out.global(n)...)
			for _, d := range n.Interfaces {
				for _, name := range selected(d, links) {
					if config.Bool(d.Ignore, false) {
						claimed.raise(name, ignored)
						continue
					}
					problems = append(problems, out.device(name, d)...)
					problems = append(problems, out.logical(name, d, links, claimed)...)
					if claimed.raise(name, named); addresses(d) {
						claimed.raise(name, addressed)
					}
				}
			}
		}
		out.time(cfg.Machine.Time)
	}
	for _, l := range links {
		if l.status.Type == network.LinkLoopback {
			out.podAddress(l.name, hostDNS(cfg))
		}
	}
	return out, claimed, problems
}

// loopback is up with its address whatever the configuration says: without it
// nothing on a node works.
func (out specs) loopback(name string) {
	out.links["default/"+name] = network.LinkSpecSpec{Name: name, Up: true, Layer: network.LayerDefault}
	out.addresses["default/"+name+"/127.0.0.1/8"] = network.AddressSpecSpec{
		Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 8), LinkName: name, Family: network.FamilyInet4,
		Scope: network.ScopeHost, Layer: network.LayerDefault,
	}
}

// ethernet tells the links that get DHCP by default: hardware and what a
// container has in its place, by their usual names; never the pod network's.
func ethernet(l link) bool {
	s := l.status
	return s.Type == network.LinkEther && s.MasterIndex == 0 && (s.Kind == "" || s.Kind == "veth") &&
		(strings.HasPrefix(l.name, "eth") || strings.HasPrefix(l.name, "en"))
}

// selected lists the links that a device entry is about.
func selected(d config.Device, links []link) []string {
	if d.Interface != "" {
		return []string{d.Interface}
	}
	if d.DeviceSelector == nil {
		return nil
	}
	var out []string
	for _, l := range links {
		if matches(*d.DeviceSelector, l) {
			out = append(out, l.name)
		}
	}
	return out
}

// matches tells whether a link has everything that the selector asks for. A
// selector that asks for nothing matches nothing, and none matches a VLAN or a
// bond, which have the addresses of what they are made of.
func matches(s config.NetworkDeviceSelector, l link) bool {
	if l.status.Kind == network.KindVLAN || l.status.Kind == network.KindBond {
		return false
	}
	hardwareAddr := l.status.HardwareAddr
	if l.status.SlaveKind == network.KindBond { // it has that of the bond
		hardwareAddr = ownAddress(l.status)
	}
	asked := false
	ok := func(pattern, value string) bool {
		if pattern == "" {
			return true
		}
		asked = true
		match, err := filepath.Match(strings.ToLower(pattern), strings.ToLower(value))
		return err == nil && match
	}
	physical := l.status.Kind == "" && l.status.Type == network.LinkEther
	if s.Physical != nil {
		asked = true
		if *s.Physical != physical {
			return false
		}
	}
	all := ok(s.BusPath, l.status.BusPath) && ok(s.HardwareAddr, hardwareAddr.String()) &&
		ok(s.PermanentAddr, l.status.PermanentAddr.String()) && ok(s.PCIID, l.status.PciID) && ok(s.Driver, l.status.Driver)
	return all && asked
}

const configuration = "configuration/"

// global is what belongs to no link.
func (out specs) global(n *config.Network) []error {
	var problems []error
	if n.Hostname != "" {
		out.hostnames[configuration+"hostname"] = hostname(n.Hostname, network.LayerConfiguration)
	}
	resolver := network.ResolverSpecSpec{SearchDomains: n.SearchDomains, Layer: network.LayerConfiguration}
	for _, s := range n.Nameservers {
		a, err := netip.ParseAddr(s)
		if err != nil {
			problems = append(problems, fmt.Errorf("name server %q: %w", s, err))
			continue
		}
		resolver.DNSServers = append(resolver.DNSServers, a)
	}
	if n.DisableSearchDomain != nil && *n.DisableSearchDomain {
		resolver.SearchDomainsOverridden = true
	}
	if len(resolver.DNSServers)+len(resolver.SearchDomains) > 0 || resolver.SearchDomainsOverridden {
		out.resolvers[configuration+"resolvers"] = resolver
	}
	for _, h := range n.ExtraHostEntries {
		a, err := netip.ParseAddr(h.IP)
		if err != nil {
			problems = append(problems, fmt.Errorf("extra host %q: %w", h.IP, err))
			continue
		}
		for _, alias := range h.Aliases {
			s := out.staticHosts[alias]
			s.Addresses = append(s.Addresses, a)
			out.staticHosts[alias] = s
		}
	}
	return problems
}

func hostname(name string, layer network.ConfigLayer) network.HostnameSpecSpec {
	host, domain, _ := strings.Cut(strings.TrimSuffix(name, "."), ".")
	return network.HostnameSpecSpec{Hostname: host, Domainname: domain, Layer: layer}
}

// device is what one entry wants of one link. A link is set up even where
// nothing else is asked of it.
func (out specs) device(name string, d config.Device) []error {
	var problems []error
	at := configuration + name
	l := out.links[at] // a bond that it is part of may have named it
	l.Name, l.Up, l.MTU, l.Layer = name, true, uint32(d.MTU), network.LayerConfiguration
	out.links[at] = l
	for _, text := range d.Addresses {
		p, err := parseAddress(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("address %q of %s: %w", text, name, err))
			continue
		}
		out.addresses[at+"/"+p.String()] = network.AddressSpecSpec{
			Address: p, LinkName: name, Family: familyOf(p.Addr()), Scope: network.ScopeGlobal, Layer: network.LayerConfiguration,
		}
	}
	for _, r := range d.Routes {
		s, err := route(name, r)
		if err != nil {
			problems = append(problems, fmt.Errorf("route %q of %s: %w", r.Network, name, err))
			continue
		}
		out.routes[fmt.Sprintf("%s/%s/%s/%d", at, r.Network, r.Gateway, s.Priority)] = s
	}
	if d.DHCP != nil && *d.DHCP && (d.DHCPOptions == nil || d.DHCPOptions.IPv4 == nil || *d.DHCPOptions.IPv4) {
		metric := 0
		if d.DHCPOptions != nil {
			metric = d.DHCPOptions.RouteMetric
		}
		out.dhcp4(configuration, name, network.LayerConfiguration, uint32(metric))
	}
	return problems
}

func (out specs) dhcp4(prefix, name string, layer network.ConfigLayer, metric uint32) {
	out.operators[prefix+"dhcp4/"+name] = network.OperatorSpecSpec{
		Operator: network.OperatorDHCP4, LinkName: name, RequireUp: true, Layer: layer, Dhcp4: network.DHCP4OperatorSpec{RouteMetric: metric},
	}
}

// parseAddress takes an address with its prefix length; without one, the host alone.
func parseAddress(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Prefix(a.BitLen())
}

func familyOf(a netip.Addr) network.Family {
	if a.Is6() {
		return network.FamilyInet6
	}
	return network.FamilyInet4
}

// defaultMetric is what a configured route gets that names no metric.
const defaultMetric = 1024

func route(name string, r config.Route) (network.RouteSpecSpec, error) {
	s := network.RouteSpecSpec{
		OutLinkName: name, Table: network.TableMain, Priority: uint32(cmp.Or(r.Metric, defaultMetric)), Type: network.RouteUnicast,
		Protocol: network.ProtocolStatic, MTU: uint32(r.MTU), Layer: network.LayerConfiguration,
	}
	var err error
	if r.Gateway != "" {
		if s.Gateway, err = netip.ParseAddr(r.Gateway); err != nil {
			return s, err
		}
		s.Family = familyOf(s.Gateway)
	} else {
		s.Scope = network.ScopeLink
	}
	if r.Network != "" {
		p, err := netip.ParsePrefix(r.Network)
		if err != nil {
			return s, err
		}
		s.Family = familyOf(p.Addr())
		if p.Bits() > 0 {
			s.Dst = p.Masked()
		}
	}
	if r.Source != "" {
		if s.Src, err = netip.ParseAddr(r.Source); err != nil {
			return s, err
		}
	}
	if s.Family == 0 {
		return s, fmt.Errorf("neither network nor gateway")
	}
	return s, nil
}

func (out specs) time(t *config.Time) {
	if t == nil {
		return
	}
	s := network.TimeServerSpecSpec{
		TimeServers: slices.Clone(t.Servers), BootTimeout: time.Duration(t.BootTimeout), Disabled: t.Disabled != nil && *t.Disabled,
		Layer: network.LayerConfiguration,
	}
	if len(s.TimeServers) > 0 || s.Disabled || s.BootTimeout != 0 {
		out.timeServers[configuration+"timeservers"] = s
	}
}
