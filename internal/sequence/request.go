package sequence

import (
	"cmp"
	"time"

	"talos/internal/power"
)

// Kind is what a sequence leads to.
type Kind string

// The kinds, which are also the names of the sequences.
const (
	Reboot   Kind = "reboot"
	Shutdown Kind = "shutdown"
	Reset    Kind = "reset"
)

// Defaults and bounds of what a caller may ask for.
const (
	DefaultDrain = 5 * time.Minute
	MinDeadline  = 5 * time.Second
	MaxDeadline  = 24 * time.Hour

	forceLimit = 20 * time.Second
)

// Request says how the node shall go down.
type Request struct {
	Kind Kind
	// Force asks nobody: services and pods are killed. It takes over a sequence
	// that is under way without force.
	Force bool
	// Drain cordons the node and moves its pods away first.
	Drain bool
	// Leave takes the node out of etcd and the cluster for good, before anything
	// is stopped. If that can't be done the sequence ends there.
	Leave bool
	// Insist goes on although the cluster could not be left.
	Insist bool
	// Wipe names what of the system disk is emptied: EPHEMERAL, STATE, META.
	Wipe []string
	// Disks are the user's that are emptied whole, by what tells them from others
	// after a restart too.
	Disks []string
	// Loses says that what etcd keeps on this node goes with that.
	Loses bool
	// Again starts the machine again after a reset.
	Again bool
	// DrainTimeout bounds the drain, Deadline all; zero is the default.
	DrainTimeout, Deadline time.Duration
}

func (r Request) action() power.Action {
	if r.Kind == Reboot || r.Kind == Reset && r.Again {
		return power.Reboot
	}
	return power.PowerOff
}

// limits are the parts of the one deadline, each counted from the beginning: by
// when everything is prepared, by when everything has been asked to stop, by
// when the node is down.
type limits struct {
	prepared, stopped, down time.Duration
}

// What the parts take at most.
const (
	notesNeed = 10 * time.Second
	leaveNeed = time.Minute
	stopNeed  = time.Minute
	endNeed   = 30 * time.Second
	wipeNeed  = time.Minute
)

// limits divides the time: everything gets what it needs, and less in the same
// measure when the caller has less.
func (r Request) limits() limits {
	prepare, stop, end := notesNeed, stopNeed, endNeed
	if r.Drain {
		prepare += r.drainTimeout()
	}
	if r.Leave {
		prepare += leaveNeed
	}
	if r.Force {
		stop = 0
	}
	end += r.wipeNeeds()
	whole, need := r.Deadline, prepare+stop+end
	switch {
	case whole == 0 && r.Force:
		whole = forceLimit
	case whole == 0:
		whole = need
	}
	if whole < need {
		share := float64(whole) / float64(need)
		prepare, stop = time.Duration(share*float64(prepare)), time.Duration(share*float64(stop))
	}
	return limits{prepared: prepare, stopped: prepare + stop, down: whole}
}

// wipes says whether anything is emptied.
func (r Request) wipes() bool { return len(r.Wipe) > 0 || len(r.Disks) > 0 }

// wipeNeeds is what that takes: the partitions, and then each disk.
func (r Request) wipeNeeds() time.Duration {
	need := time.Duration(len(r.Disks)) * wipeNeed
	if len(r.Wipe) > 0 {
		need += wipeNeed
	}
	return need
}

func (r Request) drainTimeout() time.Duration { return cmp.Or(r.DrainTimeout, DefaultDrain) }

// stronger says whether r may take over a sequence that other began.
func (r Request) stronger(other Request) bool { return r.Force && !other.Force }

// same says whether who asks for r gets what other does anyway.
func (r Request) same(other Request) bool {
	return r.Kind == other.Kind && r.Kind != Reset && !r.stronger(other)
}
