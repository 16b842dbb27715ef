package metal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"talos/config"
	"talos/internal/cmdline"
	"talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/install"
	"talos/internal/layout"
	"talos/internal/linux/mount"
	"talos/internal/linux/sysfs"
	"talos/internal/meta"
	"talos/internal/verity"
	"talos/internal/volume"
	"talos/internal/wipe"
)

// System is the disk that the operating system is installed on.
type System struct {
	Disk disk.Disk
	// Partitions are the device nodes by label.
	Partitions map[string]string
}

// storage is what the machine keeps things on.
type storage struct {
	run    volume.Run
	system *System     // nil while nothing is installed
	meta   *meta.Store // in memory while nothing is installed
	// trouble is why EPHEMERAL is in memory on a machine that is installed.
	trouble error
	unknown *unknown // nil where it is known what is on every disk

	mu      sync.Mutex // guards mounted
	mounted []volume.Volume
}

// Disks finds the system's disk, finishes a reset that was cut short, and mounts
// STATE and EPHEMERAL. On a machine that is not installed EPHEMERAL is memory.
func (m *Machine) Disks(ctx context.Context) error {
	line, err := cmdline.Read()
	if err != nil {
		return err
	}
	param, err := verity.FromCommandLine(line)
	if err != nil {
		return err
	}
	from, err := ownRootDisk()
	if err != nil {
		return err
	}
	disks, err := survey(ctx, from)
	if err != nil {
		return err
	}
	for _, d := range disks {
		if d.Err != nil {
			m.Log.Warn("a disk can't be read", "disk", d.DevPath, "err", d.Err)
		}
	}
	d, found, err := volume.System(disks, param.Root, from)
	if m.later(err, line) {
		m.unknown = &unknown{err, func(ctx context.Context) (bool, error) {
			disks, listErr := survey(ctx, "")
			if listErr != nil {
				m.Log.Warn("the disks can't be listed", "err", listErr)
				return false, err // as before
			}
			_, found, err := volume.System(disks, param.Root, "")
			return found, err
		}}
		return inMemory()
	}
	if err != nil && !errors.As(err, new(*volume.UnknownError)) {
		return err
	}
	if !found {
		m.Log.Info("no disk has this system on it: what the machine keeps is in memory")
		return inMemory()
	}
	return m.open(ctx, d.Disk, m.toWipe(line))
}

// toWipe is what of the disk the kernel's command line has emptied: the way out
// for whoever stands before a machine that can't use its STATE, and so serves
// nobody. An argument that is wrong has nothing emptied.
func (m *Machine) toWipe(line cmdline.Line) []string {
	labels, err := wipeLabels(line)
	if err != nil {
		m.Log.Error("nothing is emptied", "err", err)
	}
	return labels
}

func wipeLabels(line cmdline.Line) ([]string, error) {
	labels, all, err := line.Wipe()
	switch {
	case err != nil:
		return nil, err
	case all:
		return wipe.All(), nil
	}
	if labels, err = wipe.Parse(labels); err != nil {
		return nil, fmt.Errorf("kernel argument %s: %w", cmdline.WipeArgument, err)
	}
	return labels, nil
}

// WrongArguments are the errors in what the kernel's command line says of disks.
// The boot only logs them, and goes on without.
func WrongArguments(line cmdline.Line) (wrong []error) {
	if _, err := wipeLabels(line); err != nil {
		wrong = append(wrong, err)
	}
	if _, err := line.IgnoreUnknownDisks(); err != nil {
		wrong = append(wrong, err)
	}
	return wrong
}

// survey looks at what is on the disks, and on the one that the running system
// is read from, whatever that is. Of one that can't be read everywhere it has
// what could be: a bad sector behind the table takes nothing from that.
func survey(ctx context.Context, from string) ([]volume.Disk, error) {
	disks, err := disk.List(ctx, "/")
	if err != nil {
		return nil, err
	}
	disks = slices.DeleteFunc(disks, func(d disk.Disk) bool { return !d.Physical() && d.Name != from })
	var out []volume.Disk
	for i, a := range disk.Ask(ctx, disks, disk.Patience, look) {
		a.Value.Disk, a.Value.Err = disks[i], a.Err
		out = append(out, a.Value)
	}
	return out, nil
}

// look finds out what is on a disk.
func look(d disk.Disk) (volume.Disk, error) {
	what, err := disk.Probe(d.DevPath)
	unfinished, err2 := begun(d.DevPath)
	return volume.Disk{Content: what.Volume, Unfinished: unfinished}, errors.Join(err, err2)
}

// begun says whether an installation was begun on a disk and not finished.
func begun(device string) (bool, error) {
	d, err := gpt.OpenReadOnly(device)
	if err != nil {
		return false, err
	}
	defer d.Close()
	return install.Unfinished(d)
}

// open takes the disk into use, what is to be wiped of it first.
func (m *Machine) open(ctx context.Context, d disk.Disk, wiped []string) error {
	nodes, change, small := volume.Prepare(ctx, d.DevPath)
	if nodes == nil {
		return small
	}
	m.Log.Info("system disk", "disk", d.DevPath, "model", d.Model, "serial", d.Serial, "ephemeral", change)
	m.system = &System{Disk: d, Partitions: nodes}
	var err error
	if m.meta, err = meta.OpenFile(nodes[wipe.Meta]); err != nil && slices.Contains(wiped, wipe.Meta) {
		if err = volume.Wipe(ctx, wipe.Meta, nodes[wipe.Meta]); err == nil {
			m.meta, err = meta.OpenFile(nodes[wipe.Meta])
		}
	}
	if err != nil {
		return err
	}
	if len(wiped) > 0 {
		if err := m.NoteWipe(wiped, nil); err != nil {
			return err
		}
	}
	if err := m.Wipe(ctx); err != nil {
		m.Log.Error("a reset could not be finished", "err", err)
	}
	if err := m.mount(ctx, volume.State(nodes[wipe.State])); err != nil {
		return err
	}
	err = small
	if node := nodes[wipe.Ephemeral]; node != "" {
		if small != nil {
			m.Log.Error("EPHEMERAL stays as large as it is", "err", small)
		}
		err = m.mount(ctx, volume.Ephemeral(node))
	}
	if err == nil {
		return nil
	}
	// With STATE the machine knows who it is and whom it obeys: it comes up, so
	// that somebody can do what the error says, and runs nothing.
	m.Log.Error("there is no EPHEMERAL", "err", err)
	m.trouble = fmt.Errorf("%s: %w", wipe.Ephemeral, err)
	return inMemory()
}

// inMemory is EPHEMERAL where it is on no disk.
func inMemory() error {
	return mount.Point{
		Source: "tmpfs", Target: layout.EphemeralDir, Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=0755",
	}.Ensure()
}

// Trouble is why the machine can't run what it is to run; nil when it can.
func (m *Machine) Trouble() error { return m.trouble }

func (m *Machine) mount(ctx context.Context, v volume.Volume) error {
	r, err := v.Mount(ctx, m.run)
	if err != nil {
		return err
	}
	m.Log.Info("volume mounted", "label", v.Label, "device", v.Device, "at", v.Target, "formatted", r.Formatted, "grown", r.Grown)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mounted = append(m.mounted, v)
	return nil
}

// System is the disk that the system is installed on, nil while it is on none.
func (m *Machine) System() *System { return m.system }

// SystemDisk is the node of that disk, "" while there is none.
func (m *Machine) SystemDisk() string {
	if m.system == nil {
		return ""
	}
	return m.system.Disk.DevPath
}

// Installed says whether the system is on one of the machine's disks.
func (m *Machine) Installed() bool { return m.system != nil }

// Meta are META's values, in memory while nothing is installed.
func (m *Machine) Meta() *meta.Store { return m.meta }

// MountExtra mounts the user's disks, and partitions those that are empty. One
// that holds anything else is an error, and left alone.
func (m *Machine) MountExtra(ctx context.Context, disks []config.ExtraDisk) error {
	var errs []error
	for _, d := range disks {
		x := volume.ExtraDisk{Device: d.Device}
		for _, p := range d.Partitions {
			size := int64(0)
			if p.Size != "" {
				var err error
				if size, err = volume.ParseSize(p.Size); err != nil {
					return fmt.Errorf("machine.disks: %s: %w", d.Device, err)
				}
			}
			x.Partitions = append(x.Partitions, volume.ExtraPartition{Size: size, Mountpoint: p.Mountpoint})
		}
		errs = append(errs, m.mountExtra(ctx, x))
	}
	return errors.Join(errs...)
}

var errPart = errors.New("that is a partition, want a disk")

// isPartition says whether a device is a part of a disk, such as the slot of the
// system disk that is empty, and blank.
func isPartition(tree sysfs.FS, device string) (bool, error) {
	dev, err := tree.Device("/class/block/" + strings.ReplaceAll(strings.TrimPrefix(device, "/dev/"), "/", "!"))
	if err != nil {
		return false, err
	}
	return dev.Has("partition"), nil
}

func (m *Machine) mountExtra(ctx context.Context, x volume.ExtraDisk) error {
	device, err := filepath.EvalSymlinks(x.Device) // a link below /dev/disk
	if err != nil {
		return fmt.Errorf("machine.disks: %s: %w", x.Device, err)
	}
	if part, err := isPartition("/sys", device); err != nil || part {
		return fmt.Errorf("machine.disks: %s: %w", x.Device, cmp.Or(err, errPart))
	}
	content, err := disk.Probe(device)
	if err != nil {
		return fmt.Errorf("machine.disks: %s: %w", x.Device, err)
	}
	partition, err := volume.PlanDisk(x, device, m.SystemDisk(), content.Volume)
	if err != nil {
		return err
	}
	volumes, err := volume.MountDisk(ctx, m.run, x, device, partition)
	for _, v := range volumes {
		m.Log.Info("volume mounted", "label", v.Label, "device", v.Device, "at", v.Target, "partitioned", partition)
	}
	return err
}
