package k8s

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

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

// AuthenticationConfigType is the resource type of AuthenticationConfig.
const AuthenticationConfigType = resource.Type("AuthenticationConfigs.kubernetes.talos.dev")

// AuthenticationConfig is how kube-apiserver tells who asks.
type AuthenticationConfig = typed.Resource[AuthenticationConfigSpec, authenticationConfigDefinition]

// AuthenticationConfigSpec holds an apiserver.config.k8s.io AuthenticationConfiguration.
type AuthenticationConfigSpec struct {
	Config object.Map `yaml:"config" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s AuthenticationConfigSpec) DeepCopy() AuthenticationConfigSpec { return object.Clone(s) }

type authenticationConfigDefinition struct{}

func (authenticationConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             AuthenticationConfigType,
		DefaultNamespace: ControlPlaneNamespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewAuthenticationConfig returns an empty AuthenticationConfig under id.
func NewAuthenticationConfig(id resource.ID) *AuthenticationConfig {
	return typed.NewResource[AuthenticationConfigSpec, authenticationConfigDefinition](resource.NewMetadata(ControlPlaneNamespace, AuthenticationConfigType, id, resource.VersionUndefined), AuthenticationConfigSpec{})
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
