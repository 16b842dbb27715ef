package machine

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"talos/api/configuration"
	"talos/api/machine"
	"talos/internal/authz"
	"talos/internal/configstore"
)

// ApplyConfiguration checks a configuration and makes it the node's.
func (s *Server) ApplyConfiguration(ctx context.Context, req *machine.ApplyConfigurationRequest) (*machine.ApplyConfigurationResponse, error) {
	r := asked(ctx)
	r.Document, r.Mode, r.DryRun, r.Base, r.Force = req.GetData(), req.GetMode(), req.GetDryRun(), req.GetBase(), req.GetForce()
	r.TryFor, r.Confirm = req.GetTryModeTimeout().AsDuration(), req.GetConfirmTimeout().AsDuration()
	result, err := s.Config.Apply(ctx, r)
	if err != nil {
		return nil, configurationStatus(err)
	}
	return applied(result, r.DryRun), nil
}

// asked is a request of the caller's.
func asked(ctx context.Context) configstore.Request {
	id := authz.FromContext(ctx)
	r := configstore.Request{By: id.Subject}
	if r.By == "" && id.Serial != "" {
		r.By = "certificate " + id.Serial
	}
	if peer, err := netip.ParseAddrPort(id.Peer); err == nil {
		r.Caller = peer.Addr().Unmap()
	} else if addr, err := netip.ParseAddr(id.Peer); err == nil {
		r.Caller = addr.Unmap()
	}
	return r
}

// applied is the answer. Clients that do not know the difference's own field
// find it below the details of a dry run.
func applied(result configstore.Result, dryRun bool) *machine.ApplyConfigurationResponse {
	details := result.Details
	if dryRun {
		details = strings.TrimSuffix(result.Details+"\n"+result.Diff, "\n")
	}
	return &machine.ApplyConfigurationResponse{Messages: []*machine.ApplyConfiguration{{
		Warnings: result.Warnings, Mode: result.Mode, ModeDetails: details, Number: result.Number, Diff: result.Diff,
	}}}
}

// configurationStatus gives an error of the store its code.
func configurationStatus(err error) error {
	for kind, code := range map[error]codes.Code{
		configstore.ErrInvalid: codes.InvalidArgument, configstore.ErrMisfit: codes.FailedPrecondition,
		configstore.ErrChanged: codes.Aborted, configstore.ErrPending: codes.FailedPrecondition,
		configstore.ErrNothing: codes.FailedPrecondition, configstore.ErrNotFound: codes.NotFound, configstore.ErrStarting: codes.Unavailable,
	} {
		if errors.Is(err, kind) {
			return status.Error(code, err.Error())
		}
	}
	if _, known := status.FromError(err); known {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}

// Configurations answers for the configurations that the node has had.
type Configurations struct {
	configuration.UnimplementedConfigurationServiceServer
	store *configstore.Store
}

// NewConfigurations makes the service over a store.
func NewConfigurations(store *configstore.Store) *Configurations {
	return &Configurations{store: store}
}

// History lists them.
func (s *Configurations) History(context.Context, *configuration.ConfigurationHistoryRequest) (*configuration.ConfigurationHistoryResponse, error) {
	h := s.store.History()
	out := &configuration.ConfigurationHistory{Active: h.Active, Stored: h.Stored, Problem: h.Problem}
	for _, e := range h.Entries {
		out.Entries = append(out.Entries, &configuration.ConfigurationEntry{
			Number: e.Number, Time: timestamppb.New(e.Time), By: e.By, Mode: e.Mode, State: e.State, Changed: e.Changed, Note: e.Note,
		})
	}
	if p := h.Pending; p != nil {
		out.Pending = &configuration.ConfigurationPending{
			Number: p.Number, Fallback: p.Fallback, InForce: p.Number == h.Active, Timeout: durationpb.New(p.Timeout), Remaining: durationpb.New(h.Remaining),
		}
	}
	return &configuration.ConfigurationHistoryResponse{Messages: []*configuration.ConfigurationHistory{out}}, nil
}

// Get reads the document of one.
func (s *Configurations) Get(_ context.Context, req *configuration.ConfigurationGetRequest) (*configuration.ConfigurationGetResponse, error) {
	number, document, err := s.store.Document(req.GetNumber())
	if err != nil {
		return nil, configurationStatus(err)
	}
	return &configuration.ConfigurationGetResponse{Messages: []*configuration.ConfigurationDocument{{Number: number, Document: document}}}, nil
}

// Confirm keeps the one that waits for it.
func (s *Configurations) Confirm(ctx context.Context, req *configuration.ConfigurationConfirmRequest) (*configuration.ConfigurationConfirmResponse, error) {
	number, err := s.store.Confirm(ctx, req.GetNumber())
	if err != nil {
		return nil, configurationStatus(err)
	}
	return &configuration.ConfigurationConfirmResponse{Messages: []*configuration.ConfigurationConfirm{{Number: number}}}, nil
}

// Rollback applies an earlier one again.
func (s *Configurations) Rollback(ctx context.Context, req *configuration.ConfigurationRollbackRequest) (*machine.ApplyConfigurationResponse, error) {
	r := asked(ctx)
	r.Mode, r.DryRun, r.Force = req.GetMode(), req.GetDryRun(), req.GetForce()
	r.TryFor, r.Confirm = req.GetTryModeTimeout().AsDuration(), req.GetConfirmTimeout().AsDuration()
	result, err := s.store.Rollback(ctx, req.GetNumber(), r)
	if err != nil {
		return nil, configurationStatus(err)
	}
	return applied(result, r.DryRun), nil
}
