// Package udevd looks after devices: it names network links, makes the links
// below /dev by which disks are found, sets who may use device nodes, follows
// the user's rules, and knows what is on disks.
//
// It owns the nodes and links in /dev beyond what devtmpfs makes itself, and the
// names of links until networkd uses them. It leaves alone what is on disks (it
// only reads them), and everything about network links but their names. It runs
// within machined, of which one hung disk must not take more than one goroutine:
// all that only asks the kernel happens in one loop, and each disk is looked at in
// a goroutine of its own. Plan is the pure core; the rest observes and does.
//
// A name that two devices claim (two file systems with one label) belongs to the
// one whose rules give it the higher link_priority, and else to the one that was
// there first; when it goes, the other gets the name.
//
// A Daemon is safe for concurrent use; Run is called once at a time.
package udevd

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"talos/internal/disk"
	"talos/internal/linux/sysfs"
	"talos/internal/linux/uevent"
	"talos/internal/loop"
	"talos/internal/udevd/rules"
)

// Options say where things are and what people chose.
type Options struct {
	Log *slog.Logger
	// KernelNames leaves network links the kernel's names; linkname.Kernel tells
	// it from the kernel's command line.
	KernelNames bool
	// Accounts are the users and groups that rules may name.
	Accounts Accounts
	// Dev, Sys and Run are "/dev", "/sys" and "/run/udev" if empty. In Run are
	// properties of devices for programs in pods, as libudev reads them.
	Dev, Sys, Run string
}

// Daemon keeps /dev as it should be.
type Daemon struct {
	log  *slog.Logger
	do   effects
	tree sysfs.FS
	open func() (source, error) // of the kernel's messages
	// lookAt finds what is on a disk and its partitions.
	lookAt func(dev string, whole sysfs.Device) []finding

	commands chan func() // run by the loop
	results  chan result
	watch    *watch // the loop's

	mu        sync.Mutex // guards the fields below
	settings  Settings
	entries   []string          // the rules as they were given
	db        *DB               // changed by the loop only, which may read it without mu
	seen      uint64            // the highest number of a message that was dealt with
	cold      bool              // everything that was there at the start was dealt with
	waiting   int               // messages and commands that were not dealt with
	jobs      map[Key]*job      // disks that are looked at, or about to be
	gathering bool              // none begins yet
	failed    map[string]string // what could not be done, by the action
	ticks     []chan struct{}
	drained   func() bool // no message waits in the kernel
	stop      <-chan struct{}
}

// source is where messages come from.
type source interface {
	Wait() error // until there is one, which stays
	Receive() (uevent.Event, error)
	Drained() (bool, error)
	Close() error
}

// New makes a Daemon; nothing happens before Run.
func New(opts Options) *Daemon {
	if opts.Dev == "" {
		opts.Dev = "/dev"
	}
	if opts.Sys == "" {
		opts.Sys = "/sys"
	}
	if opts.Run == "" {
		opts.Run = "/run/udev"
	}
	return &Daemon{
		log: opts.Log, do: effects{dev: opts.Dev, sys: opts.Sys, run: opts.Run}, tree: sysfs.FS(opts.Sys),
		open:     func() (source, error) { return uevent.Listen() },
		lookAt:   lookAt,
		commands: make(chan func(), 16), results: make(chan result, 16),
		settings: Settings{KernelNames: opts.KernelNames, Accounts: opts.Accounts},
		db:       NewDB(), jobs: map[Key]*job{}, failed: map[string]string{},
	}
}

// SetRules replaces the user's rules, and applies the new ones to all devices
// as if they came now. If one of them is wrong the old ones stay, and every
// problem is told. Rules that are set before Run name network links before
// anybody uses them.
func (d *Daemon) SetRules(entries []string) error {
	set, problems := rules.Parse(entries)
	if problems != nil {
		return errors.Join(problems...)
	}
	d.mu.Lock()
	same := slices.Equal(entries, d.entries)
	d.settings.Rules, d.entries = set, slices.Clone(entries)
	running := d.cold
	d.mu.Unlock()
	if !same && running {
		d.command(d.coldplug)
	}
	return nil
}

// Refresh looks at all disks again.
func (d *Daemon) Refresh() {
	d.command(func() {
		for _, dev := range d.Devices("block") {
			d.look(dev)
		}
	})
}

// command has the loop do something, now or when it runs. One that finds the
// loop too busy is left to a goroutine to hand over.
func (d *Daemon) command(fn func()) {
	d.count(1)
	counted := func() {
		defer d.count(-1)
		fn()
	}
	select {
	case d.commands <- counted:
	default:
		go func() { d.commands <- counted }()
	}
}

// count keeps how much waits for the loop.
func (d *Daemon) count(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting += n
}

// Devices lists what is known of the devices of a subsystem, the oldest first;
// of all if it is empty. What is returned is shared: nobody may change it.
func (d *Daemon) Devices(subsystem string) []Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Device
	for _, dev := range d.db.All() {
		if subsystem == "" || dev.Subsystem == subsystem {
			out = append(out, dev)
		}
	}
	return out
}

// Problems are what could not be done, and rules that could not be followed.
func (d *Daemon) Problems() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, dev := range d.db.All() {
		for _, p := range dev.Problems {
			out = append(out, dev.Path+": "+p)
		}
	}
	for _, text := range d.failed {
		out = append(out, text)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Subscribe tells of changes: a tick, or one for several of them.
func (d *Daemon) Subscribe() <-chan struct{} {
	ch := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ticks = append(d.ticks, ch)
	return ch
}

func (d *Daemon) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ch := range d.ticks {
		select {
		case ch <- struct{}{}:
		default: // one is on its way already
		}
	}
}

// backlog is how many messages wait here for the loop; more wait in the kernel.
const backlog = 1024

type message struct {
	event uevent.Event
	lost  bool // some were lost: take stock again
	err   error
}

// Run deals with devices until ctx ends: first those that are there, then what
// the kernel says. What was made stays.
func (d *Daemon) Run(ctx context.Context) error {
	messages, err := d.open() // before taking stock, so that nothing is missed
	if err != nil {
		return err
	}
	if d.watch, err = newWatch(d.do.dev); err != nil {
		return errors.Join(err, messages.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	incoming := make(chan message, backlog)
	d.mu.Lock()
	d.cold, d.waiting, d.stop = false, len(d.commands), ctx.Done()
	d.drained = func() bool { ok, err := messages.Drained(); return ok && err == nil }
	d.mu.Unlock()
	var wg sync.WaitGroup
	// A panic of one ends the loop, and all begins anew.
	side := func(fn func()) func() {
		return func() {
			if err := loop.Protect(func() error { fn(); return nil }); err != nil {
				select {
				case incoming <- message{err: err}:
				case <-ctx.Done():
				}
			}
		}
	}
	wg.Go(side(func() { d.receive(ctx, messages, incoming) }))
	wg.Go(side(func() { d.watch.run(ctx) }))
	defer func() {
		cancel()
		// Best effort: both only end their readers.
		_ = messages.Close()
		_ = d.watch.Close()
		wg.Wait()
	}()
	return d.serve(ctx, incoming)
}

// receive hands messages to the loop, and to nobody once ctx ended.
func (d *Daemon) receive(ctx context.Context, messages source, incoming chan<- message) {
	for {
		err := messages.Wait()
		// Counted while it still waits in the kernel: at no time does it look as if
		// there were none.
		d.count(1)
		m := message{err: err}
		if err == nil {
			m.event, err = messages.Receive()
			m.lost = errors.Is(err, uevent.ErrOverrun)
			if errors.Is(err, uevent.ErrMalformed) {
				d.log.Debug("message about a device", "err", err)
				d.count(-1)
				continue
			}
			if !m.lost {
				m.err = err
			}
		}
		select {
		case incoming <- m:
		case <-ctx.Done():
			return
		}
		if m.err != nil {
			return
		}
	}
}

func (d *Daemon) serve(ctx context.Context, incoming <-chan message) error {
	began := time.Now()
	d.coldplug()
	d.mu.Lock()
	d.cold = true
	d.log.Info("devices", "nodes", len(d.db.devices), "took", time.Since(began).Round(time.Millisecond))
	d.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-incoming:
			if m.err != nil {
				return m.err
			}
			d.message(m)
		case fn := <-d.commands:
			d.protect(fn)
		case r := <-d.results:
			d.protect(func() { d.found(r) })
		case node := <-d.watch.written:
			d.protect(func() { d.written(node) })
		}
	}
}

// protect keeps what one device makes of us from stopping the rest.
func (d *Daemon) protect(fn func()) {
	if err := loop.Protect(func() error { fn(); return nil }); err != nil {
		d.log.Error("devices", "err", err)
	}
}

func (d *Daemon) message(m message) {
	d.protect(func() {
		if m.lost {
			d.log.Warn("messages about devices were lost, taking stock")
			d.coldplug()
			return
		}
		d.handle(m.event)
	})
	d.mu.Lock()
	d.waiting--
	d.seen = max(d.seen, m.event.Seqnum)
	d.mu.Unlock()
	d.tick()
}

// coldplug deals with every device that is there as if it came now, and forgets
// those that went without notice.
func (d *Daemon) coldplug() {
	d.mu.Lock()
	ruled := d.settings.Rules.Len() > 0 // these may be about any device
	d.mu.Unlock()
	number, err := uevent.Seqnum(d.tree)
	if err != nil {
		d.log.Debug("kernel's message number", "err", err)
	}
	events, err := uevent.Coldplug(d.tree, ruled)
	if err != nil {
		d.log.Error("take stock of devices", "err", err)
		return
	}
	defer d.gather()()
	there := map[Key]bool{}
	for _, e := range events {
		there[keyOf(e)] = true
		d.protect(func() { d.handle(e) })
	}
	for _, dev := range d.Devices("") {
		if !there[dev.Key] {
			d.handle(removal(dev))
		}
	}
	d.mu.Lock()
	d.seen = max(d.seen, number)
	d.mu.Unlock()
	d.tick()
}

// removal is the event of a device that went unnoticed.
func removal(dev Device) uevent.Event {
	env := map[string]string{"ACTION": "remove", "DEVPATH": dev.Path, "SUBSYSTEM": dev.Subsystem}
	for _, k := range []string{"MAJOR", "MINOR", "IFINDEX"} {
		env[k] = dev.Env[k]
	}
	return uevent.Event{Action: uevent.Remove, DevPath: dev.Path, Subsystem: dev.Subsystem, Env: env}
}

func (d *Daemon) device(k Key) (Device, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.db.Get(k)
}

// handle does what an event asks for.
func (d *Daemon) handle(e uevent.Event) {
	dev, err := d.tree.At(e.DevPath)
	if err != nil {
		return // a module, a driver, a class: no device
	}
	before, _ := d.device(keyOf(e))
	d.apply(Facts{Event: e, Device: dev, Probe: before.Probe, ProbeErr: before.ProbeErr, Entry: d.entry(e, dev)})
	if now, ok := d.device(keyOf(e)); ok && now.Subsystem == "block" {
		d.watch.add(now.Node)
		d.look(now)
	}
}

// apply plans, writes down and does.
func (d *Daemon) apply(f Facts) {
	d.mu.Lock()
	settings := d.settings
	d.mu.Unlock()
	after, actions := Plan(d.db, f, settings)
	d.mu.Lock()
	if after.Key != "" {
		d.db.Put(after)
	} else {
		d.db.Delete(keyOf(f.Event))
	}
	d.mu.Unlock()
	for _, a := range actions {
		err := d.do.do(a)
		if d.remember(a, err) {
			d.log.Warn("device", "path", f.Event.DevPath, "action", a.String(), "err", err)
		}
		if r, ok := a.(Rename); ok && err == nil {
			d.log.Info("network link renamed", "from", r.From, "to", r.To)
		}
	}
}

// remember keeps what could not be done; true if that is news.
func (d *Daemon) remember(a Action, err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := a.String()
	had := d.failed[key]
	delete(d.failed, key)
	if err != nil && len(d.failed) < maxFailed {
		d.failed[key] = err.Error()
	}
	return err != nil && err.Error() != had
}

// maxFailed bounds what is remembered of failures.
const maxFailed = 256

// entry is a partition's row in the table of its disk.
func (d *Daemon) entry(e uevent.Event, part sysfs.Device) *disk.Entry {
	if e.Env["DEVTYPE"] != "partition" {
		return nil
	}
	parent, ok := uevent.Read(part.Parent(), uevent.Change)
	if !ok {
		return nil
	}
	whole, _ := d.device(keyOf(parent))
	if whole.Probe == nil {
		return nil
	}
	for _, row := range whole.Probe.Table {
		if strconv.Itoa(row.Number) == e.Env["PARTN"] && strconv.FormatUint(row.Offset/512, 10) == part.Attr("start") {
			return &row
		}
	}
	return nil
}
