package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
)

// fakeSnapshot has the form of one: pages, then their checksum.
func fakeSnapshot() []byte {
	db := make([]byte, 8*4096)
	binary.LittleEndian.PutUint32(db[16:], 0xED0CDAED)
	sum := sha256.Sum256(db)
	return append(db, sum[:]...)
}

func (f *fake) EtcdMemberList(context.Context, *machine.EtcdMemberListRequest) (*machine.EtcdMemberListResponse, error) {
	return &machine.EtcdMemberListResponse{Messages: []*machine.EtcdMembers{{Members: []*machine.EtcdMember{
		{Id: 0xabc, Hostname: "demo-1", PeerUrls: []string{"https://10.5.0.2:2380"}, ClientUrls: []string{"https://10.5.0.2:2379"}},
		{Id: 0xdef, Hostname: "demo-2", PeerUrls: []string{"https://10.5.0.3:2380"}, ClientUrls: []string{"https://10.5.0.3:2379"}},
	}}}}, nil
}

func (f *fake) EtcdStatus(context.Context, *emptypb.Empty) (*machine.EtcdStatusResponse, error) {
	return &machine.EtcdStatusResponse{Messages: []*machine.EtcdStatus{{MemberStatus: &machine.EtcdMemberStatus{
		MemberId: 0xabc, Leader: 0xabc, DbSize: 4 << 20, DbSizeInUse: 1 << 20, RaftIndex: 7, RaftTerm: 2, RaftAppliedIndex: 7, ProtocolVersion: "3.7.3", StorageVersion: "3.7.0",
		Voters: 3, Quorum: 2, VotersUp: 2, Verdict: "2 of 3 voters up, quorum 2 of 3, can lose 0, safe to reboot: no",
	}}}}, nil
}

func (f *fake) EtcdRemoveMemberByID(_ context.Context, r *machine.EtcdRemoveMemberByIDRequest) (*machine.EtcdRemoveMemberByIDResponse, error) {
	if r.GetMemberId() != 0xdef {
		return nil, status.Error(codes.FailedPrecondition, "remove demo-1: etcd would lose its quorum: without demo-1, 0 of the 1 voters that stay would be up, and 1 are needed")
	}
	return &machine.EtcdRemoveMemberByIDResponse{Messages: []*machine.EtcdRemoveMemberByID{{}}}, nil
}

func (f *fake) EtcdLeaveCluster(_ context.Context, r *machine.EtcdLeaveClusterRequest) (*machine.EtcdLeaveClusterResponse, error) {
	if r.GetForceQuorumLoss() != "demo" {
		return nil, status.Error(codes.FailedPrecondition, "etcd would lose its quorum: demo-1 is the only voting member, its data is the cluster; nothing was done. To do it nevertheless: --force-quorum-loss=demo")
	}
	return &machine.EtcdLeaveClusterResponse{Messages: []*machine.EtcdLeaveCluster{{}}}, nil
}

func (f *fake) EtcdForfeitLeadership(ctx context.Context, _ *machine.EtcdForfeitLeadershipRequest) (*machine.EtcdForfeitLeadershipResponse, error) {
	name := "demo-2"
	if target(ctx) == "node02" {
		name = ""
	}
	return &machine.EtcdForfeitLeadershipResponse{Messages: []*machine.EtcdForfeitLeadership{{Member: name}}}, nil
}

// EtcdSnapshot of node02 is cut off.
func (f *fake) EtcdSnapshot(_ *machine.EtcdSnapshotRequest, s grpc.ServerStreamingServer[common.Data]) error {
	data := fakeSnapshot()
	if target(s.Context()) == "node02" {
		data = data[:20100]
	}
	for chunk := range slices.Chunk(data, 3000) {
		if err := s.Send(&common.Data{Bytes: chunk}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) EtcdRecover(s grpc.ClientStreamingServer[common.Data, machine.EtcdRecoverResponse]) error {
	if target(s.Context()) == "node02" {
		return status.Error(codes.AlreadyExists, "the cluster was bootstrapped before, on another node: this one joins it by itself")
	}
	var got bytes.Buffer
	for {
		data, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		got.Write(data.GetBytes())
	}
	if !bytes.Equal(got.Bytes(), fakeSnapshot()) {
		return status.Errorf(codes.Internal, "%d bytes came, not the snapshot", got.Len())
	}
	return s.SendAndClose(&machine.EtcdRecoverResponse{Messages: []*machine.EtcdRecover{{}}})
}

func (f *fake) Bootstrap(_ context.Context, r *machine.BootstrapRequest) (*machine.BootstrapResponse, error) {
	if r.GetRecoverEtcd() {
		return &machine.BootstrapResponse{Messages: []*machine.Bootstrap{{}}}, nil
	}
	return nil, status.Error(codes.AlreadyExists, "etcd has data on this node: the cluster was bootstrapped before")
}

func (f *fake) EtcdAlarmList(context.Context, *emptypb.Empty) (*machine.EtcdAlarmListResponse, error) {
	return &machine.EtcdAlarmListResponse{Messages: []*machine.EtcdAlarm{{MemberAlarms: []*machine.EtcdMemberAlarm{{MemberId: 0xabc, Alarm: machine.EtcdMemberAlarm_NOSPACE}}}}}, nil
}

func (f *fake) EtcdAlarmDisarm(context.Context, *emptypb.Empty) (*machine.EtcdAlarmDisarmResponse, error) {
	return &machine.EtcdAlarmDisarmResponse{Messages: []*machine.EtcdAlarmDisarm{{MemberAlarms: []*machine.EtcdMemberAlarm{{MemberId: 0xabc, Alarm: machine.EtcdMemberAlarm_NOSPACE}}}}}, nil
}

func (f *fake) EtcdDefragment(context.Context, *emptypb.Empty) (*machine.EtcdDefragmentResponse, error) {
	return &machine.EtcdDefragmentResponse{Messages: []*machine.EtcdDefragment{{}}}, nil
}

func (f *fake) EtcdDowngradeValidate(_ context.Context, r *machine.EtcdDowngradeValidateRequest) (*machine.EtcdDowngradeValidateResponse, error) {
	if r.GetVersion() != "3.6" {
		return nil, status.Error(codes.InvalidArgument, "etcdserver: invalid downgrade target version")
	}
	return &machine.EtcdDowngradeValidateResponse{Messages: []*machine.EtcdDowngradeValidate{{ClusterDowngrade: &machine.EtcdClusterDowngrade{ClusterVersion: "3.7.0"}}}}, nil
}
