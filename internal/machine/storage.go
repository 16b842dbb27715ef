package machine

import (
	"context"
	"fmt"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/storage"
	"talos/internal/disk"
	"talos/internal/resources/block"
)

// storageServer answers for disks, by what the store has of them: in container
// mode that is nothing, for such a node has none.
type storageServer struct {
	storage.UnimplementedStorageServiceServer
	state state.State
}

// Disks lists the disks that are hardware. Loop devices and what is made of
// disks are resources only.
func (s storageServer) Disks(ctx context.Context, _ *emptypb.Empty) (*storage.DisksResponse, error) {
	list, err := safe.StateListAll[*block.Disk](ctx, s.state)
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	system := ""
	switch res, err := safe.StateGetByID[*block.SystemDisk](ctx, s.state, block.SystemDiskID); {
	case err == nil:
		system = res.TypedSpec().DiskID
	case !state.IsNotFoundError(err):
		return nil, fmt.Errorf("system disk: %w", err)
	}
	out := &storage.Disks{}
	for item := range list.All() {
		d := item.TypedSpec()
		if d.Transport == "" && !d.CDROM {
			continue
		}
		out.Disks = append(out.Disks, &storage.Disk{
			Size: d.Size, Model: d.Model, DeviceName: d.DevPath, Serial: d.Serial, Modalias: d.Modalias, Uuid: d.UUID, Wwid: d.WWID,
			Type: diskType(d), BusPath: d.BusPath, SystemDisk: item.Metadata().ID() == system, Subsystem: d.SubSystem, Readonly: d.Readonly,
		})
	}
	return &storage.DisksResponse{Messages: []*storage.Disks{out}}, nil
}

func diskType(d *block.DiskSpec) storage.Disk_DiskType {
	kinds := map[disk.Type]storage.Disk_DiskType{
		disk.SSD: storage.Disk_SSD, disk.HDD: storage.Disk_HDD, disk.NVMe: storage.Disk_NVME, disk.SD: storage.Disk_SD, disk.CD: storage.Disk_CD,
	}
	return kinds[disk.Disk{CDROM: d.CDROM, Transport: d.Transport, Rotational: d.Rotational}.Type()]
}
