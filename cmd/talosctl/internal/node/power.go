package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

// powerFlags are the flags of all commands that take nodes down.
type powerFlags struct {
	*cli.Waiting
	drainTimeout, deadline time.Duration
	quorum                 string
	parallel               bool
}

func newPowerFlags(cmd *cobra.Command, until string) *powerFlags {
	p := &powerFlags{Waiting: cli.WaitFlags(cmd, true, 30*time.Minute, until)}
	f := cmd.Flags()
	f.DurationVar(&p.drainTimeout, "drain-timeout", 5*time.Minute, "how long the pods may take to move away; then the node goes on without")
	f.DurationVar(&p.deadline, "deadline", 0, "how long the node may take in all: then it goes down whatever hangs (default: what the drain and an orderly end need)")
	f.StringVar(&p.quorum, "force-quorum-loss", "", "name of the cluster: do it although etcd loses its quorum by it")
	f.BoolVar(&p.parallel, "parallel", false, "all nodes at once instead of one after the other")
	return p
}

// check refuses what can't be meant.
func (p *powerFlags) check(verb string, nodes int) error {
	switch {
	case p.Limit <= 0:
		return cli.Usage("--timeout %v is not positive", p.Limit)
	case p.drainTimeout <= 0:
		return cli.Usage("--drain-timeout %v is not positive", p.drainTimeout)
	case p.deadline < 0:
		return cli.Usage("--deadline %v is negative", p.deadline)
	case nodes > 1 && !p.On && !p.parallel:
		return cli.Usage("%s of %d nodes one after the other has to wait for each: leave out --wait=false, or say --parallel", verb, nodes)
	}
	return nil
}

func (p *powerFlags) limit() *durationpb.Duration {
	if p.deadline == 0 {
		return nil
	}
	return durationpb.New(p.deadline)
}

func rebootCommand(a *cli.App) *cobra.Command {
	var mode string
	var drain, force bool
	cmd := &cobra.Command{
		Use:   "reboot",
		Short: "Reboot nodes, one after the other, and wait until they are ready again",
		Long: `Reboot nodes, one after the other, and wait until they are ready again.

A node is cordoned and its pods are moved away first; after its start it
uncordons itself. What would cost etcd its quorum is refused.`,
		Args: cobra.NoArgs,
	}
	p := newPowerFlags(cmd, "the node has booted and is ready")
	cmd.Flags().StringVarP(&mode, "mode", "m", "default", "default, force (stop nothing in order, take over a sequence that hangs) or powercycle")
	cmd.Flags().BoolVar(&force, "force", false, "the same as --mode force")
	cmd.Flags().BoolVar(&drain, "drain", true, "move the pods away first")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		value, ok := machine.RebootRequest_Mode_value[strings.ToUpper(mode)]
		if !ok {
			return cli.Usage("--mode %q is none of default, force, powercycle", mode)
		}
		request := &machine.RebootRequest{Mode: machine.RebootRequest_Mode(value), Drain: drain, DrainTimeout: durationpb.New(p.drainTimeout), Deadline: p.limit(), ForceQuorumLoss: p.quorum}
		if force {
			request.Mode = machine.RebootRequest_FORCE
		}
		return each(cmd.Context(), a, p, operation{verb: "reboot", again: true, ready: true, start: func(ctx context.Context, c *client.Client) (string, error) {
			reply, err := c.Machine.Reboot(ctx, request)
			return actorOf(reply.GetMessages()), err
		}})
	}
	return cmd
}

func shutdownCommand(a *cli.App) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "shutdown",
		Short: "Turn nodes off, one after the other",
		Long: `Turn nodes off, one after the other.

A node is cordoned and its pods are moved away first; when it is started again
it uncordons itself. What would cost etcd its quorum is refused.`,
		Args: cobra.NoArgs,
	}
	p := newPowerFlags(cmd, "the node is off")
	cmd.Flags().BoolVar(&force, "force", false, "move no pods and stop nothing in order; take over a sequence that hangs")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		request := &machine.ShutdownRequest{Force: force, DrainTimeout: durationpb.New(p.drainTimeout), Deadline: p.limit(), ForceQuorumLoss: p.quorum}
		return each(cmd.Context(), a, p, operation{verb: "shutdown", start: func(ctx context.Context, c *client.Client) (string, error) {
			reply, err := c.Machine.Shutdown(ctx, request)
			return actorOf(reply.GetMessages()), err
		}})
	}
	return cmd
}

// actorOf is the id of the sequence that a reply tells of.
func actorOf[M interface{ GetActorId() string }](messages []M) string {
	for _, m := range messages {
		return m.GetActorId()
	}
	return ""
}

// operation takes a node down.
type operation struct {
	verb  string
	again bool // it comes back
	ready bool // and is ready then
	start func(ctx context.Context, c *client.Client) (actor string, err error)
	// confirm, if there is one, asks before anything is sent.
	confirm func(c *client.Client) error
}

// each does it to all nodes: in turn, up to the first that fails, or at once.
func each(ctx context.Context, a *cli.App, p *powerFlags, o operation) error {
	c, err := a.Connect(ctx, cli.Node)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := p.check(o.verb, len(c.Nodes())); err != nil {
		return err
	}
	if o.confirm != nil {
		if err := o.confirm(c); err != nil {
			return err
		}
	}
	one := func(ctx context.Context, node string) (struct{}, error) {
		return struct{}{}, (&power{a: a, c: c, node: node, flags: p, operation: o}).run(ctx)
	}
	if p.parallel || len(c.Nodes()) < 2 {
		_, err = cli.Sift(a, client.EachNode(ctx, c, one))
		return err
	}
	for i, node := range c.Nodes() {
		if _, err := one(client.WithNode(ctx, node), node); err != nil {
			if left := c.Nodes()[i+1:]; len(left) > 0 {
				a.Note("not touched: %s", strings.Join(left, ", "))
			}
			if i > 0 {
				a.Report(err)
				return &cli.PartialError{Failed: len(c.Nodes()) - i, All: len(c.Nodes())}
			}
			return fmt.Errorf("%s: %w", node, err)
		}
	}
	return nil
}
