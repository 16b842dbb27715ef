package host

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// reserved are the ranges that Kubernetes uses inside of every cluster.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("10.244.0.0/16"), // pods
	netip.MustParsePrefix("10.96.0.0/12"),  // services
}

// Choose returns the network for a new cluster: the wanted one when it is free,
// or, when none is wanted, the first free 10.5.N.0/24. taken are those that
// other clusters keep.
func Choose(want netip.Prefix, taken []netip.Prefix) (netip.Prefix, error) {
	inUse, err := inUse()
	if err != nil {
		return netip.Prefix{}, err
	}
	return choose(want, append(inUse, taken...))
}

func choose(want netip.Prefix, taken []netip.Prefix) (netip.Prefix, error) {
	if want.IsValid() {
		if err := check(want, taken); err != nil {
			return netip.Prefix{}, err
		}
		return want, nil
	}
	for i := range 256 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24)
		if check(p, taken) == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("every network from 10.5.0.0/24 to 10.5.255.0/24 is in use on this machine: give one with --cidr")
}

func check(p netip.Prefix, taken []netip.Prefix) error {
	switch {
	case !p.Addr().Is4():
		return fmt.Errorf("network %s: want an IPv4 network", p)
	case p != p.Masked():
		return fmt.Errorf("network %s: want the network's first address, %s", p, p.Masked())
	case p.Bits() < 16 || p.Bits() > 29:
		return fmt.Errorf("network %s: want a size from /16 to /29", p)
	}
	for _, r := range reserved {
		if r.Overlaps(p) {
			return fmt.Errorf("network %s overlaps %s, which Kubernetes uses inside the cluster", p, r)
		}
	}
	for _, t := range taken {
		if t.Overlaps(p) {
			return fmt.Errorf("network %s is in use: it overlaps %s on this machine", p, t)
		}
	}
	return nil
}

// inUse lists the networks of this machine's links and routes.
func inUse() ([]netip.Prefix, error) {
	var out []netip.Prefix
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		a, _ := netip.AddrFromSlice(r.Dst.IP.To4())
		bits, _ := r.Dst.Mask.Size()
		if a.IsValid() && bits > 0 { // the default route overlaps everything
			out = append(out, netip.PrefixFrom(a, bits))
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, addr := range addrs {
		a, _ := netip.AddrFromSlice(addr.IP.To4())
		bits, _ := addr.Mask.Size()
		if a.IsValid() {
			out = append(out, netip.PrefixFrom(a, bits).Masked())
		}
	}
	return out, nil
}
