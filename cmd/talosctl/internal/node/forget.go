package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"talos/api/roster"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

func forgetCommand(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:   "forget NODE",
		Short: "Take a node that is gone off the list of members",
		Long: `Take a node that is gone off the list of members, and set its names free for
another machine. NODE is its host name, or its node id as "get affiliates" shows
it. A node that is still there comes back by itself: a control plane node at
once, a worker when it renews its certificate.`,
		Example: "  talosctl forget worker-3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answers, err := cli.Ask(cmd.Context(), a, cli.Cluster, func(ctx context.Context, c *client.Client) (*roster.ForgetResponse, error) {
				return c.Roster.Forget(ctx, &roster.ForgetRequest{Node: args[0]})
			})
			for _, answer := range answers {
				fmt.Fprintf(a.Out, "forgotten: %s\n", strings.Join(answer.Message.GetNames(), ", "))
			}
			return err
		},
	}
}
