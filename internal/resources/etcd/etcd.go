// Package etcd holds the resources of the etcd member on this node: what the
// configuration wants, what the member is started with, and who it is.
package etcd

import (
	"net/netip"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("etcd")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewEtcdConfig("")),
		object.Define(NewEtcdMember("")),
		object.Define(NewPKIStatus("")),
		object.Define(NewEtcdSpec("")),
	}
}

// EtcdConfigType is the resource type of EtcdConfig.
const EtcdConfigType = resource.Type("EtcdConfigs.etcd.talos.dev")

// EtcdConfig is what the configuration says of etcd: cluster.etcd. Nodes make EtcdSpec from the configuration itself, and no EtcdConfig.
type EtcdConfig = typed.Resource[EtcdConfigSpec, etcdConfigDefinition]

// EtcdConfigSpec names subnets: which of the node's addresses other members and clients are told, and which etcd listens on.
type EtcdConfigSpec struct {
	AdvertiseValidSubnets   []string             `yaml:"advertiseValidSubnets" protobuf:"1"`
	AdvertiseExcludeSubnets []string             `yaml:"advertiseExcludeSubnets" protobuf:"2"`
	ListenValidSubnets      []string             `yaml:"listenValidSubnets" protobuf:"5"`
	ListenExcludeSubnets    []string             `yaml:"listenExcludeSubnets" protobuf:"6"`
	Image                   string               `yaml:"image" protobuf:"3"`
	ExtraArgs               map[string]ArgValues `yaml:"extraArgs" protobuf:"7"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EtcdConfigSpec) DeepCopy() EtcdConfigSpec { return object.Clone(s) }

type etcdConfigDefinition struct{}

func (etcdConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EtcdConfigType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Image", JSONPath: `{.image}`},
		},
	}
}

// NewEtcdConfig returns an empty EtcdConfig under id.
func NewEtcdConfig(id resource.ID) *EtcdConfig {
	return typed.NewResource[EtcdConfigSpec, etcdConfigDefinition](resource.NewMetadata(Namespace, EtcdConfigType, id, resource.VersionUndefined), EtcdConfigSpec{})
}

// EtcdMemberType is the resource type of EtcdMember.
const EtcdMemberType = resource.Type("EtcdMembers.etcd.talos.dev")

// EtcdMember is the member that runs on this node.
type EtcdMember = typed.Resource[EtcdMemberSpec, etcdMemberDefinition]

// EtcdMemberSpec is the member's id as etcd gave it, in hexadecimal.
type EtcdMemberSpec struct {
	MemberID string `yaml:"memberID" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EtcdMemberSpec) DeepCopy() EtcdMemberSpec { return object.Clone(s) }

type etcdMemberDefinition struct{}

func (etcdMemberDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EtcdMemberType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Member ID", JSONPath: `{.memberID}`},
		},
	}
}

// NewEtcdMember returns an empty EtcdMember under id.
func NewEtcdMember(id resource.ID) *EtcdMember {
	return typed.NewResource[EtcdMemberSpec, etcdMemberDefinition](resource.NewMetadata(Namespace, EtcdMemberType, id, resource.VersionUndefined), EtcdMemberSpec{})
}

// PKIStatusType is the resource type of PKIStatus.
const PKIStatusType = resource.Type("PKIStatuses.etcd.talos.dev")

// PKIStatus says that etcd's certificates are on disk.
type PKIStatus = typed.Resource[PKIStatusSpec, pKIStatusDefinition]

// PKIStatusSpec has a version that changes with the certificates.
type PKIStatusSpec struct {
	Ready   bool   `yaml:"ready" protobuf:"1"`
	Version string `yaml:"version" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s PKIStatusSpec) DeepCopy() PKIStatusSpec { return object.Clone(s) }

type pKIStatusDefinition struct{}

func (pKIStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             PKIStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Ready", JSONPath: `{.ready}`},
			{Name: "Secrets Version", JSONPath: `{.version}`},
		},
	}
}

// NewPKIStatus returns an empty PKIStatus under id.
func NewPKIStatus(id resource.ID) *PKIStatus {
	return typed.NewResource[PKIStatusSpec, pKIStatusDefinition](resource.NewMetadata(Namespace, PKIStatusType, id, resource.VersionUndefined), PKIStatusSpec{})
}

// EtcdSpecType is the resource type of EtcdSpec.
const EtcdSpecType = resource.Type("EtcdSpecs.etcd.talos.dev")

// EtcdSpec is how etcd runs on this node.
type EtcdSpec = typed.Resource[EtcdSpecSpec, etcdSpecDefinition]

// EtcdSpecSpec is made of the configuration (cluster.etcd), the node's addresses and its host name, which is the member's name.
type EtcdSpecSpec struct {
	Name                  string               `yaml:"name" protobuf:"1"`
	AdvertisedAddresses   []netip.Addr         `yaml:"advertisedAddresses" protobuf:"2"`
	ListenPeerAddresses   []netip.Addr         `yaml:"listenPeerAddresses" protobuf:"5"`
	ListenClientAddresses []netip.Addr         `yaml:"listenClientAddresses" protobuf:"6"`
	Image                 string               `yaml:"image" protobuf:"3"`
	ExtraArgs             map[string]ArgValues `yaml:"extraArgs" protobuf:"7"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EtcdSpecSpec) DeepCopy() EtcdSpecSpec { return object.Clone(s) }

type etcdSpecDefinition struct{}

func (etcdSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EtcdSpecType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Name", JSONPath: `{.name}`},
			{Name: "AdvertisedAddresses", JSONPath: `{.advertisedAddresses}`},
			{Name: "ListenPeerAddresses", JSONPath: `{.listenPeerAddresses}`},
			{Name: "ListenClientAddresses", JSONPath: `{.listenClientAddresses}`},
		},
	}
}

// NewEtcdSpec returns an empty EtcdSpec under id.
func NewEtcdSpec(id resource.ID) *EtcdSpec {
	return typed.NewResource[EtcdSpecSpec, etcdSpecDefinition](resource.NewMetadata(Namespace, EtcdSpecType, id, resource.VersionUndefined), EtcdSpecSpec{})
}

// ArgValues are the values of one flag: several where it is given several times.
type ArgValues struct {
	Values []string `yaml:"values" protobuf:"1"`
}
