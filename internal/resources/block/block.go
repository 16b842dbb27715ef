// Package block holds disks, partitions and what is on them, as they are.
package block

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("runtime")

// Ids of resources of which there is one.
const (
	DiscoveredVolumesStatusID = resource.ID("discovered-volumes")
	RefreshID                 = resource.ID("refresh")
	SystemDiskID              = resource.ID("system-disk")
)

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewDevice("")),
		object.Define(NewDisk("")),
		object.Define(NewDiscoveredVolume("")),
		object.Define(NewDiscoveredVolumesStatus("")),
		object.Define(NewDiscoveryRefreshRequest("")),
		object.Define(NewDiscoveryRefreshStatus("")),
		object.Define(NewSymlink("")),
		object.Define(NewSystemDisk("")),
	}
}

// DeviceType is the resource type of Device.
const DeviceType = resource.Type("BlockDevices.block.talos.dev")

// Device is a block device that the kernel has, under its name there.
type Device = typed.Resource[DeviceSpec, deviceDefinition]

// DeviceSpec is where the device stands among others.
type DeviceSpec struct {
	// disk or partition
	Type            string   `yaml:"type" protobuf:"1"`
	Major           int      `yaml:"major" protobuf:"2"`
	Minor           int      `yaml:"minor" protobuf:"3"`
	PartitionName   string   `yaml:"partitionName" protobuf:"4"` // in the disk's table
	PartitionNumber int      `yaml:"partitionNumber" protobuf:"5"`
	DevicePath      string   `yaml:"devicePath" protobuf:"7"`  // in sysfs
	Generation      int      `yaml:"generation" protobuf:"6"`  // counts what happened to it
	Parent          string   `yaml:"parent" protobuf:"8"`      // the disk of a partition
	Secondaries     []string `yaml:"secondaries" protobuf:"9"` // devices that it is made of
}

// DeepCopy returns a copy that shares nothing with s.
func (s DeviceSpec) DeepCopy() DeviceSpec { return object.Clone(s) }

type deviceDefinition struct{}

func (deviceDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             DeviceType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Type", JSONPath: `{.type}`},
			{Name: "PartitionName", JSONPath: `{.partitionName}`},
			{Name: "Generation", JSONPath: `{.generation}`},
		},
	}
}

// NewDevice returns an empty Device under id.
func NewDevice(id resource.ID) *Device {
	return typed.NewResource[DeviceSpec, deviceDefinition](resource.NewMetadata(Namespace, DeviceType, id, resource.VersionUndefined), DeviceSpec{})
}

// DiskType is the resource type of Disk.
const DiskType = resource.Type("Disks.block.talos.dev")

// Disk is a block device that is no partition, under its name in the kernel.
type Disk = typed.Resource[DiskSpec, diskDefinition]

// DiskSpec is the disk as the kernel describes it; what the hardware does not tell is empty.
type DiskSpec struct {
	DevPath         string   `yaml:"dev_path" protobuf:"14"`
	Size            uint64   `yaml:"size" protobuf:"1"` // bytes
	PrettySize      string   `yaml:"pretty_size" protobuf:"15"`
	IOSize          uint     `yaml:"io_size" protobuf:"2"`     // bytes
	SectorSize      uint     `yaml:"sector_size" protobuf:"3"` // bytes
	Readonly        bool     `yaml:"readonly" protobuf:"4"`
	CDROM           bool     `yaml:"cdrom" protobuf:"13"`
	Model           string   `yaml:"model" protobuf:"5"`
	FirmwareVersion string   `yaml:"firmware_version" protobuf:"19"`
	Serial          string   `yaml:"serial" protobuf:"6"`
	Modalias        string   `yaml:"modalias" protobuf:"7"`
	WWID            string   `yaml:"wwid" protobuf:"8"`
	UUID            string   `yaml:"uuid" protobuf:"17"`
	BusPath         string   `yaml:"bus_path" protobuf:"9"`
	SubSystem       string   `yaml:"sub_system" protobuf:"10"`
	Transport       string   `yaml:"transport" protobuf:"11"` // nvme, sata, usb, virtio, …; empty for what is no hardware
	Rotational      bool     `yaml:"rotational" protobuf:"12"`
	SecondaryDisks  []string `yaml:"secondary_disks" protobuf:"16"` // devices that it is made of
	Symlinks        []string `yaml:"symlinks" protobuf:"18"`        // below /dev
}

// DeepCopy returns a copy that shares nothing with s.
func (s DiskSpec) DeepCopy() DiskSpec { return object.Clone(s) }

type diskDefinition struct{}

func (diskDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             DiskType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Size", JSONPath: `{.pretty_size}`},
			{Name: "Read Only", JSONPath: `{.readonly}`},
			{Name: "Transport", JSONPath: `{.transport}`},
			{Name: "Rotational", JSONPath: `{.rotational}`},
			{Name: "WWID", JSONPath: `{.wwid}`},
			{Name: "Model", JSONPath: `{.model}`},
			{Name: "Serial", JSONPath: `{.serial}`},
		},
	}
}

// NewDisk returns an empty Disk under id.
func NewDisk(id resource.ID) *Disk {
	return typed.NewResource[DiskSpec, diskDefinition](resource.NewMetadata(Namespace, DiskType, id, resource.VersionUndefined), DiskSpec{})
}
