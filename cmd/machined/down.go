package main

import (
	"context"
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
	return sequence.New(sequence.Options{
		Log: n.log, Services: n.services, Pods: n.pods, PowerFile: layout.PowerFile,
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
		NoteWipe: wiper.Plan, Wipe: wiper.Run,
		KillAll: boot.KillAll, UnmountInner: boot.UnmountInner, Unmount: boot.Unmount, Sync: boot.Sync, Down: power.Down,
	})
}
