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
	"time"

	"golang.org/x/sys/unix"

	"talos/api/machine"
	"talos/internal/boot"
	"talos/internal/containers"
	"talos/internal/etcd"
	"talos/internal/layout"
	"talos/internal/linux/caps"
	"talos/internal/linux/reap"
	"talos/internal/linux/trim"
	"talos/internal/logs"
	"talos/internal/members"
	"talos/internal/power"
	"talos/internal/sequence"
	"talos/internal/service"
	"talos/internal/store"
	"talos/internal/version"
)

// gcPercent trades a little time for memory: what machined holds is small and
// changes seldom.
const gcPercent = 50

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "machined: this is the first process of a node and nothing else")
		os.Exit(1)
	}
	deafen()
	out := newOutput()
	log := slog.New(slog.NewTextHandler(out, nil))
	n := &node{log: log, out: out, id: rand.Text()}
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
	reaper    *reap.Reaper
	logs      *logs.Manager
	services  *service.Supervisor
	pods      *containers.Client
	member    *etcd.Member
	crowd     *members.Options
	workloads *workloads
	sequence  *sequence.Controller // nil until services can run
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
	if err := n.prepare(ctx); err != nil {
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
	tasks := &group{ctx: ctx, log: n.log}
	if err := n.wire(ctx, st, tasks); err != nil {
		return err
	}
	tasks.Go("trim", trimLater)
	for {
		switch sig := <-signals; sig {
		case unix.SIGTERM:
			_, err = n.sequence.Begin(ctx, sequence.Request{Kind: sequence.Shutdown})
		case unix.SIGINT: // Ctrl-Alt-Del
			_, err = n.sequence.Reboot(ctx, machine.RebootRequest_DEFAULT)
		}
		if err != nil {
			n.log.Warn("signal has no effect", "err", err)
		}
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
func (n *node) prepare(ctx context.Context) error {
	debug.SetGCPercent(gcPercent)
	if err := os.Setenv("PATH", "/usr/bin:/usr/sbin:/bin:/sbin"); err != nil {
		return err
	}
	var err error
	if n.reaper, err = reap.New(); err != nil {
		return err
	}
	n.boot = &boot.Node{Log: n.log, Container: boot.InContainer()}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := sequence.Run(ctx, n.log, "boot", n.boot.Phases(), nil); err != nil {
		return err
	}
	n.logs = logs.New(layout.LogDir)
	n.out.keepIn(n.logs.Writer("machined"))
	if !n.boot.Container {
		n.out.toKernel(n.log)
	}
	return nil
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
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"kill what is left", func() error { return boot.KillAll(ctx) }},
		{"note action", func() error { return power.Note(layout.PowerFile, power.Reboot) }},
		{"sync", func() error { return boot.Sync(ctx) }},
		{"reboot", func() error { return power.Down(power.Reboot) }},
	} {
		if err := step.run(); err != nil {
			n.log.Warn("on the way down", "step", step.name, "err", err)
		}
	}
}

// mayRaise says whether limits and scores can be set freely on this node.
func mayRaise() (bool, error) { return caps.Has(unix.CAP_SYS_RESOURCE) }
