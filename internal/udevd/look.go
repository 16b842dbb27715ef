package udevd

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/linux/sysfs"
	"talos/internal/linux/uevent"
	"talos/internal/loop"
)

// Times of looking at disks.
const (
	soon   = 20 * time.Millisecond  // messages about a disk and its partitions come together
	spaced = 100 * time.Millisecond // between two looks at one disk, and ten times as long as a look takes
)

// job is a disk that is looked at, or will be soon, in one goroutine at a time.
type job struct {
	dev   sysfs.Device // the whole disk
	began bool
	again bool // something happened since it began
}

// result is what was found on a disk and its partitions.
type result struct {
	disk  Key
	found []finding
	took  time.Duration
}

type finding struct {
	dev   sysfs.Device
	probe *disk.Device
	err   string
}

// notLooked are devices that are memory, or wait for a floppy.
var notLooked = regexp.MustCompile(`^(ram|zram|fd)\d+$`)

// look has the disk of a block device looked at.
func (d *Daemon) look(dev Device) {
	at, err := d.tree.At(dev.Path)
	if err != nil {
		return
	}
	if dev.Partition() {
		at = at.Parent()
	}
	e, ok := uevent.Read(at, uevent.Change)
	if !ok || notLooked.MatchString(at.Name()) {
		return
	}
	key := keyOf(e)
	d.mu.Lock()
	defer d.mu.Unlock()
	if j := d.jobs[key]; j != nil {
		j.again = j.began
		return
	}
	j := &job{dev: at}
	d.jobs[key] = j
	if !d.gathering {
		go d.run(key, j, soon, d.stop)
	}
}

// gather has disks that are to be looked at wait until all devices are known.
func (d *Daemon) gather() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gathering = true
	running := map[Key]bool{}
	for key := range d.jobs {
		running[key] = true
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.gathering = false
		for key, j := range d.jobs {
			if !running[key] {
				go d.run(key, j, 0, d.stop)
			}
		}
	}
}

// run waits, looks, and hands over what it found. A disk that hangs holds this
// goroutine and nothing else.
func (d *Daemon) run(key Key, j *job, pause time.Duration, stop <-chan struct{}) {
	select {
	case <-time.After(pause):
	case <-stop:
		d.done(key)
		return
	}
	d.mu.Lock()
	j.began = true
	d.mu.Unlock()
	began := time.Now()
	r := result{disk: key}
	if err := loop.Protect(func() error { r.found = d.lookAt(d.do.dev, j.dev); return nil }); err != nil {
		d.log.Error("look at disk", "disk", j.dev.Name(), "err", err)
	}
	r.took = time.Since(began)
	select {
	case d.results <- r:
	case <-stop:
		d.done(key)
	}
}

// done forgets a job; the next look begins anew.
func (d *Daemon) done(key Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.jobs, key)
}

// lookAt looks at a disk and the partitions that the kernel has of it.
func lookAt(dev string, whole sysfs.Device) []finding {
	described := disk.Describe(whole)
	if described.Size == 0 || whole.Attr("dm/suspended") == "1" { // a read would wait for it
		return []finding{{dev: whole}}
	}
	nodes := []string{described.DevPath}
	devs := []sysfs.Device{whole}
	for _, p := range described.Parts {
		nodes = append(nodes, p.DevPath)
		devs = append(devs, whole.Child(p.Name))
	}
	var out []finding
	for i, node := range nodes {
		name, err := filepath.Rel("/dev", node)
		if err != nil {
			continue // it is below /dev by what it is made of
		}
		f := finding{dev: devs[i]}
		found, err := disk.Probe(filepath.Join(dev, name))
		switch {
		case err == nil:
			f.probe = &found
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOMEDIUM), errors.Is(err, unix.ENXIO): // nothing there
		default:
			f.err = err.Error()
			if found.Kind != "" {
				f.probe = &found
			}
		}
		out = append(out, f)
	}
	return out
}

// found takes over what was found: of the disk first, for the partitions' names
// are in its table.
func (d *Daemon) found(r result) {
	for _, f := range r.found {
		e, ok := uevent.Read(f.dev, uevent.Change)
		if !ok {
			continue // unplugged
		}
		known, ok := d.device(keyOf(e))
		if !ok {
			continue
		}
		// It is still the same event to rules: they could not see contents before.
		e.Action = known.Action
		e.Env["ACTION"] = string(known.Action)
		if f.err != "" && f.err != known.ProbeErr {
			d.log.Warn("look at block device", "device", f.dev.Name(), "err", f.err)
		}
		d.protect(func() {
			d.apply(Facts{Event: e, Device: f.dev, Probe: f.probe, ProbeErr: f.err, Entry: d.entry(e, f.dev)})
		})
	}
	d.mu.Lock()
	j := d.jobs[r.disk]
	delete(d.jobs, r.disk)
	if j != nil && j.again {
		next := &job{dev: j.dev}
		d.jobs[r.disk] = next
		go d.run(r.disk, next, max(spaced, 10*r.took), d.stop)
	}
	d.mu.Unlock()
	d.tick()
}

// written looks again at a disk whose node somebody closed after writing; an
// empty name stands for all.
func (d *Daemon) written(node string) {
	for _, dev := range d.Devices("block") {
		if node == "" || dev.Node == node {
			d.look(dev)
		}
	}
}
