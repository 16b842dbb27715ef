package block

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// DiscoveredVolumeType is the resource type of DiscoveredVolume.
const DiscoveredVolumeType = resource.Type("DiscoveredVolumes.block.talos.dev")

// DiscoveredVolume is what is on a disk or partition, under its name in the kernel.
type DiscoveredVolume = typed.Resource[DiscoveredVolumeSpec, discoveredVolumeDefinition]

// DiscoveredVolumeSpec is what its bytes say; Name is empty where nothing is recognised.
type DiscoveredVolumeSpec struct {
	DevPath             string `yaml:"dev_path" protobuf:"17"`
	Type                string `yaml:"type" protobuf:"14"`        // disk or partition
	DevicePath          string `yaml:"device_path" protobuf:"15"` // in sysfs
	Parent              string `yaml:"parent" protobuf:"16"`      // the disk of a partition
	ParentDevPath       string `yaml:"parent_dev_path" protobuf:"18"`
	Offset              uint64 `yaml:"offset" protobuf:"20"` // bytes from the start of the disk
	Size                uint64 `yaml:"size" protobuf:"1"`    // bytes
	PrettySize          string `yaml:"pretty_size" protobuf:"19"`
	SectorSize          uint   `yaml:"sector_size" protobuf:"2"` // bytes
	IOSize              uint   `yaml:"io_size" protobuf:"3"`     // bytes
	Name                string `yaml:"name" protobuf:"4"`        // xfs, ext4, gpt, luks, …
	UUID                string `yaml:"uuid" protobuf:"5"`
	Label               string `yaml:"label" protobuf:"6"`
	BlockSize           uint32 `yaml:"block_size" protobuf:"7"`            // bytes
	FilesystemBlockSize uint32 `yaml:"filesystem_block_size" protobuf:"8"` // bytes
	ProbedSize          uint64 `yaml:"probed_size" protobuf:"9"`           // bytes that the contents cover
	PartitionUUID       string `yaml:"partition_uuid" protobuf:"10"`
	PartitionType       string `yaml:"partition_type" protobuf:"11"`
	PartitionLabel      string `yaml:"partition_label" protobuf:"12"`
	PartitionIndex      uint   `yaml:"partition_index" protobuf:"13"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s DiscoveredVolumeSpec) DeepCopy() DiscoveredVolumeSpec { return object.Clone(s) }

type discoveredVolumeDefinition struct{}

func (discoveredVolumeDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             DiscoveredVolumeType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Type", JSONPath: `{.type}`},
			{Name: "Size", JSONPath: `{.pretty_size}`},
			{Name: "Discovered", JSONPath: `{.name}`},
			{Name: "Label", JSONPath: `{.label}`},
			{Name: "PartitionLabel", JSONPath: `{.partition_label}`},
		},
	}
}

// NewDiscoveredVolume returns an empty DiscoveredVolume under id.
func NewDiscoveredVolume(id resource.ID) *DiscoveredVolume {
	return typed.NewResource[DiscoveredVolumeSpec, discoveredVolumeDefinition](resource.NewMetadata(Namespace, DiscoveredVolumeType, id, resource.VersionUndefined), DiscoveredVolumeSpec{})
}

// DiscoveredVolumesStatusType is the resource type of DiscoveredVolumesStatus.
const DiscoveredVolumesStatusType = resource.Type("DiscoveredVolumesStatuses.block.talos.dev")

// DiscoveredVolumesStatus is whether DiscoveredVolumes tell of all disks.
type DiscoveredVolumesStatus = typed.Resource[DiscoveredVolumesStatusSpec, discoveredVolumesStatusDefinition]

// DiscoveredVolumesStatusSpec is ready when every disk that was there has been looked at.
type DiscoveredVolumesStatusSpec struct {
	Ready bool `yaml:"ready" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s DiscoveredVolumesStatusSpec) DeepCopy() DiscoveredVolumesStatusSpec { return object.Clone(s) }

type discoveredVolumesStatusDefinition struct{}

func (discoveredVolumesStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             DiscoveredVolumesStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Ready", JSONPath: `{.ready}`},
		},
	}
}

// NewDiscoveredVolumesStatus returns an empty DiscoveredVolumesStatus under id.
func NewDiscoveredVolumesStatus(id resource.ID) *DiscoveredVolumesStatus {
	return typed.NewResource[DiscoveredVolumesStatusSpec, discoveredVolumesStatusDefinition](resource.NewMetadata(Namespace, DiscoveredVolumesStatusType, id, resource.VersionUndefined), DiscoveredVolumesStatusSpec{})
}

// DiscoveryRefreshRequestType is the resource type of DiscoveryRefreshRequest.
const DiscoveryRefreshRequestType = resource.Type("DiscoveryRefreshRequests.block.talos.dev")

// DiscoveryRefreshRequest is the wish to have all disks looked at again.
type DiscoveryRefreshRequest = typed.Resource[DiscoveryRefreshRequestSpec, discoveryRefreshRequestDefinition]

// DiscoveryRefreshRequestSpec counts the wishes.
type DiscoveryRefreshRequestSpec struct {
	Request int `yaml:"request" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s DiscoveryRefreshRequestSpec) DeepCopy() DiscoveryRefreshRequestSpec { return object.Clone(s) }

type discoveryRefreshRequestDefinition struct{}

func (discoveryRefreshRequestDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             DiscoveryRefreshRequestType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Request", JSONPath: `{.request}`},
		},
	}
}

// NewDiscoveryRefreshRequest returns an empty DiscoveryRefreshRequest under id.
func NewDiscoveryRefreshRequest(id resource.ID) *DiscoveryRefreshRequest {
	return typed.NewResource[DiscoveryRefreshRequestSpec, discoveryRefreshRequestDefinition](resource.NewMetadata(Namespace, DiscoveryRefreshRequestType, id, resource.VersionUndefined), DiscoveryRefreshRequestSpec{})
}

// DiscoveryRefreshStatusType is the resource type of DiscoveryRefreshStatus.
const DiscoveryRefreshStatusType = resource.Type("DiscoveryRefreshStatuses.block.talos.dev")

// DiscoveryRefreshStatus is the answer to a DiscoveryRefreshRequest.
type DiscoveryRefreshStatus = typed.Resource[DiscoveryRefreshStatusSpec, discoveryRefreshStatusDefinition]

// DiscoveryRefreshStatusSpec is the last request that was done.
type DiscoveryRefreshStatusSpec struct {
	Request int `yaml:"request" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s DiscoveryRefreshStatusSpec) DeepCopy() DiscoveryRefreshStatusSpec { return object.Clone(s) }

type discoveryRefreshStatusDefinition struct{}

func (discoveryRefreshStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             DiscoveryRefreshStatusType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Request", JSONPath: `{.request}`},
		},
	}
}

// NewDiscoveryRefreshStatus returns an empty DiscoveryRefreshStatus under id.
func NewDiscoveryRefreshStatus(id resource.ID) *DiscoveryRefreshStatus {
	return typed.NewResource[DiscoveryRefreshStatusSpec, discoveryRefreshStatusDefinition](resource.NewMetadata(Namespace, DiscoveryRefreshStatusType, id, resource.VersionUndefined), DiscoveryRefreshStatusSpec{})
}

// SymlinkType is the resource type of Symlink.
const SymlinkType = resource.Type("BlockSymlinks.block.talos.dev")

// Symlink is the names of a block device below /dev, under its name in the kernel.
type Symlink = typed.Resource[SymlinkSpec, symlinkDefinition]

// SymlinkSpec lists whole paths.
type SymlinkSpec struct {
	Paths []string `yaml:"paths" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s SymlinkSpec) DeepCopy() SymlinkSpec { return object.Clone(s) }

type symlinkDefinition struct{}

func (symlinkDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             SymlinkType,
		DefaultNamespace: Namespace,
	}
}

// NewSymlink returns an empty Symlink under id.
func NewSymlink(id resource.ID) *Symlink {
	return typed.NewResource[SymlinkSpec, symlinkDefinition](resource.NewMetadata(Namespace, SymlinkType, id, resource.VersionUndefined), SymlinkSpec{})
}

// SystemDiskType is the resource type of SystemDisk.
const SystemDiskType = resource.Type("SystemDisks.block.talos.dev")

// SystemDisk is the disk that the system is installed on, if it is.
type SystemDisk = typed.Resource[SystemDiskSpec, systemDiskDefinition]

// SystemDiskSpec names the disk.
type SystemDiskSpec struct {
	DiskID  string `yaml:"diskID" protobuf:"1"` // the disk's name in the kernel
	DevPath string `yaml:"devPath" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s SystemDiskSpec) DeepCopy() SystemDiskSpec { return object.Clone(s) }

type systemDiskDefinition struct{}

func (systemDiskDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             SystemDiskType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Disk", JSONPath: `{.diskID}`},
		},
	}
}

// NewSystemDisk returns an empty SystemDisk under id.
func NewSystemDisk(id resource.ID) *SystemDisk {
	return typed.NewResource[SystemDiskSpec, systemDiskDefinition](resource.NewMetadata(Namespace, SystemDiskType, id, resource.VersionUndefined), SystemDiskSpec{})
}
