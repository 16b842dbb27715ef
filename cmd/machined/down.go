package main

import (
	"context"
	"errors"
	"slices"

	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/boot"
	"talos/internal/kube"
	"talos/internal/layout"
	"talos/internal/power"
	"talos/internal/sequence"
	"talos/internal/wipe"
)

// wayDown puts together what takes the node down.
func (n *node) wayDown(st state.State) *sequence.Controller {
	drainer, wiper := kube.Drainer(st, n.id), wipe.New()
	noteWipe, doWipe := func(folders, _ []string) error { return wiper.Plan(folders) }, wiper.Run
	letGo := func() { n.logs.Move(layout.LogDir) }
	if n.machine != nil {
		noteWipe, doWipe = n.machine.NoteWipe, n.machine.Wipe
		n.machine.LetGo = letGo
	}
	return sequence.New(sequence.Options{
		Log: n.log, Services: n.services, Pods: n.pods, NoteAction: n.noteAction,
		Kubernetes: drainer,
		Leave: func(ctx context.Context, r sequence.Request, say func(string)) error {
			if slices.Contains(r.Wipe, wipe.State) {
				// Before etcd: with it goes this node's API server. A worker may not.
				if err := drainer.Remove(ctx); err != nil {
					say("the Node object stays: " + err.Error())
				}
				if err := n.crowd.Leave(ctx, st); err != nil {
					say("the node stays on the list of members: " + err.Error())
				}
			}
			return n.member.Leave(ctx)
		},
		NoteWipe: noteWipe, Wipe: doWipe,
		KillAll: boot.KillAll, UnmountInner: boot.UnmountInner, Unmount: boot.Unmount(n.boot.Container, letGo), Sync: boot.Sync, Down: n.powerDown,
	})
}

// noteAction writes down what the node goes down for: for the supervisor of a
// container, and for those who ask later why a machine was away.
func (n *node) noteAction(a power.Action) error {
	err := power.Note(layout.PowerFile, a)
	if n.boots != nil {
		err = errors.Join(err, n.boots.Ending(string(a)))
	}
	return err
}

// powerDown is the end of the kernel, or of the node's PID namespace.
func (n *node) powerDown(a power.Action) error {
	if n.boot.Container {
		return power.Down(a)
	}
	return power.MachineDown(a)
}
