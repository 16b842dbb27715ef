// Package config holds the machine configuration as a resource. The
// configuration itself, its keys and its rules, is package talos/config.
package config

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/cluster"
	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("config")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewMachineConfig(ActiveID)),
		object.Define(NewMachineType()),
	}
}

// MachineConfigType is the resource type of MachineConfig.
const MachineConfigType = resource.Type("MachineConfigs.config.talos.dev")

// ActiveID is the id of the configuration that is in force.
const ActiveID = resource.ID("v1alpha1")

// PersistentID is the id of the configuration that the node boots with: another
// one while one is staged or tried.
const PersistentID = resource.ID("persistent")

// MachineConfig carries the YAML that the machine runs by.
type MachineConfig = typed.Resource[MachineConfigSpec, machineConfigDefinition]

// MachineConfigSpec is the document as it was applied: validated, complete,
// with its secrets. Readers decode it with package talos/config.
type MachineConfigSpec struct {
	Document object.Text `protobuf:"1"`
}

// MarshalYAML shows the document as text, as clients of this type expect.
func (s MachineConfigSpec) MarshalYAML() (any, error) { return string(s.Document), nil }

// DeepCopy returns a copy that shares nothing with s.
func (s MachineConfigSpec) DeepCopy() MachineConfigSpec { return object.Clone(s) }

type machineConfigDefinition struct{}

func (machineConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             MachineConfigType,
		Aliases:          []resource.Type{"mc"},
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewMachineConfig returns an empty configuration under id.
func NewMachineConfig(id resource.ID) *MachineConfig {
	return typed.NewResource[MachineConfigSpec, machineConfigDefinition](resource.NewMetadata(Namespace, MachineConfigType, id, resource.VersionUndefined), MachineConfigSpec{})
}

// MachineTypeType is the resource type of MachineType.
const MachineTypeType = resource.Type("MachineTypes.config.talos.dev")

// MachineTypeID is the id of the one MachineType.
const MachineTypeID = resource.ID("machine-type")

// MachineType says what this node is for.
type MachineType = typed.Resource[MachineTypeSpec, machineTypeDefinition]

// MachineTypeSpec is the type as the configuration gives it.
type MachineTypeSpec struct {
	Type cluster.MachineType `protobuf:"1"`
}

// MarshalYAML shows the name alone.
func (s MachineTypeSpec) MarshalYAML() (any, error) { return s.Type.String(), nil }

// DeepCopy returns a copy that shares nothing with s.
func (s MachineTypeSpec) DeepCopy() MachineTypeSpec { return s }

type machineTypeDefinition struct{}

func (machineTypeDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             MachineTypeType,
		DefaultNamespace: Namespace,
		PrintColumns:     []meta.PrintColumn{{Name: "Type", JSONPath: "{@}"}},
	}
}

// NewMachineType returns the one MachineType.
func NewMachineType() *MachineType {
	return typed.NewResource[MachineTypeSpec, machineTypeDefinition](resource.NewMetadata(Namespace, MachineTypeType, MachineTypeID, resource.VersionUndefined), MachineTypeSpec{})
}
