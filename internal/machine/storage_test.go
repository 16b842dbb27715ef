package machine

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/storage"
	"talos/internal/resources/block"
	"talos/internal/store"
)

// TestDisks: hardware is listed, the system's disk marked; a node without disks
// answers with an empty list.
func TestDisks(t *testing.T) {
	ctx := t.Context()
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := storageServer{state: st}
	none, err := s.Disks(ctx, &emptypb.Empty{})
	if err != nil || len(none.GetMessages()) != 1 || len(none.GetMessages()[0].GetDisks()) != 0 {
		t.Fatalf("Disks of a node without any = %v, %v", none, err)
	}
	for id, spec := range map[string]block.DiskSpec{
		"sda":     {DevPath: "/dev/sda", Size: 1000, Model: "M", Serial: "S", WWID: "naa.5", Transport: "sata", Rotational: true, BusPath: "/pci0000:00", SubSystem: "/sys/class/block", Readonly: true},
		"nvme0n1": {DevPath: "/dev/nvme0n1", Size: 2000, Transport: "nvme"},
		"sr0":     {DevPath: "/dev/sr0", CDROM: true, Transport: "sata"},
		"loop0":   {DevPath: "/dev/loop0", Size: 3000},
	} {
		res := block.NewDisk(id)
		*res.TypedSpec() = spec
		if err := st.Create(ctx, res); err != nil {
			t.Fatal(err)
		}
	}
	system := block.NewSystemDisk(block.SystemDiskID)
	system.TypedSpec().DiskID = "nvme0n1"
	if err := st.Create(ctx, system); err != nil {
		t.Fatal(err)
	}
	got, err := s.Disks(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	want := &storage.DisksResponse{Messages: []*storage.Disks{{Disks: []*storage.Disk{
		{DeviceName: "/dev/nvme0n1", Size: 2000, Type: storage.Disk_NVME, SystemDisk: true},
		{DeviceName: "/dev/sda", Size: 1000, Model: "M", Serial: "S", Wwid: "naa.5", Type: storage.Disk_HDD, BusPath: "/pci0000:00", Subsystem: "/sys/class/block", Readonly: true},
		{DeviceName: "/dev/sr0", Type: storage.Disk_CD},
	}}}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("Disks (-want +got):\n%s", diff)
	}
}
