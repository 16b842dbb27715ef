package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/machine"
	"talos/internal/layout"
	"talos/internal/sequence"
	"talos/internal/wipe"
)

// quorumPatience is how long the question may take whether etcd can do without
// this node.
const quorumPatience = 10 * time.Second

// Reboot takes everything down and starts the machine again.
func (s *Server) Reboot(ctx context.Context, req *machine.RebootRequest) (*machine.RebootResponse, error) {
	force := req.GetMode() == machine.RebootRequest_FORCE
	actor, err := s.begin(ctx, req, sequence.Request{Kind: sequence.Reboot, Force: force, Drain: req.GetDrain() && !force})
	if err != nil {
		return nil, err
	}
	return &machine.RebootResponse{Messages: []*machine.Reboot{{ActorId: actor}}}, nil
}

// Shutdown takes everything down and turns the machine off.
func (s *Server) Shutdown(ctx context.Context, req *machine.ShutdownRequest) (*machine.ShutdownResponse, error) {
	actor, err := s.begin(ctx, req, sequence.Request{Kind: sequence.Shutdown, Force: req.GetForce(), Drain: !req.GetForce()})
	if err != nil {
		return nil, err
	}
	return &machine.ShutdownResponse{Messages: []*machine.Shutdown{{ActorId: actor}}}, nil
}

// Reset empties the machine's disks and restarts it or turns it off.
func (s *Server) Reset(ctx context.Context, req *machine.ResetRequest) (*machine.ResetResponse, error) {
	r, err := s.resetOf(ctx, req)
	if err != nil {
		return nil, err
	}
	r.Kind, r.Again, r.Insist = sequence.Reset, req.GetReboot(), req.GetForceQuorumLoss() != ""
	r.Drain = req.GetGraceful()
	r.Leave = r.Drain && (len(r.Wipe) > 0 || r.Loses) // with its own disk as it was the node is the same
	actor, err := s.begin(ctx, req, r)
	if err != nil {
		return nil, err
	}
	return &machine.ResetResponse{Messages: []*machine.Reset{{ActorId: actor}}}, nil
}

// resetOf says what a request wants emptied. What is wrong with it is said
// before anything happens.
func (s *Server) resetOf(ctx context.Context, req *machine.ResetRequest) (r sequence.Request, err error) {
	mode, disks, partitions := req.GetMode(), req.GetUserDisksToWipe(), req.GetSystemPartitionsToWipe()
	users := mode == machine.ResetRequest_USER_DISKS
	switch {
	case s.UserDisks == nil && (users || len(disks) > 0):
		return r, status.Error(codes.FailedPrecondition, "reset: a node in container mode has no user disks; what it keeps is on EPHEMERAL, STATE and META")
	case users && len(disks) == 0:
		err = errors.New("of the user's disks only those are wiped that are named, and none is")
	case users && len(partitions) > 0:
		err = errors.New("only the user's disks are to be wiped, and system partitions are named too")
	case mode == machine.ResetRequest_SYSTEM_DISK && len(disks) > 0:
		err = errors.New("only the system disk is to be wiped, and user disks are named too")
	case !users:
		r.Wipe, err = partitionsOf(partitions)
	}
	r.Loses = slices.Contains(r.Wipe, wipe.Ephemeral)
	if err == nil && len(disks) > 0 {
		var holds bool
		r.Disks, holds, err = s.UserDisks(ctx, disks, layout.EtcdDataDir)
		r.Loses = r.Loses || holds
	}
	if err != nil {
		return sequence.Request{}, status.Errorf(codes.InvalidArgument, "reset: %v", err)
	}
	return r, nil
}

// partitionsOf says which system partitions are emptied.
func partitionsOf(specs []*machine.ResetPartitionSpec) ([]string, error) {
	if len(specs) == 0 {
		return wipe.All(), nil
	}
	var labels []string
	for _, p := range specs {
		if p.GetWipe() {
			labels = append(labels, p.GetLabel())
		}
	}
	what, err := wipe.Parse(labels)
	if err == nil && len(what) == 0 {
		err = errors.New("no system partition is named to be wiped")
	}
	return what, err
}

// powerRequest is what the requests have in common.
type powerRequest interface {
	GetDrainTimeout() *durationpb.Duration
	GetDeadline() *durationpb.Duration
	GetForceQuorumLoss() string
}

// begin starts a sequence unless a limit is out of bounds or etcd would not
// survive it: that is found out before anything happens.
func (s *Server) begin(ctx context.Context, req powerRequest, r sequence.Request) (string, error) {
	r.DrainTimeout, r.Deadline = req.GetDrainTimeout().AsDuration(), req.GetDeadline().AsDuration()
	switch {
	case req.GetDrainTimeout() != nil && (r.DrainTimeout <= 0 || r.DrainTimeout > sequence.MaxDeadline):
		return "", status.Errorf(codes.InvalidArgument, "drain timeout %v is not between 0 and %v", r.DrainTimeout, sequence.MaxDeadline)
	case req.GetDeadline() != nil && (r.Deadline < sequence.MinDeadline || r.Deadline > sequence.MaxDeadline):
		return "", status.Errorf(codes.InvalidArgument, "deadline %v is not between %v and %v", r.Deadline, sequence.MinDeadline, sequence.MaxDeadline)
	}
	if err := s.mayGoDown(ctx, r, req.GetForceQuorumLoss()); err != nil {
		return "", err
	}
	actor, err := s.Power.Begin(ctx, r)
	if errors.Is(err, sequence.ErrBusy) {
		return "", status.Error(codes.FailedPrecondition, err.Error())
	}
	return actor, err
}

// mayGoDown refuses what etcd's cluster would not survive, unless the caller
// names the cluster.
func (s *Server) mayGoDown(ctx context.Context, r sequence.Request, words string) error {
	cfg := s.Config.Active()
	if cfg == nil || !cfg.IsControlPlane() {
		return nil
	}
	name := cfg.ClusterName()
	if words != "" {
		if words != name {
			return status.Errorf(codes.InvalidArgument, "%s: the loss of etcd's quorum is forced for cluster %q, this node's is %q", r.Kind, words, name)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, quorumPatience)
	defer cancel()
	err := s.quorumWithout(ctx, r)
	if err == nil {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition, "%s: %v; nothing was done. To do it nevertheless: --force-quorum-loss=%s", r.Kind, err, name)
}

// quorumWithout says whether etcd can do without this node: for a while, or for
// good where its data goes.
func (s *Server) quorumWithout(ctx context.Context, r sequence.Request) error {
	if !r.Leave && !r.Loses {
		return s.Etcd.MayStop(ctx)
	}
	if _, err := os.Stat(filepath.Join(layout.EtcdDataDir, "member")); errors.Is(err, os.ErrNotExist) {
		return nil // there is no member here
	}
	view, err := s.Etcd.View(ctx)
	if err != nil {
		return errors.New("etcd has data on this node and does not say whether its cluster can do without: " + strings.TrimSpace(err.Error()))
	}
	return view.MayRemove(view.Local)
}
