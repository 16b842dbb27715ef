// Package hardware holds what a machine is made of, as firmware and buses tell.
package hardware

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("hardware")

// SystemInformationID is the id of the one SystemInformation.
const SystemInformationID = resource.ID("systeminformation")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewMemoryModule("")),
		object.Define(NewPCIDevice("")),
		object.Define(NewProcessor("")),
		object.Define(NewSystemInformation("")),
	}
}

// MemoryModuleType is the resource type of MemoryModule.
const MemoryModuleType = resource.Type("MemoryModules.hardware.talos.dev")

// MemoryModule is a slot for memory, under its name on the board.
type MemoryModule = typed.Resource[MemoryModuleSpec, memoryModuleDefinition]

// MemoryModuleSpec is what SMBIOS tells of it (type 17).
type MemoryModuleSpec struct {
	SizeMiB       uint32 `yaml:"sizeMiB" protobuf:"1"` // 0 is an empty slot
	DeviceLocator string `yaml:"deviceLocator" protobuf:"2"`
	BankLocator   string `yaml:"bankLocator" protobuf:"3"`
	Speed         uint32 `yaml:"speed" protobuf:"4"` // MT/s
	Manufacturer  string `yaml:"manufacturer" protobuf:"5"`
	SerialNumber  string `yaml:"serialNumber" protobuf:"6"`
	AssetTag      string `yaml:"assetTag" protobuf:"7"`
	ProductName   string `yaml:"productName" protobuf:"8"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s MemoryModuleSpec) DeepCopy() MemoryModuleSpec { return object.Clone(s) }

type memoryModuleDefinition struct{}

func (memoryModuleDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             MemoryModuleType,
		Aliases:          []resource.Type{"memorymodules", "ram"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Manufacturer", JSONPath: `{.manufacturer}`},
			{Name: "Model", JSONPath: `{.productName}`},
			{Name: "SizeMiB", JSONPath: `{.sizeMiB}`},
		},
	}
}

// NewMemoryModule returns an empty MemoryModule under id.
func NewMemoryModule(id resource.ID) *MemoryModule {
	return typed.NewResource[MemoryModuleSpec, memoryModuleDefinition](resource.NewMetadata(Namespace, MemoryModuleType, id, resource.VersionUndefined), MemoryModuleSpec{})
}

// PCIDeviceType is the resource type of PCIDevice.
const PCIDeviceType = resource.Type("PCIDevices.hardware.talos.dev")

// PCIDevice is a device on a PCI bus, under its address.
type PCIDevice = typed.Resource[PCIDeviceSpec, pciDeviceDefinition]

// PCIDeviceSpec is what the device says of itself. There is no table of vendors' names on a node.
type PCIDeviceSpec struct {
	Class      string `yaml:"class" protobuf:"1"`
	Subclass   string `yaml:"subclass" protobuf:"2"`
	Vendor     string `yaml:"vendor" protobuf:"3"`  // empty unless it is widely known
	Product    string `yaml:"product" protobuf:"4"` // empty
	ClassID    string `yaml:"class_id" protobuf:"5"`
	SubclassID string `yaml:"subclass_id" protobuf:"6"`
	VendorID   string `yaml:"vendor_id" protobuf:"7"`
	ProductID  string `yaml:"product_id" protobuf:"8"`
	Driver     string `yaml:"driver" protobuf:"9"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s PCIDeviceSpec) DeepCopy() PCIDeviceSpec { return object.Clone(s) }

type pciDeviceDefinition struct{}

func (pciDeviceDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             PCIDeviceType,
		Aliases:          []resource.Type{"devices", "device"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Class", JSONPath: `{.class}`},
			{Name: "Subclass", JSONPath: `{.subclass}`},
			{Name: "Vendor", JSONPath: `{.vendor}`},
			{Name: "Product", JSONPath: `{.product}`},
		},
	}
}

// NewPCIDevice returns an empty PCIDevice under id.
func NewPCIDevice(id resource.ID) *PCIDevice {
	return typed.NewResource[PCIDeviceSpec, pciDeviceDefinition](resource.NewMetadata(Namespace, PCIDeviceType, id, resource.VersionUndefined), PCIDeviceSpec{})
}

// ProcessorType is the resource type of Processor.
const ProcessorType = resource.Type("Processors.hardware.talos.dev")

// Processor is a socket for a processor, under its name on the board.
type Processor = typed.Resource[ProcessorSpec, processorDefinition]

// ProcessorSpec is what SMBIOS tells of it (type 4).
type ProcessorSpec struct {
	Socket       string `yaml:"socket" protobuf:"1"`
	Manufacturer string `yaml:"manufacturer" protobuf:"2"`
	ProductName  string `yaml:"productName" protobuf:"3"`
	MaxSpeedMhz  uint32 `yaml:"maxSpeedMhz" protobuf:"4"`
	BootSpeedMhz uint32 `yaml:"bootSpeedMhz" protobuf:"5"`
	Status       uint32 `yaml:"status" protobuf:"6"`
	SerialNumber string `yaml:"serialNumber" protobuf:"7"`
	AssetTag     string `yaml:"assetTag" protobuf:"8"`
	PartNumber   string `yaml:"partNumber" protobuf:"9"`
	CoreCount    uint32 `yaml:"coreCount" protobuf:"10"`
	CoreEnabled  uint32 `yaml:"coreEnabled" protobuf:"11"`
	ThreadCount  uint32 `yaml:"threadCount" protobuf:"12"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ProcessorSpec) DeepCopy() ProcessorSpec { return object.Clone(s) }

type processorDefinition struct{}

func (processorDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ProcessorType,
		Aliases:          []resource.Type{"cpus", "cpu"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Manufacturer", JSONPath: `{.manufacturer}`},
			{Name: "Model", JSONPath: `{.productName}`},
			{Name: "Cores", JSONPath: `{.coreCount}`},
			{Name: "Threads", JSONPath: `{.threadCount}`},
		},
	}
}

// NewProcessor returns an empty Processor under id.
func NewProcessor(id resource.ID) *Processor {
	return typed.NewResource[ProcessorSpec, processorDefinition](resource.NewMetadata(Namespace, ProcessorType, id, resource.VersionUndefined), ProcessorSpec{})
}

// SystemInformationType is the resource type of SystemInformation.
const SystemInformationType = resource.Type("SystemInformations.hardware.talos.dev")

// SystemInformation is the machine as its maker describes it.
type SystemInformation = typed.Resource[SystemInformationSpec, systemInformationDefinition]

// SystemInformationSpec is what SMBIOS tells of it (types 0 and 1).
type SystemInformationSpec struct {
	Manufacturer string `yaml:"manufacturer" protobuf:"1"`
	ProductName  string `yaml:"productName" protobuf:"2"`
	Version      string `yaml:"version" protobuf:"3"`
	BIOSVersion  string `yaml:"biosVersion" protobuf:"8"`
	SerialNumber string `yaml:"serialnumber" protobuf:"4"`
	UUID         string `yaml:"uuid" protobuf:"5"`
	WakeUpType   string `yaml:"wakeUpType" protobuf:"6"`
	SKUNumber    string `yaml:"skuNumber" protobuf:"7"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s SystemInformationSpec) DeepCopy() SystemInformationSpec { return object.Clone(s) }

type systemInformationDefinition struct{}

func (systemInformationDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             SystemInformationType,
		Aliases:          []resource.Type{"systeminformation"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Manufacturer", JSONPath: `{.manufacturer}`},
			{Name: "ProductName", JSONPath: `{.productName}`},
			{Name: "Version", JSONPath: `{.version}`},
			{Name: "SerialNumber", JSONPath: `{.serialnumber}`},
			{Name: "UUID", JSONPath: `{.uuid}`},
			{Name: "WakeUpType", JSONPath: `{.wakeUpType}`},
			{Name: "SKUNumber", JSONPath: `{.skuNumber}`},
		},
	}
}

// NewSystemInformation returns an empty SystemInformation under id.
func NewSystemInformation(id resource.ID) *SystemInformation {
	return typed.NewResource[SystemInformationSpec, systemInformationDefinition](resource.NewMetadata(Namespace, SystemInformationType, id, resource.VersionUndefined), SystemInformationSpec{})
}
