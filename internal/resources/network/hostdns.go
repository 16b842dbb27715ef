package network

import (
	"net/netip"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// HostDNSConfigType is the resource type of HostDNSConfig.
const HostDNSConfigType = resource.Type("HostDNSConfigs.net.talos.dev")

// HostDNSConfig is what the configuration says of the node's own name server.
type HostDNSConfig = typed.Resource[HostDNSConfigSpec, hostDNSConfigDefinition]

// HostDNSConfigSpec has the addresses on which networkd answers while Enabled.
// ServiceHostDNSAddress is the one that pods ask; without it they ask the
// node's upstreams themselves.
type HostDNSConfigSpec struct {
	Enabled                 bool             `yaml:"enabled" protobuf:"1"`
	ListenAddresses         []netip.AddrPort `yaml:"listenAddresses,omitempty" protobuf:"2"`
	ServiceHostDNSAddress   netip.Addr       `yaml:"serviceHostDNSAddress" protobuf:"3"`
	ResolveMemberNames      bool             `yaml:"resolveMemberNames" protobuf:"4"`
	ServiceHostDNSAddressV6 netip.Addr       `yaml:"serviceHostDNSAddressV6" protobuf:"5"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s HostDNSConfigSpec) DeepCopy() HostDNSConfigSpec { return object.Clone(s) }

type hostDNSConfigDefinition struct{}

func (hostDNSConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             HostDNSConfigType,
		DefaultNamespace: Namespace,
		PrintColumns:     []meta.PrintColumn{{Name: "Enabled", JSONPath: `{.enabled}`}},
	}
}

// NewHostDNSConfig returns an empty HostDNSConfig under id.
func NewHostDNSConfig(id resource.ID) *HostDNSConfig {
	return typed.NewResource[HostDNSConfigSpec, hostDNSConfigDefinition](resource.NewMetadata(Namespace, HostDNSConfigType, id, resource.VersionUndefined), HostDNSConfigSpec{})
}

// DNSResolveCacheType is the resource type of DNSResolveCache.
const DNSResolveCacheType = resource.Type("DNSResolveCaches.net.talos.dev")

// DNSResolveCache is the node's name server on one address, such as udp-127.0.0.53:53.
type DNSResolveCache = typed.Resource[DNSResolveCacheSpec, dnsResolveCacheDefinition]

// DNSResolveCacheSpec says whether it answers.
type DNSResolveCacheSpec struct {
	Status string `yaml:"status" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s DNSResolveCacheSpec) DeepCopy() DNSResolveCacheSpec { return object.Clone(s) }

type dnsResolveCacheDefinition struct{}

func (dnsResolveCacheDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             DNSResolveCacheType,
		DefaultNamespace: Namespace,
		PrintColumns:     []meta.PrintColumn{{Name: "Status", JSONPath: `{.status}`}},
	}
}

// NewDNSResolveCache returns an empty DNSResolveCache under id.
func NewDNSResolveCache(id resource.ID) *DNSResolveCache {
	return typed.NewResource[DNSResolveCacheSpec, dnsResolveCacheDefinition](resource.NewMetadata(Namespace, DNSResolveCacheType, id, resource.VersionUndefined), DNSResolveCacheSpec{})
}

// DNSUpstreamType is the resource type of DNSUpstream.
const DNSUpstreamType = resource.Type("DNSUpstreams.net.talos.dev")

// DNSUpstream is a name server that the node's own one asks.
type DNSUpstream = typed.Resource[DNSUpstreamSpec, dnsUpstreamDefinition]

// DNSUpstreamSpec says where it is and whether it answered when it was asked last.
type DNSUpstreamSpec struct {
	Healthy bool   `yaml:"healthy" protobuf:"1000"`
	Addr    string `yaml:"addr" protobuf:"1001"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s DNSUpstreamSpec) DeepCopy() DNSUpstreamSpec { return object.Clone(s) }

type dnsUpstreamDefinition struct{}

func (dnsUpstreamDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             DNSUpstreamType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Healthy", JSONPath: `{.healthy}`},
			{Name: "Address", JSONPath: `{.addr}`},
		},
	}
}

// NewDNSUpstream returns an empty DNSUpstream under id.
func NewDNSUpstream(id resource.ID) *DNSUpstream {
	return typed.NewResource[DNSUpstreamSpec, dnsUpstreamDefinition](resource.NewMetadata(Namespace, DNSUpstreamType, id, resource.VersionUndefined), DNSUpstreamSpec{})
}
