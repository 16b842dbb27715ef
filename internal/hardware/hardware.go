// Package hardware tells what a machine is made of: its maker, processors and
// memory by its firmware's tables, and devices by the PCI bus.
//
// It only reads. The tables are written by whoever made the firmware, or runs
// the hypervisor: they are bounded and their parser is fuzzed. Its functions are
// safe for concurrent use, its controllers are run by one runtime.
package hardware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/internal/linux/sysfs"
	"talos/internal/reconcile"
	"talos/internal/resources/hardware"
)

// Controllers makes the package's controllers. ticks tell that devices came or
// went; root is where sys is, usually "/". In a container the hardware is the
// host's, and they are left out.
func Controllers(log *slog.Logger, root string, ticks <-chan struct{}) []controller.Controller {
	firmware := &reconcile.Controller{ID: "hardware.SystemInfoController", Log: log}
	firmware.Shared = []resource.Type{hardware.SystemInformationType, hardware.ProcessorType, hardware.MemoryModuleType}
	firmware.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		tables, err := ReadSMBIOS(root)
		if errors.Is(err, ErrNoSMBIOS) {
			return nil // many boards and small hypervisors have none
		}
		if err != nil {
			return err
		}
		system := map[resource.ID]hardware.SystemInformationSpec{hardware.SystemInformationID: tables.System}
		return errors.Join(
			reconcile.Output(ctx, r, firmware.Name(), hardware.NewSystemInformation, system, nil),
			reconcile.Output(ctx, r, firmware.Name(), hardware.NewProcessor, byName(tables.Processors, func(p hardware.ProcessorSpec) string { return p.Socket }), nil),
			reconcile.Output(ctx, r, firmware.Name(), hardware.NewMemoryModule, byName(tables.Memory, func(m hardware.MemoryModuleSpec) string { return m.DeviceLocator }), nil))
	}
	pci := &reconcile.Controller{ID: "hardware.PCIDevicesController", Log: log, Ticks: ticks}
	pci.Shared = []resource.Type{hardware.PCIDeviceType}
	pci.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		devices, err := PCI(root)
		if err != nil {
			return err
		}
		return reconcile.Output(ctx, r, pci.Name(), hardware.NewPCIDevice, devices, nil)
	}
	return []controller.Controller{firmware, pci}
}

// byName gives each a name of its own: boards call several slots the same.
func byName[S any](specs []S, name func(S) string) map[resource.ID]S {
	out := map[resource.ID]S{}
	for i, s := range specs {
		id := strings.Join(strings.Fields(name(s)), "-")
		if _, twice := out[id]; twice || id == "" {
			id = fmt.Sprintf("%s#%d", id, i)
		}
		out[id] = s
	}
	return out
}

// PCI lists the devices on PCI buses by their addresses.
func PCI(root string) (map[resource.ID]hardware.PCIDeviceSpec, error) {
	devices, err := sysfs.FS(filepath.Join(root, "sys")).Bus("pci")
	if err != nil {
		return nil, fmt.Errorf("list PCI devices: %w", err)
	}
	out := map[resource.ID]hardware.PCIDeviceSpec{}
	for _, dev := range devices {
		class := id(dev, "class") >> 8 // the last byte is the programming interface
		spec := hardware.PCIDeviceSpec{
			ClassID: hexID(class>>8, 2), SubclassID: hexID(class&0xff, 2), VendorID: hexID(id(dev, "vendor"), 4), ProductID: hexID(id(dev, "device"), 4),
			Driver: dev.Driver(), Class: classes[byte(class>>8)], Subclass: subclasses[uint16(class)], Vendor: vendors[uint16(id(dev, "vendor"))],
		}
		out[dev.Name()] = spec
	}
	return out, nil
}

func id(dev sysfs.Device, attr string) uint64 {
	n, err := strconv.ParseUint(dev.Attr(attr), 0, 32)
	if err != nil {
		return 0
	}
	return n
}

func hexID(n uint64, digits int) string { return fmt.Sprintf("0x%0*x", digits, n) }

// classes and subclasses are of the PCI Code and ID Assignment Specification:
// those that servers have.
var classes = map[byte]string{
	0x00: "Unclassified device", 0x01: "Mass storage controller", 0x02: "Network controller", 0x03: "Display controller", 0x04: "Multimedia controller",
	0x05: "Memory controller", 0x06: "Bridge", 0x07: "Communication controller", 0x08: "Generic system peripheral", 0x09: "Input device controller",
	0x0a: "Docking station", 0x0b: "Processor", 0x0c: "Serial bus controller", 0x0d: "Wireless controller", 0x0e: "Intelligent controller",
	0x0f: "Satellite communications controller", 0x10: "Encryption controller", 0x11: "Signal processing controller", 0x12: "Processing accelerators",
	0x13: "Non-Essential Instrumentation", 0x40: "Coprocessor", 0xff: "Unassigned class",
}

var subclasses = map[uint16]string{
	0x0100: "SCSI storage controller", 0x0101: "IDE interface", 0x0104: "RAID bus controller", 0x0105: "ATA controller", 0x0106: "SATA controller",
	0x0107: "Serial Attached SCSI controller", 0x0108: "Non-Volatile memory controller", 0x0180: "Mass storage controller",
	0x0200: "Ethernet controller", 0x0207: "Infiniband controller", 0x0280: "Network controller",
	0x0300: "VGA compatible controller", 0x0302: "3D controller", 0x0380: "Display controller",
	0x0401: "Multimedia audio controller", 0x0403: "Audio device", 0x0500: "RAM memory", 0x0580: "Memory controller",
	0x0600: "Host bridge", 0x0601: "ISA bridge", 0x0604: "PCI bridge", 0x0680: "Bridge",
	0x0700: "Serial controller", 0x0780: "Communication controller", 0x0800: "PIC", 0x0801: "DMA controller", 0x0805: "SD Host controller", 0x0806: "IOMMU", 0x0880: "System peripheral",
	0x0c03: "USB controller", 0x0c05: "SMBus", 0x0c07: "IPMI Interface", 0x1000: "Network and computing encryption device", 0x1080: "Encryption controller",
	0x1180: "Signal processing controller", 0x1200: "Processing accelerators", 0xff00: "Unassigned class",
}

// vendors are those whose devices nearly every machine has some of.
var vendors = map[uint16]string{
	0x1000: "Broadcom / LSI", 0x1002: "Advanced Micro Devices [AMD/ATI]", 0x1022: "Advanced Micro Devices [AMD]", 0x1028: "Dell", 0x102b: "Matrox", 0x103c: "Hewlett-Packard",
	0x1077: "QLogic", 0x10de: "NVIDIA", 0x10ec: "Realtek", 0x1137: "Cisco", 0x1234: "QEMU", 0x126f: "Silicon Motion", 0x1344: "Micron", 0x1414: "Microsoft",
	0x144d: "Samsung", 0x14e4: "Broadcom", 0x15ad: "VMware", 0x15b3: "Mellanox", 0x15b7: "Sandisk", 0x1987: "Phison", 0x19a2: "Emulex", 0x1a03: "ASPEED",
	0x1af4: "Red Hat (virtio)", 0x1b36: "Red Hat", 0x1b4b: "Marvell", 0x1c5c: "SK hynix", 0x1d0f: "Amazon.com", 0x1ae0: "Google", 0x1e0f: "KIOXIA", 0x8086: "Intel", 0x9005: "Adaptec", 0x5853: "XenSource",
	0xc0a9: "Micron/Crucial", 0x2646: "Kingston", 0x1bb1: "Seagate", 0x1dee: "Biwin", 0x1e49: "Yangtze Memory",
}
