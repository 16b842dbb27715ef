package k8s

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// ExtraManifestsConfigType is the resource type of ExtraManifestsConfig.
const ExtraManifestsConfigType = resource.Type("ExtraManifestsConfigs.kubernetes.talos.dev")

// ExtraManifestsConfig lists the manifests that the configuration adds.
type ExtraManifestsConfig = typed.Resource[ExtraManifestsConfigSpec, extraManifestsConfigDefinition]

// ExtraManifestsConfigSpec has them in the order in which they are applied.
type ExtraManifestsConfigSpec struct {
	ExtraManifests []ExtraManifest `yaml:"extraManifests" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ExtraManifestsConfigSpec) DeepCopy() ExtraManifestsConfigSpec { return object.Clone(s) }

type extraManifestsConfigDefinition struct{}

func (extraManifestsConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ExtraManifestsConfigType,
		DefaultNamespace: ControlPlaneNamespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewExtraManifestsConfig returns an empty ExtraManifestsConfig under id.
func NewExtraManifestsConfig(id resource.ID) *ExtraManifestsConfig {
	return typed.NewResource[ExtraManifestsConfigSpec, extraManifestsConfigDefinition](resource.NewMetadata(ControlPlaneNamespace, ExtraManifestsConfigType, id, resource.VersionUndefined), ExtraManifestsConfigSpec{})
}

// BootstrapManifestsConfigType is the resource type of BootstrapManifestsConfig.
const BootstrapManifestsConfigType = resource.Type("BootstrapManifestsConfigs.kubernetes.talos.dev")

// BootstrapManifestsConfig is what the manifests are rendered from that make a cluster.
type BootstrapManifestsConfig = typed.Resource[BootstrapManifestsConfigSpec, bootstrapManifestsConfigDefinition]

// BootstrapManifestsConfigSpec is made of the configuration. String is the cluster's endpoint;
// FlannelKubeServiceHost and Port are its parts, by which pods reach the API
// before services work.
type BootstrapManifestsConfigSpec struct {
	String                            string     `yaml:"string" protobuf:"1"`
	ClusterDomain                     string     `yaml:"clusterDomain" protobuf:"2"`
	PodCIDRs                          []string   `yaml:"podCIDRs" protobuf:"3"`
	ProxyEnabled                      bool       `yaml:"proxyEnabled" protobuf:"4"`
	ProxyImage                        string     `yaml:"proxyImage" protobuf:"5"`
	ProxyArgs                         []string   `yaml:"proxyArgs" protobuf:"6"`
	ProxyConfig                       object.Map `yaml:"proxyConfig" protobuf:"27"`
	ProxyConfigChecksum               string     `yaml:"proxyConfigChecksum" protobuf:"29"`
	ProxyResources                    Resources  `yaml:"proxyResources" protobuf:"28"`
	CoreDNSEnabled                    bool       `yaml:"coreDNSEnabled" protobuf:"7"`
	CoreDNSImage                      string     `yaml:"coreDNSImage" protobuf:"8"`
	DNSServiceIP                      string     `yaml:"dnsServiceIP" protobuf:"9"`
	DNSServiceIPv6                    string     `yaml:"dnsServiceIPv6" protobuf:"10"`
	FlannelEnabled                    bool       `yaml:"flannelEnabled" protobuf:"11"`
	FlannelImage                      string     `yaml:"flannelImage" protobuf:"12"`
	FlannelExtraArgs                  []string   `yaml:"flannelExtraArgs" protobuf:"16"`
	FlannelKubeServiceHost            string     `yaml:"flannelKubeServiceHost" protobuf:"17"`
	FlannelKubeServicePort            string     `yaml:"flannelKubeServicePort" protobuf:"18"`
	FlannelKubeNetworkPoliciesEnabled bool       `yaml:"flannelKubeNetworkPoliciesEnabled" protobuf:"19"`
	FlannelKubeNetworkPoliciesImage   string     `yaml:"flannelKubeNetworkPoliciesImage" protobuf:"20"`
	FlannelBackendType                string     `yaml:"flannelBackendType" protobuf:"23"`
	FlannelBackendPort                uint16     `yaml:"flannelBackendPort" protobuf:"24"`
	FlannelBackendMTU                 uint32     `yaml:"flannelBackendMTU" protobuf:"22"`
	FlannelBackendExtraConfig         object.Map `yaml:"flannelBackendExtraConfig" protobuf:"26"`
	FlannelResources                  Resources  `yaml:"flannelResources" protobuf:"25"`
	PodSecurityPolicyEnabled          bool       `yaml:"podSecurityPolicyEnabled" protobuf:"14"`
	TalosAPIServiceEnabled            bool       `yaml:"talosAPIServiceEnabled" protobuf:"15"`
	CniName                           string     `yaml:"cniName" protobuf:"21"`
	CoreDNSForwardsToHost             bool       `yaml:"coreDNSForwardsToHost,omitempty" protobuf:"1000"` // pods of CoreDNS begin anew when it changes: they read resolv.conf once
	Endpoint                          string     `yaml:"endpoint" protobuf:"1001"`                        // the cluster's, for pods with a network of their own
}

// DeepCopy returns a copy that shares nothing with s.
func (s BootstrapManifestsConfigSpec) DeepCopy() BootstrapManifestsConfigSpec { return object.Clone(s) }

type bootstrapManifestsConfigDefinition struct{}

func (bootstrapManifestsConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             BootstrapManifestsConfigType,
		DefaultNamespace: ControlPlaneNamespace,
	}
}

// NewBootstrapManifestsConfig returns an empty BootstrapManifestsConfig under id.
func NewBootstrapManifestsConfig(id resource.ID) *BootstrapManifestsConfig {
	return typed.NewResource[BootstrapManifestsConfigSpec, bootstrapManifestsConfigDefinition](resource.NewMetadata(ControlPlaneNamespace, BootstrapManifestsConfigType, id, resource.VersionUndefined), BootstrapManifestsConfigSpec{})
}

// ManifestType is the resource type of Manifest.
const ManifestType = resource.Type("Manifests.kubernetes.talos.dev")

// Manifest is a group of Kubernetes objects that the cluster is to have.
type Manifest = typed.Resource[ManifestSpec, manifestDefinition]

// ManifestSpec holds the objects. They may hold secrets: the bootstrap token, and
// whatever the user puts into inline manifests.
type ManifestSpec struct {
	Items []SingleManifest `yaml:"items" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ManifestSpec) DeepCopy() ManifestSpec { return object.Clone(s) }

type manifestDefinition struct{}

func (manifestDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ManifestType,
		DefaultNamespace: ControlPlaneNamespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewManifest returns an empty Manifest under id.
func NewManifest(id resource.ID) *Manifest {
	return typed.NewResource[ManifestSpec, manifestDefinition](resource.NewMetadata(ControlPlaneNamespace, ManifestType, id, resource.VersionUndefined), ManifestSpec{})
}

// ManifestStatusType is the resource type of ManifestStatus.
const ManifestStatusType = resource.Type("ManifestStatuses.kubernetes.talos.dev")

// ManifestStatus says which manifests are in the cluster.
type ManifestStatus = typed.Resource[ManifestStatusSpec, manifestStatusDefinition]

// ManifestStatusSpec lists the ids of the Manifests of which every object was applied.
type ManifestStatusSpec struct {
	ManifestsApplied []string `yaml:"manifestsApplied" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ManifestStatusSpec) DeepCopy() ManifestStatusSpec { return object.Clone(s) }

type manifestStatusDefinition struct{}

func (manifestStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ManifestStatusType,
		DefaultNamespace: ControlPlaneNamespace,
	}
}

// NewManifestStatus returns an empty ManifestStatus under id.
func NewManifestStatus(id resource.ID) *ManifestStatus {
	return typed.NewResource[ManifestStatusSpec, manifestStatusDefinition](resource.NewMetadata(ControlPlaneNamespace, ManifestStatusType, id, resource.VersionUndefined), ManifestStatusSpec{})
}

// ExtraManifest has a URL, with headers to send, or its text in InlineManifest. Priority is
// the group that orders it.
type ExtraManifest struct {
	Name           string            `yaml:"name" protobuf:"1"`
	URL            string            `yaml:"url" protobuf:"2"`
	Priority       string            `yaml:"priority" protobuf:"3"`
	ExtraHeaders   map[string]string `yaml:"extraHeaders" protobuf:"4"`
	InlineManifest string            `yaml:"inlineManifest" protobuf:"5"`
}

// SingleManifest is one Kubernetes object.
type SingleManifest struct {
	Object object.Map `yaml:",inline" protobuf:"1"`
}
