package node

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

func etcdCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("etcd", "Look after the etcd cluster")
	cmd.AddCommand(
		etcdMembersCommand(a), etcdStatusCommand(a), etcdSnapshotCommand(a), etcdForfeitCommand(a), etcdLeaveCommand(a), etcdRemoveCommand(a),
		etcdAlarmCommand(a), etcdDefragCommand(a), etcdDowngradeCommand(a),
	)
	return cmd
}

func etcdMembersCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{Use: "members", Short: "List the members", Args: cobra.NoArgs}
	format := cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return lister[*machine.EtcdMembers, *machine.EtcdMemberListResponse]{
			scope: cli.Cluster,
			call: func(ctx context.Context, c *client.Client) (*machine.EtcdMemberListResponse, error) {
				return c.Machine.EtcdMemberList(ctx, &machine.EtcdMemberListRequest{})
			},
			head: []string{"NODE", "ID", "HOSTNAME", "PEER URLS", "CLIENT URLS", "LEARNER"},
			rows: func(node string, m *machine.EtcdMembers, row func(...string)) {
				for _, e := range m.GetMembers() {
					row(node, memberID(e.GetId()), e.GetHostname(), strings.Join(e.GetPeerUrls(), ","),
						strings.Join(e.GetClientUrls(), ","), strconv.FormatBool(e.GetIsLearner()))
				}
			},
		}.run(cmd.Context(), a, *format)
	}
	return cmd
}

// memberID is the form in which etcd itself shows ids.
func memberID(id uint64) string { return fmt.Sprintf("%016x", id) }

func etcdStatusCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show how the member on each node is, and what the cluster can lose", Args: cobra.NoArgs}
	format := cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return lister[*machine.EtcdStatus, *machine.EtcdStatusResponse]{
			call: func(ctx context.Context, c *client.Client) (*machine.EtcdStatusResponse, error) {
				return c.Machine.EtcdStatus(ctx, &emptypb.Empty{})
			},
			head: []string{"NODE", "MEMBER", "DB SIZE", "IN USE", "LEADER", "RAFT INDEX", "RAFT TERM", "RAFT APPLIED INDEX", "LEARNER", "PROTOCOL", "STORAGE", "ERRORS", "QUORUM"},
			rows: func(node string, m *machine.EtcdStatus, row func(...string)) {
				s := m.GetMemberStatus()
				row(node, memberID(s.GetMemberId()), size(uint64(s.GetDbSize())), inUse(s), memberID(s.GetLeader()),
					strconv.FormatUint(s.GetRaftIndex(), 10), strconv.FormatUint(s.GetRaftTerm(), 10), strconv.FormatUint(s.GetRaftAppliedIndex(), 10),
					strconv.FormatBool(s.GetIsLearner()), s.GetProtocolVersion(), s.GetStorageVersion(), strings.Join(s.GetErrors(), ", "), s.GetVerdict())
			},
		}.run(cmd.Context(), a, *format)
	}
	return cmd
}

func inUse(s *machine.EtcdMemberStatus) string {
	if s.GetDbSize() == 0 {
		return "0 B"
	}
	return fmt.Sprintf("%s (%.0f%%)", size(uint64(s.GetDbSizeInUse())), 100*float64(s.GetDbSizeInUse())/float64(s.GetDbSize()))
}
