package provision

import (
	"cmp"
	"context"
	"time"
)

// Status is how a cluster is now.
type Status struct {
	Supervisor int // process id; 0 when none runs
	Nodes      []NodeStatus
}

// NodeStatus is how a node is now.
type NodeStatus struct {
	Node
	State    string // one of the State constants
	PID      int    // of its init on the host; 0 when it does not run
	Restarts int    // lately, that it did not ask for
	Error    string // why it could not be started
	Cut      string // how its network is cut; see Cut
	UsedMem  int64  // bytes
	UsedCPU  time.Duration
}

// Status looks at the processes; it needs no supervisor.
func (c *Cluster) Status(ctx context.Context) Status {
	var out Status
	s := c.dirs.readSupervisor()
	if s.Process.Alive() {
		out.Supervisor = s.Process.PID
	}
	for _, n := range c.Nodes {
		r := c.runner(n)
		known := s.Nodes[n.Name]
		ns := NodeStatus{Node: n, State: StateOff, Restarts: known.Restarts, Error: cmp.Or(known.Error, s.Trouble[n.Name]), Cut: c.cut(n)}
		p, running := r.Running()
		switch {
		case running && r.Frozen(ctx):
			ns.State = StateFrozen
		case running && out.Supervisor != 0:
			ns.State = StateRunning
		case running:
			ns.State = StateUnattended
		case out.Supervisor != 0 && known.State == StateRestarting:
			ns.State = StateRestarting
		}
		if running {
			ns.PID = p.PID
			usage := r.Usage()
			ns.UsedMem, ns.UsedCPU = usage.Memory, usage.CPU
		}
		out.Nodes = append(out.Nodes, ns)
	}
	return out
}
