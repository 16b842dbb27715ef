package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"talos/internal/resources/network"
)

// SetUp sets a link up.
func SetUp(index uint32) error {
	return netlink.LinkSetUp(byIndex(index))
}

// SetMTU sets a link's MTU.
func SetMTU(index, mtu uint32) error {
	return netlink.LinkSetMTU(byIndex(index), int(mtu))
}

func byIndex(index uint32) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: int(index)}}
}

// AddAddress adds a, marked as ours. That it is there already is no error.
func AddAddress(a Address) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	addressRequest(req, a)
	req.AddData(nl.NewRtAttr(ifaProto, []byte{AddressProtocol}))
	if b := broadcast(a.Prefix); b.IsValid() {
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, b.AsSlice()))
	}
	if a.Flags != 0 {
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(uint32(a.Flags))))
	}
	if a.Priority != 0 {
		req.AddData(nl.NewRtAttr(unix.IFA_RT_PRIORITY, nl.Uint32Attr(a.Priority)))
	}
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address: %w", err)
	}
	return nil
}

// DeleteAddress deletes a. That it is gone already is no error.
func DeleteAddress(a Address) error {
	req := nl.NewNetlinkRequest(unix.RTM_DELADDR, unix.NLM_F_ACK)
	addressRequest(req, a)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete address: %w", err)
	}
	return nil
}

func addressRequest(req *nl.NetlinkRequest, a Address) {
	family := unix.AF_INET
	if a.Prefix.Addr().Is6() {
		family = unix.AF_INET6
	}
	msg := nl.NewIfAddrmsg(family)
	msg.Index = a.LinkIndex
	msg.Prefixlen = uint8(a.Prefix.Bits())
	msg.Scope = uint8(a.Scope)
	req.AddData(msg)
	ip := a.Prefix.Addr().AsSlice()
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip))
}

// broadcast is the last address of an IPv4 network that has one (RFC 3021).
func broadcast(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	ip, mask := p.Addr().As4(), net.CIDRMask(p.Bits(), 32)
	for i := range ip {
		ip[i] |= ^mask[i]
	}
	return netip.AddrFrom4(ip)
}

// AddRoute adds r unless a route with its destination, metric and table is
// there already, whoever made that one (EEXIST).
func AddRoute(r network.RouteStatusSpec) error {
	if err := netlink.RouteAdd(toRoute(r)); err != nil {
		return fmt.Errorf("add route: %w", err)
	}
	return nil
}

// DeleteRoute deletes r. That it is gone already is no error.
func DeleteRoute(r network.RouteStatusSpec) error {
	if err := netlink.RouteDel(toRoute(r)); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete route: %w", err)
	}
	return nil
}

func toRoute(r network.RouteStatusSpec) *netlink.Route {
	out := &netlink.Route{
		Family: int(r.Family), LinkIndex: int(r.OutLinkIndex), Table: int(r.Table), Priority: int(r.Priority), Scope: netlink.Scope(r.Scope),
		Type: int(r.Type), Flags: int(r.Flags), Protocol: netlink.RouteProtocol(r.Protocol), MTU: int(r.MTU),
	}
	dst := r.Dst
	if !dst.IsValid() {
		dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Family == network.FamilyInet6 {
			dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	out.Dst = toNet(dst)
	if r.Src.IsValid() {
		out.Src = r.Src.AsSlice()
	}
	if r.Gateway.IsValid() {
		out.Gw = r.Gateway.AsSlice()
	}
	return out
}
