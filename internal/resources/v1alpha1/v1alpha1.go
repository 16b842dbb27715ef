// Package v1alpha1 holds the resources that are as old as the first interface
// of this system: services, which the supervisor (package service) writes, and
// how the machine gets its configuration, which package acquire writes.
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
		object.Define(NewAcquireConfigStatus()),
		object.Define(NewService("")),
	}
}

// AcquireConfigStatusType is the resource type of AcquireConfigStatus.
const AcquireConfigStatusType = resource.Type("AcquireConfigStatuses.v1alpha1.talos.dev")

// AcquireConfigStatusID is the id of the one AcquireConfigStatus.
const AcquireConfigStatusID = resource.ID("acquire")

// AcquireConfigStatus is how far the machine is on its way to a configuration.
type AcquireConfigStatus = typed.Resource[AcquireConfigStatusSpec, acquireConfigStatusDefinition]

// AcquireConfigStatusSpec says in Message, on a line, what the machine has or
// what it waits for.
type AcquireConfigStatusSpec struct {
	// Stage is one of reading, asking, waiting, maintenance, configured.
	Stage    string   `yaml:"stage" protobuf:"1000"`
	Platform string   `yaml:"platform" protobuf:"1001"`
	Message  string   `yaml:"message" protobuf:"1002"`
	Tries    int      `yaml:"tries,omitempty" protobuf:"1003"`    // how often the platform was asked
	Problems []string `yaml:"problems,omitempty" protobuf:"1004"` // of the document that was got last
}

// DeepCopy returns a copy that shares nothing with s.
func (s AcquireConfigStatusSpec) DeepCopy() AcquireConfigStatusSpec { return object.Clone(s) }

type acquireConfigStatusDefinition struct{}

func (acquireConfigStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             AcquireConfigStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Stage", JSONPath: `{.stage}`},
			{Name: "Message", JSONPath: `{.message}`},
		},
	}
}

// NewAcquireConfigStatus returns an empty AcquireConfigStatus.
func NewAcquireConfigStatus() *AcquireConfigStatus {
	return typed.NewResource[AcquireConfigStatusSpec, acquireConfigStatusDefinition](resource.NewMetadata(Namespace, AcquireConfigStatusType, AcquireConfigStatusID, resource.VersionUndefined), AcquireConfigStatusSpec{})
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
