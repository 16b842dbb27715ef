//go:build e2e

package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"talos/config"
	"talos/internal/configstore/journal"
	devices "talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/install"
	"talos/internal/layout"
	"talos/internal/linux/mount"
	"talos/internal/meta"
	"talos/internal/pki"
	"talos/internal/provision/qemu"
	"talos/internal/slot"
	"talos/internal/slot/mtools"
	"talos/internal/verity"
	"talos/internal/volume"
	"talos/internal/wipe"
)

// TestEveryFlush records all that a machine writes to its disk in its life: it
// starts from the ISO, is installed, starts from its disk, is given another
// configuration and turned off. Then it looks at the disk as it was after every
// flush, the least that a loss of power leaves: nothing starts from it and it can
// be installed on, or all that belongs to an installed machine is there, whole,
// with a configuration that it was given. Between two flushes, where any part of
// what was written may be there, it looks at some. And from some of these disks
// the machine is started.
func TestEveryFlush(t *testing.T) {
	l := enter(t, "losetup", "mcopy", "mdir", "mkfs.xfs")
	if l == nil {
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	memory := filepath.Join(l.dir, "memory")
	if err := (mount.Point{Source: "tmpfs", Target: memory, Type: "tmpfs"}).Ensure(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(memory, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	rng := l.chance()
	o := l.own(func(v *qemu.VM) {
		v.Disks = []qemu.Disk{{Path: filepath.Join(l.dir, "disk"), Size: diskSize, WriteLog: filepath.Join(l.dir, "writes")}}
	})
	o.live()
	began := time.Now()
	r := l.replay(o, memory, rng)
	r.through()
	if t.Failed() {
		return
	}
	t.Logf("%d flushes, %d torn states between them, %d mounts looked at in %v: %v", r.flushes, r.torn, r.mounts, time.Since(began).Round(time.Second), r.counts)
	r.start(o)
}

// live is the life that is recorded.
func (o *owned) live() {
	o.lab.Helper()
	o.power()
	if o.comes() {
		o.lab.Fatal("a machine with a blank disk has a configuration")
	}
	o.apply()
	o.shows("Linux version")
	o.comes(o.lab.read(o.file))
	o.owner.call("patch", "machineconfig", "-p", changed)
	o.owner.sees([]string{"17"}, "read", "/proc/sys/vm/swappiness")
	ctx, cancel := context.WithTimeout(o.lab.Context(), soon)
	defer cancel()
	if err := o.PressPower(ctx); err != nil {
		o.lab.Fatal(err)
	}
	if err := o.Wait(ctx); err != nil {
		o.lab.Fatalf("the machine does not turn itself off: %v", err)
	}
}

// changed is what its owner changes, and takes effect at once.
const changed = `{"machine": {"sysctls": {"vm.swappiness": "17"}}}`

// beside is what is touched that is in no partition: the tables.
const beside = "table"

// replayed is a disk in the course of its life, and what was seen on it.
type replayed struct {
	*lab
	memory    string // a folder whose files need no disk
	path      string
	log       string
	disk      *gpt.Disk
	system    verity.Root
	places    map[string]gpt.Partition // in the end
	documents [][]byte                 // configurations, in the order in which they were given
	identity  []byte
	rng       *rand.Rand

	now       view
	files     slot.Memory // of the EFI partition, when it was last whole
	ephemeral bool        // has a file system
	since     []change    // what was written since the last flush
	size      int64       // how much that is
	sights    []sight
	flushes   int
	torn      int
	mounts    int
	counts    map[string]int
}

// view is what was found when it was last looked at.
type view struct {
	installed bool
	document  int // that is in force
}

// sight is what was found after a flush.
type sight struct {
	view
	flush   int
	touched []string
}

// change is one write.
type change struct {
	at, size int64
	now      []byte // nil stands for zeros
	before   []piece
}

// piece is what is not a hole in a part of the disk.
type piece struct {
	at   int64
	data []byte
}

// maxTorn is how much may be written between two flushes for us to look what a
// part of it leaves, in bytes. Installations write more, on a disk that says so.
const maxTorn = 32 << 20

func (l *lab) replay(o *owned, memory string, rng *rand.Rand) *replayed {
	l.Helper()
	d := o.Disks[0]
	r := &replayed{lab: l, memory: memory, path: filepath.Join(memory, "disk"), log: d.WriteLog, rng: rng, places: map[string]gpt.Partition{}, counts: map[string]int{}}
	done, err := gpt.OpenReadOnly(d.Path)
	if err != nil {
		l.Fatal(err)
	}
	defer done.Close()
	table, err := gpt.Read(done)
	if err != nil {
		l.Fatal(err)
	}
	for _, p := range table.Partitions() {
		r.places[p.Label] = p
	}
	param, err := verity.Parse(strings.TrimSpace(string(l.read(l.image("rootfs.root")))))
	if err != nil {
		l.Fatal(err)
	}
	r.system = param.Root
	r.disk = done
	err = r.open(volume.State(""), func(dir string, formatted bool) error {
		if formatted {
			return errors.New("there was no file system")
		}
		x, err := r.journal(dir).Read()
		for _, e := range x.Entries {
			document, docErr := r.journal(dir).Document(e)
			err = errors.Join(err, docErr)
			r.documents = append(r.documents, document)
		}
		r.identity, _ = os.ReadFile(filepath.Join(dir, filepath.Base(layout.IdentityFile)))
		return err
	})
	if err != nil {
		l.Fatal(err)
	}
	if n := len(r.documents); n != 2 || !bytes.Equal(r.documents[0], l.read(o.file)) || !bytes.Contains(r.documents[1], []byte("swappiness")) {
		l.Fatalf("in the end the machine has %d configurations, want that of the installation and the changed one", n)
	}
	return r
}

func (r *replayed) journal(dir string) *journal.Journal {
	return journal.New(filepath.Join(dir, filepath.Base(layout.ConfigHistoryDir)), filepath.Join(dir, filepath.Base(layout.ConfigFile)), slog.New(slog.DiscardHandler))
}

// through replays all, and looks after every flush.
func (r *replayed) through() {
	r.Helper()
	var err error
	if r.disk, err = gpt.Create(r.path, diskSize, 512); err != nil {
		r.Fatal(err)
	}
	defer r.disk.Close()
	if err := qemu.Replay(r.log, r, r.flush); err != nil {
		r.Fatal(err)
	}
	if last := r.now; !last.installed || last.document != len(r.documents)-1 || !r.ephemeral {
		r.Errorf("in the end the replayed disk is %+v", last)
	}
}

// Size implements qemu.Target.
func (r *replayed) Size() int64 { return r.disk.Size() }

// WriteAt implements qemu.Target.
func (r *replayed) WriteAt(p []byte, at int64) (int, error) {
	if bytes.Equal(p, make([]byte, len(p))) {
		return len(p), r.Zero(at, int64(len(p)))
	}
	if err := r.remember(at, int64(len(p)), slices.Clone(p)); err != nil {
		return 0, err
	}
	return r.disk.WriteAt(p, at)
}

// Zero implements qemu.Target.
func (r *replayed) Zero(at, size int64) error {
	if err := r.remember(at, size, nil); err != nil {
		return err
	}
	return r.disk.Zero(at, size)
}

// remember keeps a change, so that it can be undone, unless there is too much
// of that.
func (r *replayed) remember(at, size int64, now []byte) error {
	c := change{at: at, size: size}
	if r.size += int64(len(now)); r.size <= maxTorn {
		c.now = now
		err := data(r.disk, at, size, func(at, size int64) error {
			p := piece{at, make([]byte, size)}
			r.size += size
			c.before = append(c.before, p)
			_, err := r.disk.ReadAt(p.data, at)
			return err
		})
		if err != nil {
			return err
		}
	}
	r.since = append(r.since, c)
	return nil
}

func (c change) undo(d *gpt.Disk) error {
	if err := d.Zero(c.at, c.size); err != nil {
		return err
	}
	for _, p := range c.before {
		if _, err := d.WriteAt(p.data, p.at); err != nil {
			return err
		}
	}
	return nil
}

func (c change) do(d *gpt.Disk) error {
	if c.now == nil {
		return d.Zero(c.at, c.size)
	}
	_, err := d.WriteAt(c.now, c.at)
	return err
}

// touches are the partitions that changes are in.
func (r *replayed) touches(changes []change) map[string]bool {
	out := map[string]bool{}
	for _, c := range changes {
		in := int64(0)
		for label, p := range r.places {
			if n := min(c.at+c.size, p.Offset+p.Size) - max(c.at, p.Offset); n > 0 {
				in += n
				out[label] = true
			}
		}
		if in < c.size {
			out[beside] = true
		}
	}
	return out
}

// flush looks at the disk after a flush, and at what may have been before it.
func (r *replayed) flush(n int) error {
	r.flushes = n
	since, size := r.since, r.size
	r.since, r.size = nil, 0
	touched := r.touches(since)
	if len(touched) == 0 {
		return nil
	}
	if size <= maxTorn {
		for range few(1, 4) {
			if err := r.tear(n, since); err != nil {
				return err
			}
		}
	}
	next, err := r.look(touched, r.now)
	if err != nil {
		return fmt.Errorf("after flush %d, of %v: %w", n, slices.Sorted(maps.Keys(touched)), err)
	}
	r.now = next
	r.sights = append(r.sights, sight{next, n, slices.Sorted(maps.Keys(touched))})
	r.counts[fmt.Sprintf("installed %t, configuration %d", next.installed, next.document)]++
	return nil
}

// tear looks at the disk with a part of what was written before a flush, and
// leaves it as it was.
func (r *replayed) tear(n int, since []change) error {
	for _, c := range slices.Backward(since) {
		if err := c.undo(r.disk); err != nil {
			return err
		}
	}
	var part []change
	for _, c := range since {
		if r.rng.IntN(2) == 0 {
			part = append(part, c)
		}
	}
	for _, c := range part {
		if err := c.do(r.disk); err != nil {
			return err
		}
	}
	files, ephemeral := r.files, r.ephemeral
	if touched := r.touches(part); len(touched) > 0 {
		r.torn++
		if _, err := r.look(touched, r.now); err != nil {
			return fmt.Errorf("before flush %d, with %d of %d writes, of %v: %w", n, len(part), len(since), slices.Sorted(maps.Keys(touched)), err)
		}
	}
	r.files, r.ephemeral = files, ephemeral
	for _, c := range since {
		if err := c.do(r.disk); err != nil {
			return err
		}
	}
	return nil
}

// look says what a machine makes of the disk, where touched has changed since
// before.
func (r *replayed) look(touched map[string]bool, before view) (view, error) {
	now := before
	if len(touched) > 1 || !touched[wipe.Ephemeral] {
		var err error
		if now.installed, err = r.isSystem(); err != nil {
			return now, err
		}
	}
	switch {
	case before.installed && !now.installed:
		return now, errors.New("the installation is gone")
	case !now.installed:
		_, err := install.MakePlan(install.Survey(context.Background(), []devices.Disk{r.device()}, ""), install.Request{Disk: r.path})
		return now, err
	case !before.installed:
		touched = map[string]bool{install.EFILabel: true, slot.A.RootLabel(): true, wipe.Meta: true, wipe.State: true, wipe.Ephemeral: true}
	}
	var errs []error
	if touched[install.EFILabel] || touched[slot.A.RootLabel()] {
		errs = append(errs, r.starts(touched))
	}
	if touched[wipe.Meta] {
		_, err := meta.Open(at{r.disk, r.places[wipe.Meta].Offset})
		errs = append(errs, err)
	}
	if touched[wipe.State] {
		errs = append(errs, r.open(volume.State(""), func(dir string, formatted bool) (err error) {
			if formatted {
				return errors.New("there was no file system")
			}
			now.document, err = r.configured(dir, before.document)
			return err
		}))
	}
	if touched[wipe.Ephemeral] || touched[beside] {
		errs = append(errs, r.holds())
	}
	return now, errors.Join(errs...)
}

func (r *replayed) device() devices.Disk {
	return devices.Disk{Name: "vda", DevPath: r.path, Size: uint64(r.disk.Size()), SectorSize: 512, Transport: "virtio"}
}

// isSystem says whether the disk is an installed machine's. Firmware, which
// starts from it, the system, which looks for its own disk, and the
// installation, which looks for one to write to, must agree on that.
func (r *replayed) isSystem() (bool, error) {
	var first [512]byte
	if _, err := r.disk.ReadAt(first[:], 0); err != nil {
		return false, err
	}
	starts := bytes.HasSuffix(first[:], []byte("\x55\xaa"))
	unfinished, err := install.Unfinished(r.disk)
	if err != nil {
		return false, err
	}
	content, err := devices.Probe(r.path)
	if err != nil {
		return false, err
	}
	_, found, err := volume.System([]volume.Disk{{Disk: r.device(), Content: content.Volume, Unfinished: unfinished}}, r.system, "")
	if err != nil {
		return false, err
	}
	if starts != found {
		return false, fmt.Errorf("firmware starts it: %t; it is the system's: %t", starts, found)
	}
	return starts, nil
}

// starts says whether loader, kernel image and root are whole and belong
// together.
func (r *replayed) starts(touched map[string]bool) error {
	esp := mtools.Image{Path: r.path, Offset: r.places[install.EFILabel].Offset, Run: func(program string, args ...string) ([]byte, error) {
		return exec.CommandContext(r.Context(), program, args...).CombinedOutput()
	}}
	state, err := slot.Read(esp)
	if err != nil {
		return err
	}
	if e, ok := state.Default(); !ok || e.Slot != slot.A || e.Tries != nil {
		return fmt.Errorf("the boot loader starts %+v", e)
	}
	files := slot.Memory{}
	for _, name := range append(slot.LoaderPaths(), slot.A.KernelPath()) {
		if files[name], err = esp.Read(name); err != nil {
			return err
		}
	}
	if r.files != nil && !touched[slot.A.RootLabel()] && maps.EqualFunc(files, r.files, bytes.Equal) {
		return nil
	}
	dir, err := os.MkdirTemp(r.memory, "source-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, from := range map[string]string{install.LoaderFile: slot.LoaderPaths()[0], install.KernelFile: slot.A.KernelPath()} {
		if err := os.WriteFile(filepath.Join(dir, name), files[from], 0o600); err != nil {
			return err
		}
	}
	if err := r.cutOut(filepath.Join(dir, install.RootFile), r.places[slot.A.RootLabel()]); err != nil {
		return err
	}
	s, err := install.OpenSource(dir)
	if err != nil {
		return err
	}
	r.files = files
	return s.Close()
}

// at is a part of the disk that is only read.
type at struct {
	io.ReaderAt
	offset int64
}

func (a at) ReadAt(p []byte, at int64) (int, error) { return a.ReaderAt.ReadAt(p, a.offset+at) }

func (at) WriteAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

func (at) Sync() error { return errors.ErrUnsupported }

// configured says which configuration is in force, which is not an older one
// than before.
func (r *replayed) configured(dir string, before int) (int, error) {
	key, err := os.ReadFile(filepath.Join(dir, filepath.Base(layout.IdentityFile)))
	if err != nil {
		return 0, err
	}
	if _, err := pki.ParseKey(key); err != nil || !bytes.Equal(key, r.identity) {
		return 0, fmt.Errorf("the identity is not that of the installation: %v", err)
	}
	j := r.journal(dir)
	x, err := j.Read()
	if err != nil {
		return 0, err
	}
	e, ok := x.Find(x.Boot)
	if !ok {
		return 0, fmt.Errorf("of %d configurations none is in force", len(x.Entries))
	}
	document, err := j.Document(e)
	if err != nil {
		return 0, err
	}
	if _, _, err := config.Load("", document); err != nil {
		return 0, err
	}
	i := slices.IndexFunc(r.documents, func(d []byte) bool { return bytes.Equal(d, document) })
	if i < before {
		return 0, fmt.Errorf("configuration %d is in force after %d", i, before)
	}
	beside, err := j.Copy()
	if err == nil && !slices.ContainsFunc(r.documents, func(d []byte) bool { return bytes.Equal(d, beside) }) {
		err = errors.New("the copy of the configuration is none that was given")
	}
	return i, err
}

// holds says whether EPHEMERAL is not there yet, will be made at the next start,
// or can be mounted.
func (r *replayed) holds() error {
	table, err := gpt.Read(r.disk)
	if err != nil {
		return err
	}
	p, ok := table.Find(wipe.Ephemeral)
	if !ok {
		_, err := volume.PlanEphemeral(table.Partitions(), table.Free(), 0)
		return err
	}
	if p.Offset != r.places[wipe.Ephemeral].Offset || p.Size != r.places[wipe.Ephemeral].Size {
		return fmt.Errorf("%s is %+v", wipe.Ephemeral, p)
	}
	if r.ephemeral && r.rng.IntN(few(8, 2)) != 0 {
		return nil // what comes now is XFS's own
	}
	return r.open(volume.Ephemeral(""), func(_ string, formatted bool) error {
		if formatted && r.ephemeral {
			return errors.New("its file system was there, and is made again")
		}
		r.ephemeral = !formatted
		return nil
	})
}

// open mounts a copy of a volume, as the system does.
func (r *replayed) open(v volume.Volume, see func(dir string, formatted bool) error) error {
	r.Helper()
	r.mounts++
	dir, err := os.MkdirTemp(r.memory, "volume-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image")
	if err := r.cutOut(image, r.places[v.Label]); err != nil {
		return err
	}
	device, err := exec.CommandContext(r.Context(), "losetup", "--find", "--show", image).Output()
	if err != nil {
		return err
	}
	v.Device = strings.TrimSpace(string(device))
	v.Target, v.Data = filepath.Join(dir, "mounted"), "nouuid" // not every kernel has quotas
	made, err := v.Mount(r.Context(), func(ctx context.Context, program string, args ...string) ([]byte, error) {
		return exec.CommandContext(ctx, program, args...).CombinedOutput()
	})
	r.run("losetup", "--detach", v.Device) // when it is not mounted any more
	if err != nil {
		return err
	}
	return errors.Join(see(v.Target, made.Formatted), v.Unmount())
}

// cutOut copies a partition into a file, with its holes.
func (r *replayed) cutOut(path string, p gpt.Partition) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(p.Size); err != nil {
		return err
	}
	return data(r.disk, p.Offset, p.Size, func(at, size int64) error {
		_, err := io.Copy(io.NewOffsetWriter(out, at-p.Offset), io.NewSectionReader(r.disk, at, size))
		return err
	})
}

// data calls see for what is not a hole in a part of a disk.
func data(d *gpt.Disk, at, size int64, see func(at, size int64) error) error {
	for end := at + size; at < end; {
		data, err := unix.Seek(int(d.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || data >= end {
			return nil
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(d.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		at = min(hole, end)
		if err := see(data, at-data); err != nil {
			return err
		}
	}
	return nil
}

// start starts the machine from some of the disks that were seen.
func (r *replayed) start(o *owned) {
	r.Helper()
	chosen := r.choose()
	var err error
	if r.disk, err = gpt.Create(r.path, diskSize, 512); err != nil {
		r.Fatal(err)
	}
	defer r.disk.Close()
	err = qemu.Replay(r.log, r.disk, func(n int) error {
		s, ok := chosen[n]
		if !ok {
			return nil
		}
		path := filepath.Join(r.dir, fmt.Sprintf("flush-%d", n))
		if err := qemu.CopyImage(path, r.path); err != nil {
			return err
		}
		r.Logf("from the disk after flush %d, of %v: installed %t, configuration %d", n, s.touched, s.installed, s.document)
		o.give(path)
		o.power()
		if configured := o.comes(r.documents[s.document]); configured != s.installed {
			return fmt.Errorf("after flush %d, of %v: the machine has a configuration: %t, want %t", n, s.touched, configured, s.installed)
		}
		o.off()
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
}

// choose picks disks to start from: some during the installation, some about
// when the partition table came, some with the configuration or META just
// written.
func (r *replayed) choose() map[int]sight {
	r.Helper()
	kinds := map[string]func(sight) bool{
		"installation": func(s sight) bool { return !s.installed && !slices.Contains(s.touched, beside) },
		"table":        func(s sight) bool { return slices.Contains(s.touched, beside) },
		"facts": func(s sight) bool {
			return s.installed && (slices.Contains(s.touched, wipe.State) || slices.Contains(s.touched, wipe.Meta))
		},
	}
	chosen := map[int]sight{}
	for name, kind := range kinds {
		found := slices.DeleteFunc(slices.Clone(r.sights), func(s sight) bool { return !kind(s) })
		if len(found) == 0 {
			r.Fatalf("no flush was seen of the kind %s", name)
		}
		r.rng.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
		for _, s := range found[:min(len(found), few(1, 7))] {
			chosen[s.flush] = s
		}
	}
	return chosen
}
