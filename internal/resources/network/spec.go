package network

import (
	"net/netip"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// AddressSpecType is the resource type of AddressSpec.
const AddressSpecType = resource.Type("AddressSpecs.net.talos.dev")

// AddressSpec is an address that a link should have: in ConfigNamespace as one layer wants it, in Namespace as it is applied.
type AddressSpec = typed.Resource[AddressSpecSpec, addressSpecDefinition]

// AddressSpecSpec names the address with its prefix length; flags are added to the kernel's own.
type AddressSpecSpec struct {
	Address         netip.Prefix `yaml:"address" protobuf:"1"`
	LinkName        string       `yaml:"linkName" protobuf:"2"`
	Family          Family       `yaml:"family" protobuf:"3"`
	Scope           Scope        `yaml:"scope" protobuf:"4"`
	Flags           AddressFlags `yaml:"flags" protobuf:"5"`
	AnnounceWithARP bool         `yaml:"announceWithARP" protobuf:"6"`
	Priority        uint32       `yaml:"priority" protobuf:"8"`
	Layer           ConfigLayer  `yaml:"layer" protobuf:"7"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s AddressSpecSpec) DeepCopy() AddressSpecSpec { return object.Clone(s) }

type addressSpecDefinition struct{}

func (addressSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             AddressSpecType,
		DefaultNamespace: Namespace,
	}
}

// NewAddressSpec returns an empty AddressSpec under id in namespace ns, one of Namespace and ConfigNamespace.
func NewAddressSpec(ns resource.Namespace, id resource.ID) *AddressSpec {
	return typed.NewResource[AddressSpecSpec, addressSpecDefinition](resource.NewMetadata(ns, AddressSpecType, id, resource.VersionUndefined), AddressSpecSpec{})
}

// HostnameSpecType is the resource type of HostnameSpec.
const HostnameSpecType = resource.Type("HostnameSpecs.net.talos.dev")

// HostnameSpec is a host name that a layer wants, or, in Namespace, the one that won.
type HostnameSpec = typed.Resource[HostnameSpecSpec, hostnameSpecDefinition]

// HostnameSpecSpec splits a fully qualified name at its first dot.
type HostnameSpecSpec struct {
	Hostname   string      `yaml:"hostname" protobuf:"1"`
	Domainname string      `yaml:"domainname" protobuf:"2"`
	Layer      ConfigLayer `yaml:"layer" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s HostnameSpecSpec) DeepCopy() HostnameSpecSpec { return object.Clone(s) }

type hostnameSpecDefinition struct{}

func (hostnameSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             HostnameSpecType,
		DefaultNamespace: Namespace,
	}
}

// NewHostnameSpec returns an empty HostnameSpec under id in namespace ns, one of Namespace and ConfigNamespace.
func NewHostnameSpec(ns resource.Namespace, id resource.ID) *HostnameSpec {
	return typed.NewResource[HostnameSpecSpec, hostnameSpecDefinition](resource.NewMetadata(ns, HostnameSpecType, id, resource.VersionUndefined), HostnameSpecSpec{})
}

// LinkSpecType is the resource type of LinkSpec.
const LinkSpecType = resource.Type("LinkSpecs.net.talos.dev")

// LinkSpec is how a link should be: in ConfigNamespace as one layer wants it, in Namespace as it is applied. Links that no spec names are left alone.
type LinkSpec = typed.Resource[LinkSpecSpec, linkSpecDefinition]

// LinkSpecSpec gives the settings; an MTU of zero leaves the link's own.
type LinkSpecSpec struct {
	Name         string       `yaml:"name" protobuf:"1"`
	Logical      bool         `yaml:"logical" protobuf:"2"`
	Up           bool         `yaml:"up" protobuf:"3"`
	MTU          uint32       `yaml:"mtu" protobuf:"4"`
	Kind         string       `yaml:"kind" protobuf:"5"`
	Type         LinkType     `yaml:"type" protobuf:"6"`
	HardwareAddr HardwareAddr `yaml:"hardwareAddr" protobuf:"15"`
	ParentName   string       `yaml:"parentName" protobuf:"7"`
	BondSlave    BondSlave    `yaml:",inline" protobuf:"8"`
	Layer        ConfigLayer  `yaml:"layer" protobuf:"14"`
	Multicast    *bool        `yaml:"multicast" protobuf:"16"`

	// A Logical link is made by networkd: a VLAN on ParentName, or a bond.
	VLAN       VLANSpec       `yaml:"vlan,omitempty" protobuf:"10"`
	BondMaster BondMasterSpec `yaml:"bondMaster,omitempty" protobuf:"11"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s LinkSpecSpec) DeepCopy() LinkSpecSpec { return object.Clone(s) }

type linkSpecDefinition struct{}

func (linkSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             LinkSpecType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewLinkSpec returns an empty LinkSpec under id in namespace ns, one of Namespace and ConfigNamespace.
func NewLinkSpec(ns resource.Namespace, id resource.ID) *LinkSpec {
	return typed.NewResource[LinkSpecSpec, linkSpecDefinition](resource.NewMetadata(ns, LinkSpecType, id, resource.VersionUndefined), LinkSpecSpec{})
}

// OperatorSpecType is the resource type of OperatorSpec.
const OperatorSpecType = resource.Type("OperatorSpecs.net.talos.dev")

// OperatorSpec is a protocol that should run on a link, such as DHCP.
type OperatorSpec = typed.Resource[OperatorSpecSpec, operatorSpecDefinition]

// OperatorSpecSpec names protocol and link; RequireUp waits until the link is up.
type OperatorSpecSpec struct {
	Operator  Operator          `yaml:"operator" protobuf:"1"`
	LinkName  string            `yaml:"linkName" protobuf:"2"`
	RequireUp bool              `yaml:"requireUp" protobuf:"3"`
	Dhcp4     DHCP4OperatorSpec `yaml:"dhcp4" protobuf:"4"`
	Layer     ConfigLayer       `yaml:"layer" protobuf:"7"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s OperatorSpecSpec) DeepCopy() OperatorSpecSpec { return object.Clone(s) }

type operatorSpecDefinition struct{}

func (operatorSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             OperatorSpecType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewOperatorSpec returns an empty OperatorSpec under id in namespace ns, one of Namespace and ConfigNamespace.
func NewOperatorSpec(ns resource.Namespace, id resource.ID) *OperatorSpec {
	return typed.NewResource[OperatorSpecSpec, operatorSpecDefinition](resource.NewMetadata(ns, OperatorSpecType, id, resource.VersionUndefined), OperatorSpecSpec{})
}

// ResolverSpecType is the resource type of ResolverSpec.
const ResolverSpecType = resource.Type("ResolverSpecs.net.talos.dev")

// ResolverSpec is a set of name servers that a layer wants, or, in Namespace, the one that won.
type ResolverSpec = typed.Resource[ResolverSpecSpec, resolverSpecDefinition]

// ResolverSpecSpec lists the servers in the order in which they are asked.
type ResolverSpecSpec struct {
	DNSServers              []netip.Addr     `yaml:"dnsServers" protobuf:"1"`
	NameServers             []NameServerSpec `yaml:"nameServers" protobuf:"4"`
	Layer                   ConfigLayer      `yaml:"layer" protobuf:"2"`
	SearchDomains           []string         `yaml:"searchDomains" protobuf:"3"`
	SearchDomainsOverridden bool             `yaml:"searchDomainsOverridden" protobuf:"5"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ResolverSpecSpec) DeepCopy() ResolverSpecSpec { return object.Clone(s) }

type resolverSpecDefinition struct{}

func (resolverSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ResolverSpecType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Layer", JSONPath: `{.layer}`},
			{Name: "Resolvers", JSONPath: `{.dnsServers}`},
			{Name: "Search Domains", JSONPath: `{.searchDomains}`},
		},
	}
}

// NewResolverSpec returns an empty ResolverSpec under id in namespace ns, one of Namespace and ConfigNamespace.
func NewResolverSpec(ns resource.Namespace, id resource.ID) *ResolverSpec {
	return typed.NewResource[ResolverSpecSpec, resolverSpecDefinition](resource.NewMetadata(ns, ResolverSpecType, id, resource.VersionUndefined), ResolverSpecSpec{})
}

// RouteSpecType is the resource type of RouteSpec.
const RouteSpecType = resource.Type("RouteSpecs.net.talos.dev")

// RouteSpec is a route that the node should have: in ConfigNamespace as one layer wants it, in Namespace as it is applied.
type RouteSpec = typed.Resource[RouteSpecSpec, routeSpecDefinition]

// RouteSpecSpec describes the route; no Dst means the default route, no Gateway a network on the link itself.
type RouteSpecSpec struct {
	Family      Family        `yaml:"family" protobuf:"1"`
	Dst         netip.Prefix  `yaml:"dst" protobuf:"2"`
	Src         netip.Addr    `yaml:"src" protobuf:"3"`
	Gateway     netip.Addr    `yaml:"gateway" protobuf:"4"`
	OutLinkName string        `yaml:"outLinkName" protobuf:"5"`
	Table       RoutingTable  `yaml:"table" protobuf:"6"`
	Priority    uint32        `yaml:"priority" protobuf:"7"`
	Scope       Scope         `yaml:"scope" protobuf:"8"`
	Type        RouteType     `yaml:"type" protobuf:"9"`
	Flags       RouteFlags    `yaml:"flags" protobuf:"10"`
	Protocol    RouteProtocol `yaml:"protocol" protobuf:"11"`
	Layer       ConfigLayer   `yaml:"layer" protobuf:"12"`
	MTU         uint32        `yaml:"mtu" protobuf:"13"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s RouteSpecSpec) DeepCopy() RouteSpecSpec { return object.Clone(s) }

type routeSpecDefinition struct{}

func (routeSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             RouteSpecType,
		DefaultNamespace: Namespace,
	}
}

// NewRouteSpec returns an empty RouteSpec under id in namespace ns, one of Namespace and ConfigNamespace.
func NewRouteSpec(ns resource.Namespace, id resource.ID) *RouteSpec {
	return typed.NewResource[RouteSpecSpec, routeSpecDefinition](resource.NewMetadata(ns, RouteSpecType, id, resource.VersionUndefined), RouteSpecSpec{})
}

// StaticHostType is the resource type of StaticHost.
const StaticHostType = resource.Type("StaticHosts.net.talos.dev")

// StaticHost is an extra entry of /etc/hosts; its id is the name.
type StaticHost = typed.Resource[StaticHostSpec, staticHostDefinition]

// StaticHostSpec lists the addresses of the name.
type StaticHostSpec struct {
	Addresses []netip.Addr `yaml:"addresses" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s StaticHostSpec) DeepCopy() StaticHostSpec { return object.Clone(s) }

type staticHostDefinition struct{}

func (staticHostDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             StaticHostType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Addresses", JSONPath: `{.addresses}`},
		},
	}
}

// NewStaticHost returns an empty StaticHost under id.
func NewStaticHost(id resource.ID) *StaticHost {
	return typed.NewResource[StaticHostSpec, staticHostDefinition](resource.NewMetadata(Namespace, StaticHostType, id, resource.VersionUndefined), StaticHostSpec{})
}

// TimeServerSpecType is the resource type of TimeServerSpec.
const TimeServerSpecType = resource.Type("TimeServerSpecs.net.talos.dev")

// TimeServerSpec is a set of NTP servers that a layer wants, or, in Namespace, the one that won.
type TimeServerSpec = typed.Resource[TimeServerSpecSpec, timeServerSpecDefinition]

// TimeServerSpecSpec lists the servers. Disabled wins over them; BootTimeout is how long boot waits for the clock, zero without end.
type TimeServerSpecSpec struct {
	TimeServers []string      `yaml:"timeServers" protobuf:"1"`
	UseNTS      bool          `yaml:"useNTS" protobuf:"3"`
	Layer       ConfigLayer   `yaml:"layer" protobuf:"2"`
	BootTimeout time.Duration `yaml:"bootTimeout,omitempty" protobuf:"1000"`
	Disabled    bool          `yaml:"disabled,omitempty" protobuf:"1001"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s TimeServerSpecSpec) DeepCopy() TimeServerSpecSpec { return object.Clone(s) }

type timeServerSpecDefinition struct{}

func (timeServerSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             TimeServerSpecType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Timeservers", JSONPath: `{.timeServers}`},
			{Name: "UseNTS", JSONPath: `{.useNTS}`},
		},
	}
}

// NewTimeServerSpec returns an empty TimeServerSpec under id in namespace ns, one of Namespace and ConfigNamespace.
func NewTimeServerSpec(ns resource.Namespace, id resource.ID) *TimeServerSpec {
	return typed.NewResource[TimeServerSpecSpec, timeServerSpecDefinition](resource.NewMetadata(ns, TimeServerSpecType, id, resource.VersionUndefined), TimeServerSpecSpec{})
}

// DHCP4OperatorSpec tunes a DHCPv4 client. A metric of zero means 1024.
type DHCP4OperatorSpec struct {
	RouteMetric         uint32 `yaml:"routeMetric" protobuf:"1"`
	SkipHostnameRequest bool   `yaml:"skipHostnameRequest" protobuf:"2"`
	SkipRoutes          bool   `yaml:"skipRoutes" protobuf:"4"`
}

// NameServerSpec is a name server; TLSServerName is set for DNS over TLS only.
type NameServerSpec struct {
	Addr          netip.Addr `yaml:"addr" protobuf:"1"`
	TLSServerName string     `yaml:"tlsServerName" protobuf:"3"`
}
