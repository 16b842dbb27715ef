// Package timesync holds the resources of the clock. timed writes them.
package timesync

import (
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("runtime")

// StatusID is the id of every resource of this family.
const StatusID = resource.ID("node")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewAdjtimeStatus("")),
		object.Define(NewNTPStatus("")),
		object.Define(NewTimeStatus("")),
	}
}

// AdjtimeStatusType is the resource type of AdjtimeStatus.
const AdjtimeStatusType = resource.Type("AdjtimeStatuses.v1alpha1.talos.dev")

// AdjtimeStatus is the kernel's clock discipline, under StatusID.
type AdjtimeStatus = typed.Resource[AdjtimeStatusSpec, adjtimeStatusDefinition]

// AdjtimeStatusSpec is what adjtimex(2) reports.
type AdjtimeStatusSpec struct {
	Offset                   time.Duration `yaml:"offset" protobuf:"1"`
	FrequencyAdjustmentRatio float64       `yaml:"frequencyAdjustmentRatio" protobuf:"2"`
	MaxError                 time.Duration `yaml:"maxError" protobuf:"3"`
	EstError                 time.Duration `yaml:"estError" protobuf:"4"`
	Status                   string        `yaml:"status" protobuf:"5"`
	Constant                 int           `yaml:"constant" protobuf:"6"`
	SyncStatus               bool          `yaml:"syncStatus" protobuf:"7"`
	State                    string        `yaml:"state" protobuf:"8"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s AdjtimeStatusSpec) DeepCopy() AdjtimeStatusSpec { return object.Clone(s) }

type adjtimeStatusDefinition struct{}

func (adjtimeStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             AdjtimeStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Offset", JSONPath: `{.offset}`},
			{Name: "EstError", JSONPath: `{.estError}`},
			{Name: "MaxError", JSONPath: `{.maxError}`},
			{Name: "Status", JSONPath: `{.status}`},
			{Name: "Sync", JSONPath: `{.syncStatus}`},
		},
	}
}

// NewAdjtimeStatus returns an empty AdjtimeStatus under id.
func NewAdjtimeStatus(id resource.ID) *AdjtimeStatus {
	return typed.NewResource[AdjtimeStatusSpec, adjtimeStatusDefinition](resource.NewMetadata(Namespace, AdjtimeStatusType, id, resource.VersionUndefined), AdjtimeStatusSpec{})
}

// NTPStatusType is the resource type of NTPStatus.
const NTPStatusType = resource.Type("NTPStatuses.v1alpha1.talos.dev")

// NTPStatus tells of measurements that were not believed, under StatusID.
type NTPStatus = typed.Resource[NTPStatusSpec, nTPStatusDefinition]

// NTPStatusSpec counts answers in a row that lie far from the ones before.
type NTPStatusSpec struct {
	SpikeDetected     bool `yaml:"spikeDetected" protobuf:"1"`
	ConsecutiveSpikes int  `yaml:"consecutiveSpikes" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s NTPStatusSpec) DeepCopy() NTPStatusSpec { return object.Clone(s) }

type nTPStatusDefinition struct{}

func (nTPStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             NTPStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Spike Detected", JSONPath: `{.spikeDetected}`},
			{Name: "Consecutive Spikes", JSONPath: `{.consecutiveSpikes}`},
		},
	}
}

// NewNTPStatus returns an empty NTPStatus under id.
func NewNTPStatus(id resource.ID) *NTPStatus {
	return typed.NewResource[NTPStatusSpec, nTPStatusDefinition](resource.NewMetadata(Namespace, NTPStatusType, id, resource.VersionUndefined), NTPStatusSpec{})
}

// TimeStatusType is the resource type of TimeStatus.
const TimeStatusType = resource.Type("TimeStatuses.v1alpha1.talos.dev")

// TimeStatus says whether the node's clock can be relied on, under StatusID.
type TimeStatus = typed.Resource[TimeStatusSpec, timeStatusDefinition]

// TimeStatusSpec has Synced also where the clock is not ours to set (a container's is the host's) or synchronisation is disabled; Epoch counts the steps of the clock.
type TimeStatusSpec struct {
	Synced       bool `yaml:"synced" protobuf:"1"`
	Epoch        int  `yaml:"epoch" protobuf:"2"`
	SyncDisabled bool `yaml:"syncDisabled" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s TimeStatusSpec) DeepCopy() TimeStatusSpec { return object.Clone(s) }

type timeStatusDefinition struct{}

func (timeStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             TimeStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Synced", JSONPath: `{.synced}`},
		},
	}
}

// NewTimeStatus returns an empty TimeStatus under id.
func NewTimeStatus(id resource.ID) *TimeStatus {
	return typed.NewResource[TimeStatusSpec, timeStatusDefinition](resource.NewMetadata(Namespace, TimeStatusType, id, resource.VersionUndefined), TimeStatusSpec{})
}
