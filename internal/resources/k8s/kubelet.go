package k8s

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// KubeletConfigType is the resource type of KubeletConfig.
const KubeletConfigType = resource.Type("KubeletConfigs.kubernetes.talos.dev")

// KubeletConfig is what the configuration says of the kubelet.
type KubeletConfig = typed.Resource[KubeletConfigSpec, kubeletConfigDefinition]

// KubeletConfigSpec keeps the user's part, whose names begin with Extra, apart from the
// rest. RegisterWithTaints
// is by key, "value:effect".
type KubeletConfigSpec struct {
	Image                        string               `yaml:"image" protobuf:"1"`
	ClusterDNS                   []string             `yaml:"clusterDNS" protobuf:"2"`
	ClusterDomain                string               `yaml:"clusterDomain" protobuf:"3"`
	ExtraArgs                    map[string]ArgValues `yaml:"extraArgs" protobuf:"15"`
	ExtraMounts                  []Mount              `yaml:"extraMounts" protobuf:"5"`
	ExtraConfig                  object.Map           `yaml:"extraConfig" protobuf:"6"`
	CloudProviderExternal        bool                 `yaml:"cloudProviderExternal" protobuf:"7"`
	DefaultRuntimeSeccompEnabled bool                 `yaml:"defaultRuntimeSeccompEnabled" protobuf:"8"`
	SkipNodeRegistration         bool                 `yaml:"skipNodeRegistration" protobuf:"9"`
	StaticPodListURL             string               `yaml:"staticPodListURL" protobuf:"10"`
	DisableManifestsDirectory    bool                 `yaml:"disableManifestsDirectory" protobuf:"11"`
	EnableFSQuotaMonitoring      bool                 `yaml:"enableFSQuotaMonitoring" protobuf:"12"`
	CredentialProviderConfig     object.Map           `yaml:"credentialProviderConfig" protobuf:"13"`
	RegisterWithTaints           map[string]string    `yaml:"registerWithTaints" protobuf:"16"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KubeletConfigSpec) DeepCopy() KubeletConfigSpec { return object.Clone(s) }

type kubeletConfigDefinition struct{}

func (kubeletConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KubeletConfigType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewKubeletConfig returns an empty KubeletConfig under id.
func NewKubeletConfig(id resource.ID) *KubeletConfig {
	return typed.NewResource[KubeletConfigSpec, kubeletConfigDefinition](resource.NewMetadata(Namespace, KubeletConfigType, id, resource.VersionUndefined), KubeletConfigSpec{})
}

// KubeletSpecType is the resource type of KubeletSpec.
const KubeletSpecType = resource.Type("KubeletSpecs.kubernetes.talos.dev")

// KubeletSpec is what the kubelet is started with.
type KubeletSpec = typed.Resource[KubeletSpecSpec, kubeletSpecDefinition]

// KubeletSpecSpec is complete: Args the command line, Config the KubeletConfiguration. A
// change restarts the kubelet.
type KubeletSpecSpec struct {
	Image                    string     `yaml:"image" protobuf:"1"`
	Args                     []string   `yaml:"args" protobuf:"2"`
	ExtraMounts              []Mount    `yaml:"extraMounts" protobuf:"3"`
	ExpectedNodename         string     `yaml:"expectedNodename" protobuf:"4"`
	Config                   object.Map `yaml:"config" protobuf:"5"`
	CredentialProviderConfig object.Map `yaml:"credentialProviderConfig" protobuf:"6"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KubeletSpecSpec) DeepCopy() KubeletSpecSpec { return object.Clone(s) }

type kubeletSpecDefinition struct{}

func (kubeletSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KubeletSpecType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewKubeletSpec returns an empty KubeletSpec under id.
func NewKubeletSpec(id resource.ID) *KubeletSpec {
	return typed.NewResource[KubeletSpecSpec, kubeletSpecDefinition](resource.NewMetadata(Namespace, KubeletSpecType, id, resource.VersionUndefined), KubeletSpecSpec{})
}

// KubeletStatusType is the resource type of KubeletStatus.
const KubeletStatusType = resource.Type("KubeletStatuses.kubernetes.talos.dev")

// KubeletStatus exists while the kubelet runs.
type KubeletStatus = typed.Resource[KubeletStatusSpec, kubeletStatusDefinition]

// KubeletStatusSpec names the image that it was started from.
type KubeletStatusSpec struct {
	Image string `yaml:"image" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KubeletStatusSpec) DeepCopy() KubeletStatusSpec { return object.Clone(s) }

type kubeletStatusDefinition struct{}

func (kubeletStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KubeletStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Image", JSONPath: `{.image}`},
		},
	}
}

// NewKubeletStatus returns an empty KubeletStatus under id.
func NewKubeletStatus(id resource.ID) *KubeletStatus {
	return typed.NewResource[KubeletStatusSpec, kubeletStatusDefinition](resource.NewMetadata(Namespace, KubeletStatusType, id, resource.VersionUndefined), KubeletStatusSpec{})
}

// StaticPodType is the resource type of StaticPod.
const StaticPodType = resource.Type("StaticPods.kubernetes.talos.dev")

// StaticPod is a pod that the kubelet runs without being told by the API.
type StaticPod = typed.Resource[StaticPodSpec, staticPodDefinition]

// StaticPodSpec holds the Pod as in its manifest.
type StaticPodSpec struct {
	Pod object.Map `yaml:"Pod" protobuf:"1"`
}

// MarshalYAML shows the object itself.
func (s StaticPodSpec) MarshalYAML() (any, error) { return s.Pod.Values, nil }

// DeepCopy returns a copy that shares nothing with s.
func (s StaticPodSpec) DeepCopy() StaticPodSpec { return object.Clone(s) }

type staticPodDefinition struct{}

func (staticPodDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             StaticPodType,
		DefaultNamespace: Namespace,
	}
}

// NewStaticPod returns an empty StaticPod under id.
func NewStaticPod(id resource.ID) *StaticPod {
	return typed.NewResource[StaticPodSpec, staticPodDefinition](resource.NewMetadata(Namespace, StaticPodType, id, resource.VersionUndefined), StaticPodSpec{})
}

// StaticPodServerStatusType is the resource type of StaticPodServerStatus.
const StaticPodServerStatusType = resource.Type("StaticPodServerStatuses.kubernetes.talos.dev")

// StaticPodServerStatus says where the kubelet reads static pods.
type StaticPodServerStatus = typed.Resource[StaticPodServerStatusSpec, staticPodServerStatusDefinition]

// StaticPodServerStatusSpec has a URL, of scheme file.
type StaticPodServerStatusSpec struct {
	URL string `yaml:"url" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s StaticPodServerStatusSpec) DeepCopy() StaticPodServerStatusSpec { return object.Clone(s) }

type staticPodServerStatusDefinition struct{}

func (staticPodServerStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             StaticPodServerStatusType,
		DefaultNamespace: Namespace,
	}
}

// NewStaticPodServerStatus returns an empty StaticPodServerStatus under id.
func NewStaticPodServerStatus(id resource.ID) *StaticPodServerStatus {
	return typed.NewResource[StaticPodServerStatusSpec, staticPodServerStatusDefinition](resource.NewMetadata(Namespace, StaticPodServerStatusType, id, resource.VersionUndefined), StaticPodServerStatusSpec{})
}

// StaticPodStatusType is the resource type of StaticPodStatus.
const StaticPodStatusType = resource.Type("StaticPodStatuses.kubernetes.talos.dev")

// StaticPodStatus is what the API says of a static pod of this node.
type StaticPodStatus = typed.Resource[StaticPodStatusSpec, staticPodStatusDefinition]

// StaticPodStatusSpec holds the Pod's status.
type StaticPodStatusSpec struct {
	PodStatus object.Map `yaml:"PodStatus" protobuf:"1"`
}

// MarshalYAML shows the object itself.
func (s StaticPodStatusSpec) MarshalYAML() (any, error) { return s.PodStatus.Values, nil }

// DeepCopy returns a copy that shares nothing with s.
func (s StaticPodStatusSpec) DeepCopy() StaticPodStatusSpec { return object.Clone(s) }

type staticPodStatusDefinition struct{}

func (staticPodStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             StaticPodStatusType,
		Aliases:          []resource.Type{"podstatus"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Ready", JSONPath: `{.conditions[?(@.type=="Ready")].status}`},
		},
	}
}

// NewStaticPodStatus returns an empty StaticPodStatus under id.
func NewStaticPodStatus(id resource.ID) *StaticPodStatus {
	return typed.NewResource[StaticPodStatusSpec, staticPodStatusDefinition](resource.NewMetadata(Namespace, StaticPodStatusType, id, resource.VersionUndefined), StaticPodStatusSpec{})
}

// Mount is one mount of a container, as the OCI runtime specification has it.
type Mount struct {
	Destination string   `yaml:"destination" protobuf:"1"`
	Type        string   `yaml:"type,omitempty" protobuf:"2"`
	Source      string   `yaml:"source,omitempty" protobuf:"3"`
	Options     []string `yaml:"options,omitempty" protobuf:"4"`
}
