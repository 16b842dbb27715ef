package metal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/cosi-project/runtime/pkg/controller"
	"golang.org/x/sys/unix"

	"talos/internal/cmdline"
	"talos/internal/disk"
	"talos/internal/fat"
	"talos/internal/gpt"
	"talos/internal/install"
	"talos/internal/linux/mount"
	"talos/internal/reconcile"
	"talos/internal/resources/runtime"
	"talos/internal/slot"
	"talos/internal/status"
	"talos/internal/verity"
)

// Good makes the slot that the machine was started from permanent, once the
// machine has proved itself: it runs, and is ready. Until then the boot loader
// counts how often it starts the slot, and goes back to the other when it has
// done so in vain.
func (m *Machine) Good() controller.Controller {
	done := false
	return &reconcile.Controller{
		ID: "runtime.BootSlotController", Log: m.Log,
		In: []controller.Input{reconcile.Input[*runtime.MachineStatus]()},
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			if done || m.system == nil {
				return nil
			}
			res, err := reconcile.Get[*runtime.MachineStatus](ctx, r, status.MachineID)
			if err != nil || res == nil || !proved(*res.TypedSpec()) {
				return err
			}
			if err := m.markGood(ctx, log); err != nil {
				return fmt.Errorf("make the slot permanent that runs: %w", err)
			}
			done = true
			return nil
		},
	}
}

// proved says whether a machine is what it is for.
func proved(s runtime.MachineStatusSpec) bool {
	return s.Stage == runtime.StageRunning && s.Status.Ready
}

// markGood asks the disk, with patience: one that does not answer must not hold
// anything else.
func (m *Machine) markGood(ctx context.Context, log *slog.Logger) error {
	from, err := ownRootDisk()
	if err != nil {
		return err
	}
	if from != m.system.Disk.Name { // started from an ISO or the network: no slot has proved anything
		return nil
	}
	line, err := cmdline.Read()
	if err != nil {
		return err
	}
	param, err := verity.FromCommandLine(line)
	if err != nil {
		return err
	}
	answer := disk.Ask(ctx, []disk.Disk{m.system.Disk}, disk.Patience, func(d disk.Disk) (slot.ID, error) {
		e, err := findESP(d.DevPath, param.Root)
		if err != nil || !e.tried {
			return "", err
		}
		return e.slot, e.markGood(m.system.Partitions[install.EFILabel])
	})[0]
	if answer.Err == nil && answer.Value != "" {
		log.Info("this slot has proved good", "slot", answer.Value)
	}
	return answer.Err
}

// esp is the EFI system partition of a disk that the system was started from.
type esp struct {
	slot  slot.ID // that runs
	tried bool    // it has not proved good yet
}

// findESP reads it without mounting it: at most boots there is nothing to do.
func findESP(device string, root verity.Root) (esp, error) {
	d, err := gpt.OpenReadOnly(device)
	if err != nil {
		return esp{}, err
	}
	defer d.Close()
	table, err := gpt.Read(d)
	if err != nil {
		return esp{}, err
	}
	ids := map[slot.ID]string{}
	for _, id := range []slot.ID{slot.A, slot.B} {
		if p, ok := table.Find(id.RootLabel()); ok {
			ids[id] = p.ID.String()
		}
	}
	running, ok, err := slot.Current(root, ids)
	if err != nil || !ok {
		return esp{}, err
	}
	p, ok := table.Find(install.EFILabel)
	if !ok {
		return esp{}, fmt.Errorf("%s has no partition %s", device, install.EFILabel)
	}
	list, err := fat.Read(io.NewSectionReader(d, p.Offset, p.Size))
	if err != nil {
		return esp{}, fmt.Errorf("EFI system partition: %w", err)
	}
	files, err := slot.Of(list)
	if err != nil {
		return esp{}, fmt.Errorf("EFI system partition: %w", err)
	}
	steps, err := goodSteps(files, running)
	return esp{running, len(steps) > 0}, err
}

func goodSteps(files slot.Files, running slot.ID) ([]slot.Step, error) {
	state, err := slot.Read(files)
	if err != nil {
		return nil, err
	}
	return slot.MarkGood(state, running)
}

// markGood mounts the partition for as long as it takes.
func (e esp) markGood(partition string) (err error) {
	dir, err := os.MkdirTemp("/run", "esp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	p := mount.Point{Source: partition, Target: dir, Type: "vfat", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME}
	if err := p.Mount(); err != nil {
		return err
	}
	defer func() {
		if fail := unix.Unmount(dir, 0); fail != nil {
			err = errors.Join(err, &fs.PathError{Op: "unmount", Path: dir, Err: fail})
		}
	}()
	steps, err := goodSteps(slot.Dir(dir), e.slot)
	if err != nil {
		return err
	}
	return slot.Apply(slot.Dir(dir), steps)
}
