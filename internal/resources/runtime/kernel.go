package runtime

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// KernelModuleType says how a module is there.
type KernelModuleType int32

// The types of modules. The kernel of a node can load none.
const (
	ModuleUnknown KernelModuleType = iota
	ModuleBuiltin
	ModuleDynamic
)

// KernelModuleState is what a module does.
type KernelModuleState int32

// The states of modules.
const (
	ModuleLive KernelModuleState = iota
	ModuleLoading
	ModuleUnloading
	ModuleStateBuiltin
)

var (
	moduleTypes  = [...]string{ModuleUnknown: "unknown", ModuleBuiltin: "builtin", ModuleDynamic: "dynamic"}
	moduleStates = [...]string{ModuleLive: "live", ModuleLoading: "loading", ModuleUnloading: "unloading", ModuleStateBuiltin: "builtin"}
)

func enumName[T ~int32](names []string, v T) string {
	if v < 0 || int(v) >= len(names) {
		return strconv.Itoa(int(v))
	}
	return names[v]
}

func parseEnum[T ~int32](names []string, v *T, text []byte) error {
	i := slices.Index(names, string(text))
	if i < 0 {
		return fmt.Errorf("%q is not a known %T", text, *v)
	}
	*v = T(i)
	return nil
}

// MarshalText gives the name.
func (t KernelModuleType) MarshalText() ([]byte, error) {
	return []byte(enumName(moduleTypes[:], t)), nil
}

// UnmarshalText reads the name.
func (t *KernelModuleType) UnmarshalText(text []byte) error {
	return parseEnum(moduleTypes[:], t, text)
}

// MarshalText gives the name.
func (s KernelModuleState) MarshalText() ([]byte, error) {
	return []byte(enumName(moduleStates[:], s)), nil
}

// UnmarshalText reads the name.
func (s *KernelModuleState) UnmarshalText(text []byte) error {
	return parseEnum(moduleStates[:], s, text)
}

// KernelModuleSpecType is the resource type of KernelModuleSpec.
const KernelModuleSpecType = resource.Type("KernelModuleSpecs.runtime.talos.dev")

// KernelModuleSpec is a module that the configuration asks for, under its name.
type KernelModuleSpec = typed.Resource[KernelModuleSpecSpec, kernelModuleSpecDefinition]

// KernelModuleSpecSpec is what is asked for.
type KernelModuleSpecSpec struct {
	Name       string   `yaml:"string" protobuf:"1"`
	Parameters []string `yaml:"parameters" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KernelModuleSpecSpec) DeepCopy() KernelModuleSpecSpec { return object.Clone(s) }

type kernelModuleSpecDefinition struct{}

func (kernelModuleSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KernelModuleSpecType,
		DefaultNamespace: Namespace,
	}
}

// NewKernelModuleSpec returns an empty KernelModuleSpec under id.
func NewKernelModuleSpec(id resource.ID) *KernelModuleSpec {
	return typed.NewResource[KernelModuleSpecSpec, kernelModuleSpecDefinition](resource.NewMetadata(Namespace, KernelModuleSpecType, id, resource.VersionUndefined), KernelModuleSpecSpec{})
}

// KernelModuleStatusType is the resource type of KernelModuleStatus.
const KernelModuleStatusType = resource.Type("KernelModuleStatuses.runtime.talos.dev")

// KernelModuleStatus is a module that the configuration asks for and the kernel
// has, under its name.
type KernelModuleStatus = typed.Resource[KernelModuleStatusSpec, kernelModuleStatusDefinition]

// KernelModuleStatusSpec is how the kernel has it; what is built in has no size and no references.
type KernelModuleStatusSpec struct {
	Type           KernelModuleType  `yaml:"type" protobuf:"1"`
	Size           int               `yaml:"size" protobuf:"2"`
	ReferenceCount int               `yaml:"referenceCount" protobuf:"3"`
	Dependencies   []string          `yaml:"dependencies" protobuf:"4"`
	State          KernelModuleState `yaml:"state" protobuf:"5"`
	Address        string            `yaml:"address" protobuf:"6"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KernelModuleStatusSpec) DeepCopy() KernelModuleStatusSpec { return object.Clone(s) }

type kernelModuleStatusDefinition struct{}

func (kernelModuleStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KernelModuleStatusType,
		Aliases:          []resource.Type{"module", "modules"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Type", JSONPath: `{.type}`},
			{Name: "State", JSONPath: `{.state}`},
		},
	}
}

// NewKernelModuleStatus returns an empty KernelModuleStatus under id.
func NewKernelModuleStatus(id resource.ID) *KernelModuleStatus {
	return typed.NewResource[KernelModuleStatusSpec, kernelModuleStatusDefinition](resource.NewMetadata(Namespace, KernelModuleStatusType, id, resource.VersionUndefined), KernelModuleStatusSpec{})
}
