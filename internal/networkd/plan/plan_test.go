package plan

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/networkd/rtnl"
	"talos/internal/resources/network"
)

var (
	eth0  = rtnl.Link{Name: "eth0", Up: true, Status: network.LinkStatusSpec{Index: 2, MTU: 1500}}
	cni0  = rtnl.Link{Name: "cni0", Up: true, Status: network.LinkStatusSpec{Index: 3, MTU: 1450, Kind: "bridge"}}
	down  = rtnl.Link{Name: "eth1", Status: network.LinkStatusSpec{Index: 4, MTU: 1500}}
	links = []rtnl.Link{eth0, cni0, down}
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func texts(steps []Step) []string {
	var out []string
	for _, s := range steps {
		out = append(out, s.String())
	}
	return out
}

func TestLinks(t *testing.T) {
	for _, tt := range []struct {
		name string
		want network.LinkSpecSpec
		plan []string
	}{
		{"as wanted", network.LinkSpecSpec{Name: "eth0", Up: true, MTU: 1500}, nil},
		{"no mtu wanted", network.LinkSpecSpec{Name: "eth0", Up: true}, nil},
		{"mtu", network.LinkSpecSpec{Name: "eth0", Up: true, MTU: 1400}, []string{"set mtu 1400 on eth0"}},
		{"down", network.LinkSpecSpec{Name: "eth1", Up: true}, []string{"set up eth1"}},
		{"never set down", network.LinkSpecSpec{Name: "eth0"}, nil},
		{"missing", network.LinkSpecSpec{Name: "eth7", Up: true}, nil},
	} {
		if diff := cmp.Diff(tt.plan, texts(Links([]network.LinkSpecSpec{tt.want}, links))); diff != "" {
			t.Errorf("%s: Links() (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestAddresses(t *testing.T) {
	want := func(link, p string) network.AddressSpecSpec {
		return network.AddressSpecSpec{LinkName: link, Address: prefix(p)}
	}
	have := func(index uint32, p string, ours bool) rtnl.Address {
		return rtnl.Address{LinkIndex: index, Prefix: prefix(p), Ours: ours}
	}
	for _, tt := range []struct {
		name string
		want []network.AddressSpecSpec
		have []rtnl.Address
		plan []string
	}{
		{"missing", []network.AddressSpecSpec{want("eth0", "10.0.0.2/24")}, nil, []string{"add address 10.0.0.2/24 on eth0"}},
		{"there", []network.AddressSpecSpec{want("eth0", "10.0.0.2/24")}, []rtnl.Address{have(2, "10.0.0.2/24", true)}, nil},
		{"there, made by others", []network.AddressSpecSpec{want("eth0", "10.0.0.2/24")}, []rtnl.Address{have(2, "10.0.0.2/24", false)}, nil},
		{"foreign stays", nil, []rtnl.Address{have(3, "10.244.0.1/24", false), have(2, "192.168.0.1/24", false)}, nil},
		{"ours goes", nil, []rtnl.Address{have(2, "10.0.0.2/24", true)}, []string{"delete address 10.0.0.2/24 on eth0"}},
		{"wider first", []network.AddressSpecSpec{want("eth0", "10.0.0.2/16")}, []rtnl.Address{have(2, "10.0.0.2/24", true)},
			[]string{"delete address 10.0.0.2/24 on eth0", "add address 10.0.0.2/16 on eth0"}},
		{"other link", []network.AddressSpecSpec{want("cni0", "10.0.0.2/24")}, []rtnl.Address{have(2, "10.0.0.2/24", true)},
			[]string{"delete address 10.0.0.2/24 on eth0", "add address 10.0.0.2/24 on cni0"}},
		{"wanted twice", []network.AddressSpecSpec{want("eth0", "10.0.0.2/24"), want("eth0", "10.0.0.2/24")}, nil, []string{"add address 10.0.0.2/24 on eth0"}},
		{"no such link", []network.AddressSpecSpec{want("eth7", "10.0.0.2/24")}, nil, nil},
		{"v4 on a link that is down", []network.AddressSpecSpec{want("eth1", "10.0.0.2/24")}, nil, []string{"add address 10.0.0.2/24 on eth1"}},
		{"v6 waits for the link", []network.AddressSpecSpec{want("eth1", "fd00::2/64")}, nil, nil},
	} {
		if diff := cmp.Diff(tt.plan, texts(Addresses(tt.want, tt.have, links))); diff != "" {
			t.Errorf("%s: Addresses() (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestRoutes(t *testing.T) {
	viaGateway := network.RouteSpecSpec{Gateway: addr("10.0.0.1"), OutLinkName: "eth0", Priority: 1024, Protocol: network.ProtocolDHCP, Family: network.FamilyInet4}
	toGateway := network.RouteSpecSpec{Dst: prefix("10.0.0.1/32"), OutLinkName: "eth0", Priority: 1024, Scope: network.ScopeLink, Protocol: network.ProtocolDHCP, Family: network.FamilyInet4}
	there := func(change func(*rtnl.Route)) []rtnl.Route {
		r := rtnl.Route{RouteStatusSpec: network.RouteStatusSpec{
			Family: network.FamilyInet4, Gateway: addr("10.0.0.1"), OutLinkIndex: 2, Table: network.TableMain, Priority: 1024,
			Type: network.RouteUnicast, Protocol: network.ProtocolDHCP,
		}}
		if change != nil {
			change(&r)
		}
		return []rtnl.Route{r}
	}
	for _, tt := range []struct {
		name string
		want []network.RouteSpecSpec
		have []rtnl.Route
		plan []string
	}{
		{"missing", []network.RouteSpecSpec{viaGateway}, nil, []string{"add route inet4/10.0.0.1//1024 on eth0"}},
		{"there", []network.RouteSpecSpec{viaGateway}, there(nil), nil},
		{"there, made by others", []network.RouteSpecSpec{viaGateway}, there(func(r *rtnl.Route) { r.Protocol = network.ProtocolBoot }), nil},
		{"other gateway", []network.RouteSpecSpec{viaGateway}, there(func(r *rtnl.Route) { r.Gateway = addr("10.0.0.9") }),
			[]string{"delete route inet4/10.0.0.9//1024 on eth0", "add route inet4/10.0.0.1//1024 on eth0"}},
		{"gateway's own route first", []network.RouteSpecSpec{viaGateway, toGateway}, nil,
			[]string{"add route inet4//10.0.0.1/32/1024 on eth0", "add route inet4/10.0.0.1//1024 on eth0"}},
		{"ours goes", nil, there(nil), []string{"delete route inet4/10.0.0.1//1024 on eth0"}},
		{"kernel's stays", nil, there(func(r *rtnl.Route) { r.Protocol = network.ProtocolKernel }), nil},
		{"boot's stays", nil, there(func(r *rtnl.Route) { r.Protocol = network.ProtocolBoot }), nil},
		{"several hops stay", nil, there(func(r *rtnl.Route) { r.Multipath = true }), nil},
		{"blackhole stays", nil, there(func(r *rtnl.Route) { r.Type = network.RouteBlackhole }), nil},
		{"link is down", []network.RouteSpecSpec{{Gateway: addr("10.0.0.1"), OutLinkName: "eth1"}}, nil, nil},
		{"link is missing", []network.RouteSpecSpec{{Gateway: addr("10.0.0.1"), OutLinkName: "eth7"}}, nil, nil},
		{"v6 metric of the kernel", []network.RouteSpecSpec{{Gateway: addr("fd00::1"), OutLinkName: "eth0", Protocol: network.ProtocolStatic}},
			there(func(r *rtnl.Route) {
				r.Family, r.Gateway, r.Protocol = network.FamilyInet6, addr("fd00::1"), network.ProtocolStatic
			}), nil},
	} {
		if diff := cmp.Diff(tt.plan, texts(Routes(tt.want, tt.have, links))); diff != "" {
			t.Errorf("%s: Routes() (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestMerge(t *testing.T) {
	hosts := []network.HostnameSpecSpec{
		{Hostname: "conf", Layer: network.LayerConfiguration}, {Hostname: "dhcp", Layer: network.LayerOperator}, {Hostname: "default"},
		{Hostname: "", Layer: network.LayerConfiguration},
	}
	for drop, want := range []string{"conf", "dhcp", "default"} {
		if got := MergeHostnames(hosts[drop:3])[network.HostnameID].Hostname; got != want {
			t.Errorf("MergeHostnames(%v) = %q, want %q", hosts[drop:3], got, want)
		}
	}
	if got := MergeHostnames(hosts[3:]); len(got) != 0 {
		t.Errorf("MergeHostnames of an empty name = %v, want none", got)
	}

	linkSpecs := MergeLinks([]network.LinkSpecSpec{
		{Name: "eth0", Up: true, Layer: network.LayerConfiguration}, {Name: "eth0", MTU: 1400, Layer: network.LayerOperator}, {Name: "eth0", Up: true, MTU: 9000},
	})
	if got := linkSpecs["eth0"]; got.MTU != 1400 || !got.Up || got.Layer != network.LayerConfiguration {
		t.Errorf("MergeLinks = %+v, want MTU 1400, up, layer configuration", got)
	}

	routes := MergeRoutes([]network.RouteSpecSpec{
		{Family: 2, Gateway: addr("10.0.0.1"), Priority: 1024, Layer: network.LayerConfiguration},
		{Family: 2, Gateway: addr("10.0.0.9"), Priority: 1024, Layer: network.LayerOperator},
		{Family: 2, Gateway: addr("10.0.0.9"), Priority: 2048, Layer: network.LayerOperator},
	})
	if len(routes) != 2 || routes["inet4/10.0.0.1//1024"].Layer != network.LayerConfiguration {
		t.Errorf("MergeRoutes = %v, want the configured one of metric 1024, and that of 2048", routes)
	}

	resolver := MergeResolvers([]network.ResolverSpecSpec{
		{DNSServers: []netip.Addr{addr("1.1.1.1")}},
		{DNSServers: []netip.Addr{addr("10.0.0.1")}, SearchDomains: []string{"a.example"}, Layer: network.LayerOperator},
		{DNSServers: []netip.Addr{addr("10.0.0.2"), addr("10.0.0.1")}, Layer: network.LayerOperator},
		{SearchDomains: []string{"b.example"}, Layer: network.LayerConfiguration},
	})[network.ResolverID]
	if want := []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2")}; !slices.Equal(resolver.DNSServers, want) || !slices.Equal(resolver.SearchDomains, []string{"b.example"}) {
		t.Errorf("MergeResolvers = %v %v, want %v [b.example]", resolver.DNSServers, resolver.SearchDomains, want)
	}

	times := MergeTimeServers([]network.TimeServerSpecSpec{
		{TimeServers: []string{"default"}}, {TimeServers: []string{"dhcp"}, Layer: network.LayerOperator}, {Disabled: true, Layer: network.LayerConfiguration},
	})[network.TimeServerID]
	if !slices.Equal(times.TimeServers, []string{"dhcp"}) || !times.Disabled {
		t.Errorf("MergeTimeServers = %+v, want [dhcp], disabled", times)
	}
}

func TestNodeAddresses(t *testing.T) {
	have := []rtnl.Address{
		{Prefix: prefix("127.0.0.1/8"), LinkIndex: 1, Scope: network.ScopeHost}, {Prefix: prefix("10.244.0.1/24"), LinkIndex: 3},
		{Prefix: prefix("fe80::1/64"), LinkIndex: 2, Scope: network.ScopeLink}, {Prefix: prefix("fd00::2/64"), LinkIndex: 2},
		{Prefix: prefix("10.0.0.2/24"), LinkIndex: 2}, {Prefix: prefix("10.0.0.3/24"), LinkIndex: 2},
	}
	exit := []rtnl.Route{{RouteStatusSpec: network.RouteStatusSpec{Family: 2, OutLinkIndex: 2, Type: network.RouteUnicast}}}
	own := func(l rtnl.Link) bool { return l.Name == "eth0" }
	for _, tt := range []struct{ name, previous, want string }{
		{"first", "", "10.0.0.2/24"}, {"stays", "10.0.0.3/24", "10.0.0.3/24"}, {"is gone", "10.0.0.9/24", "10.0.0.2/24"},
		{"is not ours", "10.244.0.1/24", "10.0.0.2/24"},
	} {
		var previous netip.Prefix
		if tt.previous != "" {
			previous = prefix(tt.previous)
		}
		got := NodeAddresses(have, links, exit, own, previous, network.AddressSortV1)
		if d := got[network.NodeAddressDefaultID].Addresses; len(d) != 1 || d[0] != prefix(tt.want) {
			t.Errorf("%s: default = %v, want %s", tt.name, d, tt.want)
		}
		routed := []netip.Prefix{prefix("10.0.0.2/24"), prefix("10.0.0.3/24"), prefix("fd00::2/64")}
		if r := got[network.NodeAddressRoutedID].Addresses; !slices.Equal(r, routed) {
			t.Errorf("%s: routed = %v, want %v", tt.name, r, routed)
		}
		if c := got[network.NodeAddressCurrentID].Addresses; !slices.Equal(c, append(routed, prefix("10.244.0.1/24"))) {
			t.Errorf("%s: current = %v", tt.name, c)
		}
	}
	if got := NodeAddresses(nil, links, nil, own, netip.Prefix{}, network.AddressSortV1); len(got[network.NodeAddressDefaultID].Addresses) != 0 {
		t.Errorf("without addresses: default = %v, want none", got)
	}
}

func TestSortAlgorithm(t *testing.T) {
	var have []rtnl.Address
	for _, p := range []string{"fd00::9/128", "fd00::2/64", "10.0.0.2/24", "10.0.0.9/32"} {
		have = append(have, rtnl.Address{Prefix: prefix(p), LinkIndex: 2})
	}
	for algorithm, want := range map[network.AddressSortAlgorithm][]netip.Prefix{
		network.AddressSortV1: {prefix("10.0.0.2/24"), prefix("10.0.0.9/32"), prefix("fd00::2/64"), prefix("fd00::9/128")},
		network.AddressSortV2: {prefix("10.0.0.9/32"), prefix("10.0.0.2/24"), prefix("fd00::9/128"), prefix("fd00::2/64")},
	} {
		got := NodeAddresses(have, links, nil, func(rtnl.Link) bool { return true }, netip.Prefix{}, algorithm)[network.NodeAddressRoutedID]
		if !slices.Equal(got.Addresses, want) || got.SortAlgorithm != algorithm {
			t.Errorf("%s: %v, want %v", algorithm, got, want)
		}
	}
}
