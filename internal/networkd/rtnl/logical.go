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

// LinkGroup marks our links (IFLA_GROUP); links are in group 0 where nobody puts
// them elsewhere.
const LinkGroup = 0x54

// CreateLink makes a VLAN or a bond, marked as ours and still down. Parent is
// the index of what a VLAN runs over.
func CreateLink(s network.LinkSpecSpec, parent uint32) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group, attrs.MTU = s.Name, LinkGroup, int(s.MTU)
	if len(s.HardwareAddr) > 0 {
		attrs.HardwareAddr = net.HardwareAddr(s.HardwareAddr)
	}
	var link netlink.Link
	switch s.Kind {
	case network.KindVLAN:
		attrs.ParentIndex = int(parent)
		link = &netlink.Vlan{LinkAttrs: attrs, VlanId: int(s.VLAN.VID), VlanProtocol: netlink.VlanProtocol(s.VLAN.Protocol)}
	case network.KindBond:
		link = toBond(attrs, BondSettings(s.BondMaster))
	default:
		return fmt.Errorf("links of kind %q are not made", s.Kind)
	}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("create %s: %w", s.Kind, err)
	}
	return nil
}

// DeleteLink deletes a link that we made. Those that were part of it are set
// free.
func DeleteLink(index uint32) error {
	if err := netlink.LinkDel(byIndex(index)); err != nil {
		return fmt.Errorf("delete link: %w", err)
	}
	return nil
}

// Enslave puts a link into a bond. The bonding driver takes only links that are
// down, and sets them up.
func Enslave(index, bond uint32) error {
	if err := netlink.LinkSetDown(byIndex(index)); err != nil {
		return fmt.Errorf("set down: %w", err)
	}
	if err := netlink.LinkSetMasterByIndex(byIndex(index), int(bond)); err != nil {
		return fmt.Errorf("set master: %w", err)
	}
	return nil
}

// Release takes a link out of its bond.
func Release(index uint32) error {
	if err := netlink.LinkSetMasterByIndex(byIndex(index), 0); err != nil {
		return fmt.Errorf("unset master: %w", err)
	}
	return nil
}

// SetPrimary makes a link, by its index, the primary one of a bond; 0: none.
// (The library's LinkModify repeats the name, which a link that is up refuses.)
func SetPrimary(bond, link uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(bond)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(network.KindBond))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_BOND_PRIMARY, nl.Uint32Attr(link))
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("set primary link: %w", err)
	}
	return nil
}

// SetHardwareAddr gives a link another address. Drivers that can't do it while
// the link is up (EBUSY) get it set down for it; the next plan sets it up.
func SetHardwareAddr(l Link, a network.HardwareAddr) error {
	link := byIndex(l.Status.Index)
	err := netlink.LinkSetHardwareAddr(link, net.HardwareAddr(a))
	if errors.Is(err, unix.EBUSY) && l.Up {
		if err = netlink.LinkSetDown(link); err == nil {
			err = netlink.LinkSetHardwareAddr(link, net.HardwareAddr(a))
		}
	}
	if err != nil {
		return fmt.Errorf("set hardware address: %w", err)
	}
	return nil
}

// BondSettings is s without what its mode gives no meaning to: the kernel
// refuses some of that, and forgets the rest.
func BondSettings(s network.BondMasterSpec) network.BondMasterSpec {
	one := func(modes ...network.BondMode) bool {
		for _, m := range modes {
			if s.Mode == m {
				return true
			}
		}
		return false
	}
	if !one(network.Bond8023AD) {
		s.LACPRate, s.ADSelect, s.ADActorSysPrio, s.ADUserPortKey, s.MinLinks = 0, 0, 0, 0, 0
	}
	if !one(network.BondXOR, network.Bond8023AD, network.BondTLB, network.BondALB) {
		s.HashPolicy = 0
	}
	if !one(network.BondActiveBackup, network.BondTLB, network.BondALB) {
		s.Primary, s.PrimaryReselect = "", 0
	}
	if !one(network.BondActiveBackup) {
		s.FailOverMac = 0
	}
	if !one(network.BondTLB, network.BondALB) {
		s.LPInterval, s.TLBLogicalLB = 0, 0
	}
	if !one(network.BondRoundRobin) {
		s.PacketsPerSlave = 0
	}
	if one(network.Bond8023AD, network.BondTLB, network.BondALB) {
		s.ARPInterval, s.ARPValidate, s.ARPAllTargets, s.ARPIPTargets = 0, 0, 0, nil // links are watched by MII there
		if s.MIIMon == 0 {
			s.MIIMon = 100
		}
	}
	if s.ARPInterval > 0 { // one or the other, says the driver
		s.MIIMon = 0
	}
	if s.MIIMon == 0 {
		s.UpDelay, s.DownDelay = 0, 0
		return s
	}
	s.UpDelay -= s.UpDelay % s.MIIMon // as the driver rounds them
	s.DownDelay -= s.DownDelay % s.MIIMon
	return s
}

// toBond leaves what is zero to the kernel, and the primary link to SetPrimary.
func toBond(attrs netlink.LinkAttrs, s network.BondMasterSpec) *netlink.Bond {
	b := netlink.NewLinkBond(attrs)
	b.Mode = netlink.BondMode(s.Mode)
	for to, value := range map[*int]uint32{
		&b.Miimon: s.MIIMon, &b.UpDelay: s.UpDelay, &b.DownDelay: s.DownDelay, &b.ArpInterval: s.ARPInterval, &b.ResendIgmp: s.ResendIGMP,
		&b.MinLinks: s.MinLinks, &b.LpInterval: s.LPInterval, &b.PacketsPerSlave: s.PacketsPerSlave, &b.NumPeerNotif: uint32(s.NumPeerNotif),
		&b.TlbDynamicLb: uint32(s.TLBLogicalLB), &b.AllSlavesActive: uint32(s.AllSlavesActive), &b.AdActorSysPrio: uint32(s.ADActorSysPrio),
		&b.AdUserPortKey: uint32(s.ADUserPortKey),
	} {
		if value != 0 {
			*to = int(value)
		}
	}
	if s.HashPolicy != 0 {
		b.XmitHashPolicy = netlink.BondXmitHashPolicy(s.HashPolicy)
	}
	if s.LACPRate != 0 {
		b.LacpRate = netlink.BondLacpRate(s.LACPRate)
	}
	if s.ARPValidate != 0 {
		b.ArpValidate = netlink.BondArpValidate(s.ARPValidate)
	}
	if s.ARPAllTargets != 0 {
		b.ArpAllTargets = netlink.BondArpAllTargets(s.ARPAllTargets)
	}
	if s.PrimaryReselect != 0 {
		b.PrimaryReselect = netlink.BondPrimaryReselect(s.PrimaryReselect)
	}
	if s.FailOverMac != 0 {
		b.FailOverMac = netlink.BondFailOverMac(s.FailOverMac)
	}
	if s.ADSelect != 0 {
		b.AdSelect = netlink.BondAdSelect(s.ADSelect)
	}
	b.UseCarrier = 0
	if s.UseCarrier {
		b.UseCarrier = 1
	}
	for _, a := range s.ARPIPTargets {
		b.ArpIpTargets = append(b.ArpIpTargets, a.AsSlice())
	}
	return b
}

// fromBond is how a bond is; its primary link is named by primaryName.
func fromBond(b *netlink.Bond, primaryName func(index int) string) network.BondMasterSpec {
	s := network.BondMasterSpec{
		Mode: network.BondMode(b.Mode), HashPolicy: network.BondHashPolicy(b.XmitHashPolicy), LACPRate: network.LACPRate(max(0, b.LacpRate)),
		ARPValidate: network.ARPValidate(b.ArpValidate), ARPAllTargets: network.ARPAllTargets(b.ArpAllTargets),
		PrimaryReselect: network.PrimaryReselect(b.PrimaryReselect), FailOverMac: network.FailOverMAC(b.FailOverMac), ADSelect: network.ADSelect(max(0, b.AdSelect)),
		MIIMon: unsigned(b.Miimon), UpDelay: unsigned(b.UpDelay), DownDelay: unsigned(b.DownDelay), ARPInterval: unsigned(b.ArpInterval),
		ResendIGMP: unsigned(b.ResendIgmp), MinLinks: unsigned(b.MinLinks), LPInterval: unsigned(b.LpInterval), PacketsPerSlave: unsigned(b.PacketsPerSlave),
		NumPeerNotif: uint8(unsigned(b.NumPeerNotif)), TLBLogicalLB: uint8(unsigned(b.TlbDynamicLb)), AllSlavesActive: uint8(unsigned(b.AllSlavesActive)),
		UseCarrier: b.UseCarrier == 1, ADActorSysPrio: uint16(unsigned(b.AdActorSysPrio)), ADUserPortKey: uint16(unsigned(b.AdUserPortKey)),
	}
	for _, ip := range b.ArpIpTargets {
		if a, ok := netip.AddrFromSlice(ip); ok {
			s.ARPIPTargets = append(s.ARPIPTargets, a.Unmap())
		}
	}
	if b.Primary > 0 {
		s.Primary = primaryName(b.Primary)
	}
	return s
}

// unsigned is n, or 0 where the kernel said nothing.
func unsigned(n int) uint32 { return uint32(max(0, n)) }
