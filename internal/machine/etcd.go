package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
	"talos/internal/etcd"
	"talos/internal/etcd/backup"
)

// Limits of calls to etcd, for callers who set none.
const (
	etcdTimeout       = 20 * time.Second
	etcdDefragTimeout = 10 * time.Minute // etcd stands still while it writes its database anew
	etcdMoveTimeout   = 2 * time.Minute  // a change of the membership, with tries
	etcdStreamTimeout = time.Hour
)

// EtcdMemberList reports the members of the cluster: as the cluster agrees on
// them, or, with query_local, as this node's member has them.
func (s *Server) EtcdMemberList(ctx context.Context, req *machine.EtcdMemberListRequest) (*machine.EtcdMemberListResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	peers, err := s.Etcd.List(ctx, req.GetQueryLocal())
	if err != nil {
		return nil, etcdError(err)
	}
	out := &machine.EtcdMembers{}
	for _, p := range peers {
		out.LegacyMembers = append(out.LegacyMembers, p.Name)
		out.Members = append(out.Members, &machine.EtcdMember{Id: p.ID, Hostname: p.Name, PeerUrls: p.PeerURLs, ClientUrls: p.URLs, IsLearner: p.Learner})
	}
	return &machine.EtcdMemberListResponse{Messages: []*machine.EtcdMembers{out}}, nil
}

// EtcdStatus reports this node's member, and what the cluster can lose.
func (s *Server) EtcdStatus(ctx context.Context, _ *emptypb.Empty) (*machine.EtcdStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	client, err := s.Etcd.Client(ctx)
	if err != nil {
		return nil, etcdError(err)
	}
	st, err := client.Status(ctx, client.Endpoints()[0])
	if err != nil {
		return nil, etcdError(err)
	}
	view, err := s.Etcd.Wide(ctx)
	if err != nil {
		return nil, etcdError(err)
	}
	q := view.Quorum()
	return &machine.EtcdStatusResponse{Messages: []*machine.EtcdStatus{{MemberStatus: &machine.EtcdMemberStatus{
		StorageVersion: st.StorageVersion, MemberId: st.Header.MemberId, ProtocolVersion: st.Version,
		DbSize: st.DbSize, DbSizeInUse: st.DbSizeInUse, Leader: st.Leader, RaftIndex: st.RaftIndex, RaftTerm: st.RaftTerm,
		RaftAppliedIndex: st.RaftAppliedIndex, Errors: st.Errors, IsLearner: st.IsLearner,
		Voters: uint32(q.Voters), Quorum: uint32(q.Need), VotersUp: uint32(q.Up), CanLose: uint32(q.CanLose()),
		SafeToReboot: view.SafeToReboot(st.Header.MemberId), Verdict: view.Verdict(st.Header.MemberId),
	}}}}, nil
}

// EtcdRemoveMemberByID takes a member out of the cluster, for good.
func (s *Server) EtcdRemoveMemberByID(ctx context.Context, req *machine.EtcdRemoveMemberByIDRequest) (*machine.EtcdRemoveMemberByIDResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdMoveTimeout)
	defer cancel()
	if err := s.Etcd.Remove(ctx, req.GetMemberId()); err != nil {
		return nil, etcdError(err)
	}
	return &machine.EtcdRemoveMemberByIDResponse{Messages: []*machine.EtcdRemoveMemberByID{{}}}, nil
}

// EtcdLeaveCluster takes this node's member out of the cluster, for good.
func (s *Server) EtcdLeaveCluster(ctx context.Context, req *machine.EtcdLeaveClusterRequest) (*machine.EtcdLeaveClusterResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdMoveTimeout)
	defer cancel()
	words, name := req.GetForceQuorumLoss(), ""
	if cfg := s.Config.Active(); cfg != nil {
		name = cfg.ClusterName()
	}
	if words != "" && words != name {
		return nil, status.Errorf(codes.InvalidArgument, "etcd leave: the loss of etcd's quorum is forced for cluster %q, this node's is %q", words, name)
	}
	err := s.Etcd.MayLeave(ctx)
	switch {
	case err == nil:
		err = s.Etcd.Leave(ctx)
	case words != "" && !errors.Is(err, etcd.ErrNoMember):
		err = s.Etcd.Abandon(ctx)
	case errors.Is(err, etcd.ErrQuorum):
		return nil, status.Errorf(codes.FailedPrecondition, "%v; nothing was done. To do it nevertheless: --force-quorum-loss=%s", err, name)
	}
	if err != nil {
		return nil, etcdError(err)
	}
	return &machine.EtcdLeaveClusterResponse{Messages: []*machine.EtcdLeaveCluster{{}}}, nil
}

// EtcdForfeitLeadership makes another member the leader, if this node's is.
func (s *Server) EtcdForfeitLeadership(ctx context.Context, _ *machine.EtcdForfeitLeadershipRequest) (*machine.EtcdForfeitLeadershipResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	name, err := s.Etcd.ForfeitLeadership(ctx)
	if err != nil {
		return nil, etcdError(err)
	}
	return &machine.EtcdForfeitLeadershipResponse{Messages: []*machine.EtcdForfeitLeadership{{Member: name}}}, nil
}

// EtcdSnapshot streams the cluster's database, with its checksum at the end.
func (s *Server) EtcdSnapshot(_ *machine.EtcdSnapshotRequest, stream grpc.ServerStreamingServer[common.Data]) error {
	ctx, cancel := context.WithTimeout(stream.Context(), etcdStreamTimeout)
	defer cancel()
	from, err := s.Etcd.Snapshot(ctx)
	if err != nil {
		return etcdError(err)
	}
	defer from.Close()
	return sendBytes(from, stream)
}

// EtcdRecover takes a snapshot for Bootstrap to recover from.
func (s *Server) EtcdRecover(stream grpc.ClientStreamingServer[common.Data, machine.EtcdRecoverResponse]) error {
	ctx, cancel := context.WithTimeout(stream.Context(), etcdStreamTimeout)
	defer cancel()
	if err := s.Etcd.Upload(ctx, &received{next: stream.Recv}); err != nil {
		return etcdError(err)
	}
	return stream.SendAndClose(&machine.EtcdRecoverResponse{Messages: []*machine.EtcdRecover{{}}})
}

// received reads the bytes of a stream's messages.
type received struct {
	next func() (*common.Data, error)
	rest []byte
}

func (r *received) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		data, err := r.next()
		if err != nil {
			return 0, err // io.EOF where the client closed its side
		}
		r.rest = data.GetBytes()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

var _ io.Reader = (*received)(nil)

// Bootstrap starts etcd's cluster on this node, once: a new one, or one that
// has the contents of the snapshot that EtcdRecover took.
func (s *Server) Bootstrap(ctx context.Context, req *machine.BootstrapRequest) (*machine.BootstrapResponse, error) {
	if s.Options.Setup != nil && !s.Options.Setup.Done() {
		return nil, status.Error(codes.Unavailable, "the machine is not installed yet: bootstrap it once it has started from its disk")
	}
	var err error
	if req.GetRecoverEtcd() {
		err = s.Etcd.Recover(ctx, req.GetRecoverSkipHashCheck())
	} else {
		err = s.Etcd.Bootstrap(ctx)
	}
	if err != nil {
		return nil, etcdError(err)
	}
	return &machine.BootstrapResponse{Messages: []*machine.Bootstrap{{}}}, nil
}

// EtcdAlarmList reports the alarms of all members.
func (s *Server) EtcdAlarmList(ctx context.Context, _ *emptypb.Empty) (*machine.EtcdAlarmListResponse, error) {
	alarms, err := askEtcd(ctx, s, etcdTimeout, func(ctx context.Context, c *clientv3.Client) (*clientv3.AlarmResponse, error) {
		return c.AlarmList(ctx)
	})
	if err != nil {
		return nil, err
	}
	return &machine.EtcdAlarmListResponse{Messages: []*machine.EtcdAlarm{{MemberAlarms: memberAlarms(alarms)}}}, nil
}

// EtcdAlarmDisarm takes back every alarm of all members.
func (s *Server) EtcdAlarmDisarm(ctx context.Context, _ *emptypb.Empty) (*machine.EtcdAlarmDisarmResponse, error) {
	alarms, err := askEtcd(ctx, s, etcdTimeout, func(ctx context.Context, c *clientv3.Client) (*clientv3.AlarmResponse, error) {
		return c.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	})
	if err != nil {
		return nil, err
	}
	return &machine.EtcdAlarmDisarmResponse{Messages: []*machine.EtcdAlarmDisarm{{MemberAlarms: memberAlarms(alarms)}}}, nil
}

func memberAlarms(r *clientv3.AlarmResponse) []*machine.EtcdMemberAlarm {
	kinds := map[etcdserverpb.AlarmType]machine.EtcdMemberAlarm_AlarmType{
		etcdserverpb.AlarmType_NOSPACE: machine.EtcdMemberAlarm_NOSPACE, etcdserverpb.AlarmType_CORRUPT: machine.EtcdMemberAlarm_CORRUPT,
	}
	var out []*machine.EtcdMemberAlarm
	for _, a := range r.Alarms {
		out = append(out, &machine.EtcdMemberAlarm{MemberId: a.MemberID, Alarm: kinds[a.Alarm]})
	}
	return out
}

// EtcdDefragment gives the space that this node's member does not use back to
// the disk.
func (s *Server) EtcdDefragment(ctx context.Context, _ *emptypb.Empty) (*machine.EtcdDefragmentResponse, error) {
	_, err := askEtcd(ctx, s, etcdDefragTimeout, func(ctx context.Context, c *clientv3.Client) (*clientv3.DefragmentResponse, error) {
		return c.Defragment(ctx, c.Endpoints()[0])
	})
	if err != nil {
		return nil, err
	}
	return &machine.EtcdDefragmentResponse{Messages: []*machine.EtcdDefragment{{}}}, nil
}

// EtcdDowngradeValidate says whether the cluster can go down to a version.
func (s *Server) EtcdDowngradeValidate(ctx context.Context, req *machine.EtcdDowngradeValidateRequest) (*machine.EtcdDowngradeValidateResponse, error) {
	got, err := s.downgrade(ctx, clientv3.DowngradeValidate, req.GetVersion())
	if err != nil {
		return nil, err
	}
	return &machine.EtcdDowngradeValidateResponse{Messages: []*machine.EtcdDowngradeValidate{{ClusterDowngrade: got}}}, nil
}

// EtcdDowngradeEnable lets the cluster go down to a version.
func (s *Server) EtcdDowngradeEnable(ctx context.Context, req *machine.EtcdDowngradeEnableRequest) (*machine.EtcdDowngradeEnableResponse, error) {
	got, err := s.downgrade(ctx, clientv3.DowngradeEnable, req.GetVersion())
	if err != nil {
		return nil, err
	}
	return &machine.EtcdDowngradeEnableResponse{Messages: []*machine.EtcdDowngradeEnable{{ClusterDowngrade: got}}}, nil
}

// EtcdDowngradeCancel takes that back.
func (s *Server) EtcdDowngradeCancel(ctx context.Context, _ *emptypb.Empty) (*machine.EtcdDowngradeCancelResponse, error) {
	got, err := s.downgrade(ctx, clientv3.DowngradeCancel, "")
	if err != nil {
		return nil, err
	}
	return &machine.EtcdDowngradeCancelResponse{Messages: []*machine.EtcdDowngradeCancel{{ClusterDowngrade: got}}}, nil
}

func (s *Server) downgrade(ctx context.Context, what clientv3.DowngradeAction, version string) (*machine.EtcdClusterDowngrade, error) {
	got, err := askEtcd(ctx, s, etcdTimeout, func(ctx context.Context, c *clientv3.Client) (*clientv3.DowngradeResponse, error) {
		return c.Downgrade(ctx, what, version)
	})
	if err != nil {
		return nil, err
	}
	return &machine.EtcdClusterDowngrade{ClusterVersion: got.Version}, nil
}

// askEtcd makes a call to this node's member.
func askEtcd[R any](ctx context.Context, s *Server, limit time.Duration, call func(context.Context, *clientv3.Client) (R, error)) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var answer R
	client, err := s.Etcd.Client(ctx)
	if err == nil {
		answer, err = call(ctx, client)
	}
	if err != nil {
		return answer, etcdError(err)
	}
	return answer, nil
}

// etcdCodes are the codes of what callers may tell apart.
var etcdCodes = []struct {
	err  error
	code codes.Code
}{
	{etcd.ErrAlreadyBootstrapped, codes.AlreadyExists}, {etcd.ErrClusterExists, codes.AlreadyExists},
	{etcd.ErrNotControlPlane, codes.FailedPrecondition}, {etcd.ErrNoConfiguration, codes.FailedPrecondition},
	{etcd.ErrQuorum, codes.FailedPrecondition}, {etcd.ErrNoUpload, codes.FailedPrecondition}, {etcd.ErrNotReady, codes.Unavailable},
	{etcd.ErrNoMember, codes.NotFound},
	{backup.ErrDamaged, codes.InvalidArgument}, {backup.ErrNoSnapshot, codes.InvalidArgument}, {backup.ErrNoChecksum, codes.InvalidArgument},
	{etcd.ErrRestore, codes.InvalidArgument},
}

// etcdError gives an error its code. What etcd itself refuses keeps its own.
func etcdError(err error) error {
	for _, known := range etcdCodes {
		if errors.Is(err, known.err) {
			return status.Error(known.code, err.Error())
		}
	}
	var own interface{ Code() codes.Code } // of etcd's errors by name
	code := codes.Unavailable
	if errors.As(err, &own) && own.Code() != codes.Unknown {
		code = own.Code()
	}
	return status.Error(code, fmt.Sprintf("ask etcd on this node: %v; see `talosctl service etcd`", err))
}
