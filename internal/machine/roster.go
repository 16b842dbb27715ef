package machine

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/roster"
	"talos/internal/configstore/active"
	"talos/internal/identity"
	"talos/internal/members"
)

// Roster is the cluster's list of nodes.
type Roster interface {
	Remove(ctx context.Context, node string) (removed []string, err error)
}

// Forget takes a node that is gone off the list.
func (s *Server) Forget(ctx context.Context, r *roster.ForgetRequest) (*roster.ForgetResponse, error) {
	cfg, err := active.Config(ctx, s.State)
	if err != nil {
		return nil, err
	}
	node := r.GetNode()
	switch {
	case cfg == nil || !cfg.IsControlPlane():
		return nil, status.Error(codes.FailedPrecondition, "this node keeps no list: ask a control plane node")
	case !members.ValidHostname(node) && !identity.ID(node).Valid():
		return nil, status.Errorf(codes.InvalidArgument, "%.80q is neither a host name nor a node's id", node)
	}
	names, err := s.Roster.Remove(ctx, node)
	if err != nil {
		return nil, etcdError(err)
	}
	if len(names) == 0 {
		return nil, status.Errorf(codes.NotFound, "there is no node %q and nobody has that name: `talosctl get members` lists them", node)
	}
	s.Log.Info("node forgotten", "node", node, "names", names)
	return &roster.ForgetResponse{Messages: []*roster.Forgotten{{Names: names}}}, nil
}
