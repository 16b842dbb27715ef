package trustd

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"talos/api/membership"
	signerapi "talos/api/signer"
)

// list answers talos.v1.MembershipService.
type list struct {
	membership.UnimplementedMembershipServiceServer
	*service
}

// Prove hands out a proof of the address that the call came from.
func (l *list) Prove(ctx context.Context, r *membership.ProveRequest) (*membership.ProveResponse, error) {
	c, err := l.admit(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	answer, err := l.signer.Prove(ctx, &signerapi.SignerProveRequest{Peer: c.addr.String(), Token: c.token, Request: r})
	if err == nil {
		err = l.accepted(c)
	}
	if err != nil {
		return nil, l.refuse(c.addr, err)
	}
	return answer, nil
}

// Watch passes the list on, for as long as machined sends it.
func (l *list) Watch(_ *membership.WatchRequest, stream grpc.ServerStreamingServer[membership.MemberList]) error {
	ctx := stream.Context()
	c, err := l.admit(ctx)
	if err != nil {
		return err
	}
	lists, err := l.signer.Watch(ctx, &signerapi.SignerWatchRequest{Peer: c.addr.String(), Token: c.token})
	for err == nil {
		var next *membership.MemberList
		if next, err = lists.Recv(); err == nil {
			err = l.accepted(c) // again: with each list he may have come onto it
		}
		if err == nil {
			err = stream.Send(next)
		}
	}
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return l.refuse(c.addr, err)
}

// Leave takes the caller off the list.
func (l *list) Leave(ctx context.Context, r *membership.LeaveRequest) (*membership.LeaveResponse, error) {
	c, err := l.admit(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	answer, err := l.signer.Leave(ctx, &signerapi.SignerLeaveRequest{Peer: c.addr.String(), Token: c.token, Request: r})
	if err == nil {
		err = l.accepted(c)
	}
	if err != nil {
		return nil, l.refuse(c.addr, err)
	}
	return answer, nil
}
