// Package dhcp leases an IPv4 address for a link (RFC 2131) and says what of
// a server's answer is to be believed.
//
// It owns the conversation with the server and the clock of the lease. It
// does not touch the link: what a lease gives is the caller's to apply. Lease
// parsing is pure; a Client belongs to one goroutine.
package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Bounds on what a server may give.
const (
	maxServers = 8  // name servers, time servers, search domains
	maxRoutes  = 64 // classless routes
	minLease   = 4 * time.Second
	maxLease   = 365 * 24 * time.Hour
	minMTU     = 576
)

// Lease is what a server granted.
type Lease struct {
	Address  netip.Prefix
	Server   netip.Addr // who granted it
	Routes   []Route
	DNS      []netip.Addr
	NTP      []netip.Addr
	Search   []string
	Hostname string // without domain
	Domain   string
	MTU      uint32 // 0: not said

	Renew, Rebind, Expire time.Duration // from when it was granted
}

// Route is a route that came with a lease; no gateway means on the link.
type Route struct {
	Dst     netip.Prefix // 0.0.0.0/0 is the default route
	Gateway netip.Addr
}

// Parse reads an acknowledgement. It refuses answers without a usable
// address; of other options it drops what makes no sense.
func Parse(m *dhcpv4.DHCPv4) (Lease, error) {
	var l Lease
	ip, ok := usable(m.YourIPAddr)
	if !ok {
		return l, fmt.Errorf("address %s cannot be a host's", m.YourIPAddr)
	}
	bits, err := maskBits(m, ip)
	if err != nil {
		return l, err
	}
	l.Address = netip.PrefixFrom(ip, bits)
	l.Server, _ = usable(m.ServerIdentifier())
	l.DNS = usableAll(m.DNS())
	l.NTP = usableAll(m.NTPServers())
	l.Routes = routes(m, l.Address)
	l.Hostname, l.Domain = names(m)
	l.Search = searchDomains(m, l.Domain)
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil && mtu >= minMTU {
		l.MTU = uint32(mtu)
	}
	l.times(m)
	return l, nil
}

func (l *Lease) times(m *dhcpv4.DHCPv4) {
	l.Expire = min(max(seconds(m, dhcpv4.OptionIPAddressLeaseTime, time.Hour), minLease), maxLease)
	l.Renew = seconds(m, dhcpv4.OptionRenewTimeValue, l.Expire/2)
	l.Rebind = seconds(m, dhcpv4.OptionRebindingTimeValue, l.Expire/8*7)
	if l.Renew < minLease/2 || l.Renew >= l.Rebind || l.Rebind >= l.Expire {
		l.Renew, l.Rebind = l.Expire/2, l.Expire/8*7
	}
}

func seconds(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode, otherwise time.Duration) time.Duration {
	b := m.Options.Get(code)
	if len(b) != 4 {
		return otherwise
	}
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Second
}

// maskBits is the option's prefix length; without one, that of the class.
func maskBits(m *dhcpv4.DHCPv4, ip netip.Addr) (int, error) {
	mask := m.Options.Get(dhcpv4.OptionSubnetMask)
	if mask == nil {
		ones, _ := net.IP(ip.AsSlice()).DefaultMask().Size()
		return ones, nil
	}
	ones, size := net.IPMask(mask).Size()
	if size != 32 || ones == 0 {
		return 0, fmt.Errorf("subnet mask %x is none", []byte(mask))
	}
	return ones, nil
}

// usable tells whether ip can be the address of one host.
func usable(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	if !ok || !a.Is4() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.As4()[0] >= 240 || a.As4()[0] == 0 {
		return netip.Addr{}, false
	}
	return a, true
}

func usableAll(list []net.IP) []netip.Addr {
	var out []netip.Addr
	for _, ip := range list {
		if a, ok := usable(ip); ok && len(out) < maxServers {
			out = append(out, a)
		}
	}
	return out
}

// routes reads option 121, which where present replaces option 3 (RFC 3442).
// A gateway outside the address's network gets a route of its own.
func routes(m *dhcpv4.DHCPv4, address netip.Prefix) []Route {
	var out []Route
	seen := map[netip.Prefix]bool{}
	add := func(r Route) {
		if !seen[r.Dst] && len(out) < maxRoutes {
			seen[r.Dst] = true
			out = append(out, r)
		}
	}
	via := func(dst netip.Prefix, gateway netip.Addr) {
		if gateway == address.Addr() {
			return
		}
		if host := netip.PrefixFrom(gateway, 32); !address.Contains(gateway) && host != dst {
			add(Route{Dst: host})
		}
		add(Route{Dst: dst, Gateway: gateway})
	}
	classless := m.ClasslessStaticRoute()
	for _, r := range classless {
		dst, ok := destination(r.Dest)
		if !ok {
			continue
		}
		if gateway, ok := usable(r.Router); ok {
			via(dst, gateway)
		} else if r.Router.IsUnspecified() {
			add(Route{Dst: dst})
		}
	}
	if len(classless) == 0 {
		for _, gateway := range usableAll(m.Router()) {
			via(netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway)
			break // the first is the preferred one
		}
	}
	return out
}

func destination(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ones, size := n.Mask.Size()
	ip, ok := netip.AddrFromSlice(n.IP.To4())
	if !ok || size != 32 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(ip, ones).Masked(), true
}

var label = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)

// ValidName checks a domain name: RFC 1123 labels, 253 characters.
func ValidName(name string) error {
	if name == "" || len(name) > 253 {
		return errors.New("a name has 1 to 253 characters")
	}
	for part := range strings.SplitSeq(name, ".") {
		if !label.MatchString(part) {
			return fmt.Errorf("%q is not a label of a domain name", part)
		}
	}
	return nil
}

func names(m *dhcpv4.DHCPv4) (host, domain string) {
	clean := func(s string) string {
		s = strings.TrimSuffix(strings.TrimRight(s, "\x00"), ".")
		if ValidName(s) != nil {
			return ""
		}
		return s
	}
	host, rest, _ := strings.Cut(clean(m.HostName()), ".")
	if domain = clean(m.DomainName()); domain == "" {
		domain = rest
	}
	return host, domain
}

func searchDomains(m *dhcpv4.DHCPv4, domain string) []string {
	var out []string
	if search := m.DomainSearch(); search != nil {
		for _, d := range search.Labels {
			if d = strings.TrimSuffix(d, "."); ValidName(d) == nil && len(out) < maxServers {
				out = append(out, d)
			}
		}
	}
	if len(out) == 0 && domain != "" {
		out = []string{domain}
	}
	return out
}
