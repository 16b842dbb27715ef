package runtime

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"
)

// MaintenanceServiceRequestType is the resource type of MaintenanceServiceRequest.
const MaintenanceServiceRequestType = resource.Type("MaintenanceServiceRequests.runtime.talos.dev")

// MaintenanceServiceRequestID is the id of the one there is.
const MaintenanceServiceRequestID = resource.ID("request")

// MaintenanceServiceRequest is there while the machine has never had a configuration and takes one over the
// API from whoever reaches it. Whoever keeps the configuration makes it, and removes it for good with the first one.
type MaintenanceServiceRequest = typed.Resource[MaintenanceServiceRequestSpec, maintenanceServiceRequestDefinition]

// MaintenanceServiceRequestSpec is empty: that it is there says it all.
type MaintenanceServiceRequestSpec struct{}

// DeepCopy returns a copy that shares nothing with s.
func (s MaintenanceServiceRequestSpec) DeepCopy() MaintenanceServiceRequestSpec { return s }

type maintenanceServiceRequestDefinition struct{}

func (maintenanceServiceRequestDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             MaintenanceServiceRequestType,
		DefaultNamespace: Namespace,
	}
}

// NewMaintenanceServiceRequest returns a MaintenanceServiceRequest under id.
func NewMaintenanceServiceRequest(id resource.ID) *MaintenanceServiceRequest {
	return typed.NewResource[MaintenanceServiceRequestSpec, maintenanceServiceRequestDefinition](resource.NewMetadata(Namespace, MaintenanceServiceRequestType, id, resource.VersionUndefined), MaintenanceServiceRequestSpec{})
}
