// Package cri …
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

// RegistryConfig …
type RegistryConfig = typed.Resource[RegistryConfigSpec, registryConfigDefinition]

// RegistryConfigSpec …
type RegistryConfigSpec struct {
	Mirrors map[string]*RegistryMirrorConfig `yaml:"mirrors" protobuf:"1"`
	Auths   map[string]*RegistryAuthConfig   `yaml:"auths" protobuf:"2"`
	TLS     map[string]*RegistryTLSConfig    `yaml:"tls" protobuf:"3"`
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

// SeccompProfile …
type SeccompProfile = typed.Resource[SeccompProfileSpec, seccompProfileDefinition]

// SeccompProfileSpec …
type SeccompProfileSpec struct {
	Name  string     `yaml:"name" protobuf:"1"`
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

// RegistryAuthConfig …
type RegistryAuthConfig struct {
	Username      string `yaml:"username" protobuf:"1"`
	Password      string `yaml:"password" protobuf:"2"`
	Auth          string `yaml:"auth" protobuf:"3"`
	IdentityToken string `yaml:"identityToken" protobuf:"4"`
}

// RegistryMirrorConfig …
type RegistryMirrorConfig struct {
	Endpoints    []RegistryEndpointConfig `yaml:"endpoints" protobuf:"1"`
	SkipFallback bool                     `yaml:"skipFallback" protobuf:"3"`
}

// RegistryTLSConfig …
type RegistryTLSConfig struct {
	ClientIdentity     *pem.CertificateAndKey `yaml:"clientIdentity" protobuf:"1"`
	CA                 []byte                 `yaml:"ca" protobuf:"2"`
	InsecureSkipVerify bool                   `yaml:"insecureSkipVerify" protobuf:"3"`
}

// RegistryEndpointConfig …
type RegistryEndpointConfig struct {
	Endpoint     string `yaml:"endpoint" protobuf:"1"`
	OverridePath bool   `yaml:"overridePath" protobuf:"2"`
}
