package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"talos/internal/provision/process"
)

// Provisioners: what nodes are.
const (
	Containers      = "container" // operating system containers
	VirtualMachines = "qemu"      // virtual machines
)

// runner is what one node runs as. It is a description; all that changes is
// files in the node's folder and things on the host that are named after it.
type runner interface {
	// Configure writes down the node's name and configuration, for it to find.
	Configure(name string, config []byte) error
	// Start turns it on, with its console in the node's log file.
	Start(ctx context.Context) (process.ID, error)
	Running() (process.ID, bool)
	// Power is what it asked for when it ended: "reboot", "poweroff", or "" when
	// it asked nothing. ClearPower forgets it.
	Power() string
	ClearPower() error
	// End ends it at once, and Clear removes what it has left on the host.
	End(ctx context.Context) error
	Clear(ctx context.Context) error
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Frozen(ctx context.Context) bool
	// Erase empties partitions; all of Partitions is the whole disk.
	Erase(partitions ...string) error
	Usage() process.Usage
}

// backend is a kind of nodes: what is special about them beyond a machine.
type backend interface {
	// complete fills in what options leave open, and finds what is wrong with them.
	complete(*Options) error
	// preflight looks whether this host can run such nodes, and finds the files.
	preflight(Options) (Assets, error)
	// outfit adds to nodes what only such have.
	outfit(c *Cluster, nodes []Node)
	// settle decides what stays decided for the cluster's life, and copies what
	// its nodes start from, so that building anew changes no cluster.
	settle(ctx context.Context, c *Cluster, progress func(string)) error
	// install says where nodes find their disk; "" when it is ready.
	install(*Cluster) string
	// setUp is done by the supervisor before it starts nodes.
	setUp(*Cluster) error
	services(*supervisor) []service
	runner(*Cluster, Node) runner
	// configured is nil when a node may have its configuration.
	configured(*Cluster, Node) error
	// adopt: the supervisor sees to it that the nodes become a cluster.
	adopt(*Cluster) bool
	// pace is how often a node that is coming up is looked at.
	pace() time.Duration
}

// backends by provisioner. A cluster of no named provisioner is older than the choice.
var backends = map[string]backend{"": containers{}, Containers: containers{}, VirtualMachines: virtual{}}

func (o Options) backend() (backend, error) {
	if b, ok := backends[o.Provisioner]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("provisioner %q: want %s or %s", o.Provisioner, Containers, VirtualMachines)
}

func (c *Cluster) backend() backend     { return backends[c.Provisioner] }
func (c *Cluster) runner(n Node) runner { return c.backend().runner(c, n) }

// kill ends a machine at once, and clears away what it leaves behind.
func kill(ctx context.Context, r runner) error {
	if err := r.End(ctx); err != nil {
		return err
	}
	return r.Clear(ctx)
}

// buttons is what some runners have besides.
type buttons interface {
	Press(ctx context.Context, button string) error
}

// pressPower presses the power button of what has one, and may heed it.
func pressPower(ctx context.Context, r runner) error {
	b, ok := r.(buttons)
	if !ok || r.Frozen(ctx) {
		return errors.ErrUnsupported
	}
	return b.Press(ctx, ButtonPower)
}

// everyRunner is what a node could be, of which nothing but the folder is known.
func (d dirs) everyRunner(node string) []runner {
	c, n := &Cluster{dirs: d, VM: &VM{}}, Node{Name: node}
	return []runner{containers{}.runner(c, n), virtual{}.runner(c, n)}
}
