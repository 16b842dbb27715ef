// Package cluster holds the resources that say which cluster this node belongs to,
// which one of its nodes this is, and who else is in it.
package cluster

import (
	"net/netip"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("cluster")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewIdentity("")),
		object.Define(NewInfo("")),
		object.Define(NewMember("")),
		object.Define(NewAffiliate("")),
	}
}

// IdentityType is the resource type of Identity.
const IdentityType = resource.Type("Identities.cluster.talos.dev")

// Identity is the name of this node among machines, under id local.
type Identity = typed.Resource[IdentitySpec, identityDefinition]

// IdentitySpec names the node for as long as its STATE lives: the hash of a public key that is made with it.
type IdentitySpec struct {
	NodeID string `yaml:"nodeId" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s IdentitySpec) DeepCopy() IdentitySpec { return object.Clone(s) }

type identityDefinition struct{}

func (identityDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             IdentityType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "ID", JSONPath: `{.nodeId}`},
		},
	}
}

// NewIdentity returns an empty Identity under id.
func NewIdentity(id resource.ID) *Identity {
	return typed.NewResource[IdentitySpec, identityDefinition](resource.NewMetadata(Namespace, IdentityType, id, resource.VersionUndefined), IdentitySpec{})
}

// InfoType is the resource type of Info.
const InfoType = resource.Type("Infos.cluster.talos.dev")

// Info names the cluster, under id current.
type Info = typed.Resource[InfoSpec, infoDefinition]

// InfoSpec comes from the configuration: cluster.id and cluster.clusterName.
type InfoSpec struct {
	ClusterID   string `yaml:"clusterId" protobuf:"1"`
	ClusterName string `yaml:"clusterName" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s InfoSpec) DeepCopy() InfoSpec { return object.Clone(s) }

type infoDefinition struct{}

func (infoDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             InfoType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Cluster ID", JSONPath: `{.clusterId}`},
			{Name: "Cluster Name", JSONPath: `{.clusterName}`},
		},
	}
}

// NewInfo returns an empty Info under id.
func NewInfo(id resource.ID) *Info {
	return typed.NewResource[InfoSpec, infoDefinition](resource.NewMetadata(Namespace, InfoType, id, resource.VersionUndefined), InfoSpec{})
}

// MemberType is the resource type of Member.
const MemberType = resource.Type("Members.cluster.talos.dev")

// Member is a node of the cluster as the others find it, this one too, under its host name.
type Member = typed.Resource[MemberSpec, memberDefinition]

// MemberSpec has the addresses at which the node's API answers; ControlPlane is set where the node has an API server.
type MemberSpec struct {
	NodeID          string        `yaml:"nodeId" protobuf:"1"`
	Addresses       []netip.Addr  `yaml:"addresses" protobuf:"2"`
	Hostname        string        `yaml:"hostname" protobuf:"3"`
	MachineType     MachineType   `yaml:"machineType" protobuf:"4"`
	OperatingSystem string        `yaml:"operatingSystem" protobuf:"5"`
	ControlPlane    *ControlPlane `yaml:"controlPlane" protobuf:"6"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s MemberSpec) DeepCopy() MemberSpec { return object.Clone(s) }

type memberDefinition struct{}

func (memberDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             MemberType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Hostname", JSONPath: `{.hostname}`},
			{Name: "Machine Type", JSONPath: `{.machineType}`},
			{Name: "OS", JSONPath: `{.operatingSystem}`},
			{Name: "Addresses", JSONPath: `{.addresses}`},
		},
	}
}

// NewMember returns an empty Member under id.
func NewMember(id resource.ID) *Member {
	return typed.NewResource[MemberSpec, memberDefinition](resource.NewMetadata(Namespace, MemberType, id, resource.VersionUndefined), MemberSpec{})
}

// AffiliateType is the resource type of Affiliate.
const AffiliateType = resource.Type("Affiliates.cluster.talos.dev")

// Affiliate is the same node under its node id.
type Affiliate = typed.Resource[AffiliateSpec, affiliateDefinition]

// AffiliateSpec says of a node what its Member does, and its name in Kubernetes.
type AffiliateSpec struct {
	NodeID          string        `yaml:"nodeId" protobuf:"1"`
	Addresses       []netip.Addr  `yaml:"addresses" protobuf:"2"`
	Hostname        string        `yaml:"hostname" protobuf:"3"`
	Nodename        string        `yaml:"nodename" protobuf:"4"`
	OperatingSystem string        `yaml:"operatingSystem" protobuf:"5"`
	MachineType     MachineType   `yaml:"machineType" protobuf:"6"`
	ControlPlane    *ControlPlane `yaml:"controlPlane" protobuf:"8"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s AffiliateSpec) DeepCopy() AffiliateSpec { return object.Clone(s) }

type affiliateDefinition struct{}

func (affiliateDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             AffiliateType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Hostname", JSONPath: `{.hostname}`},
			{Name: "Machine Type", JSONPath: `{.machineType}`},
			{Name: "Addresses", JSONPath: `{.addresses}`},
		},
	}
}

// NewAffiliate returns an empty Affiliate under id.
func NewAffiliate(id resource.ID) *Affiliate {
	return typed.NewResource[AffiliateSpec, affiliateDefinition](resource.NewMetadata(Namespace, AffiliateType, id, resource.VersionUndefined), AffiliateSpec{})
}

// ControlPlane is how a member's API server is reached: its port on each of the member's addresses.
type ControlPlane struct {
	Port int `yaml:"port" protobuf:"1"`
}

// MachineType is what a node is for.
type MachineType int32

// The machine types, with the wire's numbers.
const (
	TypeUnknown      MachineType = 0
	TypeInit         MachineType = 1
	TypeControlPlane MachineType = 2
	TypeWorker       MachineType = 3
)

// String names the type as the configuration does.
func (t MachineType) String() string {
	switch t {
	case TypeInit:
		return "init"
	case TypeControlPlane:
		return "controlplane"
	case TypeWorker:
		return "worker"
	default:
		return "unknown"
	}
}

// MarshalText gives the name.
func (t MachineType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a name.
func (t *MachineType) UnmarshalText(text []byte) error {
	*t = ParseMachineType(string(text))
	return nil
}

// ParseMachineType reads the name that the configuration uses.
func ParseMachineType(name string) MachineType {
	switch name {
	case "init":
		return TypeInit
	case "controlplane":
		return TypeControlPlane
	case "worker":
		return TypeWorker
	default:
		return TypeUnknown
	}
}
