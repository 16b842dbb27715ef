package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

// defragTimeout bounds the work on one node: etcd writes its database anew.
const defragTimeout = 10 * time.Minute

func etcdForfeitCommand(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use: "forfeit-leadership", Short: "Make another member the leader, if it is the one of the node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answers, err := cli.Ask(cmd.Context(), a, cli.Node, func(ctx context.Context, c *client.Client) (*machine.EtcdForfeitLeadershipResponse, error) {
				return c.Machine.EtcdForfeitLeadership(ctx, &machine.EtcdForfeitLeadershipRequest{})
			})
			for _, answer := range answers {
				if name := answer.Message.GetMember(); name != "" {
					a.Note("%s: %s leads now", answer.Node, name)
				} else {
					a.Note("%s: nothing to hand over: it does not lead, or there is no other that could", answer.Node)
				}
			}
			return err
		},
	}
}

func etcdLeaveCommand(a *cli.App) *cobra.Command {
	var confirmed, quorum string
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take the node's member out of the cluster and delete its data",
		Long: `Take the node's member out of the cluster, stop it and delete its data. The node
joins again after a reboot; to keep it out, reset it.

Refused if etcd's other members would then have no majority.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&confirmed, "confirm", "", "name of the node, or of the cluster, in place of typing it")
	cmd.Flags().StringVar(&quorum, "force-quorum-loss", "", "name of the cluster: do it although etcd loses its quorum by it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.NamedNodes("etcd leave"); err != nil {
			return err
		}
		_, err := cli.AskOne(cmd.Context(), a, cli.Node, func(ctx context.Context, c *client.Client) (*machine.EtcdLeaveClusterResponse, error) {
			node := c.Nodes()[0]
			if err := a.ConfirmName(fmt.Sprintf("This deletes the data of etcd on %s of cluster %s.", node, c.Context()), confirmed, node, c.Context()); err != nil {
				return nil, err
			}
			return c.Machine.EtcdLeaveCluster(ctx, &machine.EtcdLeaveClusterRequest{ForceQuorumLoss: quorum})
		})
		if err == nil {
			a.Note("%s left the cluster; it joins again after a reboot", a.Nodes[0])
		}
		return err
	}
	return cmd
}

func etcdRemoveCommand(a *cli.App) *cobra.Command {
	var confirmed string
	cmd := &cobra.Command{
		Use:   "remove-member NAME|ID",
		Short: "Take another node's member out of the cluster, for one that never comes back",
		Long: `Take a member out of the cluster, by its host name or its id as "etcd members"
shows it. This is for a node that is gone: one that can still be asked leaves by
itself with "etcd leave" or "reset". A node that comes back with an empty disk
needs neither, it replaces its old member.

Refused if the members that stay would have no majority.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&confirmed, "confirm", "", "name or id of the member, in place of typing it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, err := cli.AskOne(cmd.Context(), a, cli.Cluster, func(ctx context.Context, c *client.Client) (*machine.EtcdRemoveMemberByIDResponse, error) {
			m, err := findMember(ctx, c, args[0])
			if err != nil {
				return nil, err
			}
			warning := fmt.Sprintf("This removes the member %s %s (%s).", memberID(m.GetId()), m.GetHostname(), strings.Join(m.GetPeerUrls(), ","))
			if err := a.ConfirmName(warning, confirmed, m.GetHostname(), memberID(m.GetId())); err != nil {
				return nil, err
			}
			return c.Machine.EtcdRemoveMemberByID(ctx, &machine.EtcdRemoveMemberByIDRequest{MemberId: m.GetId()})
		})
		if err == nil {
			a.Note("%s is no member any more", args[0])
		}
		return err
	}
	return cmd
}

// findMember asks for the members, and finds the one of that name or id.
func findMember(ctx context.Context, c *client.Client, who string) (*machine.EtcdMember, error) {
	list, err := c.Machine.EtcdMemberList(ctx, &machine.EtcdMemberListRequest{})
	if err != nil {
		return nil, err
	}
	var found []*machine.EtcdMember
	var all []string
	for _, message := range list.GetMessages() {
		for _, m := range message.GetMembers() {
			all = append(all, fmt.Sprintf("%s (%s)", m.GetHostname(), memberID(m.GetId())))
			if m.GetHostname() == who || memberID(m.GetId()) == who {
				found = append(found, m)
			}
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d members are named %q; there are: %s", len(found), who, strings.Join(all, ", "))
	}
	return found[0], nil
}

func etcdDefragCommand(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:   "defrag",
		Short: "Give the space that etcd's database does not use back to the disk, one node at a time",
		Long: `Give the space that etcd's database does not use back to the disk. The member does
not answer meanwhile, so nodes are named, and taken one after the other.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.NamedNodes("etcd defrag"); err != nil {
				return err
			}
			c, err := a.Connect(cmd.Context(), cli.Node)
			if err != nil {
				return err
			}
			defer c.Close()
			for _, node := range c.Nodes() {
				if err := defragment(cmd.Context(), c, node); err != nil {
					return err // not the next one as well
				}
				a.Note("%s: done", node)
			}
			return nil
		},
	}
}

func defragment(ctx context.Context, c *client.Client, node string) error {
	ctx, cancel := context.WithTimeout(client.WithNode(ctx, node), defragTimeout)
	defer cancel()
	_, err := c.Machine.EtcdDefragment(ctx, &emptypb.Empty{})
	return err
}

func etcdAlarmCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("alarm", "See and take back etcd's alarms")
	list := &cobra.Command{Use: "list", Short: "List the alarms of all members", Args: cobra.NoArgs}
	format := cli.OutputFlag(list)
	list.RunE = func(cmd *cobra.Command, _ []string) error {
		return lister[*machine.EtcdAlarm, *machine.EtcdAlarmListResponse]{
			scope: cli.Cluster,
			call: func(ctx context.Context, c *client.Client) (*machine.EtcdAlarmListResponse, error) {
				return c.Machine.EtcdAlarmList(ctx, &emptypb.Empty{})
			},
			head: []string{"NODE", "MEMBER", "ALARM"},
			rows: func(node string, m *machine.EtcdAlarm, row func(...string)) {
				alarmRows(node, m.GetMemberAlarms(), row)
			},
		}.run(cmd.Context(), a, *format)
	}
	disarm := &cobra.Command{
		Use: "disarm", Short: "Take back all alarms, after what raised them is mended", Args: cobra.NoArgs,
	}
	disarmed := cli.OutputFlag(disarm)
	disarm.RunE = func(cmd *cobra.Command, _ []string) error {
		return lister[*machine.EtcdAlarmDisarm, *machine.EtcdAlarmDisarmResponse]{
			scope: cli.Cluster,
			call: func(ctx context.Context, c *client.Client) (*machine.EtcdAlarmDisarmResponse, error) {
				return c.Machine.EtcdAlarmDisarm(ctx, &emptypb.Empty{})
			},
			head: []string{"NODE", "MEMBER", "ALARM"},
			rows: func(node string, m *machine.EtcdAlarmDisarm, row func(...string)) {
				alarmRows(node, m.GetMemberAlarms(), row)
			},
		}.run(cmd.Context(), a, *disarmed)
	}
	cmd.AddCommand(list, disarm)
	return cmd
}

func alarmRows(node string, alarms []*machine.EtcdMemberAlarm, row func(...string)) {
	for _, alarm := range alarms {
		row(node, memberID(alarm.GetMemberId()), alarm.GetAlarm().String())
	}
}

func etcdDowngradeCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("downgrade", "Take etcd's storage back to an earlier version")
	show := func(answers []string, err error) error {
		for _, text := range answers {
			fmt.Fprintln(a.Out, text)
		}
		return err
	}
	cmd.AddCommand(
		&cobra.Command{Use: "validate VERSION", Short: "Say whether the cluster can go down to a version", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return show(downgrade(cmd.Context(), a, func(ctx context.Context, c *client.Client) (*machine.EtcdDowngradeValidateResponse, error) {
				return c.Machine.EtcdDowngradeValidate(ctx, &machine.EtcdDowngradeValidateRequest{Version: args[0]})
			}))
		}},
		&cobra.Command{Use: "enable VERSION", Short: "Let the cluster go down to a version", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return show(downgrade(cmd.Context(), a, func(ctx context.Context, c *client.Client) (*machine.EtcdDowngradeEnableResponse, error) {
				return c.Machine.EtcdDowngradeEnable(ctx, &machine.EtcdDowngradeEnableRequest{Version: args[0]})
			}))
		}},
		&cobra.Command{Use: "cancel", Short: "Take that back", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return show(downgrade(cmd.Context(), a, func(ctx context.Context, c *client.Client) (*machine.EtcdDowngradeCancelResponse, error) {
				return c.Machine.EtcdDowngradeCancel(ctx, &emptypb.Empty{})
			}))
		}},
	)
	return cmd
}

// downgraded is an answer to one of the downgrade commands.
type downgraded interface {
	client.Message
	GetClusterDowngrade() *machine.EtcdClusterDowngrade
}

func downgrade[M downgraded, R client.Reply[M]](ctx context.Context, a *cli.App, call func(context.Context, *client.Client) (R, error)) ([]string, error) {
	answers, err := cli.Ask(ctx, a, cli.Cluster, call)
	var texts []string
	for _, answer := range answers {
		texts = append(texts, fmt.Sprintf("%s: cluster version %s", answer.Node, answer.Message.GetClusterDowngrade().GetClusterVersion()))
	}
	return texts, err
}
