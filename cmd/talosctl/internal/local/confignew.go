package local

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/machine"
	"talos/client"
	"talos/client/talosconfig"
	"talos/cmd/talosctl/internal/cli"
)

func newCommand(a *cli.App) *cobra.Command {
	var roles []string
	var ttl time.Duration
	var name string
	cmd := &cobra.Command{
		Use:   "new [FILE]",
		Short: "Have a control plane node make a talosconfig with other roles or a new certificate",
		Long: `Have a control plane node make a talosconfig with a new key and certificate.

It is written to FILE, by default ./talosconfig, or to standard output for -.
The endpoints and nodes of the present context are taken over. Give each person
a certificate with a --name of their own: the audit log then tells who did what.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "talosconfig"
			if len(args) > 0 {
				path = args[0]
			}
			data, err := newConfig(cmd.Context(), a, name, roles, ttl)
			if err != nil {
				return err
			}
			if path == "-" {
				_, err := a.Out.Write(data)
				return err
			}
			if err := refuseExisting(path, false); err != nil {
				return err
			}
			if err := talosconfig.WritePrivate(path, data); err != nil {
				return err
			}
			a.Note("wrote %s", path)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "who will use it: the name that the audit log shows (default: the roles)")
	cmd.Flags().StringSliceVar(&roles, "roles", []string{"os:admin"}, "roles of the certificate")
	cmd.Flags().DurationVar(&ttl, "crt-ttl", 365*24*time.Hour, "how long the certificate is valid")
	return cmd
}

func newConfig(ctx context.Context, a *cli.App, name string, roles []string, ttl time.Duration) ([]byte, error) {
	if ttl <= 0 {
		return nil, cli.Usage("--crt-ttl %v is not positive", ttl)
	}
	request := &machine.GenerateClientConfigurationRequest{Roles: roles, CrtTtl: durationpb.New(ttl), Name: name}
	var endpoints, nodes []string
	answers, err := cli.AskOne(ctx, a, cli.Cluster, func(ctx context.Context, c *client.Client) (*machine.GenerateClientConfigurationResponse, error) {
		endpoints, nodes = c.Endpoints(), c.Nodes()
		return c.Machine.GenerateClientConfiguration(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	if len(answers) == 0 {
		return nil, errors.New("the node answered without a talosconfig")
	}
	cfg, err := talosconfig.Parse(answers[0].Message.GetTalosconfig())
	if err != nil {
		return nil, err
	}
	for _, ctx := range cfg.Contexts {
		if len(ctx.Endpoints) == 0 {
			ctx.Endpoints, ctx.Nodes = endpoints, nodes
		}
	}
	return cfg.Bytes()
}
