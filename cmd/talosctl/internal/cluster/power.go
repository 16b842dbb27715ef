package cluster

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"talos/cmd/talosctl/internal/cli"
	"talos/internal/provision"
)

// nodeFlag gives cmd a flag --node, which may be repeated.
func nodeFlag(cmd *cobra.Command, name *string, usage string) *[]string {
	nodes := cmd.Flags().StringSlice("node", nil, usage)
	// The flag exists, so this can't go wrong.
	_ = cmd.RegisterFlagCompletionFunc("node", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		c, err := provision.Load(*name)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, n := range c.Nodes {
			names = append(names, n.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return nodes
}

const someNodes = "only these nodes, by name (or what follows the cluster's name in it) or address"

func startCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{Use: "start", Short: "Start a cluster's supervisor and nodes, or take over those that run", Args: cobra.NoArgs}
	name := nameFlag(cmd)
	nodes := nodeFlag(cmd, name, someNodes)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(*nodes) > 0 {
			return explain(provision.StartNodes(cmd.Context(), *name, *nodes, steps(a)), a)
		}
		return explain(provision.Start(cmd.Context(), *name, steps(a)), a)
	}
	return cmd
}

func stopCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Shut a cluster's nodes down; its state stays",
		Long: `Shut a cluster's nodes down and end its supervisor; its state stays. With --node
only these nodes, and the supervisor stays for the others.`,
		Args: cobra.NoArgs,
	}
	name := nameFlag(cmd)
	nodes := nodeFlag(cmd, name, someNodes)
	kill := cmd.Flags().Bool("kill", false, "end nodes at once, as if the power had failed")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(*nodes) > 0 || *kill {
			err := provision.StopNodes(cmd.Context(), *name, *nodes, *kill, steps(a))
			if err != nil || len(*nodes) > 0 {
				return explain(err, a)
			}
		}
		return explain(provision.Stop(cmd.Context(), *name, steps(a)), a)
	}
	return cmd
}

// faultCommand is how one sees whether a cluster survives.
func faultCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("fault", "Break nodes of a cluster on this machine on purpose, and mend them")
	cut := provision.CutBoth
	cutCommand := nodesCommand(a, "cut", "Cut nodes off the network: the link stays up, what is sent is lost",
		func(ctx context.Context, name string, nodes []string, _ func(string)) error {
			return provision.Cut(ctx, name, nodes, cut)
		})
	cutCommand.Flags().StringVar(&cut, "direction", cut, "what is lost: both, from (what the nodes send) or to (what is sent to them)")
	var partitions []string
	erase := nodesCommand(a, "erase", "Erase nodes' disks as if they had been replaced; a node that runs is killed first and started after it",
		func(ctx context.Context, name string, nodes []string, progress func(string)) error {
			return provision.Erase(ctx, name, nodes, partitions, progress)
		})
	erase.Flags().StringSliceVar(&partitions, "partition", provision.Partitions, "what to erase: STATE, EPHEMERAL")
	button := provision.ButtonPower
	press := nodesCommand(a, "press", "Press a button of virtual machines",
		func(ctx context.Context, name string, nodes []string, _ func(string)) error {
			return provision.Press(ctx, name, nodes, button)
		})
	press.Flags().StringVar(&button, "button", button, "which: "+strings.Join(provision.Buttons, ", "))
	quiet := func(do func(context.Context, string, []string) error) func(context.Context, string, []string, func(string)) error {
		return func(ctx context.Context, name string, nodes []string, _ func(string)) error {
			return do(ctx, name, nodes)
		}
	}
	cmd.AddCommand(
		nodesCommand(a, "freeze", "Stop all processes of nodes where they are, as a machine that hangs", quiet(provision.Freeze)),
		nodesCommand(a, "thaw", "Let frozen nodes go on", quiet(provision.Thaw)),
		press,
		cutCommand,
		nodesCommand(a, "restore", "Mend the network of nodes that were cut off", quiet(provision.Restore)),
		erase,
	)
	return cmd
}

// nodesCommand does something to nodes that must be named.
func nodesCommand(a *cli.App, use, short string, do func(ctx context.Context, name string, nodes []string, progress func(string)) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
	name := nameFlag(cmd)
	nodes := nodeFlag(cmd, name, "the nodes, by name (or what follows the cluster's name in it) or address (required, repeatable)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(*nodes) == 0 {
			return cli.Usage("--node is required: which nodes to %s", use)
		}
		return explain(do(cmd.Context(), *name, *nodes, steps(a)), a)
	}
	return cmd
}
