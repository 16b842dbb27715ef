package network

import (
	"net/netip"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// AddressStatusType is the resource type of AddressStatus.
const AddressStatusType = resource.Type("AddressStatuses.net.talos.dev")

// AddressStatus is an address that a link has, whoever gave it; its id is link/address/bits.
type AddressStatus = typed.Resource[AddressStatusSpec, addressStatusDefinition]

// AddressStatusSpec is the address as the kernel reports it.
type AddressStatusSpec struct {
	Address   netip.Prefix `yaml:"address" protobuf:"1"`
	Local     netip.Addr   `yaml:"local" protobuf:"2"`
	Broadcast netip.Addr   `yaml:"broadcast" protobuf:"3"`
	Anycast   netip.Addr   `yaml:"anycast" protobuf:"4"`
	Multicast netip.Addr   `yaml:"multicast" protobuf:"5"`
	LinkIndex uint32       `yaml:"linkIndex" protobuf:"6"`
	LinkName  string       `yaml:"linkName" protobuf:"7"`
	Family    Family       `yaml:"family" protobuf:"8"`
	Scope     Scope        `yaml:"scope" protobuf:"9"`
	Flags     AddressFlags `yaml:"flags" protobuf:"10"`
	Priority  uint32       `yaml:"priority" protobuf:"11"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s AddressStatusSpec) DeepCopy() AddressStatusSpec { return object.Clone(s) }

type addressStatusDefinition struct{}

func (addressStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             AddressStatusType,
		Aliases:          []resource.Type{"address", "addresses"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Address", JSONPath: `{.address}`},
			{Name: "Link", JSONPath: `{.linkName}`},
		},
	}
}

// NewAddressStatus returns an empty AddressStatus under id.
func NewAddressStatus(id resource.ID) *AddressStatus {
	return typed.NewResource[AddressStatusSpec, addressStatusDefinition](resource.NewMetadata(Namespace, AddressStatusType, id, resource.VersionUndefined), AddressStatusSpec{})
}

// HardwareAddressType is the resource type of HardwareAddress.
const HardwareAddressType = resource.Type("HardwareAddresses.net.talos.dev")

// HardwareAddress is the hardware address of the first physical link, under id "first"; what identifies the machine is derived from it.
type HardwareAddress = typed.Resource[HardwareAddressSpec, hardwareAddressDefinition]

// HardwareAddressSpec is the link's name and its address.
type HardwareAddressSpec struct {
	Name         string       `yaml:"name" protobuf:"1"`
	HardwareAddr HardwareAddr `yaml:"hardwareAddr" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s HardwareAddressSpec) DeepCopy() HardwareAddressSpec { return object.Clone(s) }

type hardwareAddressDefinition struct{}

func (hardwareAddressDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             HardwareAddressType,
		DefaultNamespace: Namespace,
	}
}

// NewHardwareAddress returns an empty HardwareAddress under id.
func NewHardwareAddress(id resource.ID) *HardwareAddress {
	return typed.NewResource[HardwareAddressSpec, hardwareAddressDefinition](resource.NewMetadata(Namespace, HardwareAddressType, id, resource.VersionUndefined), HardwareAddressSpec{})
}

// HostnameStatusType is the resource type of HostnameStatus.
const HostnameStatusType = resource.Type("HostnameStatuses.net.talos.dev")

// HostnameStatus is the node's host name. machined gives it to the kernel and to /etc/hostname.
type HostnameStatus = typed.Resource[HostnameStatusSpec, hostnameStatusDefinition]

// HostnameStatusSpec splits a fully qualified name at its first dot.
type HostnameStatusSpec struct {
	Hostname   string `yaml:"hostname" protobuf:"1"`
	Domainname string `yaml:"domainname" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s HostnameStatusSpec) DeepCopy() HostnameStatusSpec { return object.Clone(s) }

type hostnameStatusDefinition struct{}

func (hostnameStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             HostnameStatusType,
		Aliases:          []resource.Type{"hostname"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Hostname", JSONPath: `{.hostname}`},
			{Name: "Domainname", JSONPath: `{.domainname}`},
		},
	}
}

// NewHostnameStatus returns an empty HostnameStatus under id.
func NewHostnameStatus(id resource.ID) *HostnameStatus {
	return typed.NewResource[HostnameStatusSpec, hostnameStatusDefinition](resource.NewMetadata(Namespace, HostnameStatusType, id, resource.VersionUndefined), HostnameStatusSpec{})
}

// LinkStatusType is the resource type of LinkStatus.
const LinkStatusType = resource.Type("LinkStatuses.net.talos.dev")

// LinkStatus is a link as the kernel has it, pod links included; its id is the link's name.
type LinkStatus = typed.Resource[LinkStatusSpec, linkStatusDefinition]

// LinkStatusSpec is the link as the kernel and, for hardware, sysfs report it. LinkState says whether there is a carrier.
type LinkStatusSpec struct {
	Alias            string           `yaml:"alias" protobuf:"31"`
	AltNames         []string         `yaml:"altNames" protobuf:"32"`
	Index            uint32           `yaml:"index" protobuf:"1"`
	Type             LinkType         `yaml:"type" protobuf:"2"`
	LinkIndex        uint32           `yaml:"linkIndex" protobuf:"3"`
	Flags            LinkFlags        `yaml:"flags" protobuf:"4"`
	HardwareAddr     HardwareAddr     `yaml:"hardwareAddr" protobuf:"5"`
	PermanentAddr    HardwareAddr     `yaml:"permanentAddr" protobuf:"30"`
	BroadcastAddr    HardwareAddr     `yaml:"broadcastAddr" protobuf:"6"`
	MTU              uint32           `yaml:"mtu" protobuf:"7"`
	QueueDisc        string           `yaml:"queueDisc" protobuf:"8"`
	MasterIndex      uint32           `yaml:"masterIndex" protobuf:"9"`
	OperationalState OperationalState `yaml:"operationalState" protobuf:"10"`
	Kind             string           `yaml:"kind" protobuf:"11"`
	SlaveKind        string           `yaml:"slaveKind" protobuf:"12"`
	BusPath          string           `yaml:"busPath" protobuf:"13"`
	PciID            string           `yaml:"pciID" protobuf:"14"`
	Driver           string           `yaml:"driver" protobuf:"15"`
	DriverVersion    string           `yaml:"driverVersion" protobuf:"16"`
	FirmwareVersion  string           `yaml:"firmwareVersion" protobuf:"17"`
	ProductID        string           `yaml:"productID" protobuf:"18"`
	VendorID         string           `yaml:"vendorID" protobuf:"19"`
	Product          string           `yaml:"product" protobuf:"20"`
	Vendor           string           `yaml:"vendor" protobuf:"21"`
	LinkState        bool             `yaml:"linkState" protobuf:"22"`
	SpeedMbit        int              `yaml:"speedMbit" protobuf:"23"`
	VLAN             VLANSpec         `yaml:"vlan,omitempty" protobuf:"26"`
	BondMaster       BondMasterSpec   `yaml:"bondMaster,omitempty" protobuf:"28"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s LinkStatusSpec) DeepCopy() LinkStatusSpec { return object.Clone(s) }

type linkStatusDefinition struct{}

func (linkStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             LinkStatusType,
		Aliases:          []resource.Type{"link", "links"},
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
		PrintColumns: []meta.PrintColumn{
			{Name: "Alias", JSONPath: `{.alias}`},
			{Name: "Type", JSONPath: `{.type}`},
			{Name: "Kind", JSONPath: `{.kind}`},
			{Name: "Hw Addr", JSONPath: `{.hardwareAddr}`},
			{Name: "Oper State", JSONPath: `{.operationalState}`},
			{Name: "Link State", JSONPath: `{.linkState}`},
		},
	}
}

// NewLinkStatus returns an empty LinkStatus under id.
func NewLinkStatus(id resource.ID) *LinkStatus {
	return typed.NewResource[LinkStatusSpec, linkStatusDefinition](resource.NewMetadata(Namespace, LinkStatusType, id, resource.VersionUndefined), LinkStatusSpec{})
}

// NodeAddressType is the resource type of NodeAddress.
const NodeAddressType = resource.Type("NodeAddresses.net.talos.dev")

// NodeAddress is a list of the node's addresses, without loopback and link-local ones: NodeAddressCurrentID all of them, NodeAddressRoutedID those on the node's own links (not the pod network's), NodeAddressDefaultID the one that stands for the node.
type NodeAddress = typed.Resource[NodeAddressSpec, nodeAddressDefinition]

// NodeAddressSpec lists the addresses with their prefix lengths, the most important first.
type NodeAddressSpec struct {
	Addresses     []netip.Prefix       `yaml:"addresses" protobuf:"1"`
	SortAlgorithm AddressSortAlgorithm `yaml:"sortAlgorithm" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NodeAddressSpec) DeepCopy() NodeAddressSpec { return object.Clone(s) }

type nodeAddressDefinition struct{}

func (nodeAddressDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NodeAddressType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Addresses", JSONPath: `{.addresses}`},
			{Name: "SortAlgorithm", JSONPath: `{.sortAlgorithm}`},
		},
	}
}

// NewNodeAddress returns an empty NodeAddress under id.
func NewNodeAddress(id resource.ID) *NodeAddress {
	return typed.NewResource[NodeAddressSpec, nodeAddressDefinition](resource.NewMetadata(Namespace, NodeAddressType, id, resource.VersionUndefined), NodeAddressSpec{})
}

// NodeAddressSortAlgorithmType is the resource type of NodeAddressSortAlgorithm.
const NodeAddressSortAlgorithmType = resource.Type("NodeAddressSortAlgorithms.net.talos.dev")

// NodeAddressSortAlgorithm is how the configuration wants the lists of NodeAddress sorted.
type NodeAddressSortAlgorithm = typed.Resource[NodeAddressSortAlgorithmSpec, nodeAddressSortAlgorithmDefinition]

// NodeAddressSortAlgorithmSpec names the algorithm.
type NodeAddressSortAlgorithmSpec struct {
	Algorithm AddressSortAlgorithm `yaml:"algorithm" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NodeAddressSortAlgorithmSpec) DeepCopy() NodeAddressSortAlgorithmSpec {
	return object.Clone(s)
}

type nodeAddressSortAlgorithmDefinition struct{}

func (nodeAddressSortAlgorithmDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NodeAddressSortAlgorithmType,
		DefaultNamespace: Namespace,
		PrintColumns:     []meta.PrintColumn{{Name: "Algorithm", JSONPath: `{.algorithm}`}},
	}
}

// NewNodeAddressSortAlgorithm returns an empty NodeAddressSortAlgorithm under id.
func NewNodeAddressSortAlgorithm(id resource.ID) *NodeAddressSortAlgorithm {
	return typed.NewResource[NodeAddressSortAlgorithmSpec, nodeAddressSortAlgorithmDefinition](resource.NewMetadata(Namespace, NodeAddressSortAlgorithmType, id, resource.VersionUndefined), NodeAddressSortAlgorithmSpec{})
}

// ResolverStatusType is the resource type of ResolverStatus.
const ResolverStatusType = resource.Type("ResolverStatuses.net.talos.dev")

// ResolverStatus is what /etc/resolv.conf is made from.
type ResolverStatus = typed.Resource[ResolverStatusSpec, resolverStatusDefinition]

// ResolverStatusSpec lists the servers in the order in which they are asked.
type ResolverStatusSpec struct {
	DNSServers    []netip.Addr     `yaml:"dnsServers" protobuf:"1"`
	NameServers   []NameServerSpec `yaml:"nameServers" protobuf:"4"`
	SearchDomains []string         `yaml:"searchDomains" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ResolverStatusSpec) DeepCopy() ResolverStatusSpec { return object.Clone(s) }

type resolverStatusDefinition struct{}

func (resolverStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ResolverStatusType,
		Aliases:          []resource.Type{"resolvers"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Resolvers", JSONPath: `{.dnsServers}`},
			{Name: "Search Domains", JSONPath: `{.searchDomains}`},
		},
	}
}

// NewResolverStatus returns an empty ResolverStatus under id.
func NewResolverStatus(id resource.ID) *ResolverStatus {
	return typed.NewResource[ResolverStatusSpec, resolverStatusDefinition](resource.NewMetadata(Namespace, ResolverStatusType, id, resource.VersionUndefined), ResolverStatusSpec{})
}

// RouteStatusType is the resource type of RouteStatus.
const RouteStatusType = resource.Type("RouteStatuses.net.talos.dev")

// RouteStatus is a route of the main table, whoever made it.
type RouteStatus = typed.Resource[RouteStatusSpec, routeStatusDefinition]

// RouteStatusSpec is the route as the kernel reports it; no Dst means the default route.
type RouteStatusSpec struct {
	Family       Family        `yaml:"family" protobuf:"1"`
	Dst          netip.Prefix  `yaml:"dst" protobuf:"2"`
	Src          netip.Addr    `yaml:"src" protobuf:"3"`
	Gateway      netip.Addr    `yaml:"gateway" protobuf:"4"`
	OutLinkIndex uint32        `yaml:"outLinkIndex" protobuf:"5"`
	OutLinkName  string        `yaml:"outLinkName" protobuf:"6"`
	Table        RoutingTable  `yaml:"table" protobuf:"7"`
	Priority     uint32        `yaml:"priority" protobuf:"8"`
	Scope        Scope         `yaml:"scope" protobuf:"9"`
	Type         RouteType     `yaml:"type" protobuf:"10"`
	Flags        RouteFlags    `yaml:"flags" protobuf:"11"`
	Protocol     RouteProtocol `yaml:"protocol" protobuf:"12"`
	MTU          uint32        `yaml:"mtu" protobuf:"13"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s RouteStatusSpec) DeepCopy() RouteStatusSpec { return object.Clone(s) }

type routeStatusDefinition struct{}

func (routeStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             RouteStatusType,
		Aliases:          []resource.Type{"route", "routes"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Destination", JSONPath: `{.dst}`},
			{Name: "Gateway", JSONPath: `{.gateway}`},
			{Name: "Link", JSONPath: `{.outLinkName}`},
			{Name: "Metric", JSONPath: `{.priority}`},
		},
	}
}

// NewRouteStatus returns an empty RouteStatus under id.
func NewRouteStatus(id resource.ID) *RouteStatus {
	return typed.NewResource[RouteStatusSpec, routeStatusDefinition](resource.NewMetadata(Namespace, RouteStatusType, id, resource.VersionUndefined), RouteStatusSpec{})
}

// NetworkStatusType is the resource type of NetworkStatus.
const NetworkStatusType = resource.Type("NetworkStatuses.net.talos.dev")

// NetworkStatus sums up what others wait for.
type NetworkStatus = typed.Resource[NetworkStatusSpec, networkStatusDefinition]

// NetworkStatusSpec says that an address of our own, a default route, the host name and the files in /etc are there.
type NetworkStatusSpec struct {
	AddressReady      bool `yaml:"addressReady" protobuf:"1"`
	ConnectivityReady bool `yaml:"connectivityReady" protobuf:"2"`
	HostnameReady     bool `yaml:"hostnameReady" protobuf:"3"`
	EtcFilesReady     bool `yaml:"etcFilesReady" protobuf:"4"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NetworkStatusSpec) DeepCopy() NetworkStatusSpec { return object.Clone(s) }

type networkStatusDefinition struct{}

func (networkStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NetworkStatusType,
		Aliases:          []resource.Type{"netstatus", "netstatuses"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Address", JSONPath: `{.addressReady}`},
			{Name: "Connectivity", JSONPath: `{.connectivityReady}`},
			{Name: "Hostname", JSONPath: `{.hostnameReady}`},
			{Name: "Etc", JSONPath: `{.etcFilesReady}`},
		},
	}
}

// NewNetworkStatus returns an empty NetworkStatus under id.
func NewNetworkStatus(id resource.ID) *NetworkStatus {
	return typed.NewResource[NetworkStatusSpec, networkStatusDefinition](resource.NewMetadata(Namespace, NetworkStatusType, id, resource.VersionUndefined), NetworkStatusSpec{})
}

// TimeServerStatusType is the resource type of TimeServerStatus.
const TimeServerStatusType = resource.Type("TimeServerStatuses.net.talos.dev")

// TimeServerStatus is what timed works by.
type TimeServerStatus = typed.Resource[TimeServerStatusSpec, timeServerStatusDefinition]

// TimeServerStatusSpec lists the servers. Disabled wins over them; BootTimeout is how long boot waits for the clock, zero without end.
type TimeServerStatusSpec struct {
	TimeServers []string      `yaml:"timeServers" protobuf:"1"`
	UseNTS      bool          `yaml:"useNTS" protobuf:"2"`
	BootTimeout time.Duration `yaml:"bootTimeout,omitempty" protobuf:"1000"`
	Disabled    bool          `yaml:"disabled,omitempty" protobuf:"1001"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s TimeServerStatusSpec) DeepCopy() TimeServerStatusSpec { return object.Clone(s) }

type timeServerStatusDefinition struct{}

func (timeServerStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             TimeServerStatusType,
		Aliases:          []resource.Type{"timeserver", "timeservers"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Timeservers", JSONPath: `{.timeServers}`},
			{Name: "UseNTS", JSONPath: `{.useNTS}`},
		},
	}
}

// NewTimeServerStatus returns an empty TimeServerStatus under id.
func NewTimeServerStatus(id resource.ID) *TimeServerStatus {
	return typed.NewResource[TimeServerStatusSpec, timeServerStatusDefinition](resource.NewMetadata(Namespace, TimeServerStatusType, id, resource.VersionUndefined), TimeServerStatusSpec{})
}
