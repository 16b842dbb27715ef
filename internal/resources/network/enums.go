package network

import (
	"fmt"
	"net"
	"strconv"
)

// Family is an address family, AF_INET or AF_INET6.
type Family int32

// The families of addresses, with the kernel's numbers.
const (
	FamilyInet4 Family = 2
	FamilyInet6 Family = 10
)

// Scope is the scope of an address or a route (rtnetlink(7)).
type Scope int32

// The scopes, with the kernel's numbers.
const (
	ScopeGlobal  Scope = 0
	ScopeSite    Scope = 200
	ScopeLink    Scope = 253
	ScopeHost    Scope = 254
	ScopeNowhere Scope = 255
)

// AddressFlags are the kernel's IFA_F_ bits.
type AddressFlags int32

// LinkFlags are the kernel's IFF_ bits.
type LinkFlags int32

// LinkType is the kernel's ARPHRD_ number.
type LinkType int32

// The link types that nodes have.
const (
	LinkEther    LinkType = 1
	LinkLoopback LinkType = 772
	LinkNone     LinkType = 65534
)

// OperationalState is a link's RFC 2863 state.
type OperationalState int32

// The operational states, with the kernel's numbers.
const (
	OperStateUnknown OperationalState = iota
	OperStateNotPresent
	OperStateDown
	OperStateLowerLayerDown
	OperStateTesting
	OperStateDormant
	OperStateUp
)

// RoutingTable is the number of a routing table.
type RoutingTable int32

// The tables that always exist.
const (
	TableUnspec  RoutingTable = 0
	TableDefault RoutingTable = 253
	TableMain    RoutingTable = 254
	TableLocal   RoutingTable = 255
)

// RouteType is the kernel's RTN_ number.
type RouteType int32

// The types of routes.
const (
	RouteUnspec      RouteType = 0
	RouteUnicast     RouteType = 1
	RouteLocal       RouteType = 2
	RouteBroadcast   RouteType = 3
	RouteAnycast     RouteType = 4
	RouteMulticast   RouteType = 5
	RouteBlackhole   RouteType = 6
	RouteUnreachable RouteType = 7
)

// RouteProtocol is the kernel's RTPROT_ number: who made a route.
type RouteProtocol int32

// The makers of routes that nodes see. What networkd makes is static, DHCP or
// RA; it never touches a route of another protocol.
const (
	ProtocolUnspec RouteProtocol = 0
	ProtocolKernel RouteProtocol = 2
	ProtocolBoot   RouteProtocol = 3
	ProtocolStatic RouteProtocol = 4
	ProtocolRA     RouteProtocol = 9
	ProtocolDHCP   RouteProtocol = 16
)

// RouteFlags are the kernel's RTM_F_ bits.
type RouteFlags int32

// ConfigLayer orders the sources of configuration: the higher one wins.
type ConfigLayer int32

// The layers.
const (
	LayerDefault ConfigLayer = iota
	LayerCmdline
	LayerPlatform
	LayerOperator
	LayerConfiguration
)

// Operator is a protocol that networkd runs on a link.
type Operator int32

// The operators.
const (
	OperatorDHCP4 Operator = iota
	OperatorDHCP6
	OperatorVIP
)

// HardwareAddr is a link-layer address, shown as 02:00:00:00:00:01.
type HardwareAddr []byte

var (
	familyNames   = map[Family]string{FamilyInet4: "inet4", FamilyInet6: "inet6"}
	scopeNames    = map[Scope]string{ScopeGlobal: "global", ScopeSite: "site", ScopeLink: "link", ScopeHost: "host", ScopeNowhere: "nowhere"}
	linkTypeNames = map[LinkType]string{LinkEther: "ether", LinkLoopback: "loopback", LinkNone: "none"}
	operNames     = map[OperationalState]string{
		OperStateUnknown: "unknown", OperStateNotPresent: "notPresent", OperStateDown: "down",
		OperStateLowerLayerDown: "lowerLayerDown", OperStateTesting: "testing", OperStateDormant: "dormant", OperStateUp: "up",
	}
	tableNames = map[RoutingTable]string{TableUnspec: "unspec", TableDefault: "default", TableMain: "main", TableLocal: "local"}
	typeNames  = map[RouteType]string{
		RouteUnspec: "unspec", RouteUnicast: "unicast", RouteLocal: "local", RouteBroadcast: "broadcast", RouteAnycast: "anycast",
		RouteMulticast: "multicast", RouteBlackhole: "blackhole", RouteUnreachable: "unreachable",
	}
	protocolNames = map[RouteProtocol]string{
		ProtocolUnspec: "unspec", ProtocolKernel: "kernel", ProtocolBoot: "boot", ProtocolStatic: "static", ProtocolRA: "ra", ProtocolDHCP: "dhcp",
	}
	layerNames = map[ConfigLayer]string{
		LayerDefault: "default", LayerCmdline: "cmdline", LayerPlatform: "platform", LayerOperator: "operator", LayerConfiguration: "configuration",
	}
	operatorNames = map[Operator]string{OperatorDHCP4: "dhcp4", OperatorDHCP6: "dhcp6", OperatorVIP: "vip"}
)

func name[T ~int32](names map[T]string, v T) string {
	if s, ok := names[v]; ok {
		return s
	}
	return strconv.Itoa(int(v))
}

func parse[T ~int32](names map[T]string, v *T, text []byte) error {
	for n, s := range names {
		if s == string(text) {
			*v = n
			return nil
		}
	}
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil {
		return fmt.Errorf("%q is not a known %T", text, *v)
	}
	*v = T(n)
	return nil
}

// String names the value as users know it.
func (v Family) String() string { return name(familyNames, v) }

// MarshalText gives the name.
func (v Family) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *Family) UnmarshalText(text []byte) error { return parse(familyNames, v, text) }

// String names the value as users know it.
func (v Scope) String() string { return name(scopeNames, v) }

// MarshalText gives the name.
func (v Scope) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *Scope) UnmarshalText(text []byte) error { return parse(scopeNames, v, text) }

// String names the value as users know it.
func (v LinkType) String() string { return name(linkTypeNames, v) }

// MarshalText gives the name.
func (v LinkType) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *LinkType) UnmarshalText(text []byte) error { return parse(linkTypeNames, v, text) }

// String names the value as users know it.
func (v OperationalState) String() string { return name(operNames, v) }

// MarshalText gives the name.
func (v OperationalState) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *OperationalState) UnmarshalText(text []byte) error { return parse(operNames, v, text) }

// String names the value as users know it.
func (v RoutingTable) String() string { return name(tableNames, v) }

// MarshalText gives the name.
func (v RoutingTable) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *RoutingTable) UnmarshalText(text []byte) error { return parse(tableNames, v, text) }

// String names the value as users know it.
func (v RouteType) String() string { return name(typeNames, v) }

// MarshalText gives the name.
func (v RouteType) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *RouteType) UnmarshalText(text []byte) error { return parse(typeNames, v, text) }

// String names the value as users know it.
func (v RouteProtocol) String() string { return name(protocolNames, v) }

// MarshalText gives the name.
func (v RouteProtocol) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *RouteProtocol) UnmarshalText(text []byte) error { return parse(protocolNames, v, text) }

// String names the value as users know it.
func (v ConfigLayer) String() string { return name(layerNames, v) }

// MarshalText gives the name.
func (v ConfigLayer) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *ConfigLayer) UnmarshalText(text []byte) error { return parse(layerNames, v, text) }

// String names the value as users know it.
func (v Operator) String() string { return name(operatorNames, v) }

// MarshalText gives the name.
func (v Operator) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *Operator) UnmarshalText(text []byte) error { return parse(operatorNames, v, text) }

// String gives the usual notation with colons.
func (a HardwareAddr) String() string { return net.HardwareAddr(a).String() }

// MarshalText gives the usual notation with colons.
func (a HardwareAddr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the usual notation with colons.
func (a *HardwareAddr) UnmarshalText(text []byte) error {
	hw, err := net.ParseMAC(string(text))
	*a = HardwareAddr(hw)
	return err
}

// AddressSortAlgorithm is how the addresses of the node are put in order.
type AddressSortAlgorithm int32

// The algorithms, with the wire's numbers. V1 goes by the address alone, V2
// prefers the longer prefix: an address given to this node before one out of
// a large network.
const (
	AddressSortV1 AddressSortAlgorithm = iota
	AddressSortV2
)

// String names the algorithm as the configuration does.
func (a AddressSortAlgorithm) String() string {
	if a == AddressSortV2 {
		return "v2"
	}
	return "v1"
}

// MarshalText gives the name.
func (a AddressSortAlgorithm) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads a name; one that is none means V1.
func (a *AddressSortAlgorithm) UnmarshalText(text []byte) error {
	*a = AddressSortV1
	if string(text) == "v2" {
		*a = AddressSortV2
	}
	return nil
}
