package node

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"talos/api/machine"
	"talos/cmd/talosctl/internal/cli"
)

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
	return cli.Follow(ctx, a, c, func(ctx context.Context, node string) error {
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
		return err
	})
}
