package k8s

import (
	"net/netip"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// EndpointType is the resource type of Endpoint.
const EndpointType = resource.Type("Endpoints.kubernetes.talos.dev")

// Endpoint lists where the Kubernetes API is to be had.
type Endpoint = typed.Resource[EndpointSpec, endpointDefinition]

// EndpointSpec has addresses, and names where addresses are not known.
type EndpointSpec struct {
	Addresses []netip.Addr `yaml:"addresses" protobuf:"1"`
	Hosts     []string     `yaml:"hosts" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EndpointSpec) DeepCopy() EndpointSpec { return object.Clone(s) }

type endpointDefinition struct{}

func (endpointDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EndpointType,
		DefaultNamespace: ControlPlaneNamespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Addresses", JSONPath: `{.addresses}`},
			{Name: "Hosts", JSONPath: `{.hosts}`},
		},
	}
}

// NewEndpoint returns an empty Endpoint under id.
func NewEndpoint(id resource.ID) *Endpoint {
	return typed.NewResource[EndpointSpec, endpointDefinition](resource.NewMetadata(ControlPlaneNamespace, EndpointType, id, resource.VersionUndefined), EndpointSpec{})
}

// NodeAnnotationSpecType is the resource type of NodeAnnotationSpec.
const NodeAnnotationSpecType = resource.Type("NodeAnnotationSpecs.k8s.talos.dev")

// NodeAnnotationSpec is an annotation that this machine's Node is to have.
type NodeAnnotationSpec = typed.Resource[NodeAnnotationSpecSpec, nodeAnnotationSpecDefinition]

// NodeAnnotationSpecSpec is removed from the Node again when the resource goes.
type NodeAnnotationSpecSpec struct {
	Key   string `yaml:"key" protobuf:"1"`
	Value string `yaml:"value" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NodeAnnotationSpecSpec) DeepCopy() NodeAnnotationSpecSpec { return object.Clone(s) }

type nodeAnnotationSpecDefinition struct{}

func (nodeAnnotationSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NodeAnnotationSpecType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
		PrintColumns: []meta.PrintColumn{
			{Name: "Value", JSONPath: `{.value}`},
		},
	}
}

// NewNodeAnnotationSpec returns an empty NodeAnnotationSpec under id.
func NewNodeAnnotationSpec(id resource.ID) *NodeAnnotationSpec {
	return typed.NewResource[NodeAnnotationSpecSpec, nodeAnnotationSpecDefinition](resource.NewMetadata(Namespace, NodeAnnotationSpecType, id, resource.VersionUndefined), NodeAnnotationSpecSpec{})
}

// NodeLabelSpecType is the resource type of NodeLabelSpec.
const NodeLabelSpecType = resource.Type("NodeLabelSpecs.k8s.talos.dev")

// NodeLabelSpec is a label that this machine's Node is to have.
type NodeLabelSpec = typed.Resource[NodeLabelSpecSpec, nodeLabelSpecDefinition]

// NodeLabelSpecSpec is removed from the Node again when the resource goes.
type NodeLabelSpecSpec struct {
	Key   string `yaml:"key" protobuf:"1"`
	Value string `yaml:"value" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NodeLabelSpecSpec) DeepCopy() NodeLabelSpecSpec { return object.Clone(s) }

type nodeLabelSpecDefinition struct{}

func (nodeLabelSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NodeLabelSpecType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
		PrintColumns: []meta.PrintColumn{
			{Name: "Value", JSONPath: `{.value}`},
		},
	}
}

// NewNodeLabelSpec returns an empty NodeLabelSpec under id.
func NewNodeLabelSpec(id resource.ID) *NodeLabelSpec {
	return typed.NewResource[NodeLabelSpecSpec, nodeLabelSpecDefinition](resource.NewMetadata(Namespace, NodeLabelSpecType, id, resource.VersionUndefined), NodeLabelSpecSpec{})
}

// NodeTaintSpecType is the resource type of NodeTaintSpec.
const NodeTaintSpecType = resource.Type("NodeTaintSpecs.k8s.talos.dev")

// NodeTaintSpec is a taint that this machine's Node is to have.
type NodeTaintSpec = typed.Resource[NodeTaintSpecSpec, nodeTaintSpecDefinition]

// NodeTaintSpecSpec is removed from the Node again when the resource goes. Workers only
// register with it: their credentials do not let them change taints.
type NodeTaintSpecSpec struct {
	Key    string `yaml:"key" protobuf:"1"`
	Effect string `yaml:"effect" protobuf:"2"`
	Value  string `yaml:"value" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NodeTaintSpecSpec) DeepCopy() NodeTaintSpecSpec { return object.Clone(s) }

type nodeTaintSpecDefinition struct{}

func (nodeTaintSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NodeTaintSpecType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
		PrintColumns: []meta.PrintColumn{
			{Name: "Effect", JSONPath: `{.effect}`},
			{Name: "Value", JSONPath: `{.value}`},
		},
	}
}

// NewNodeTaintSpec returns an empty NodeTaintSpec under id.
func NewNodeTaintSpec(id resource.ID) *NodeTaintSpec {
	return typed.NewResource[NodeTaintSpecSpec, nodeTaintSpecDefinition](resource.NewMetadata(Namespace, NodeTaintSpecType, id, resource.VersionUndefined), NodeTaintSpecSpec{})
}

// NodeStatusType is the resource type of NodeStatus.
const NodeStatusType = resource.Type("NodeStatuses.kubernetes.talos.dev")

// NodeStatus is what the API says of this machine's Node.
type NodeStatus = typed.Resource[NodeStatusSpec, nodeStatusDefinition]

// NodeStatusSpec is a copy of the Node's fields.
type NodeStatusSpec struct {
	Nodename      string            `yaml:"nodename" protobuf:"1"`
	NodeReady     bool              `yaml:"nodeReady" protobuf:"2"`
	Unschedulable bool              `yaml:"unschedulable" protobuf:"3"`
	Labels        map[string]string `yaml:"labels" protobuf:"4"`
	Annotations   map[string]string `yaml:"annotations" protobuf:"5"`
	PodCIDRs      []netip.Prefix    `yaml:"podCIDRs" protobuf:"6"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NodeStatusSpec) DeepCopy() NodeStatusSpec { return object.Clone(s) }

type nodeStatusDefinition struct{}

func (nodeStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NodeStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Ready", JSONPath: `{.nodeReady}`},
			{Name: "Unschedulable", JSONPath: `{.unschedulable}`},
		},
	}
}

// NewNodeStatus returns an empty NodeStatus under id.
func NewNodeStatus(id resource.ID) *NodeStatus {
	return typed.NewResource[NodeStatusSpec, nodeStatusDefinition](resource.NewMetadata(Namespace, NodeStatusType, id, resource.VersionUndefined), NodeStatusSpec{})
}

// NodeIPType is the resource type of NodeIP.
const NodeIPType = resource.Type("NodeIPs.kubernetes.talos.dev")

// NodeIP is the addresses by which the Node is known.
type NodeIP = typed.Resource[NodeIPSpec, nodeIPDefinition]

// NodeIPSpec has one address for each family that services have, in their order.
type NodeIPSpec struct {
	Addresses []netip.Addr `yaml:"addresses" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NodeIPSpec) DeepCopy() NodeIPSpec { return object.Clone(s) }

type nodeIPDefinition struct{}

func (nodeIPDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NodeIPType,
		DefaultNamespace: Namespace,
	}
}

// NewNodeIP returns an empty NodeIP under id.
func NewNodeIP(id resource.ID) *NodeIP {
	return typed.NewResource[NodeIPSpec, nodeIPDefinition](resource.NewMetadata(Namespace, NodeIPType, id, resource.VersionUndefined), NodeIPSpec{})
}

// NodeIPConfigType is the resource type of NodeIPConfig.
const NodeIPConfigType = resource.Type("NodeIPConfigs.kubernetes.talos.dev")

// NodeIPConfig says which of the machine's addresses may be the Node's.
type NodeIPConfig = typed.Resource[NodeIPConfigSpec, nodeIPConfigDefinition]

// NodeIPConfigSpec excludes the networks of pods and services always; without valid
// subnets any other address may be taken.
type NodeIPConfigSpec struct {
	ValidSubnets   []string `yaml:"validSubnets" protobuf:"1"`
	ExcludeSubnets []string `yaml:"excludeSubnets" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NodeIPConfigSpec) DeepCopy() NodeIPConfigSpec { return object.Clone(s) }

type nodeIPConfigDefinition struct{}

func (nodeIPConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NodeIPConfigType,
		DefaultNamespace: Namespace,
	}
}

// NewNodeIPConfig returns an empty NodeIPConfig under id.
func NewNodeIPConfig(id resource.ID) *NodeIPConfig {
	return typed.NewResource[NodeIPConfigSpec, nodeIPConfigDefinition](resource.NewMetadata(Namespace, NodeIPConfigType, id, resource.VersionUndefined), NodeIPConfigSpec{})
}

// NodenameType is the resource type of Nodename.
const NodenameType = resource.Type("Nodenames.kubernetes.talos.dev")

// Nodename is the name of this machine's Node.
type Nodename = typed.Resource[NodenameSpec, nodenameDefinition]

// NodenameSpec is made of the host name, whose version it records.
type NodenameSpec struct {
	Nodename             string `yaml:"nodename" protobuf:"1"`
	HostnameVersion      string `yaml:"hostnameVersion" protobuf:"2"`
	SkipNodeRegistration bool   `yaml:"skipNodeRegistration" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NodenameSpec) DeepCopy() NodenameSpec { return object.Clone(s) }

type nodenameDefinition struct{}

func (nodenameDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NodenameType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Nodename", JSONPath: `{.nodename}`},
		},
	}
}

// NewNodename returns an empty Nodename under id.
func NewNodename(id resource.ID) *Nodename {
	return typed.NewResource[NodenameSpec, nodenameDefinition](resource.NewMetadata(Namespace, NodenameType, id, resource.VersionUndefined), NodenameSpec{})
}
