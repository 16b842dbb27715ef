package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

var wipeModes = map[string]machine.ResetRequest_WipeMode{
	"all": machine.ResetRequest_ALL, "system-disk": machine.ResetRequest_SYSTEM_DISK, "user-disks": machine.ResetRequest_USER_DISKS,
}

func resetCommand(a *cli.App) *cobra.Command {
	var graceful, again bool
	var labels, disks []string
	var mode, confirmed string
	cmd := &cobra.Command{
		Use:   "reset -n NODE",
		Short: "Wipe nodes, one after the other, and turn them off or start them anew",
		Long: `Wipe nodes, one after the other, and turn them off or start them anew.

A node is cordoned, its pods are moved away and it leaves etcd's cluster; if it
can't leave, nothing is wiped. Then EPHEMERAL (containers, etcd's data), STATE
(configuration and identity) or both are emptied, and of the other disks those
that are named. The nodes have to be named on the command line, and what is lost
has to be confirmed by typing its name.

To begin anew with the same machine configuration:

  reset -n NODE --system-labels-to-wipe EPHEMERAL --reboot

To empty a disk of your own, and nothing else:

  reset -n NODE --wipe-mode user-disks --user-disks-to-wipe /dev/nvme0n1 --reboot`,
		Args: cobra.NoArgs,
	}
	p := newPowerFlags(cmd, "the node is off, or up again with --reboot")
	f := cmd.Flags()
	f.BoolVar(&graceful, "graceful", true, "cordon, drain and leave etcd first")
	f.BoolVar(&again, "reboot", false, "start the node again instead of turning it off")
	f.StringSliceVar(&labels, "system-labels-to-wipe", nil, "wipe only these: EPHEMERAL, STATE, META (default: all)")
	f.StringSliceVar(&disks, "user-disks-to-wipe", nil, "wipe these disks too: devices, or links below /dev/disk")
	f.StringVar(&mode, "wipe-mode", "all", "all (system disk, and the user disks that are named), system-disk or user-disks")
	f.StringVar(&confirmed, "confirm", "", "name of the node, or of the cluster, in place of typing it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		value, known := wipeModes[mode]
		if !known {
			return cli.Usage("--wipe-mode %q is none of all, system-disk, user-disks", mode)
		}
		for _, label := range labels {
			if !slices.Contains([]string{"EPHEMERAL", "STATE", "META"}, label) {
				return cli.Usage("--system-labels-to-wipe: %q is none of EPHEMERAL, STATE, META", label)
			}
		}
		switch {
		case mode == "user-disks" && len(disks) == 0:
			return cli.Usage("--wipe-mode user-disks wipes the disks that --user-disks-to-wipe names, and it names none")
		case mode == "user-disks" && len(labels) > 0:
			return cli.Usage("--wipe-mode user-disks wipes no system partition: leave out --system-labels-to-wipe")
		case mode == "system-disk" && len(disks) > 0:
			return cli.Usage("--wipe-mode system-disk wipes no user disk: leave out --user-disks-to-wipe")
		}
		if err := a.NamedNodes("reset"); err != nil {
			return err
		}
		request := &machine.ResetRequest{
			Graceful: graceful, Reboot: again, Mode: value, UserDisksToWipe: disks,
			DrainTimeout: durationpb.New(p.drainTimeout), Deadline: p.limit(), ForceQuorumLoss: p.quorum,
		}
		for _, label := range labels {
			request.SystemPartitionsToWipe = append(request.SystemPartitionsToWipe, &machine.ResetPartitionSpec{Label: label, Wipe: true})
		}
		return each(cmd.Context(), a, p, operation{
			verb: "reset", again: again,
			confirm: func(c *client.Client) error { return confirmReset(a, c, whatIsLost(mode, labels, disks), confirmed) },
			start: func(ctx context.Context, c *client.Client) (string, error) {
				reply, err := c.Machine.Reset(ctx, request)
				return actorOf(reply.GetMessages()), err
			},
		})
	}
	return cmd
}

// whatIsLost is what a reset wipes, in words.
func whatIsLost(mode string, labels, disks []string) string {
	var what []string
	switch {
	case mode == "user-disks":
	case len(labels) > 0:
		what = append(what, labels...)
	case mode == "system-disk" || len(disks) > 0:
		what = append(what, "all of the system disk")
	default:
		return "everything"
	}
	for _, d := range disks {
		what = append(what, "the whole of "+d)
	}
	return strings.Join(what, " and ")
}

func confirmReset(a *cli.App, c *client.Client, what, confirmed string) error {
	nodes := c.Nodes()
	names := []string{c.Context()}
	if len(nodes) == 1 {
		names = []string{nodes[0], c.Context()}
	}
	return a.ConfirmName(fmt.Sprintf("This wipes %s on %s of cluster %s.", what, strings.Join(nodes, ", "), c.Context()), confirmed, names...)
}
