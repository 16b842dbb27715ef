// Package cri holds what the container runtime of pods is told: how to reach
// registries, and seccomp profiles. Package internal/cri writes and applies it.
package cri

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
	"talos/internal/resources/pem"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("cri")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewRegistryConfig("")),
		object.Define(NewSeccompProfile("")),
	}
}

// RegistryConfigType is the resource type of RegistryConfig.
const RegistryConfigType = resource.Type("RegistryConfigs.cri.talos.dev")

// RegistryConfig is how registries are reached: machine.registries of the
// configuration. There is one, "registries".
type RegistryConfig = typed.Resource[RegistryConfigSpec, registryConfigDefinition]

// RegistryConfigSpec has three tables by the host of a registry, with its port
// if that is not 443.
type RegistryConfigSpec struct {
	// Mirrors are asked before the registry itself; "*" is for every registry
	// that has none of its own.
	Mirrors map[string]*RegistryMirrorConfig `yaml:"mirrors" protobuf:"1"`
	// Auths and TLS are by the host that is really asked, mirrors included.
	Auths map[string]*RegistryAuthConfig `yaml:"auths" protobuf:"2"`
	TLS   map[string]*RegistryTLSConfig  `yaml:"tls" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s RegistryConfigSpec) DeepCopy() RegistryConfigSpec { return object.Clone(s) }

type registryConfigDefinition struct{}

func (registryConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             RegistryConfigType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewRegistryConfig returns an empty RegistryConfig under id.
func NewRegistryConfig(id resource.ID) *RegistryConfig {
	return typed.NewResource[RegistryConfigSpec, registryConfigDefinition](resource.NewMetadata(Namespace, RegistryConfigType, id, resource.VersionUndefined), RegistryConfigSpec{})
}

// SeccompProfileType is the resource type of SeccompProfile.
const SeccompProfileType = resource.Type("SeccompProfiles.cri.talos.dev")

// SeccompProfile is a profile that pods can name as localhost/profiles/<name>.
type SeccompProfile = typed.Resource[SeccompProfileSpec, seccompProfileDefinition]

// SeccompProfileSpec is a profile of machine.seccompProfiles.
type SeccompProfileSpec struct {
	// Name is a file name.
	Name string `yaml:"name" protobuf:"1"`
	// Value is the profile as the OCI runtime takes it.
	Value object.Map `yaml:"value" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s SeccompProfileSpec) DeepCopy() SeccompProfileSpec { return object.Clone(s) }

type seccompProfileDefinition struct{}

func (seccompProfileDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             SeccompProfileType,
		DefaultNamespace: Namespace,
	}
}

// NewSeccompProfile returns an empty SeccompProfile under id.
func NewSeccompProfile(id resource.ID) *SeccompProfile {
	return typed.NewResource[SeccompProfileSpec, seccompProfileDefinition](resource.NewMetadata(Namespace, SeccompProfileType, id, resource.VersionUndefined), SeccompProfileSpec{})
}

// RegistryAuthConfig are credentials: a name with a password, both in one as
// base64 in Auth, or a token.
type RegistryAuthConfig struct {
	Username      string `yaml:"username" protobuf:"1"`
	Password      string `yaml:"password" protobuf:"2"`
	Auth          string `yaml:"auth" protobuf:"3"`
	IdentityToken string `yaml:"identityToken" protobuf:"4"`
}

// RegistryMirrorConfig are the mirrors of a registry, tried in order.
type RegistryMirrorConfig struct {
	Endpoints []RegistryEndpointConfig `yaml:"endpoints" protobuf:"1"`
	// SkipFallback says that the registry itself must not be asked.
	SkipFallback bool `yaml:"skipFallback" protobuf:"3"`
}

// RegistryTLSConfig is how a registry proves who it is and who we are. Without
// a CA the system's authorities count.
type RegistryTLSConfig struct {
	ClientIdentity     *pem.CertificateAndKey `yaml:"clientIdentity" protobuf:"1"`
	CA                 []byte                 `yaml:"ca" protobuf:"2"`
	InsecureSkipVerify bool                   `yaml:"insecureSkipVerify" protobuf:"3"`
}

// RegistryEndpointConfig is a mirror.
type RegistryEndpointConfig struct {
	// Endpoint is a URL.
	Endpoint string `yaml:"endpoint" protobuf:"1"`
	// OverridePath says that the URL's path is the whole of it: no /v2 is added.
	OverridePath bool `yaml:"overridePath" protobuf:"2"`
}
