// Package rtnl reads and changes links, addresses and routes of the network
// namespace it runs in, and tells when somebody changed them.
//
// It decides nothing. What it makes bears a mark in the kernel, so that it is
// known as ours after a restart: addresses the protocol AddressProtocol (Linux
// 5.18; an older kernel forgets it, and such an address is never taken away),
// routes the protocol they ask for, links the group LinkGroup. All functions are safe for concurrent use.
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

// AddressProtocol marks our addresses (IFA_PROTO). The kernel itself uses 1 to 3.
const AddressProtocol = 0x54

// ifaProto is IFA_PROTO of linux/if_addr.h.
const ifaProto = 11

// Link is a link with what Plan and the statuses need of it.
type Link struct {
	Name   string
	Status network.LinkStatusSpec
	Up     bool // administratively
	Ours   bool // made by us
}

// Address is an address of a link.
type Address struct {
	Prefix    netip.Prefix
	LinkIndex uint32
	Broadcast netip.Addr
	Scope     network.Scope
	Flags     network.AddressFlags
	Priority  uint32
	Ours      bool
}

// Route is a route of one table.
type Route struct {
	network.RouteStatusSpec
	Multipath bool // several next hops: never ours
}

// again repeats a dump that a change interrupted.
func again[T any](dump func() (T, error)) (T, error) {
	for range 4 {
		if v, err := dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v, err
		}
	}
	return dump()
}

// Links lists all links.
func Links() ([]Link, error) {
	list, err := again(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	out := make([]Link, 0, len(list))
	name := func(index int) string {
		for _, l := range list {
			if l.Attrs().Index == index {
				return l.Attrs().Name
			}
		}
		return ""
	}
	for _, l := range list {
		out = append(out, fromLink(l, name))
	}
	return out, nil
}

// fromLink is a link; name tells those of others, by index.
func fromLink(l netlink.Link, name func(index int) string) Link {
	a := l.Attrs()
	kind := l.Type()
	if kind == "device" { // the library's word for "no kind"
		kind = ""
	}
	out := Link{Name: a.Name, Up: a.RawFlags&unix.IFF_UP != 0, Ours: a.Group == LinkGroup, Status: network.LinkStatusSpec{
		Alias: a.Alias, AltNames: a.AltNames, Index: uint32(a.Index), LinkIndex: uint32(a.ParentIndex), MasterIndex: uint32(a.MasterIndex),
		Flags: network.LinkFlags(a.RawFlags), HardwareAddr: network.HardwareAddr(a.HardwareAddr), PermanentAddr: network.HardwareAddr(a.PermHWAddr),
		MTU: uint32(a.MTU), OperationalState: network.OperationalState(a.OperState), Kind: kind, Type: linkType(a.EncapType),
		LinkState: a.RawFlags&unix.IFF_LOWER_UP != 0 && a.RawFlags&unix.IFF_UP != 0,
	}}
	if a.Slave != nil {
		out.Status.SlaveKind = a.Slave.SlaveType()
	}
	switch l := l.(type) {
	case *netlink.Vlan:
		out.Status.VLAN = network.VLANSpec{VID: uint16(l.VlanId), Protocol: network.VLANProtocol(l.VlanProtocol)}
	case *netlink.Bond:
		out.Status.BondMaster = fromBond(l, name)
	}
	if a.ParentDevBus == "pci" {
		out.Status.BusPath = a.ParentDev
	}
	return out
}

func linkType(encap string) network.LinkType {
	switch encap {
	case "ether":
		return network.LinkEther
	case "loopback":
		return network.LinkLoopback
	}
	return network.LinkNone
}

// Addresses lists the addresses of all links.
func Addresses() ([]Address, error) {
	return again(func() ([]Address, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		out := make([]Address, 0, len(msgs))
		for _, m := range msgs {
			a, ok, err := parseAddress(m)
			if err != nil {
				return nil, fmt.Errorf("list addresses: %w", err)
			}
			if ok {
				out = append(out, a)
			}
		}
		return out, nil
	})
}

// parseAddress reads one RTM_NEWADDR; ok is false for families that are not IP.
func parseAddress(m []byte) (a Address, ok bool, err error) {
	if len(m) < unix.SizeofIfAddrmsg {
		return a, false, fmt.Errorf("address message of %d bytes", len(m))
	}
	msg := nl.DeserializeIfAddrmsg(m)
	attrs, err := nl.ParseRouteAttr(m[msg.Len():])
	if err != nil {
		return a, false, err
	}
	a = Address{LinkIndex: msg.Index, Scope: network.Scope(msg.Scope), Flags: network.AddressFlags(msg.Flags)}
	var ip, local netip.Addr
	for _, attr := range attrs {
		switch attr.Attr.Type {
		case unix.IFA_ADDRESS:
			ip, _ = netip.AddrFromSlice(attr.Value)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(attr.Value)
		case unix.IFA_BROADCAST:
			a.Broadcast, _ = netip.AddrFromSlice(attr.Value)
		case unix.IFA_FLAGS:
			a.Flags = network.AddressFlags(number(attr.Value))
		case unix.IFA_RT_PRIORITY:
			a.Priority = number(attr.Value)
		case ifaProto:
			a.Ours = len(attr.Value) == 1 && attr.Value[0] == AddressProtocol
		}
	}
	if local.IsValid() { // with a peer, IFA_ADDRESS is the peer's
		ip = local
	}
	a.Prefix = netip.PrefixFrom(ip, int(msg.Prefixlen))
	return a, a.Prefix.IsValid(), nil
}

func number(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return nl.NativeEndian().Uint32(b)
}

// Routes lists the routes of the main table, both families.
func Routes() ([]Route, error) {
	var out []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := again(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{}, 0)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			out = append(out, fromRoute(r))
		}
	}
	return out, nil
}

func fromRoute(r netlink.Route) Route {
	out := Route{Multipath: len(r.MultiPath) > 0, RouteStatusSpec: network.RouteStatusSpec{
		Family: network.Family(r.Family), Src: fromIP(r.Src), Gateway: fromIP(r.Gw), OutLinkIndex: uint32(r.LinkIndex),
		Table: network.RoutingTable(r.Table), Priority: uint32(r.Priority), Scope: network.Scope(r.Scope), Type: network.RouteType(r.Type),
		Flags: network.RouteFlags(r.Flags), Protocol: network.RouteProtocol(r.Protocol), MTU: uint32(r.MTU),
	}}
	if r.Dst != nil {
		ones, _ := r.Dst.Mask.Size()
		if ip := fromIP(r.Dst.IP); ones > 0 && ip.IsValid() {
			out.Dst = netip.PrefixFrom(ip, ones)
		}
	}
	return out
}

func fromIP(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func toNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
