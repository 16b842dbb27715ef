package runtime

import (
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// BootRecordType is the resource type of BootRecord.
const BootRecordType = resource.Type("BootRecords.runtime.talos.dev")

// BootRecord is one of the node's last boots, under its number.
type BootRecord = typed.Resource[BootRecordSpec, bootRecordDefinition]

// BootRecordSpec says how a boot ended. Its logs are read with `--boot`.
type BootRecordSpec struct {
	Boot    int32     `yaml:"boot" protobuf:"1"` // 0 is the one under way, -1 the one before
	BootID  string    `yaml:"bootID" protobuf:"2"`
	Version string    `yaml:"version" protobuf:"3"`
	Started time.Time `yaml:"started" protobuf:"4"`
	Ended   string    `yaml:"ended" protobuf:"5"` // "" for the one under way
}

// DeepCopy returns a copy that shares nothing with s.
func (s BootRecordSpec) DeepCopy() BootRecordSpec { return object.Clone(s) }

type bootRecordDefinition struct{}

func (bootRecordDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             BootRecordType,
		Aliases:          []resource.Type{"boots"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Boot", JSONPath: `{.boot}`},
			{Name: "Started", JSONPath: `{.started}`},
			{Name: "OS", JSONPath: `{.version}`},
			{Name: "Ended", JSONPath: `{.ended}`},
		},
	}
}

// NewBootRecord returns an empty BootRecord under id.
func NewBootRecord(id resource.ID) *BootRecord {
	return typed.NewResource[BootRecordSpec, bootRecordDefinition](resource.NewMetadata(Namespace, BootRecordType, id, resource.VersionUndefined), BootRecordSpec{})
}
