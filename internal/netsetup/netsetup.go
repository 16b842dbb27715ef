// Package netsetup is how a machine's first network settings are told, whoever
// tells them: the kernel's command line, the platform. It names links as they
// do, by name or by hardware address; which links those are is found out by
// package netconfig, once there are some.
//
// It holds values and knows how bonds are described; it does nothing. Values
// that were handed out are not changed.
package netsetup

import (
	"bytes"
	"fmt"
	"net/netip"
	"path"
	"strings"

	"talos/internal/resources/network"
)

// Network is everything that one source says.
type Network struct {
	Hostname    string // with its domain, if known; "" says nothing
	Links       []Link
	Nameservers []netip.Addr
	Search      []string
	TimeServers []string

	Ignore []string // patterns of links that get no addresses by default
	Static bool     // no link gets addresses by default

	Problems []string // what is said besides and can't be done
}

// Link is what is said of one link. It is set up whatever else is said.
type Link struct {
	Match        Match
	MTU          uint32               // 0: as it is
	HardwareAddr network.HardwareAddr // none: as it is
	Addresses    []netip.Prefix
	Routes       []Route
	DHCP         bool   // IPv4
	Metric       uint32 // of the routes that come by DHCP; 0: the usual one

	VLAN *VLAN // the link is a VLAN, made under Match.Name
	Bond *Bond // the link is a bond, made under Match.Name
}

// Match finds a link: by its name, else by its hardware address; without both
// it is the first Ethernet link there is.
type Match struct {
	Name         string // may hold * and ?
	HardwareAddr network.HardwareAddr
}

// String shows what the link is found by.
func (m Match) String() string {
	switch {
	case len(m.HardwareAddr) > 0 && m.Name != "":
		return m.Name + " (" + m.HardwareAddr.String() + ")"
	case len(m.HardwareAddr) > 0:
		return m.HardwareAddr.String()
	case m.Name != "":
		return m.Name
	}
	return "the first link"
}

// First tells a Match that asks for any link.
func (m Match) First() bool { return m.Name == "" && len(m.HardwareAddr) == 0 }

// Matches tells whether a link is meant; hardware is its own address, not that
// of a bond it is part of. Where a hardware address is given it decides alone.
func (m Match) Matches(name string, hardware network.HardwareAddr) bool {
	if len(m.HardwareAddr) > 0 {
		return bytes.Equal(m.HardwareAddr, hardware)
	}
	ok, err := path.Match(m.Name, name)
	return err == nil && ok
}

// Route is a route through the link; without Network it is the default route of
// the gateway's family.
type Route struct {
	Network netip.Prefix
	Gateway netip.Addr
	Source  netip.Addr
	Metric  uint32 // 0: the usual one
	MTU     uint32
	OnLink  bool // the gateway is reachable although no address says so
}

// VLAN is what makes a link a VLAN.
type VLAN struct {
	ID     uint16
	Parent Match
}

// Bond is what makes a link a bond.
type Bond struct {
	Links   []Match
	Primary Match // the link that How.Primary names, where it has another name
	How     network.BondMasterSpec
}

// CheckHostname checks a name with or without a domain (RFC 1123).
func CheckHostname(name string) error {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		ok := label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		for _, c := range label {
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-')
		}
		if !ok || len(name) > 253 {
			return fmt.Errorf("%q is not a host name", name)
		}
	}
	return nil
}
