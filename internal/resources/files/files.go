// Package files holds files that are made from resources: those of /etc that
// change while the node runs. The image has symbolic links for them into
// layout.EtcDir.
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

// EtcFileSpec is a file that is wanted, under its name below /etc.
type EtcFileSpec = typed.Resource[EtcFileSpecSpec, etcFileSpecDefinition]

// EtcFileSpecSpec is what the file should be.
type EtcFileSpecSpec struct {
	// Contents are written whole: nobody else may change the file.
	Contents object.Text `yaml:"contents" protobuf:"1"`
	// Mode are the permission bits; the owner is root.
	Mode object.FileMode `yaml:"mode" protobuf:"2"`
	// SelinuxLabel is kept for the wire and not applied.
	SelinuxLabel string `yaml:"selinux_label" protobuf:"3"`
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

// EtcFileStatus is a file that was made, under the id of its spec.
type EtcFileStatus = typed.Resource[EtcFileStatusSpec, etcFileStatusDefinition]

// EtcFileStatusSpec says what was made.
type EtcFileStatusSpec struct {
	// SpecVersion is the version of the EtcFileSpec that the file has the contents of.
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
