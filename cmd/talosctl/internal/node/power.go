package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

// pollPeriod is how often a node that reboots is asked whether it is there.
const pollPeriod = 500 * time.Millisecond

func rebootCommand(a *cli.App) *cobra.Command {
	var wait bool
	var mode string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "reboot",
		Short: "Reboot nodes and wait until they are ready again",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until the node has booted and is ready, and tell the steps")
	cmd.Flags().StringVarP(&mode, "mode", "m", "default", "default, force (do not stop services in order) or powercycle")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		value, ok := machine.RebootRequest_Mode_value[strings.ToUpper(mode)]
		if !ok {
			return cli.Usage("--mode %q is none of default, force, powercycle", mode)
		}
		return eachPower(cmd.Context(), a, timeout, func(ctx context.Context, p *power) error {
			return p.reboot(ctx, machine.RebootRequest_Mode(value), wait)
		})
	}
	return cmd
}

func shutdownCommand(a *cli.App) *cobra.Command {
	var wait, force bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "shutdown",
		Short: "Turn nodes off",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until the node stops answering, and tell the steps")
	cmd.Flags().BoolVar(&force, "force", false, "do not drain the node first")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return eachPower(cmd.Context(), a, timeout, func(ctx context.Context, p *power) error {
			return p.shutdown(ctx, force, wait)
		})
	}
	return cmd
}

// power turns one node off or round.
type power struct {
	a    *cli.App
	c    *client.Client
	node string
}

func eachPower(ctx context.Context, a *cli.App, timeout time.Duration, do func(context.Context, *power) error) error {
	c, err := a.Connect(ctx, cli.Node)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answers := client.EachNode(ctx, c, func(ctx context.Context, node string) (struct{}, error) {
		return struct{}{}, do(ctx, &power{a: a, c: c, node: node})
	})
	_, err = cli.Sift(a, answers)
	return err
}

func (p *power) say(format string, args ...any) {
	p.a.Note("%s: %s", p.node, fmt.Sprintf(format, args...))
}

func (p *power) reboot(ctx context.Context, mode machine.RebootRequest_Mode, wait bool) error {
	before, err := p.state(ctx)
	if err != nil && wait {
		return err
	}
	reply, err := p.c.Machine.Reboot(ctx, &machine.RebootRequest{Mode: mode})
	if err != nil {
		return err
	}
	p.say("reboot accepted")
	if !wait {
		return nil
	}
	start := time.Now()
	for _, m := range reply.GetMessages() {
		p.follow(ctx, m.GetActorId())
	}
	if err := p.await(ctx, before.boot); err != nil {
		return err
	}
	p.say("ready after %s", time.Since(start).Round(time.Second))
	return nil
}

func (p *power) shutdown(ctx context.Context, force, wait bool) error {
	reply, err := p.c.Machine.Shutdown(ctx, &machine.ShutdownRequest{Force: force})
	if err != nil {
		return err
	}
	p.say("shutdown accepted")
	if !wait {
		return nil
	}
	for _, m := range reply.GetMessages() {
		p.follow(ctx, m.GetActorId())
	}
	for {
		if _, err := p.state(ctx); err != nil && ctx.Err() == nil {
			p.say("off")
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("wait for %s to go off: %w", p.node, err)
		}
	}
}

// follow tells the steps of a sequence until the node goes away or the sequence
// is over. What goes wrong with the stream is no failure of the sequence.
func (p *power) follow(ctx context.Context, actor string) {
	if actor == "" {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := p.c.Machine.Events(ctx, &machine.EventsRequest{TailEvents: -1, WithActorId: actor})
	if err != nil {
		return
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return
		}
		text, over := describe(event)
		if text != "" {
			p.say("%s", text)
		}
		if over {
			return
		}
	}
}

// describe puts an event of a sequence in words.
func describe(event *machine.Event) (text string, over bool) {
	payload, err := event.GetData().UnmarshalNew()
	if err != nil {
		return "", false
	}
	switch e := payload.(type) {
	case *machine.PhaseEvent:
		if e.GetAction() == machine.PhaseEvent_START {
			return "phase " + e.GetPhase(), false
		}
	case *machine.TaskEvent:
		if e.GetAction() == machine.TaskEvent_START {
			return "step " + e.GetTask(), false
		}
	case *machine.SequenceEvent:
		if m := e.GetError().GetMessage(); m != "" {
			return "sequence " + e.GetSequence() + ": " + m, true
		}
		return "", e.GetAction() == machine.SequenceEvent_STOP
	case *machine.RestartEvent:
		return "restarting", true
	}
	return "", false
}

// machineState is what the node says of itself.
type machineState struct {
	boot  time.Time // when this run of the node began
	Stage string    `yaml:"stage"`
	Data  struct {
		Ready bool `yaml:"ready"`
		Unmet []struct {
			Name   string `yaml:"name"`
			Reason string `yaml:"reason"`
		} `yaml:"unmetConditions"`
	} `yaml:"status"`
}

func (s machineState) String() string {
	if len(s.Data.Unmet) == 0 {
		return s.Stage
	}
	var unmet []string
	for _, u := range s.Data.Unmet {
		unmet = append(unmet, u.Name+" ("+u.Reason+")")
	}
	return s.Stage + ", waiting for " + strings.Join(unmet, ", ")
}

// state asks for the machine's status. A node keeps it in memory, so the time
// when the resource was made tells one boot from the next.
func (p *power) state(ctx context.Context) (machineState, error) {
	var s machineState
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply, err := p.c.Resources.Get(ctx, &cosi.GetRequest{
		Namespace: "runtime", Type: "MachineStatuses.runtime.talos.dev", Id: "machine", Options: &cosi.GetOptions{},
	})
	if err != nil {
		return s, err
	}
	s.boot = reply.GetResource().GetMetadata().GetCreated().AsTime()
	if err := yaml.Unmarshal([]byte(reply.GetResource().GetSpec().GetYamlSpec()), &s); err != nil {
		return s, fmt.Errorf("decode the status of %s: %w", p.node, err)
	}
	return s, nil
}

// await waits for a boot after the one that began at before, to be ready.
func (p *power) await(ctx context.Context, before time.Time) error {
	said := ""
	tell := func(text string) {
		if text != said {
			p.say("%s", text)
		}
		said = text
	}
	for {
		s, err := p.state(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			tell("not answering")
		case err == nil && s.boot.Equal(before):
			tell("going down")
		case err == nil && s.Data.Ready:
			return nil
		case err == nil:
			tell("up, " + s.String())
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("wait for %s to be ready (last seen: %s): %w", p.node, said, err)
		}
	}
}

// pause waits for the next poll.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pollPeriod):
		return nil
	}
}

func eventsCommand(a *cli.App) *cobra.Command {
	var tail int32
	var lasts time.Duration
	var after, actor string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Follow what happens on the nodes",
		Args:  cobra.NoArgs,
	}
	format := cli.OutputFlag(cmd)
	cmd.Flags().Int32Var(&tail, "tail", 0, "begin with this many past events (-1: all)")
	cmd.Flags().StringVar(&after, "since", "", "begin after the event with this id")
	cmd.Flags().DurationVar(&lasts, "duration", 0, "begin with the events of this past time")
	cmd.Flags().StringVar(&actor, "actor-id", "", "only those of one sequence")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		request := &machine.EventsRequest{TailEvents: tail, TailId: after, TailSeconds: int32(lasts / time.Second), WithActorId: actor}
		return followEvents(cmd.Context(), a, *format, request)
	}
	return cmd
}

func followEvents(ctx context.Context, a *cli.App, format cli.Format, request *machine.EventsRequest) error {
	c, err := a.Connect(ctx, cli.Node)
	if err != nil {
		return err
	}
	defer c.Close()
	out := newEventWriter(a, format)
	answers := client.EachNode(ctx, c, func(ctx context.Context, node string) (struct{}, error) {
		stream, err := c.Machine.Events(ctx, request)
		for err == nil {
			var event *machine.Event
			if event, err = stream.Recv(); err == nil {
				err = out.write(node, event)
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return struct{}{}, err
	})
	_, err = cli.Sift(a, answers)
	return err
}
