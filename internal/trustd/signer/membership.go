package signer

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/membership"
	signerapi "talos/api/signer"
	"talos/internal/identity"
	"talos/internal/members"
)

const (
	// between lists of one watcher, so that a fleet that starts at once is not
	// told of each node by each other.
	between = time.Second
	// leaveSkew is how old a request to leave may be, or how far clocks apart.
	leaveSkew = 5 * time.Minute
)

// Prove says that whoever holds an identity called from where it did.
func (s *Server) Prove(ctx context.Context, r *signerapi.SignerProveRequest) (*membership.ProveResponse, error) {
	spec, peer, err := s.admit(ctx, r.GetToken(), r.GetPeer())
	if err != nil {
		return nil, err
	}
	if !members.Usable(peer) {
		return nil, status.Errorf(codes.PermissionDenied, "%s is no address of a node", peer)
	}
	key, err := proofKey(spec)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "certificate authority: %v", err)
	}
	return &membership.ProveResponse{Proof: makeProof(key, peer, identity.Of(r.GetRequest().GetIdentity()), s.Now())}, nil
}

// Watch sends the members for as long as this node knows them from etcd.
func (s *Server) Watch(r *signerapi.SignerWatchRequest, stream grpc.ServerStreamingServer[membership.MemberList]) error {
	ctx := stream.Context()
	if _, _, err := s.admit(ctx, r.GetToken(), r.GetPeer()); err != nil {
		return err
	}
	for {
		list, live, changed := s.List.Now()
		if !live {
			return errNoEtcd
		}
		if err := stream.Send(members.ToWire(list)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(between):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Leave forgets the node that asks, from one of its addresses.
func (s *Server) Leave(ctx context.Context, r *signerapi.SignerLeaveRequest) (*membership.LeaveResponse, error) {
	_, peer, err := s.admit(ctx, r.GetToken(), r.GetPeer())
	if err != nil {
		return nil, err
	}
	request := r.GetRequest()
	public := request.GetIdentity()
	if err := identity.Verify(public, identity.LeaveStatement(public, request.GetTime()), request.GetSignature()); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	if age := s.Now().Sub(time.Unix(request.GetTime(), 0)); age.Abs() > leaveSkew {
		return nil, status.Errorf(codes.PermissionDenied, "the request to leave is %v old: compare the clocks", age.Round(time.Second))
	}
	if _, live, _ := s.List.Now(); !live {
		return nil, errNoEtcd
	}
	id := identity.Of(public)
	addresses, controlPlane, err := s.Registry.Holds(ctx, id)
	switch {
	case err != nil:
		return nil, status.Errorf(codes.Unavailable, "this control plane node can't read from etcd now: %v", err)
	case controlPlane:
		return nil, status.Error(codes.PermissionDenied, "a control plane node leaves by itself")
	case len(addresses) == 0:
		return &membership.LeaveResponse{}, nil // it is not there
	case !slices.Contains(addresses, peer):
		return nil, status.Errorf(codes.PermissionDenied, "the node is not at %s", peer)
	}
	removed, err := s.Registry.Remove(ctx, string(id))
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "this control plane node can't write to etcd now: %v", err)
	}
	s.Log.Info("member left", "peer", peer, "node", id, "names", removed)
	return &membership.LeaveResponse{}, nil
}
