package runtime

import (
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// WatchdogTimerID is the id of the one WatchdogTimerConfig and its status.
const WatchdogTimerID = resource.ID("timer")

// WatchdogTimerConfigType is the resource type of WatchdogTimerConfig.
const WatchdogTimerConfigType = resource.Type("WatchdogTimerConfigs.runtime.talos.dev")

// WatchdogTimerConfig is what the configuration says of the machine's watchdog.
type WatchdogTimerConfig = typed.Resource[WatchdogTimerConfigSpec, watchdogTimerConfigDefinition]

// WatchdogTimerConfigSpec is machine.watchdog.
type WatchdogTimerConfigSpec struct {
	Device  string        `yaml:"device" protobuf:"1"`
	Timeout time.Duration `yaml:"timeout" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s WatchdogTimerConfigSpec) DeepCopy() WatchdogTimerConfigSpec { return object.Clone(s) }

type watchdogTimerConfigDefinition struct{}

func (watchdogTimerConfigDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             WatchdogTimerConfigType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Device", JSONPath: `{.device}`},
			{Name: "Timeout", JSONPath: `{.timeout}`},
		},
	}
}

// NewWatchdogTimerConfig returns an empty WatchdogTimerConfig under id.
func NewWatchdogTimerConfig(id resource.ID) *WatchdogTimerConfig {
	return typed.NewResource[WatchdogTimerConfigSpec, watchdogTimerConfigDefinition](resource.NewMetadata(Namespace, WatchdogTimerConfigType, id, resource.VersionUndefined), WatchdogTimerConfigSpec{})
}

// WatchdogTimerStatusType is the resource type of WatchdogTimerStatus.
const WatchdogTimerStatusType = resource.Type("WatchdogTimerStatuses.runtime.talos.dev")

// WatchdogTimerStatus is the machine's watchdog, where it has one.
type WatchdogTimerStatus = typed.Resource[WatchdogTimerStatusSpec, watchdogTimerStatusDefinition]

// WatchdogTimerStatusSpec is how the timer is set; a driver may know only some
// durations.
type WatchdogTimerStatusSpec struct {
	Device       string        `yaml:"device" protobuf:"1"`
	Timeout      time.Duration `yaml:"timeout" protobuf:"2"`
	FeedInterval time.Duration `yaml:"feedInterval" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s WatchdogTimerStatusSpec) DeepCopy() WatchdogTimerStatusSpec { return object.Clone(s) }

type watchdogTimerStatusDefinition struct{}

func (watchdogTimerStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             WatchdogTimerStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Device", JSONPath: `{.device}`},
			{Name: "Timeout", JSONPath: `{.timeout}`},
		},
	}
}

// NewWatchdogTimerStatus returns an empty WatchdogTimerStatus under id.
func NewWatchdogTimerStatus(id resource.ID) *WatchdogTimerStatus {
	return typed.NewResource[WatchdogTimerStatusSpec, watchdogTimerStatusDefinition](resource.NewMetadata(Namespace, WatchdogTimerStatusType, id, resource.VersionUndefined), WatchdogTimerStatusSpec{})
}
