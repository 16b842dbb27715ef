package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"go.yaml.in/yaml/v3"

	"talos/api/common"
	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

// power takes one node down and waits for what follows.
type power struct {
	operation
	a     *cli.App
	c     *client.Client
	node  string
	flags *powerFlags
	last  string // what was said last
}

func (p *power) say(text string) {
	p.last = text
	p.a.Note("%s: %s", p.node, text)
}

func (p *power) run(ctx context.Context) error {
	before, err := p.state(ctx)
	if err != nil && p.flags.On && client.KindOf(err) == client.Unreachable {
		return err
	}
	actor, err := p.start(ctx, p.c)
	if err != nil {
		return err
	}
	p.say(p.verb + " accepted")
	if !p.flags.On {
		return nil
	}
	begin := time.Now()
	if err := p.follow(ctx, actor); err != nil {
		return err
	}
	waiting := cli.Waiting{On: true, Limit: max(p.flags.Limit-time.Since(begin), time.Second)}
	if !p.again {
		if err := waiting.Wait(ctx, p.node+" to be off", p.say, p.off()); err != nil {
			return err
		}
		p.say("off")
		return nil
	}
	what := map[bool]string{true: " to be ready", false: " to be up again"}[p.ready]
	if err := waiting.Wait(ctx, p.node+what, p.say, p.back(before.boot)); err != nil {
		return err
	}
	p.say(fmt.Sprintf("%s after %s", strings.TrimPrefix(what, " to be "), time.Since(begin).Round(time.Second)))
	return nil
}

// follow tells the steps of a sequence until the node goes away or the sequence
// is over. What goes wrong with the stream is no failure of the sequence; a
// sequence that has ended and left the node up is.
func (p *power) follow(ctx context.Context, actor string) error {
	if actor == "" {
		return nil
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.flags.Limit)
	defer cancel()
	stream, err := p.c.Machine.Events(ctx, &machine.EventsRequest{TailEvents: -1, WithActorId: actor})
	for err == nil {
		var event *machine.Event
		if event, err = stream.Recv(); err != nil {
			break
		}
		text, over, failed := describe(event)
		if failed != nil {
			return failed
		}
		if text != "" {
			p.say(text)
		}
		if over {
			return nil
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), time.Since(begin) > p.flags.Limit-50*time.Millisecond: // calls end a little before ctx
		return &cli.TimeoutError{What: p.node + " to go down", Limit: p.flags.Limit, Last: p.last}
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return nil
}

// describe puts an event of a sequence in words.
func describe(event *machine.Event) (text string, over bool, failed error) {
	payload, err := event.GetData().UnmarshalNew()
	if err != nil {
		return "", false, nil
	}
	switch e := payload.(type) {
	case *machine.PhaseEvent:
		if e.GetAction() == machine.PhaseEvent_START {
			return e.GetPhase(), false, nil
		}
	case *machine.TaskEvent:
		if m := e.GetMessage(); m != "" {
			return e.GetTask() + ": " + m, false, nil
		}
	case *machine.SequenceEvent:
		message := e.GetError().GetMessage()
		if message != "" && e.GetError().GetCode() == common.Code_CANCELED {
			return "", true, errors.New(message + "; the node stays up")
		}
		return message, e.GetAction() == machine.SequenceEvent_STOP, nil
	}
	return "", false, nil
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

// off looks whether the node has stopped answering: twice, as one call may get
// lost for another reason.
func (p *power) off() cli.Look {
	silent := 0
	return func(ctx context.Context) (string, bool, error) {
		s, err := p.state(ctx)
		if err == nil {
			silent = 0
			return s.Stage, false, nil
		}
		silent++
		return "", silent >= 2, nil
	}
}

// back looks whether the node is there after a boot later than the one that
// began at before.
func (p *power) back(before time.Time) cli.Look {
	return func(ctx context.Context) (string, bool, error) {
		s, err := p.state(ctx)
		switch {
		case err != nil && client.KindOf(err) == client.UntrustedServer && !p.ready:
			return "", true, nil // it came back as somebody else, after its STATE was wiped
		case err != nil:
			return "not answering", false, nil
		case s.boot.Equal(before):
			return "going down", false, nil
		case s.Data.Ready || !p.ready:
			return s.String(), true, nil
		}
		return "up, " + s.String(), false, nil
	}
}
