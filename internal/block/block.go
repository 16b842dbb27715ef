// Package block tells of disks, partitions and what is on them, as resources.
//
// It owns the resources of the family block; what they say comes from
// internal/udevd, which watches the devices, and internal/disk, which describes
// them. It changes nothing on the machine, except that a DiscoveryRefreshRequest
// has disks looked at again. Its controllers are run by one runtime.
package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/internal/disk"
	"talos/internal/linux/sysfs"
	"talos/internal/reconcile"
	"talos/internal/resources/block"
	"talos/internal/udevd"
)

// Devices is what watches the devices.
type Devices interface {
	// Devices lists those of a subsystem.
	Devices(subsystem string) []udevd.Device
	// Refresh looks at all disks again.
	Refresh()
	// Settled says whether there is nothing left to be looked at.
	Settled() bool
	// Subscribe tells of changes.
	Subscribe() <-chan struct{}
}

// Options say where things come from.
type Options struct {
	Log     *slog.Logger
	Devices Devices
	// Tree is where sysfs is; "/sys" if empty.
	Tree sysfs.FS
	// SystemDisk names the disk that the system runs from or is installed on, by
	// its node; empty if there is none. If it is nil, the one disk that has the
	// system's partitions is taken for it.
	SystemDisk func() string
}

// Controllers makes the package's controllers.
func Controllers(opts Options) []controller.Controller {
	if opts.Tree == "" {
		opts.Tree = "/sys"
	}
	return []controller.Controller{devices(opts), disks(opts), volumes(opts), refresh(opts)}
}

// Block is a block device with all that is known of it.
type Block struct {
	udevd.Device
	Name    string      // in the kernel
	Parent  string      // the disk of a partition
	Number  int         // of a partition
	Disk    disk.Disk   // of a disk
	Entry   *disk.Entry // of a partition, in its disk's table
	Offset  uint64      // of a partition
	Size    uint64
	Sectors uint // their size
	IO      uint
}

// observe describes the block devices that are there.
func observe(tree sysfs.FS, known []udevd.Device) []Block {
	byPath := map[string]Block{}
	var parts []Block
	for _, d := range known {
		at, err := tree.At(d.Path)
		if err != nil || !at.Exists() {
			continue // it goes just now
		}
		b := Block{Device: d, Name: at.Name()}
		if d.Partition() {
			parts = append(parts, b)
			continue
		}
		b.Disk = disk.Describe(at)
		for _, l := range d.Links {
			b.Disk.Symlinks = append(b.Disk.Symlinks, "/dev/"+l)
		}
		b.Size, b.Sectors, b.IO = b.Disk.Size, b.Disk.SectorSize, b.Disk.IOSize
		byPath[d.Path] = b
	}
	out := make([]Block, 0, len(known))
	for _, b := range byPath {
		out = append(out, b)
	}
	for _, b := range parts {
		whole, ok := byPath[path.Dir(b.Path)]
		if !ok {
			continue
		}
		b.Parent, b.Sectors, b.IO = whole.Name, whole.Sectors, whole.IO
		for _, p := range whole.Disk.Parts {
			if p.Name == b.Name {
				b.Number, b.Offset, b.Size = p.Number, p.Offset, p.Size
			}
		}
		b.Entry = row(whole.Probe, b)
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Block) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// row is a partition's in its disk's table, if the table agrees with the kernel.
func row(whole *disk.Device, b Block) *disk.Entry {
	if whole == nil {
		return nil
	}
	for _, e := range whole.Table {
		if e.Number == b.Number && e.Offset == b.Offset {
			return &e
		}
	}
	return nil
}

// empty are devices without a medium: loop devices that are not in use, drives.
func (b Block) empty() bool { return b.Size == 0 }

func kind(b Block) string {
	if b.Partition() {
		return "partition"
	}
	return "disk"
}

// devices tells of block devices and their names below /dev.
func devices(opts Options) controller.Controller {
	c := &reconcile.Controller{ID: "block.DevicesController", Log: opts.Log, Ticks: opts.Devices.Subscribe()}
	c.Shared = []resource.Type{block.DeviceType, block.SymlinkType}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		want, links := map[resource.ID]block.DeviceSpec{}, map[resource.ID]block.SymlinkSpec{}
		for _, b := range observe(opts.Tree, opts.Devices.Devices("block")) {
			if b.empty() {
				continue
			}
			spec := block.DeviceSpec{
				Type: kind(b), Major: int(b.Major), Minor: int(b.Minor), PartitionNumber: b.Number, DevicePath: b.Path,
				Generation: b.Changes, Parent: b.Parent, Secondaries: b.Disk.Secondaries,
			}
			if b.Entry != nil {
				spec.PartitionName = b.Entry.Label
			}
			want[b.Name] = spec
			links[b.Name] = block.SymlinkSpec{Paths: paths(b)}
		}
		return errors.Join(
			reconcile.Output(ctx, r, c.Name(), block.NewDevice, want, nil),
			reconcile.Output(ctx, r, c.Name(), block.NewSymlink, links, nil))
	}
	return c
}

func paths(b Block) []string {
	var out []string
	for _, l := range b.Links {
		out = append(out, "/dev/"+l)
	}
	return out
}

// disks tells of whole disks, and which one is the system's.
func disks(opts Options) controller.Controller {
	c := &reconcile.Controller{ID: "block.DisksController", Log: opts.Log, Ticks: opts.Devices.Subscribe()}
	c.Shared = []resource.Type{block.DiskType, block.SystemDiskType}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		all := observe(opts.Tree, opts.Devices.Devices("block"))
		want := map[resource.ID]block.DiskSpec{}
		for _, b := range all {
			if !b.Partition() && !b.empty() {
				want[b.Name] = diskSpec(b.Disk)
			}
		}
		system := map[resource.ID]block.SystemDiskSpec{}
		if name := systemDisk(all, opts.SystemDisk); name != "" {
			system[block.SystemDiskID] = block.SystemDiskSpec{DiskID: name, DevPath: "/dev/" + name}
		}
		return errors.Join(
			reconcile.Output(ctx, r, c.Name(), block.NewDisk, want, nil),
			reconcile.Output(ctx, r, c.Name(), block.NewSystemDisk, system, nil))
	}
	return c
}

func diskSpec(d disk.Disk) block.DiskSpec {
	return block.DiskSpec{
		DevPath: d.DevPath, Size: d.Size, PrettySize: disk.Pretty(d.Size), IOSize: d.IOSize, SectorSize: d.SectorSize, Readonly: d.ReadOnly, CDROM: d.CDROM,
		Model: d.Model, FirmwareVersion: d.Firmware, Serial: d.Serial, Modalias: d.Modalias, WWID: d.WWID, UUID: d.UUID, BusPath: d.BusPath,
		SubSystem: d.Subsystem, Transport: d.Transport, Rotational: d.Rotational, SecondaryDisks: d.Secondaries, Symlinks: d.Symlinks,
	}
}

// systemDisk is the disk that the system says is its own, else the only one
// whose partitions are the system's. Of two such disks neither can be told to be
// it by looking.
func systemDisk(all []Block, told func() string) string {
	if told != nil {
		return strings.TrimPrefix(told(), "/dev/")
	}
	found := ""
	for _, b := range all {
		if b.Probe == nil || b.Partition() {
			continue
		}
		labels := map[string]bool{}
		for _, e := range b.Probe.Table {
			labels[e.Label] = true
		}
		if labels["META"] && labels["STATE"] {
			if found != "" {
				return ""
			}
			found = b.Name
		}
	}
	return found
}

// volumes tells what is on disks and partitions, and whether all were looked at.
func volumes(opts Options) controller.Controller {
	c := &reconcile.Controller{ID: "block.DiscoveryController", Log: opts.Log, Ticks: opts.Devices.Subscribe()}
	c.Shared = []resource.Type{block.DiscoveredVolumeType, block.DiscoveredVolumesStatusType}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		// Asked first: what comes in between makes another tick.
		ready := opts.Devices.Settled()
		want := map[resource.ID]block.DiscoveredVolumeSpec{}
		for _, b := range observe(opts.Tree, opts.Devices.Devices("block")) {
			if !b.empty() {
				want[b.Name] = volumeSpec(b)
			}
		}
		if err := reconcile.Output(ctx, r, c.Name(), block.NewDiscoveredVolume, want, nil); err != nil {
			return err
		}
		status := map[resource.ID]block.DiscoveredVolumesStatusSpec{block.DiscoveredVolumesStatusID: {Ready: ready}}
		return reconcile.Output(ctx, r, c.Name(), block.NewDiscoveredVolumesStatus, status, nil)
	}
	return c
}

func volumeSpec(b Block) block.DiscoveredVolumeSpec {
	v := block.DiscoveredVolumeSpec{
		DevPath: "/dev/" + b.Node, Type: kind(b), DevicePath: b.Path, Parent: b.Parent, Offset: b.Offset,
		Size: b.Size, PrettySize: disk.Pretty(b.Size), SectorSize: b.Sectors, IOSize: b.IO,
	}
	if b.Parent != "" {
		v.ParentDevPath = "/dev/" + b.Parent
	}
	if p := b.Probe; p != nil {
		v.Name, v.UUID, v.Label = p.Kind, p.UUID, p.Label
		v.BlockSize, v.FilesystemBlockSize, v.ProbedSize = p.BlockSize, p.FilesystemBlockSize, p.ProbedSize
	}
	if e := b.Entry; e != nil {
		v.PartitionUUID, v.PartitionType, v.PartitionLabel = e.UUID, e.Type, e.Label
	}
	v.PartitionIndex = uint(b.Number)
	return v
}

// refresh looks at all disks again when somebody wishes so.
func refresh(opts Options) controller.Controller {
	c := &reconcile.Controller{ID: "block.DiscoveryRefreshController", Log: opts.Log, Ticks: opts.Devices.Subscribe()}
	c.In = []controller.Input{reconcile.Input[*block.DiscoveryRefreshRequest]()}
	c.Shared = []resource.Type{block.DiscoveryRefreshStatusType}
	asked := 0
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		wish, err := reconcile.Get[*block.DiscoveryRefreshRequest](ctx, r, block.RefreshID)
		if err != nil || wish == nil {
			return err
		}
		n := wish.TypedSpec().Request
		if asked != n {
			asked = n
			opts.Devices.Refresh()
		}
		if !opts.Devices.Settled() {
			return fmt.Errorf("%w: disks are being looked at", reconcile.ErrKeep)
		}
		want := map[resource.ID]block.DiscoveryRefreshStatusSpec{block.RefreshID: {Request: n}}
		return reconcile.Output(ctx, r, c.Name(), block.NewDiscoveryRefreshStatus, want, nil)
	}
	return c
}
