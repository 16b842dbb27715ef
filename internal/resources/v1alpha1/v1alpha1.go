// Package v1alpha1 …
package v1alpha1

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("runtime")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewService("")),
	}
}

// ServiceType is the resource type of Service.
const ServiceType = resource.Type("Services.v1alpha1.talos.dev")

// Service …
type Service = typed.Resource[ServiceSpec, serviceDefinition]

// ServiceSpec …
type ServiceSpec struct {
	Running bool `yaml:"running" protobuf:"1"`
	Healthy bool `yaml:"healthy" protobuf:"2"`
	Unknown bool `yaml:"unknown" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ServiceSpec) DeepCopy() ServiceSpec { return object.Clone(s) }

type serviceDefinition struct{}

func (serviceDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ServiceType,
		Aliases:          []resource.Type{"svc"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Running", JSONPath: `{.running}`},
			{Name: "Healthy", JSONPath: `{.healthy}`},
			{Name: "Health Unknown", JSONPath: `{.unknown}`},
		},
	}
}

// NewService returns an empty Service under id.
func NewService(id resource.ID) *Service {
	return typed.NewResource[ServiceSpec, serviceDefinition](resource.NewMetadata(Namespace, ServiceType, id, resource.VersionUndefined), ServiceSpec{})
}
