// Package files …
package files

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("files")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewEtcFileSpec("")),
		object.Define(NewEtcFileStatus("")),
	}
}

// EtcFileSpecType is the resource type of EtcFileSpec.
const EtcFileSpecType = resource.Type("EtcFileSpecs.files.talos.dev")

// EtcFileSpec …
type EtcFileSpec = typed.Resource[EtcFileSpecSpec, etcFileSpecDefinition]

// EtcFileSpecSpec …
type EtcFileSpecSpec struct {
	Contents     object.Text     `yaml:"contents" protobuf:"1"`
	Mode         object.FileMode `yaml:"mode" protobuf:"2"`
	SelinuxLabel string          `yaml:"selinux_label" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EtcFileSpecSpec) DeepCopy() EtcFileSpecSpec { return object.Clone(s) }

type etcFileSpecDefinition struct{}

func (etcFileSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EtcFileSpecType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewEtcFileSpec returns an empty EtcFileSpec under id.
func NewEtcFileSpec(id resource.ID) *EtcFileSpec {
	return typed.NewResource[EtcFileSpecSpec, etcFileSpecDefinition](resource.NewMetadata(Namespace, EtcFileSpecType, id, resource.VersionUndefined), EtcFileSpecSpec{})
}

// EtcFileStatusType is the resource type of EtcFileStatus.
const EtcFileStatusType = resource.Type("EtcFileStatuses.files.talos.dev")

// EtcFileStatus …
type EtcFileStatus = typed.Resource[EtcFileStatusSpec, etcFileStatusDefinition]

// EtcFileStatusSpec …
type EtcFileStatusSpec struct {
	SpecVersion string `yaml:"specVersion" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EtcFileStatusSpec) DeepCopy() EtcFileStatusSpec { return object.Clone(s) }

type etcFileStatusDefinition struct{}

func (etcFileStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EtcFileStatusType,
		DefaultNamespace: Namespace,
	}
}

// NewEtcFileStatus returns an empty EtcFileStatus under id.
func NewEtcFileStatus(id resource.ID) *EtcFileStatus {
	return typed.NewResource[EtcFileStatusSpec, etcFileStatusDefinition](resource.NewMetadata(Namespace, EtcFileStatusType, id, resource.VersionUndefined), EtcFileStatusSpec{})
}
