// Package v1alpha1 holds the resources that are as old as the first interface
// of this system: services. The supervisor (package service) writes them.
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

// Service is a service of the node, under its id.
type Service = typed.Resource[ServiceSpec, serviceDefinition]

// ServiceSpec is how the service does. One that is not running is neither
// healthy nor, once it has run, worth waiting for.
type ServiceSpec struct {
	// Running says that the program runs.
	Running bool `yaml:"running" protobuf:"1"`
	// Healthy says that it runs and its last health checks were good; a service
	// without checks is healthy while it runs.
	Healthy bool `yaml:"healthy" protobuf:"2"`
	// Unknown says that its health was not measured yet since it started.
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
