// Package kubeaccess holds the resource that says which pods may have access
// to the machines' API.
package kubeaccess

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("config")

// ConfigID is the id of the one Config.
const ConfigID = resource.ID("config")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{object.Define(NewConfig(""))}
}

// ConfigType is the resource type of Config.
const ConfigType = resource.Type("KubernetesAccessConfigs.cluster.talos.dev")

// Config is what the configuration says of access from pods; on control plane nodes only.
type Config = typed.Resource[ConfigSpec, configDefinition]

// ConfigSpec has the roles that may be given, and the namespaces whose pods may have them.
type ConfigSpec struct {
	Enabled                     bool     `yaml:"enabled" protobuf:"1"`
	AllowedAPIRoles             []string `yaml:"allowedAPIRoles" protobuf:"2"`
	AllowedKubernetesNamespaces []string `yaml:"allowedKubernetesNamespaces" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ConfigSpec) DeepCopy() ConfigSpec { return object.Clone(s) }

type configDefinition struct{}

func (configDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ConfigType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewConfig returns an empty Config under id.
func NewConfig(id resource.ID) *Config {
	return typed.NewResource[ConfigSpec, configDefinition](resource.NewMetadata(Namespace, ConfigType, id, resource.VersionUndefined), ConfigSpec{})
}
