package dhcp

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func ack(t testing.TB, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 5)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithServerIP(net.IPv4(10, 0, 0, 1)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))),
	}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	m.OpCode = dhcpv4.OpcodeBootReply
	return m
}

func TestParseRoutes(t *testing.T) {
	router := dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1), net.IPv4(10, 0, 0, 2))
	far := dhcpv4.WithRouter(net.IPv4(172, 16, 0, 1))
	classless := func(routes ...*dhcpv4.Route) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(routes...))
	}
	net8 := &net.IPNet{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}
	all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	r := func(dst, gateway string) Route {
		out := Route{Dst: netip.MustParsePrefix(dst)}
		if gateway != "" {
			out.Gateway = netip.MustParseAddr(gateway)
		}
		return out
	}
	for _, tt := range []struct {
		name string
		mods []dhcpv4.Modifier
		want []Route
	}{
		{"none", nil, nil},
		{"router: the first", []dhcpv4.Modifier{router}, []Route{r("0.0.0.0/0", "10.0.0.1")}},
		{"router elsewhere", []dhcpv4.Modifier{far}, []Route{r("172.16.0.1/32", ""), r("0.0.0.0/0", "172.16.0.1")}},
		{"router is us", []dhcpv4.Modifier{dhcpv4.WithRouter(net.IPv4(10, 0, 0, 5))}, nil},
		{"classless instead of router", []dhcpv4.Modifier{router, classless(&dhcpv4.Route{Dest: net8, Router: net.IPv4(10, 0, 0, 3)})},
			[]Route{r("10.0.0.0/8", "10.0.0.3")}},
		{"on the link", []dhcpv4.Modifier{classless(&dhcpv4.Route{Dest: net8, Router: net.IPv4zero}, &dhcpv4.Route{Dest: all, Router: net.IPv4(10, 0, 0, 1)})},
			[]Route{r("10.0.0.0/8", ""), r("0.0.0.0/0", "10.0.0.1")}},
	} {
		l, err := Parse(ack(t, tt.mods...))
		if err != nil || !slices.Equal(l.Routes, tt.want) {
			t.Errorf("%s: Parse() = %v, %v, want %v", tt.name, l.Routes, err, tt.want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name string
		mods []dhcpv4.Modifier
		ok   func(Lease) bool // nil: refused
	}{
		{"no address", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4zero)}, nil},
		{"broadcast", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4bcast)}, nil},
		{"multicast", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1))}, nil},
		{"loopback", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1))}, nil},
		{"mask with a hole", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0})}, nil},
		{"mask of nothing", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.IPMask{0, 0, 0, 0})}, nil},
		{"times", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(800)}, func(l Lease) bool {
			return l.Expire == 800*time.Second && l.Renew == 400*time.Second && l.Rebind == 700*time.Second
		}},
		{"renew after the end", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(800), dhcpv4.WithGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 0, 255, 0})},
			func(l Lease) bool { return l.Renew == 400*time.Second }},
		{"no time at all", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(0)}, func(l Lease) bool { return l.Expire == minLease && l.Renew > 0 }},
		{"for ever", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(0xffffffff)}, func(l Lease) bool { return l.Expire == maxLease }},
		{"mtu", []dhcpv4.Modifier{dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{5, 120})}, func(l Lease) bool { return l.MTU == 1400 }},
		{"mtu too small", []dhcpv4.Modifier{dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0, 68})}, func(l Lease) bool { return l.MTU == 0 }},
		{"name with domain", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptHostName("one.example.org"))}, func(l Lease) bool {
			return l.Hostname == "one" && l.Domain == "example.org" && slices.Equal(l.Search, []string{"example.org"})
		}},
		{"name that is none", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptHostName("a;reboot\n"))}, func(l Lease) bool { return l.Hostname == "" }},
		{"servers", []dhcpv4.Modifier{dhcpv4.WithDNS(net.IPv4(10, 0, 0, 1), net.IPv4zero, net.IPv4(10, 0, 0, 2))}, func(l Lease) bool { return len(l.DNS) == 2 }},
	} {
		l, err := Parse(ack(t, tt.mods...))
		if (err == nil) != (tt.ok != nil) || tt.ok != nil && !tt.ok(l) {
			t.Errorf("%s: Parse() = %+v, %v", tt.name, l, err)
		}
	}
}

// FuzzParse holds what others rely on: whatever a server sends, a lease that
// is believed is usable and bounded.
func FuzzParse(f *testing.F) {
	f.Add(ack(f, dhcpv4.WithLeaseTime(60), dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1)), dhcpv4.WithDNS(net.IPv4(8, 8, 8, 8)),
		dhcpv4.WithOption(dhcpv4.OptHostName("one.example.org")), dhcpv4.WithDomainSearchList("example.org")).ToBytes())
	f.Add(ack(f, dhcpv4.WithGeneric(dhcpv4.OptionClasslessStaticRoute, []byte{0, 10, 0, 0, 1, 33, 1})).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		l, err := Parse(m)
		if err != nil {
			return
		}
		if a := l.Address.Addr(); !l.Address.IsValid() || l.Address.Bits() == 0 || a.IsMulticast() || a.IsUnspecified() {
			t.Errorf("address %v", l.Address)
		}
		if l.Renew <= 0 || l.Renew >= l.Rebind || l.Rebind >= l.Expire || l.Expire > maxLease {
			t.Errorf("times %v %v %v", l.Renew, l.Rebind, l.Expire)
		}
		if len(l.Routes) > maxRoutes || len(l.DNS) > maxServers || len(l.NTP) > maxServers || len(l.Search) > maxServers {
			t.Errorf("%d routes, %d %d servers, %d domains", len(l.Routes), len(l.DNS), len(l.NTP), len(l.Search))
		}
		for _, r := range l.Routes {
			if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() || r.Gateway == l.Address.Addr() {
				t.Errorf("route %+v", r)
			}
		}
		for _, name := range append(slices.Clone(l.Search), l.Hostname, l.Domain) {
			if name != "" && ValidName(name) != nil {
				t.Errorf("name %q", name)
			}
		}
	})
}
