// Package runtime holds what is known of the machine as such: the stage of its
// life and whether it is ready, its mounts, kernel parameters, platform, version.
package runtime

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
		object.Define(NewBootID("")),
		object.Define(NewBootRecord("")),
		object.Define(NewCertificateStatus("")),
		object.Define(NewDiagnostic("")),
		object.Define(NewEnvironment("")),
		object.Define(NewKernelCmdline("")),
		object.Define(NewKernelModuleSpec("")),
		object.Define(NewKernelModuleStatus("")),
		object.Define(NewMachineStatus("")),
		object.Define(NewMaintenanceServiceRequest("")),
		object.Define(NewMetaKey("")),
		object.Define(NewMountStatus("")),
		object.Define(NewPlatformMetadata("")),
		object.Define(NewSecurityState("")),
		object.Define(NewVersion("")),
		object.Define(NewWatchdogTimerConfig("")),
		object.Define(NewWatchdogTimerStatus("")),
		object.Define(NewKernelParamSpec("")),
		object.Define(NewKernelParamStatus("")),
	}
}

// BootIDType is the resource type of BootID.
const BootIDType = resource.Type("BootIDs.runtime.talos.dev")

// BootID tells one run of the machine from the next.
type BootID = typed.Resource[BootIDSpec, bootIDDefinition]

// BootIDSpec is the kernel's random id of this boot; in a container machined makes
// one, because the kernel's is the host's.
type BootIDSpec struct {
	BootID string `yaml:"bootID" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s BootIDSpec) DeepCopy() BootIDSpec { return object.Clone(s) }

type bootIDDefinition struct{}

func (bootIDDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             BootIDType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Boot ID", JSONPath: `{.bootID}`},
		},
	}
}

// NewBootID returns an empty BootID under id.
func NewBootID(id resource.ID) *BootID {
	return typed.NewResource[BootIDSpec, bootIDDefinition](resource.NewMetadata(Namespace, BootIDType, id, resource.VersionUndefined), BootIDSpec{})
}

// DiagnosticType is the resource type of Diagnostic.
const DiagnosticType = resource.Type("Diagnostics.runtime.talos.dev")

// Diagnostic is something a person should know about, under a short name, for as
// long as it is so.
type Diagnostic = typed.Resource[DiagnosticSpec, diagnosticDefinition]

// DisksID names the diagnostic of a machine of whose disks one can't be read: it
// is not known whether it has a configuration, and it takes none.
const DisksID = "disks"

// DiagnosticSpec says what is wrong in a line, with details below.
type DiagnosticSpec struct {
	Message string   `yaml:"message" protobuf:"1"`
	Details []string `yaml:"details" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s DiagnosticSpec) DeepCopy() DiagnosticSpec { return object.Clone(s) }

type diagnosticDefinition struct{}

func (diagnosticDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             DiagnosticType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Message", JSONPath: `{.message}`},
		},
	}
}

// NewDiagnostic returns an empty Diagnostic under id.
func NewDiagnostic(id resource.ID) *Diagnostic {
	return typed.NewResource[DiagnosticSpec, diagnosticDefinition](resource.NewMetadata(Namespace, DiagnosticType, id, resource.VersionUndefined), DiagnosticSpec{})
}

// EnvironmentType is the resource type of Environment.
const EnvironmentType = resource.Type("Environments.runtime.talos.dev")

// Environment is what machine.env adds to the environment of services.
type Environment = typed.Resource[EnvironmentSpec, environmentDefinition]

// EnvironmentSpec lists variables as NAME=value.
type EnvironmentSpec struct {
	Variables []string `yaml:"variables" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EnvironmentSpec) DeepCopy() EnvironmentSpec { return object.Clone(s) }

type environmentDefinition struct{}

func (environmentDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EnvironmentType,
		Aliases:          []resource.Type{"env"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Variables", JSONPath: `{.variables}`},
		},
	}
}

// NewEnvironment returns an empty Environment under id.
func NewEnvironment(id resource.ID) *Environment {
	return typed.NewResource[EnvironmentSpec, environmentDefinition](resource.NewMetadata(Namespace, EnvironmentType, id, resource.VersionUndefined), EnvironmentSpec{})
}

// KernelCmdlineType is the resource type of KernelCmdline.
const KernelCmdlineType = resource.Type("KernelCmdlines.runtime.talos.dev")

// KernelCmdline is the kernel's command line.
type KernelCmdline = typed.Resource[KernelCmdlineSpec, kernelCmdlineDefinition]

// KernelCmdlineSpec is the command line as the kernel shows it.
type KernelCmdlineSpec struct {
	Cmdline string `yaml:"cmdline" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KernelCmdlineSpec) DeepCopy() KernelCmdlineSpec { return object.Clone(s) }

type kernelCmdlineDefinition struct{}

func (kernelCmdlineDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KernelCmdlineType,
		Aliases:          []resource.Type{"cmdline"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Cmdline", JSONPath: `{.cmdline}`},
		},
	}
}

// NewKernelCmdline returns an empty KernelCmdline under id.
func NewKernelCmdline(id resource.ID) *KernelCmdline {
	return typed.NewResource[KernelCmdlineSpec, kernelCmdlineDefinition](resource.NewMetadata(Namespace, KernelCmdlineType, id, resource.VersionUndefined), KernelCmdlineSpec{})
}

// MachineStatusType is the resource type of MachineStatus.
const MachineStatusType = resource.Type("MachineStatuses.runtime.talos.dev")

// MachineStatus is where the machine is in its life and whether it does what it
// is for. There is one, "machine".
type MachineStatus = typed.Resource[MachineStatusSpec, machineStatusDefinition]

// MachineStatusSpec is stage and readiness.
type MachineStatusSpec struct {
	Stage MachineStage `yaml:"stage" protobuf:"1"`
	// Status judges by the stage: ready to be reached while waiting for a
	// configuration, ready for work when running.
	Status MachineStatusStatus `yaml:"status" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s MachineStatusSpec) DeepCopy() MachineStatusSpec { return object.Clone(s) }

type machineStatusDefinition struct{}

func (machineStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             MachineStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Stage", JSONPath: `{.stage}`},
			{Name: "Ready", JSONPath: `{.status.ready}`},
		},
	}
}

// NewMachineStatus returns an empty MachineStatus under id.
func NewMachineStatus(id resource.ID) *MachineStatus {
	return typed.NewResource[MachineStatusSpec, machineStatusDefinition](resource.NewMetadata(Namespace, MachineStatusType, id, resource.VersionUndefined), MachineStatusSpec{})
}

// MetaKeyType is the resource type of MetaKey.
const MetaKeyType = resource.Type("MetaKeys.runtime.talos.dev")

// MetaKey is a value on META, under its number in hexadecimal.
type MetaKey = typed.Resource[MetaKeySpec, metaKeyDefinition]

// MetaKeySpec is the value.
type MetaKeySpec struct {
	Value string `yaml:"value" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s MetaKeySpec) DeepCopy() MetaKeySpec { return object.Clone(s) }

type metaKeyDefinition struct{}

func (metaKeyDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             MetaKeyType,
		Aliases:          []resource.Type{"meta"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Value", JSONPath: `{.value}`},
		},
	}
}

// NewMetaKey returns an empty MetaKey under id.
func NewMetaKey(id resource.ID) *MetaKey {
	return typed.NewResource[MetaKeySpec, metaKeyDefinition](resource.NewMetadata(Namespace, MetaKeyType, id, resource.VersionUndefined), MetaKeySpec{})
}

// MountStatusType is the resource type of MountStatus.
const MountStatusType = resource.Type("MountStatuses.runtime.talos.dev")

// MountStatus is a volume of the node that is mounted, under its name.
type MountStatus = typed.Resource[MountStatusSpec, mountStatusDefinition]

// MountStatusSpec is how it is mounted.
type MountStatusSpec struct {
	Source         string   `yaml:"source" protobuf:"1"`
	Target         string   `yaml:"target" protobuf:"2"`
	FilesystemType string   `yaml:"filesystemType" protobuf:"3"`
	Options        []string `yaml:"options" protobuf:"4"`
	// Encrypted names volumes under dm-crypt, with the kinds of their keys.
	Encrypted           bool     `yaml:"encrypted" protobuf:"5"`
	EncryptionProviders []string `yaml:"encryptionProviders" protobuf:"6"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s MountStatusSpec) DeepCopy() MountStatusSpec { return object.Clone(s) }

type mountStatusDefinition struct{}

func (mountStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             MountStatusType,
		Aliases:          []resource.Type{"mounts"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Source", JSONPath: `{.source}`},
			{Name: "Target", JSONPath: `{.target}`},
			{Name: "Filesystem Type", JSONPath: `{.filesystemType}`},
		},
	}
}

// NewMountStatus returns an empty MountStatus under id.
func NewMountStatus(id resource.ID) *MountStatus {
	return typed.NewResource[MountStatusSpec, mountStatusDefinition](resource.NewMetadata(Namespace, MountStatusType, id, resource.VersionUndefined), MountStatusSpec{})
}

// PlatformMetadataType is the resource type of PlatformMetadata.
const PlatformMetadataType = resource.Type("PlatformMetadatas.talos.dev")

// PlatformMetadata is what the platform says about the machine.
type PlatformMetadata = typed.Resource[PlatformMetadataSpec, platformMetadataDefinition]

// PlatformMetadataSpec names the platform and the machine as that knows it; what
// it does not tell is empty.
type PlatformMetadataSpec struct {
	Platform     string            `yaml:"platform" protobuf:"1"`
	Hostname     string            `yaml:"hostname" protobuf:"2"`
	Region       string            `yaml:"region" protobuf:"3"`
	Zone         string            `yaml:"zone" protobuf:"4"`
	InstanceType string            `yaml:"instanceType" protobuf:"5"`
	InstanceID   string            `yaml:"instanceId" protobuf:"6"`
	ProviderID   string            `yaml:"providerId" protobuf:"7"`
	Spot         bool              `yaml:"spot" protobuf:"8"`
	InternalDNS  string            `yaml:"internalDNS" protobuf:"9"`
	ExternalDNS  string            `yaml:"externalDNS" protobuf:"10"`
	Tags         map[string]string `yaml:"tags" protobuf:"11"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s PlatformMetadataSpec) DeepCopy() PlatformMetadataSpec { return object.Clone(s) }

type platformMetadataDefinition struct{}

func (platformMetadataDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             PlatformMetadataType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Platform", JSONPath: `{.platform}`},
			{Name: "Type", JSONPath: `{.instanceType}`},
			{Name: "Region", JSONPath: `{.region}`},
			{Name: "Zone", JSONPath: `{.zone}`},
		},
	}
}

// NewPlatformMetadata returns an empty PlatformMetadata under id.
func NewPlatformMetadata(id resource.ID) *PlatformMetadata {
	return typed.NewResource[PlatformMetadataSpec, platformMetadataDefinition](resource.NewMetadata(Namespace, PlatformMetadataType, id, resource.VersionUndefined), PlatformMetadataSpec{})
}

// VersionType is the resource type of Version.
const VersionType = resource.Type("Versions.runtime.talos.dev")

// Version is what runs here. There is one, "version".
type Version = typed.Resource[VersionSpec, versionDefinition]

// VersionSpec is the system's name and version.
type VersionSpec struct {
	Name    string `yaml:"name" protobuf:"2"`
	Version string `yaml:"version" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s VersionSpec) DeepCopy() VersionSpec { return object.Clone(s) }

type versionDefinition struct{}

func (versionDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             VersionType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Name", JSONPath: `{.name}`},
			{Name: "Version", JSONPath: `{.version}`},
		},
	}
}

// NewVersion returns an empty Version under id.
func NewVersion(id resource.ID) *Version {
	return typed.NewResource[VersionSpec, versionDefinition](resource.NewMetadata(Namespace, VersionType, id, resource.VersionUndefined), VersionSpec{})
}

// KernelParamSpecType is the resource type of KernelParamSpec.
const KernelParamSpecType = resource.Type("KernelParamSpecs.runtime.talos.dev")

// KernelParamSpec is a kernel parameter that is wanted, under its full name such
// as proc.sys.net.ipv4.ip_forward.
type KernelParamSpec = typed.Resource[KernelParamSpecSpec, kernelParamSpecDefinition]

// KernelParamSpecSpec is its value.
type KernelParamSpecSpec struct {
	Value string `yaml:"value" protobuf:"1"`
	// IgnoreErrors: a kernel without the parameter is no error.
	IgnoreErrors bool `yaml:"ignoreErrors" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KernelParamSpecSpec) DeepCopy() KernelParamSpecSpec { return object.Clone(s) }

type kernelParamSpecDefinition struct{}

func (kernelParamSpecDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KernelParamSpecType,
		DefaultNamespace: Namespace,
	}
}

// NewKernelParamSpec returns an empty KernelParamSpec under id.
func NewKernelParamSpec(id resource.ID) *KernelParamSpec {
	return typed.NewResource[KernelParamSpecSpec, kernelParamSpecDefinition](resource.NewMetadata(Namespace, KernelParamSpecType, id, resource.VersionUndefined), KernelParamSpecSpec{})
}

// KernelParamStatusType is the resource type of KernelParamStatus.
const KernelParamStatusType = resource.Type("KernelParamStatuses.runtime.talos.dev")

// KernelParamStatus is a kernel parameter that was set, under the id of its spec.
type KernelParamStatus = typed.Resource[KernelParamStatusSpec, kernelParamStatusDefinition]

// KernelParamStatusSpec is what it is now, and what it was before.
type KernelParamStatusSpec struct {
	Current string `yaml:"current" protobuf:"1"`
	Default string `yaml:"default" protobuf:"2"`
	// Unsupported says that the kernel does not have it.
	Unsupported bool `yaml:"unsupported" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KernelParamStatusSpec) DeepCopy() KernelParamStatusSpec { return object.Clone(s) }

type kernelParamStatusDefinition struct{}

func (kernelParamStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KernelParamStatusType,
		Aliases:          []resource.Type{"sysctls", "kernelparameters", "kernelparams"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Current", JSONPath: `{.current}`},
			{Name: "Default", JSONPath: `{.default}`},
			{Name: "Unsupported", JSONPath: `{.unsupported}`},
		},
	}
}

// NewKernelParamStatus returns an empty KernelParamStatus under id.
func NewKernelParamStatus(id resource.ID) *KernelParamStatus {
	return typed.NewResource[KernelParamStatusSpec, kernelParamStatusDefinition](resource.NewMetadata(Namespace, KernelParamStatusType, id, resource.VersionUndefined), KernelParamStatusSpec{})
}

// MachineStatusStatus says whether the machine is ready, and if not, why.
type MachineStatusStatus struct {
	Ready           bool             `yaml:"ready" protobuf:"1"`
	UnmetConditions []UnmetCondition `yaml:"unmetConditions" protobuf:"2"`
}

// UnmetCondition is a reason for not being ready.
type UnmetCondition struct {
	Name   string `yaml:"name" protobuf:"1"`
	Reason string `yaml:"reason" protobuf:"2"`
}

// MachineStage is where a machine is in its life.
type MachineStage int32

// The stages, with the wire's numbers.
const (
	StageUnknown MachineStage = iota
	StageBooting
	StageInstalling
	StageMaintenance
	StageRunning
	StageRebooting
	StageShuttingDown
	StageResetting
	StageUpgrading
)

var stageNames = [...]string{"unknown", "booting", "installing", "maintenance", "running", "rebooting", "shutting down", "resetting", "upgrading"}

// String names the stage.
func (s MachineStage) String() string {
	if s < 0 || int(s) >= len(stageNames) {
		return stageNames[StageUnknown]
	}
	return stageNames[s]
}

// MarshalText gives the name.
func (s MachineStage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a name.
func (s *MachineStage) UnmarshalText(text []byte) error {
	for i, name := range stageNames {
		if name == string(text) {
			*s = MachineStage(i)
		}
	}
	return nil
}
