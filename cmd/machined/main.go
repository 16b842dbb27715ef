// Machined is PID 1 of a node. It boots the node, hosts the resource store and
// the controllers over it, keeps the services running, serves the machine API
// to routerd, and takes the node down.
//
// It never returns: whatever goes wrong ends in an orderly reboot.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"talos/api/machine"
	"talos/internal/boot"
	"talos/internal/bootlog"
	"talos/internal/containers"
	"talos/internal/etcd"
	"talos/internal/layout"
	"talos/internal/linux/caps"
	"talos/internal/linux/reap"
	"talos/internal/linux/trim"
	"talos/internal/logs"
	"talos/internal/members"
	"talos/internal/metal"
	"talos/internal/power"
	"talos/internal/sequence"
	"talos/internal/service"
	"talos/internal/setup"
	"talos/internal/store"
	"talos/internal/version"
)

// gcPercent trades a little time for memory: what machined holds is small and
// changes seldom.
const gcPercent = 50

// bootLimit is for all phases of the boot together, each of which has its own.
const bootLimit = 10 * time.Minute

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "machined: this is the first process of a node and nothing else")
		os.Exit(1)
	}
	deafen()
	out := newOutput()
	log := slog.New(slog.NewTextHandler(out, nil))
	n := &node{log: log, out: out, id: rand.Text(), pulse: make(chan chan struct{})}
	err := n.protectedRun()
	log.Error("machined can't go on, the node reboots", "err", err)
	n.reboot()
	select {} // reboot(2) may take its time
}

// deafen takes every signal, for nobody: most end a Go program that does not
// ask for them, with a dump of its stacks, and any root process of the node can
// send them.
func deafen() {
	signal.Notify(make(chan os.Signal, 1))
	signal.Reset(unix.SIGURG) // harmless, and the Go runtime's own, many times a second
}

// node is what is put together here.
type node struct {
	log *slog.Logger
	out *output

	boot      *boot.Node
	machine   *metal.Machine // nil in a container
	reaper    *reap.Reaper
	logs      *logs.Manager
	boots     *bootlog.Book // nil where nothing can be kept
	services  *service.Supervisor
	pods      *containers.Client
	member    *etcd.Member
	crowd     *members.Options
	workloads *workloads
	origin    *origin
	sequence  *sequence.Controller // nil until services can run
	setup     *setup.Setup         // nil in a container
	pulse     chan chan struct{}   // the main loop closes what comes
	id        string               // tells this run of the node from others
}

// protectedRun turns a panic into an error: the one way down.
func (n *node) protectedRun() (err error) {
	defer func() {
		if p := recover(); p != nil { // any value, not only errors
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return n.run(context.Background())
}

// run boots the node and waits for a reason to end.
func (n *node) run(ctx context.Context) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	n.log.Info("machined starts", "version", version.Tag)
	tasks := &group{ctx: ctx, log: n.log}
	if err := n.prepare(ctx, tasks); err != nil {
		return err
	}
	st, err := store.New(ctx)
	if err != nil {
		return err
	}
	n.services = service.New(n.log, st, n.logs)
	n.pods = containers.New()
	n.member = etcd.New(st, n.log, n.services)
	if n.crowd, err = n.others(); err != nil {
		return err
	}
	n.sequence = n.wayDown(st)
	if err := n.wire(ctx, st, tasks); err != nil {
		return err
	}
	tasks.Go("trim", trimLater)
	for {
		select {
		case sig := <-signals:
			n.obey(ctx, sig)
		case turned := <-n.pulse:
			close(turned)
		}
	}
}

// obey does what a signal to the first process means.
func (n *node) obey(ctx context.Context, sig os.Signal) {
	var err error
	switch sig {
	case unix.SIGTERM:
		_, err = n.sequence.Begin(ctx, sequence.Request{Kind: sequence.Shutdown})
	case unix.SIGINT: // Ctrl-Alt-Del
		_, err = n.sequence.Reboot(ctx, machine.RebootRequest_DEFAULT)
	}
	if err != nil {
		n.log.Warn("signal has no effect", "err", err)
	}
}

// trimLater gives back what only the start needed, once that should be over,
// and now and then what a busy time has left.
func trimLater(ctx context.Context) error {
	for pause := 30 * time.Second; ; pause = 10 * time.Minute {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if err := trim.Self(); err != nil {
			return err
		}
	}
}

// prepare makes the node a place where services can run.
func (n *node) prepare(ctx context.Context, tasks *group) error {
	debug.SetGCPercent(gcPercent)
	if err := os.Setenv("PATH", "/usr/bin:/usr/sbin:/bin:/sbin"); err != nil {
		return err
	}
	var err error
	if n.reaper, err = reap.New(); err != nil {
		return err
	}
	n.boot = &boot.Node{Log: n.log, Container: boot.InContainer()}
	if !n.boot.Container {
		n.out.toKernel(n.log) // the initramfs has mounted /dev
		n.machine = metal.New(n.log, n.reaper.Run, tasks.Go)
		n.boot.Machine = n.machine
	}
	if err := n.phases(ctx); err != nil {
		return err
	}
	n.logs = logs.New(n.logDir())
	tasks.Go("log", n.out.keepIn(n.logs.Writer("machined")))
	return nil
}

// phases boots. While it has time, the watchdog that the initramfs has armed is
// fed: each phase has a deadline, some of them later than the watchdog's.
func (n *node) phases(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	var keeper sync.WaitGroup
	defer func() {
		cancel()
		keeper.Wait()
	}()
	if n.machine != nil && n.machine.Timer != nil {
		keeper.Go(func() { metal.Keep(ctx, n.log, n.machine.Timer) })
	}
	return sequence.Run(ctx, n.log, "boot", n.boot.Phases(), nil)
}

// logDir is where the logs of this boot go: to the disk, beside those of earlier
// ones. Without room there, to memory.
func (n *node) logDir() string {
	evidence, id := bootlog.Evidence{}, n.id
	if n.machine != nil {
		evidence, id = n.machine.Evidence(), n.machine.BootID()
	}
	book, err := bootlog.Open(layout.BootLogDir, bootlog.Record{ID: id, Version: version.Tag, Started: time.Now()}, evidence)
	if err != nil {
		n.log.Warn("the logs of this boot will be lost with it", "err", err)
		return layout.LogDir
	}
	n.boots = book
	return book.Dir()
}

// reboot is the way down for when run has failed: in order where there is
// something to stop, else at once.
func (n *node) reboot() {
	if n.sequence != nil {
		// It ends in reboot(2), or goes on with one that has begun.
		if _, err := n.sequence.Reboot(context.Background(), machine.RebootRequest_DEFAULT); err != nil {
			n.log.Warn("reboot", "err", err)
		}
		return
	}
	time.Sleep(5 * time.Second) // time to read why
	var phases []sequence.Phase
	for _, step := range []sequence.Step{
		{Name: "kill what is left", Run: boot.KillAll},
		{Name: "note action", Run: func(context.Context) error { return n.noteAction(power.Reboot) }},
		{Name: "sync", Run: boot.Sync},
	} {
		step.Optional = true // what does not answer keeps nobody here
		phases = append(phases, sequence.Phase{Name: step.Name, Deadline: 5 * time.Second, Steps: []sequence.Step{step}})
	}
	if err := sequence.Run(context.Background(), n.log, "reboot", phases, nil); err != nil {
		n.log.Warn("on the way down", "err", err)
	}
	if err := n.powerDown(power.Reboot); err != nil {
		n.log.Error("the machine did not go down", "err", err)
	}
}

// mayRaise says whether limits and scores can be set freely on this node.
func mayRaise() (bool, error) { return caps.Has(unix.CAP_SYS_RESOURCE) }
