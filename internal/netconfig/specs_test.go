package netconfig

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"talos/config"
	"talos/internal/resources/network"
)

func ether(name, mac, kind string, master uint32) link {
	hw := network.HardwareAddr{}
	if err := hw.UnmarshalText([]byte(mac)); err != nil {
		panic(err)
	}
	return link{name: name, status: network.LinkStatusSpec{Type: network.LinkEther, Kind: kind, HardwareAddr: hw, MasterIndex: master}}
}

var nodeLinks = []link{
	{name: "lo", status: network.LinkStatusSpec{Type: network.LinkLoopback}},
	ether("eth0", "02:00:00:00:00:01", "veth", 0), ether("enp3s0", "02:00:00:00:00:02", "", 0),
	ether("cni0", "02:00:00:00:00:03", "bridge", 0), ether("veth1234", "02:00:00:00:00:04", "veth", 7), ether("eth9", "02:00:00:00:00:05", "veth", 7),
}

// ids lists everything by id, as the store will show it.
func ids(s specs) []string {
	out := slices.Concat(
		slices.Collect(maps.Keys(s.addresses)), slices.Collect(maps.Keys(s.routes)), slices.Collect(maps.Keys(s.operators)),
		slices.Collect(maps.Keys(s.hostnames)), slices.Collect(maps.Keys(s.resolvers)), slices.Collect(maps.Keys(s.timeServers)),
	)
	for id := range s.links {
		out = append(out, "link "+id)
	}
	for id := range s.staticHosts {
		out = append(out, "host "+id)
	}
	slices.Sort(out)
	return out
}

func TestFromConfig(t *testing.T) {
	always := []string{"default/resolvers", "default/timeservers", "default/lo/127.0.0.1/8", "link default/lo"}
	defaults := func(names ...string) []string {
		var out []string
		for _, n := range names {
			out = append(out, "default/dhcp4/"+n, "link default/"+n)
		}
		return out
	}
	for _, tt := range []struct {
		name, yaml string
		want       []string
	}{
		{"no configuration", "", defaults("eth0", "enp3s0")},
		{"static", "{interfaces: [{interface: eth0, addresses: [10.0.0.2/24, 'fd00::2'], routes: [{network: 0.0.0.0/0, gateway: 10.0.0.1}]}]}", append(defaults("enp3s0"),
			"configuration/eth0/10.0.0.2/24", "configuration/eth0/fd00::2/128", "configuration/eth0/0.0.0.0/0/10.0.0.1/1024", "link configuration/eth0")},
		{"dhcp", "{interfaces: [{interface: eth0, dhcp: true, dhcpOptions: {routeMetric: 7}}]}",
			append(defaults("enp3s0"), "configuration/dhcp4/eth0", "link configuration/eth0")},
		{"dhcp, not v4", "{interfaces: [{interface: eth0, dhcp: true, dhcpOptions: {ipv4: false}}]}", append(defaults("enp3s0"), "link configuration/eth0")},
		{"ignored", "{interfaces: [{interface: eth0, dhcp: true, ignore: true}]}", defaults("enp3s0")},
		{"selected by address", "{interfaces: [{deviceSelector: {hardwareAddr: '02:00:00:00:00:0[12]'}, mtu: 1400}]}",
			[]string{"link configuration/eth0", "link configuration/enp3s0"}},
		{"selected as physical", "{interfaces: [{deviceSelector: {physical: true}, dhcp: true}]}",
			append(defaults("eth0"), "link configuration/enp3s0", "configuration/dhcp4/enp3s0")},
		{"selector of nothing", "{interfaces: [{deviceSelector: {}, dhcp: true}]}", defaults("eth0", "enp3s0")},
		{"global", "{hostname: one.example.org, nameservers: [9.9.9.9], searchDomains: [example.org], extraHostEntries: [{ip: 10.0.0.7, aliases: [a, b]}]}",
			append(defaults("eth0", "enp3s0"), "configuration/hostname", "configuration/resolvers", "host a", "host b")},
	} {
		cfg := &config.Config{Machine: &config.Machine{Network: &config.Network{}}}
		if err := yaml.Unmarshal([]byte(tt.yaml), cfg.Machine.Network); err != nil {
			t.Fatal(err)
		}
		if tt.yaml == "" {
			cfg = nil
		}
		got, problems := sources{config: cfg, links: nodeLinks}.want()
		want := slices.Sorted(slices.Values(append(tt.want, always...)))
		if diff := cmp.Diff(want, ids(got)); diff != "" || len(problems) > 0 {
			t.Errorf("%s: fromConfig() = problems %v, (-want +got)\n%s", tt.name, problems, diff)
		}
	}
}

func TestFromConfigValues(t *testing.T) {
	off := true
	cfg := &config.Config{Machine: &config.Machine{
		Network: &config.Network{Hostname: "one.example.org", Interfaces: []config.Device{{
			Interface: "eth0", MTU: 1400, Addresses: []string{"nonsense"},
			Routes: []config.Route{{Gateway: "10.0.0.1", Metric: 5, Source: "10.0.0.2"}, {Network: "10.1.0.0/16"}, {}},
		}}},
		Time: &config.Time{Disabled: &off},
	}}
	got, _, problems := fromConfig(cfg, nil)
	if len(problems) != 2 {
		t.Errorf("problems = %v, want the address and the empty route", problems)
	}
	if h := got.hostnames["configuration/hostname"]; h.Hostname != "one" || h.Domainname != "example.org" || h.Layer != network.LayerConfiguration {
		t.Errorf("host name = %+v", h)
	}
	if r := got.routes["configuration/eth0//10.0.0.1/5"]; r.Dst.IsValid() || r.Src != netip.MustParseAddr("10.0.0.2") || r.Family != network.FamilyInet4 {
		t.Errorf("default route = %+v", r)
	}
	if r := got.routes["configuration/eth0/10.1.0.0/16//1024"]; r.Scope != network.ScopeLink || r.Gateway.IsValid() {
		t.Errorf("route on the link = %+v", r)
	}
	if !got.timeServers["configuration/timeservers"].Disabled || got.links["configuration/eth0"].MTU != 1400 {
		t.Errorf("time %+v, link %+v", got.timeServers, got.links)
	}
}

func TestEtc(t *testing.T) {
	in := etcInput{
		hostname: network.HostnameStatusSpec{Hostname: "one", Domainname: "example.org"}, address: netip.MustParseAddr("10.0.0.2"),
		hosts: []host{{"db", []netip.Addr{netip.MustParseAddr("10.0.0.7")}}},
	}
	for i := range 5 {
		in.resolver.DNSServers = append(in.resolver.DNSServers, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	in.resolver.SearchDomains = strings.Fields("a b c d e f g")
	if got, want := string(in.hostsFile()), "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.0.0.2 one.example.org one\n10.0.0.7 db\n"; got != want {
		t.Errorf("hosts = %q, want %q", got, want)
	}
	if got, want := string(in.resolvConf(netip.Addr{})), "nameserver 10.0.0.0\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a b c d e f\n"; got != want {
		t.Errorf("resolv.conf = %q, want %q", got, want)
	}
	if got, want := string(in.resolvConf(nodeDNS.Addr())), "nameserver 127.0.0.53\nsearch a b c d e f\n"; got != want {
		t.Errorf("resolv.conf with the node's own name server = %q, want %q", got, want)
	}
}

func TestHostDNS(t *testing.T) {
	lo := link{name: "lo", status: network.LinkStatusSpec{Type: network.LinkLoopback}}
	for text, want := range map[string]struct{ listen, service, address string }{
		"{}": {},
		"{hostDNS: {enabled: false, forwardKubeDNSToHost: true}}": {},
		"{hostDNS: {enabled: true}}":                              {listen: "127.0.0.53:53"},
		"{hostDNS: {enabled: true, forwardKubeDNSToHost: true}}": {
			listen: "127.0.0.53:53 169.254.116.108:53", service: "169.254.116.108", address: "configuration/lo/169.254.116.108/32",
		},
	} {
		cfg := &config.Config{Machine: &config.Machine{Features: &config.Features{}}}
		if err := yaml.Unmarshal([]byte(text), cfg.Machine.Features); err != nil {
			t.Fatal(err)
		}
		got := hostDNS(cfg)
		var listen []string
		for _, a := range got.ListenAddresses {
			listen = append(listen, a.String())
		}
		if strings.Join(listen, " ") != want.listen || got.Enabled != (want.listen != "") || got.ServiceHostDNSAddress.IsValid() != (want.service != "") {
			t.Errorf("%s: hostDNS = %+v, want %+v", text, got, want)
		}
		specs, _ := sources{config: cfg, links: []link{lo}}.want()
		if has := slices.Contains(ids(specs), "configuration/lo/169.254.116.108/32"); has != (want.address != "") {
			t.Errorf("%s: specs = %v", text, ids(specs))
		}
	}
}

func TestStableName(t *testing.T) {
	if a, b := stableName("one"), stableName("two"); a == b || a != stableName("one") || !strings.HasPrefix(a, "talos-") || len(a) != 13 {
		t.Errorf("stableName = %q, %q", a, b)
	}
}
