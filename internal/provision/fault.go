package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"talos/internal/linux/atomicfile"
	"talos/internal/loop"
)

// How a node's network is cut: both ways, or only what the node sends, or only
// what is sent to it.
const (
	CutBoth = "both"
	CutFrom = "from"
	CutTo   = "to"
)

// Partitions are the parts of a node's disk that can be erased.
var Partitions = []string{"STATE", "EPHEMERAL"}

// onNodes does something to nodes of a cluster, one after the other.
func onNodes(name, what string, nodes []string, fn func(*Cluster, Node) error) error {
	return operate(name, what, func(dirs) error {
		c, err := Load(name)
		if err != nil {
			return err
		}
		list, err := c.pick(nodes)
		if err != nil {
			return err
		}
		for _, n := range list {
			if err := fn(c, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// Freeze stops all processes of nodes where they are, as a machine that hangs:
// its network answers, and nobody behind it.
func Freeze(ctx context.Context, name string, nodes []string) error {
	return onNodes(name, "freeze nodes of", nodes, func(c *Cluster, n Node) error { return c.runner(n).Freeze(ctx) })
}

// Thaw lets frozen nodes go on.
func Thaw(ctx context.Context, name string, nodes []string) error {
	return onNodes(name, "thaw nodes of", nodes, func(c *Cluster, n Node) error { return c.runner(n).Thaw(ctx) })
}

// Buttons of virtual machines: power and reset on the case, the one that some
// servers have for a processor interrupt, and three keys at once.
const (
	ButtonPower         = "power"
	ButtonReset         = "reset"
	ButtonNMI           = "nmi"
	ButtonCtrlAltDelete = "ctrl-alt-delete"
)

// Buttons are those that there are, the default first.
var Buttons = []string{ButtonPower, ButtonReset, ButtonNMI, ButtonCtrlAltDelete}

// Press presses a button of nodes; containers have none.
func Press(ctx context.Context, name string, nodes []string, button string) error {
	if !slices.Contains(Buttons, button) {
		return fmt.Errorf("press the button %q: want one of %s", button, strings.Join(Buttons, ", "))
	}
	return onNodes(name, "press a button of nodes of", nodes, func(c *Cluster, n Node) error {
		r, ok := c.runner(n).(buttons)
		if !ok {
			return fmt.Errorf("%s has no buttons: it is a container", n.Name)
		}
		return r.Press(ctx, button)
	})
}

// Cut cuts nodes off the network, both ways or one; their links stay up, and
// what is sent is lost. It lasts until Restore, also when a node starts again.
func Cut(_ context.Context, name string, nodes []string, how string) error {
	if !slices.Contains([]string{CutBoth, CutFrom, CutTo}, how) {
		return fmt.Errorf("cut the network %q: want %s, %s or %s", how, CutBoth, CutFrom, CutTo)
	}
	return onNodes(name, "cut the network of nodes of", nodes, func(c *Cluster, n Node) error {
		if err := atomicfile.Save(c.dirs.nodeCut(n.Name), []byte(how), 0o600); err != nil {
			return err
		}
		return c.network().EnsureCuts()
	})
}

// Restore undoes Cut.
func Restore(_ context.Context, name string, nodes []string) error {
	return onNodes(name, "restore the network of nodes of", nodes, func(c *Cluster, n Node) error {
		if err := os.Remove(c.dirs.nodeCut(n.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return c.network().EnsureCuts()
	})
}

// cut is how a node's network is cut; "": not at all.
func (c *Cluster) cut(n Node) string {
	data, err := os.ReadFile(c.dirs.nodeCut(n.Name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Erase empties partitions of nodes' disks, as if the disk had been replaced. A
// node that runs is ended first, without warning, and started again after it.
func Erase(ctx context.Context, name string, nodes, partitions []string, progress func(step string)) error {
	for _, p := range partitions {
		if !slices.Contains(Partitions, p) {
			return fmt.Errorf("erase partition %q: want %s", p, strings.Join(Partitions, " or "))
		}
	}
	return operate(name, "erase disks of", func(dirs) error {
		c, err := Load(name)
		if err != nil {
			return err
		}
		list, err := c.pick(nodes)
		if err != nil {
			return err
		}
		var again []Node
		for _, n := range list {
			if _, running := c.runner(n).Running(); running {
				again = append(again, n)
			}
		}
		report(progress, "erasing %s of %s", strings.Join(partitions, " and "), nodeList(list))
		if err := c.stopNodes(ctx, list, true); err != nil {
			return err
		}
		for _, n := range list {
			if err := c.runner(n).Erase(partitions...); err != nil {
				return err
			}
		}
		if len(again) == 0 {
			return nil
		}
		report(progress, "starting %s", nodeList(again))
		return c.startNodes(ctx, again, progress)
	})
}

func nodeList(nodes []Node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return strings.Join(names, ", ")
}

// StopNodes turns nodes off and leaves the others alone: by their own shutdown,
// or with kill at once, as if the power had failed. They stay off until started.
func StopNodes(ctx context.Context, name string, nodes []string, kill bool, progress func(step string)) error {
	return operate(name, "stop nodes of", func(dirs) error {
		c, err := Load(name)
		if err != nil {
			return err
		}
		list, err := c.pick(nodes)
		if err != nil {
			return err
		}
		report(progress, "stopping %s", nodeList(list))
		return c.stopNodes(ctx, list, kill)
	})
}

// StartNodes starts nodes that are off.
func StartNodes(ctx context.Context, name string, nodes []string, progress func(step string)) error {
	return operate(name, "start nodes of", func(dirs) error {
		c, err := Load(name)
		if err != nil {
			return err
		}
		list, err := c.pick(nodes)
		if err != nil {
			return err
		}
		report(progress, "starting %s", nodeList(list))
		return c.startNodes(ctx, list, progress)
	})
}

func (c *Cluster) stopNodes(ctx context.Context, nodes []Node, kill bool) error {
	for _, n := range nodes {
		if err := os.WriteFile(c.dirs.nodeHalt(n.Name), nil, 0o600); err != nil {
			return err
		}
	}
	if !kill {
		c.shutdown(ctx, nodes)
	}
	for _, n := range nodes {
		if err := c.end(ctx, n); err != nil {
			return fmt.Errorf("end node %s: %w", n.Name, err)
		}
	}
	return nil
}

// end ends a node's processes, and waits until its supervisor has cleared up
// after it; where none runs, that is done here.
func (c *Cluster) end(ctx context.Context, n Node) error {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	r := c.runner(n)
	supervisor := c.dirs.readSupervisor().Process
	if !supervisor.Alive() {
		return kill(ctx, r)
	}
	if err := errors.Join(r.End(ctx), send(supervisor, syscall.SIGHUP)); err != nil { // it may be about to start the node
		return err
	}
	for c.dirs.readSupervisor().Nodes[n.Name].State != StateOff {
		if !loop.Sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("its supervisor has not noticed within %v, see %s", killPatience, c.SupervisorLog())
		}
	}
	return nil
}

func (c *Cluster) startNodes(ctx context.Context, nodes []Node, progress func(string)) error {
	for _, n := range nodes {
		if err := os.Remove(c.dirs.nodeHalt(n.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return c.start(ctx, nodes, progress)
}
