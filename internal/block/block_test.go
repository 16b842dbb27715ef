package block

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/controller/runtime/options"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"talos/internal/disk"
	"talos/internal/linux/sysfs"
	"talos/internal/linux/sysfs/recorded"
	"talos/internal/linux/uevent"
	"talos/internal/resources/block"
	"talos/internal/store"
	"talos/internal/udevd"
)

// plugged is what a watcher of devices has, for a test to change.
type plugged struct {
	mu        sync.Mutex // guards the fields below
	devices   []udevd.Device
	refreshed int
	busy      bool
	ticks     []chan struct{}
}

func (p *plugged) Devices(string) []udevd.Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.devices)
}

func (p *plugged) Refresh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refreshed++
}

func (p *plugged) Settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.busy
}

func (p *plugged) Subscribe() <-chan struct{} {
	ch := make(chan struct{}, 1)
	p.ticks = append(p.ticks, ch)
	return ch
}

func (p *plugged) change(do func()) {
	p.mu.Lock()
	do()
	p.mu.Unlock()
	for _, ch := range p.ticks {
		ch <- struct{}{}
	}
}

// machine are the block devices of the recorded machine. On vda is an installed
// system, one of whose partitions the kernel sees elsewhere than the table.
func machine(t *testing.T) (sysfs.FS, []udevd.Device) {
	t.Helper()
	tree := sysfs.FS(filepath.Join(recorded.Lay(t, recorded.Machine), "sys"))
	devs, err := tree.Class("block")
	if err != nil {
		t.Fatal(err)
	}
	db := udevd.NewDB()
	slices.SortFunc(devs, func(a, b sysfs.Device) int { return len(a.Path()) - len(b.Path()) })
	for _, dev := range devs {
		e, ok := uevent.Read(dev, uevent.Add)
		if !ok {
			t.Fatalf("%s has no subsystem", dev.Name())
		}
		f := udevd.Facts{Event: e, Device: dev}
		switch dev.Name() {
		case "vda":
			f.Probe = &disk.Device{Volume: disk.Volume{Kind: "gpt", UUID: "id-of-table", BlockSize: 512, Table: []disk.Entry{
				{Number: 1, Offset: 1 << 20, Size: 8 << 20, Type: "type", UUID: "id-1", Label: "META"}, {Number: 2, Offset: 10 << 20, Label: "STATE"},
			}}}
		case "vda1":
			f.Probe = &disk.Device{Volume: disk.Volume{Kind: "xfs", UUID: "id-of-xfs", Label: "label", BlockSize: 512, FilesystemBlockSize: 4096, ProbedSize: 4 << 20}}
		}
		d, _ := udevd.Plan(db, f, udevd.Settings{})
		db.Put(d)
	}
	return tree, db.All()
}

func start(t *testing.T, opts Options) state.State {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := runtime.NewRuntime(st, zap.NewNop(), options.WithMetrics(false))
	if err != nil {
		t.Fatal(err)
	}
	opts.Log = slog.New(slog.DiscardHandler)
	for _, c := range Controllers(opts) {
		if err := rt.RegisterController(c); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return st
}

// await waits for what a resource says.
func await[R resource.Resource](t *testing.T, st state.State, ptr resource.Pointer, ok func(R) bool) R {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := st.WatchFor(ctx, ptr, state.WithCondition(func(r resource.Resource) (bool, error) {
		typed, is := r.(R)
		return is && ok(typed), nil
	}))
	if err != nil {
		t.Fatalf("wait for %v: %v", ptr, err)
	}
	return res.(R)
}

func TestControllers(t *testing.T) {
	tree, devices := machine(t)
	p := &plugged{devices: devices, busy: true}
	st := start(t, Options{Devices: p, Tree: tree})
	status := block.NewDiscoveredVolumesStatus(block.DiscoveredVolumesStatusID)
	await(t, st, status.Metadata(), func(s *block.DiscoveredVolumesStatus) bool { return !s.TypedSpec().Ready })
	p.change(func() { p.busy = false })
	await(t, st, status.Metadata(), func(s *block.DiscoveredVolumesStatus) bool { return s.TypedSpec().Ready })

	got := await(t, st, block.NewDiscoveredVolume("vda1").Metadata(), func(*block.DiscoveredVolume) bool { return true })
	want := block.DiscoveredVolumeSpec{
		DevPath: "/dev/vda1", Type: "partition", DevicePath: "/devices/pci0000:00/0000:00:02.0/virtio0/block/vda/vda1", Parent: "vda", ParentDevPath: "/dev/vda",
		Offset: 1 << 20, Size: 8 << 20, PrettySize: "8.4 MB", SectorSize: 512, IOSize: 512, Name: "xfs", UUID: "id-of-xfs", Label: "label",
		BlockSize: 512, FilesystemBlockSize: 4096, ProbedSize: 4 << 20, PartitionUUID: "id-1", PartitionType: "type", PartitionLabel: "META", PartitionIndex: 1,
	}
	if diff := cmp.Diff(want, *got.TypedSpec()); diff != "" {
		t.Errorf("vda1 (-want +got):\n%s", diff)
	}
	got = await(t, st, block.NewDiscoveredVolume("vda2").Metadata(), func(*block.DiscoveredVolume) bool { return true })
	if v := got.TypedSpec(); v.PartitionLabel != "" || v.PartitionIndex != 2 || v.Offset != 9<<20 {
		t.Errorf("a partition that the table has elsewhere: %+v", v)
	}

	dev := await(t, st, block.NewDevice("vda1").Metadata(), func(*block.Device) bool { return true })
	wantDev := block.DeviceSpec{Type: "partition", Major: 254, Minor: 1, PartitionName: "META", PartitionNumber: 1, DevicePath: want.DevicePath, Generation: 1, Parent: "vda"}
	if diff := cmp.Diff(wantDev, *dev.TypedSpec()); diff != "" {
		t.Errorf("vda1 (-want +got):\n%s", diff)
	}
	nvme := await(t, st, block.NewDisk("nvme0n1").Metadata(), func(*block.Disk) bool { return true }).TypedSpec()
	if nvme.Transport != "nvme" || nvme.Serial != "NVME-1" || nvme.PrettySize != "67 MB" || !slices.Contains(nvme.Symlinks, "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_NVME-1") {
		t.Errorf("nvme0n1: %+v", nvme)
	}
	links := await(t, st, block.NewSymlink("vda1").Metadata(), func(*block.Symlink) bool { return true }).TypedSpec()
	if !slices.Contains(links.Paths, "/dev/disk/by-uuid/id-of-xfs") {
		t.Errorf("links of vda1: %q", links.Paths)
	}
	await(t, st, block.NewSystemDisk(block.SystemDiskID).Metadata(), func(s *block.SystemDisk) bool { return s.TypedSpec().DiskID == "vda" })

	// The kernel has a loop device without anything in it, and a disk goes.
	if _, err := safe.StateGetByID[*block.Disk](t.Context(), st, "loop0"); !state.IsNotFoundError(err) {
		t.Errorf("an empty loop device is a disk: %v", err)
	}
	p.change(func() {
		p.devices = slices.DeleteFunc(p.devices, func(d udevd.Device) bool { return d.Node == "nvme0n1" })
	})
	for _, ptr := range []resource.Pointer{block.NewDisk("nvme0n1").Metadata(), block.NewDevice("nvme0n1").Metadata(), block.NewSymlink("nvme0n1").Metadata()} {
		gone(t, st, ptr)
	}
}

func gone(t *testing.T, st state.State, ptr resource.Pointer) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, err := st.Get(t.Context(), ptr)
		if state.IsNotFoundError(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v is still there", ptr)
		}
	}
}

// TestRefresh: a wish is answered when disks have been looked at, once.
func TestRefresh(t *testing.T) {
	tree, devices := machine(t)
	p := &plugged{devices: devices, busy: true}
	st := start(t, Options{Devices: p, Tree: tree})
	wish := block.NewDiscoveryRefreshRequest(block.RefreshID)
	wish.TypedSpec().Request = 7
	if err := st.Create(t.Context(), wish); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		n := p.refreshed
		p.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("disks were not looked at")
		}
	}
	if _, err := safe.StateGetByID[*block.DiscoveryRefreshStatus](t.Context(), st, block.RefreshID); !state.IsNotFoundError(err) {
		t.Errorf("answered before disks were looked at: %v", err)
	}
	p.change(func() { p.busy = false })
	await(t, st, block.NewDiscoveryRefreshStatus(block.RefreshID).Metadata(), func(s *block.DiscoveryRefreshStatus) bool { return s.TypedSpec().Request == 7 })
	p.change(func() {})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refreshed != 1 {
		t.Errorf("disks were looked at %d times for one wish", p.refreshed)
	}
}

func TestSystemDisk(t *testing.T) {
	installed := func(name string, labels ...string) Block {
		b := Block{Name: name}
		b.Probe = &disk.Device{}
		for _, l := range labels {
			b.Probe.Table = append(b.Probe.Table, disk.Entry{Label: l})
		}
		return b
	}
	data, one, two := installed("sda", "data"), installed("sdb", "META", "STATE"), installed("sdc", "STATE", "META")
	for _, c := range []struct {
		disks []Block
		told  func() string
		want  string
	}{
		{[]Block{data, one}, nil, "sdb"}, {[]Block{data, one, two}, nil, ""}, {[]Block{data}, nil, ""},
		{[]Block{data, one, two}, func() string { return "/dev/sdc" }, "sdc"}, {[]Block{one}, func() string { return "" }, ""},
	} {
		if got := systemDisk(c.disks, c.told); got != c.want {
			t.Errorf("systemDisk(%d disks) = %q, want %q", len(c.disks), got, c.want)
		}
	}
}
