// Package k8s holds what is known of Kubernetes on this node: the settings of
// its components, the static pods and manifests made of them, and what the API
// says about this machine's Node. Package talos/internal/kube writes them all.
package k8s

import (
	"net/netip"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("k8s")

// ControlPlaneNamespace holds what only control plane nodes have.
const ControlPlaneNamespace = resource.Namespace("controlplane")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewAdmissionControlConfig("")),
		object.Define(NewAPIServerConfig("")),
		object.Define(NewAuditPolicyConfig("")),
		object.Define(NewAuthorizationConfig("")),
		object.Define(NewConfigStatus("")),
		object.Define(NewControllerManagerConfig("")),
		object.Define(NewSchedulerConfig("")),
		object.Define(NewEndpoint("")),
		object.Define(NewEtcdEncryptionConfig("")),
		object.Define(NewExtraManifestsConfig("")),
		object.Define(NewBootstrapManifestsConfig("")),
		object.Define(NewKubeletConfig("")),
		object.Define(NewKubeletSpec("")),
		object.Define(NewKubeletStatus("")),
		object.Define(NewManifest("")),
		object.Define(NewManifestStatus("")),
		object.Define(NewNodeAnnotationSpec("")),
		object.Define(NewNodeLabelSpec("")),
		object.Define(NewNodeTaintSpec("")),
		object.Define(NewNodeStatus("")),
		object.Define(NewNodeIP("")),
		object.Define(NewNodeIPConfig("")),
		object.Define(NewNodename("")),
		object.Define(NewSecretStatus("")),
		object.Define(NewStaticPod("")),
		object.Define(NewStaticPodServerStatus("")),
		object.Define(NewStaticPodStatus("")),
	}
}

// AdmissionControlConfigType is the resource type of AdmissionControlConfig.
const AdmissionControlConfigType = resource.Type("AdmissionControlConfigs.kubernetes.talos.dev")

// AdmissionControlConfig lists the admission plugins of kube-apiserver that have a configuration.
type AdmissionControlConfig = typed.Resource[AdmissionControlConfigSpec, admissionControlConfigDefinition]

// AdmissionControlConfigSpec is read once when kube-apiserver starts.
type AdmissionControlConfigSpec struct {
	Config []AdmissionPluginSpec `yaml:"config" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s AdmissionControlConfigSpec) DeepCopy() AdmissionControlConfigSpec { return object.Clone(s) }

type admissionControlConfigDefinition struct{}

func (admissionControlConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             AdmissionControlConfigType,
		DefaultNamespace: ControlPlaneNamespace,
	}
}

// NewAdmissionControlConfig returns an empty AdmissionControlConfig under id.
func NewAdmissionControlConfig(id resource.ID) *AdmissionControlConfig {
	return typed.NewResource[AdmissionControlConfigSpec, admissionControlConfigDefinition](resource.NewMetadata(ControlPlaneNamespace, AdmissionControlConfigType, id, resource.VersionUndefined), AdmissionControlConfigSpec{})
}

// APIServerConfigType is the resource type of APIServerConfig.
const APIServerConfigType = resource.Type("APIServerConfigs.kubernetes.talos.dev")

// APIServerConfig is how kube-apiserver runs on this node.
type APIServerConfig = typed.Resource[APIServerConfigSpec, aPIServerConfigDefinition]

// APIServerConfigSpec is made of the configuration and the node's address. Args is the whole
// command line, ExtraArgs the part that the user gave.
type APIServerConfigSpec struct {
	Image                   string               `yaml:"image" protobuf:"1"`
	CloudProvider           string               `yaml:"cloudProvider" protobuf:"2"`
	ControlPlaneEndpoint    string               `yaml:"controlPlaneEndpoint" protobuf:"3"`
	EtcdServers             []string             `yaml:"etcdServers" protobuf:"4"`
	LocalPort               int                  `yaml:"localPort" protobuf:"5"`
	ServiceCIDR             []string             `yaml:"serviceCIDR" protobuf:"6"`
	ExtraArgs               map[string]ArgValues `yaml:"extraArgs" protobuf:"13"`
	Args                    []string             `yaml:"args" protobuf:"16"`
	ExtraVolumes            []ExtraVolume        `yaml:"extraVolumes" protobuf:"8"`
	EnvironmentVariables    map[string]string    `yaml:"environmentVariables" protobuf:"9"`
	AdvertisedAddress       string               `yaml:"advertisedAddress" protobuf:"11"`
	Resources               Resources            `yaml:"resources" protobuf:"12"`
	StartupProbesEnabled    bool                 `yaml:"startupProbesEnabled" protobuf:"14"`
	UseAuthenticationConfig bool                 `yaml:"useAuthenticationConfig" protobuf:"15"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s APIServerConfigSpec) DeepCopy() APIServerConfigSpec { return object.Clone(s) }

type aPIServerConfigDefinition struct{}

func (aPIServerConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             APIServerConfigType,
		DefaultNamespace: ControlPlaneNamespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewAPIServerConfig returns an empty APIServerConfig under id.
func NewAPIServerConfig(id resource.ID) *APIServerConfig {
	return typed.NewResource[APIServerConfigSpec, aPIServerConfigDefinition](resource.NewMetadata(ControlPlaneNamespace, APIServerConfigType, id, resource.VersionUndefined), APIServerConfigSpec{})
}

// AuditPolicyConfigType is the resource type of AuditPolicyConfig.
const AuditPolicyConfigType = resource.Type("AuditPolicyConfigs.kubernetes.talos.dev")

// AuditPolicyConfig is what kube-apiserver writes to its audit log.
type AuditPolicyConfig = typed.Resource[AuditPolicyConfigSpec, auditPolicyConfigDefinition]

// AuditPolicyConfigSpec holds an audit.k8s.io Policy.
type AuditPolicyConfigSpec struct {
	Config object.Map `yaml:"config" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s AuditPolicyConfigSpec) DeepCopy() AuditPolicyConfigSpec { return object.Clone(s) }

type auditPolicyConfigDefinition struct{}

func (auditPolicyConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             AuditPolicyConfigType,
		DefaultNamespace: ControlPlaneNamespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewAuditPolicyConfig returns an empty AuditPolicyConfig under id.
func NewAuditPolicyConfig(id resource.ID) *AuditPolicyConfig {
	return typed.NewResource[AuditPolicyConfigSpec, auditPolicyConfigDefinition](resource.NewMetadata(ControlPlaneNamespace, AuditPolicyConfigType, id, resource.VersionUndefined), AuditPolicyConfigSpec{})
}

// AuthorizationConfigType is the resource type of AuthorizationConfig.
const AuthorizationConfigType = resource.Type("AuthorizationConfigs.kubernetes.talos.dev")

// AuthorizationConfig lists the authorizers of kube-apiserver.
type AuthorizationConfig = typed.Resource[AuthorizationConfigSpec, authorizationConfigDefinition]

// AuthorizationConfigSpec holds them in the order in which they are asked; Node and RBAC are
// always among them. Image is the kube-apiserver that they are for.
type AuthorizationConfigSpec struct {
	Image  string                         `yaml:"image" protobuf:"1"`
	Config []AuthorizationAuthorizersSpec `yaml:"config" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s AuthorizationConfigSpec) DeepCopy() AuthorizationConfigSpec { return object.Clone(s) }

type authorizationConfigDefinition struct{}

func (authorizationConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             AuthorizationConfigType,
		DefaultNamespace: ControlPlaneNamespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewAuthorizationConfig returns an empty AuthorizationConfig under id.
func NewAuthorizationConfig(id resource.ID) *AuthorizationConfig {
	return typed.NewResource[AuthorizationConfigSpec, authorizationConfigDefinition](resource.NewMetadata(ControlPlaneNamespace, AuthorizationConfigType, id, resource.VersionUndefined), AuthorizationConfigSpec{})
}

// ConfigStatusType is the resource type of ConfigStatus.
const ConfigStatusType = resource.Type("ConfigStatuses.kubernetes.talos.dev")

// ConfigStatus says that the static pods' configuration files were written.
type ConfigStatus = typed.Resource[ConfigStatusSpec, configStatusDefinition]

// ConfigStatusSpec has a version that changes with any of them.
type ConfigStatusSpec struct {
	Ready   bool   `yaml:"ready" protobuf:"1"`
	Version string `yaml:"version" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ConfigStatusSpec) DeepCopy() ConfigStatusSpec { return object.Clone(s) }

type configStatusDefinition struct{}

func (configStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ConfigStatusType,
		DefaultNamespace: ControlPlaneNamespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Ready", JSONPath: `{.ready}`},
			{Name: "Secrets Version", JSONPath: `{.version}`},
		},
	}
}

// NewConfigStatus returns an empty ConfigStatus under id.
func NewConfigStatus(id resource.ID) *ConfigStatus {
	return typed.NewResource[ConfigStatusSpec, configStatusDefinition](resource.NewMetadata(ControlPlaneNamespace, ConfigStatusType, id, resource.VersionUndefined), ConfigStatusSpec{})
}

// ControllerManagerConfigType is the resource type of ControllerManagerConfig.
const ControllerManagerConfigType = resource.Type("ControllerManagerConfigs.kubernetes.talos.dev")

// ControllerManagerConfig is how kube-controller-manager runs on this node.
type ControllerManagerConfig = typed.Resource[ControllerManagerConfigSpec, controllerManagerConfigDefinition]

// ControllerManagerConfigSpec is made of the configuration. Args is the whole command line. The
// mask sizes are those of a node's share of the pod network.
type ControllerManagerConfigSpec struct {
	Enabled              bool                 `yaml:"enabled" protobuf:"1"`
	Image                string               `yaml:"image" protobuf:"2"`
	CloudProvider        string               `yaml:"cloudProvider" protobuf:"3"`
	PodCIDRs             []string             `yaml:"podCIDRs" protobuf:"4"`
	ServiceCIDRs         []string             `yaml:"serviceCIDRs" protobuf:"5"`
	ExtraArgs            map[string]ArgValues `yaml:"extraArgs" protobuf:"10"`
	Args                 []string             `yaml:"args" protobuf:"11"`
	ExtraVolumes         []ExtraVolume        `yaml:"extraVolumes" protobuf:"7"`
	EnvironmentVariables map[string]string    `yaml:"environmentVariables" protobuf:"8"`
	Resources            Resources            `yaml:"resources" protobuf:"9"`
	NodeCIDRMaskSizeIPv4 int                  `yaml:"nodeCIDRMaskSizeIPv4" protobuf:"12"`
	NodeCIDRMaskSizeIPv6 int                  `yaml:"nodeCIDRMaskSizeIPv6" protobuf:"13"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ControllerManagerConfigSpec) DeepCopy() ControllerManagerConfigSpec { return object.Clone(s) }

type controllerManagerConfigDefinition struct{}

func (controllerManagerConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ControllerManagerConfigType,
		DefaultNamespace: ControlPlaneNamespace,
	}
}

// NewControllerManagerConfig returns an empty ControllerManagerConfig under id.
func NewControllerManagerConfig(id resource.ID) *ControllerManagerConfig {
	return typed.NewResource[ControllerManagerConfigSpec, controllerManagerConfigDefinition](resource.NewMetadata(ControlPlaneNamespace, ControllerManagerConfigType, id, resource.VersionUndefined), ControllerManagerConfigSpec{})
}

// SchedulerConfigType is the resource type of SchedulerConfig.
const SchedulerConfigType = resource.Type("SchedulerConfigs.kubernetes.talos.dev")

// SchedulerConfig is how kube-scheduler runs on this node.
type SchedulerConfig = typed.Resource[SchedulerConfigSpec, schedulerConfigDefinition]

// SchedulerConfigSpec is made of the configuration. Config is the user's
// KubeSchedulerConfiguration, without what the node adds.
type SchedulerConfigSpec struct {
	Enabled              bool                 `yaml:"enabled" protobuf:"1"`
	Image                string               `yaml:"image" protobuf:"2"`
	ExtraArgs            map[string]ArgValues `yaml:"extraArgs" protobuf:"8"`
	Args                 []string             `yaml:"args" protobuf:"9"`
	Config               object.Map           `yaml:"config" protobuf:"7"`
	ExtraVolumes         []ExtraVolume        `yaml:"extraVolumes" protobuf:"4"`
	EnvironmentVariables map[string]string    `yaml:"environmentVariables" protobuf:"5"`
	Resources            Resources            `yaml:"resources" protobuf:"6"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s SchedulerConfigSpec) DeepCopy() SchedulerConfigSpec { return object.Clone(s) }

type schedulerConfigDefinition struct{}

func (schedulerConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             SchedulerConfigType,
		DefaultNamespace: ControlPlaneNamespace,
	}
}

// NewSchedulerConfig returns an empty SchedulerConfig under id.
func NewSchedulerConfig(id resource.ID) *SchedulerConfig {
	return typed.NewResource[SchedulerConfigSpec, schedulerConfigDefinition](resource.NewMetadata(ControlPlaneNamespace, SchedulerConfigType, id, resource.VersionUndefined), SchedulerConfigSpec{})
}

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

// EtcdEncryptionConfigType is the resource type of EtcdEncryptionConfig.
const EtcdEncryptionConfigType = resource.Type("EtcdEncryptionConfigs.kubernetes.talos.dev")

// EtcdEncryptionConfig is how kube-apiserver encrypts what it keeps in etcd.
type EtcdEncryptionConfig = typed.Resource[EtcdEncryptionConfigSpec, etcdEncryptionConfigDefinition]

// EtcdEncryptionConfigSpec holds an EncryptionConfiguration as YAML, with its keys.
type EtcdEncryptionConfigSpec struct {
	Configuration string `yaml:"configuration" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EtcdEncryptionConfigSpec) DeepCopy() EtcdEncryptionConfigSpec { return object.Clone(s) }

type etcdEncryptionConfigDefinition struct{}

func (etcdEncryptionConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EtcdEncryptionConfigType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewEtcdEncryptionConfig returns an empty EtcdEncryptionConfig under id.
func NewEtcdEncryptionConfig(id resource.ID) *EtcdEncryptionConfig {
	return typed.NewResource[EtcdEncryptionConfigSpec, etcdEncryptionConfigDefinition](resource.NewMetadata(Namespace, EtcdEncryptionConfigType, id, resource.VersionUndefined), EtcdEncryptionConfigSpec{})
}

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

// SecretStatusType is the resource type of SecretStatus.
const SecretStatusType = resource.Type("SecretStatuses.kubernetes.talos.dev")

// SecretStatus says that the static pods' keys and certificates were written.
type SecretStatus = typed.Resource[SecretStatusSpec, secretStatusDefinition]

// SecretStatusSpec has a version that changes with any of them.
type SecretStatusSpec struct {
	Ready   bool   `yaml:"ready" protobuf:"1"`
	Version string `yaml:"version" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s SecretStatusSpec) DeepCopy() SecretStatusSpec { return object.Clone(s) }

type secretStatusDefinition struct{}

func (secretStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             SecretStatusType,
		DefaultNamespace: ControlPlaneNamespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Ready", JSONPath: `{.ready}`},
			{Name: "Secrets Version", JSONPath: `{.version}`},
		},
	}
}

// NewSecretStatus returns an empty SecretStatus under id.
func NewSecretStatus(id resource.ID) *SecretStatus {
	return typed.NewResource[SecretStatusSpec, secretStatusDefinition](resource.NewMetadata(ControlPlaneNamespace, SecretStatusType, id, resource.VersionUndefined), SecretStatusSpec{})
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

// AdmissionPluginSpec is a plugin by its name, with its configuration object.
type AdmissionPluginSpec struct {
	Name          string     `yaml:"name" protobuf:"1"`
	Configuration object.Map `yaml:"configuration" protobuf:"2"`
}

// ArgValues are the values of a flag that may be given several times.
type ArgValues struct {
	Values []string `yaml:"values" protobuf:"1"`
}

// AuthorizationAuthorizersSpec is an authorizer: Node, RBAC, or a Webhook with its settings.
type AuthorizationAuthorizersSpec struct {
	Type    string     `yaml:"type" protobuf:"1"`
	Name    string     `yaml:"name" protobuf:"2"`
	Webhook object.Map `yaml:"webhook" protobuf:"3"`
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

// ExtraVolume is a folder of the node that a component sees.
type ExtraVolume struct {
	Name      string `yaml:"name" protobuf:"1"`
	HostPath  string `yaml:"hostPath" protobuf:"2"`
	MountPath string `yaml:"mountPath" protobuf:"3"`
	Readonly  bool   `yaml:"readonly" protobuf:"4"`
}

// Resources are what a component asks for and may use, as Kubernetes quantities.
type Resources struct {
	Requests map[string]string `yaml:"requests" protobuf:"1"`
	Limits   map[string]string `yaml:"limits" protobuf:"2"`
}

// SingleManifest is one Kubernetes object.
type SingleManifest struct {
	Object object.Map `yaml:",inline" protobuf:"1"`
}

// Mount is one mount of a container, as the OCI runtime specification has it.
type Mount struct {
	Destination string   `yaml:"destination" protobuf:"1"`
	Type        string   `yaml:"type,omitempty" protobuf:"2"`
	Source      string   `yaml:"source,omitempty" protobuf:"3"`
	Options     []string `yaml:"options,omitempty" protobuf:"4"`
}
