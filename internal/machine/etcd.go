package machine

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
)

// EtcdMemberList reports the members of the cluster as this node's knows them.
func (s *Server) EtcdMemberList(ctx context.Context, _ *machine.EtcdMemberListRequest) (*machine.EtcdMemberListResponse, error) {
	client, err := s.Etcd.Client(ctx)
	if err != nil {
		return nil, etcdError(err)
	}
	list, err := client.MemberList(ctx)
	if err != nil {
		return nil, etcdError(err)
	}
	out := &machine.EtcdMembers{}
	for _, m := range list.Members {
		out.LegacyMembers = append(out.LegacyMembers, m.Name)
		out.Members = append(out.Members, &machine.EtcdMember{
			Id: m.ID, Hostname: m.Name, PeerUrls: m.PeerURLs, ClientUrls: m.ClientURLs, IsLearner: m.IsLearner,
		})
	}
	return &machine.EtcdMemberListResponse{Messages: []*machine.EtcdMembers{out}}, nil
}

// EtcdStatus reports this node's member.
func (s *Server) EtcdStatus(ctx context.Context, _ *emptypb.Empty) (*machine.EtcdStatusResponse, error) {
	client, err := s.Etcd.Client(ctx)
	if err != nil {
		return nil, etcdError(err)
	}
	st, err := client.Status(ctx, client.Endpoints()[0])
	if err != nil {
		return nil, etcdError(err)
	}
	return &machine.EtcdStatusResponse{Messages: []*machine.EtcdStatus{{MemberStatus: &machine.EtcdMemberStatus{
		StorageVersion: st.StorageVersion, MemberId: st.Header.MemberId, ProtocolVersion: st.Version,
		DbSize: st.DbSize, DbSizeInUse: st.DbSizeInUse, Leader: st.Leader, RaftIndex: st.RaftIndex, RaftTerm: st.RaftTerm,
		RaftAppliedIndex: st.RaftAppliedIndex, Errors: st.Errors, IsLearner: st.IsLearner,
	}}}}, nil
}

func etcdError(err error) error {
	return status.Errorf(codes.Unavailable, "ask etcd on this node: %v; see `talosctl service etcd`", err)
}
