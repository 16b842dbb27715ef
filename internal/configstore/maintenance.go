package configstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/resources/runtime"
)

// offer lets the API take the first configuration from whoever reaches the
// machine. One that has, or had, a configuration on STATE never does: whatever
// has become of that, the machine may hold a cluster's data.
func (s *Store) offer(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active != nil {
		return nil
	}
	if s.stored {
		s.Log.Error("no stored configuration can be used, and a machine that had one takes no other from strangers")
		return nil
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	s.offered = true
	s.Log.Info("no configuration: waiting for one over the API")
	return nil
}

// open has the API serve whoever reaches the machine.
func (s *Store) open(ctx context.Context) error {
	request := runtime.NewMaintenanceServiceRequest(runtime.MaintenanceServiceRequestID)
	if err := upsert(ctx, s.State, request, func(*runtime.MaintenanceServiceRequest) {}); err != nil {
		return fmt.Errorf("ask for maintenance mode: %w", err)
	}
	return nil
}

// know waits until it is known whether there is a STATE. Meanwhile the API tells
// whoever asks why, and takes nothing.
func (s *Store) know(ctx context.Context) error {
	if s.Known == nil {
		return nil
	}
	err := s.Known(ctx, func(why []string) {
		s.Log.Warn("it is not known whether this machine has a configuration", "why", strings.Join(why, "; "))
		s.mu.Lock()
		s.unknown = why
		s.mu.Unlock()
		err := upsert(ctx, s.State, runtime.NewDiagnostic(runtime.DisksID), func(res *runtime.Diagnostic) {
			res.TypedSpec().Message, res.TypedSpec().Details = "it is not known whether this machine has a configuration", why
		})
		if err := errors.Join(err, s.open(ctx)); err != nil {
			s.Log.Warn("show what is waited for", "err", err)
		}
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.unknown = nil
	s.mu.Unlock()
	if err := s.State.Destroy(ctx, runtime.NewDiagnostic(runtime.DisksID).Metadata()); err != nil && !state.IsNotFoundError(err) {
		return err
	}
	return s.closeOffer(ctx) // unless load finds that there is one to make
}

// starting is why nothing can be done yet.
func (s *Store) starting() error {
	if len(s.unknown) == 0 {
		return ErrStarting
	}
	return refuse(ErrStarting, "it is not known whether this machine has a configuration, so it takes none: %s", strings.Join(s.unknown, "; "))
}

// closeOffer ends that, for good.
func (s *Store) closeOffer(ctx context.Context) error {
	err := s.State.Destroy(ctx, runtime.NewMaintenanceServiceRequest(runtime.MaintenanceServiceRequestID).Metadata())
	if err != nil && !state.IsNotFoundError(err) {
		return fmt.Errorf("end maintenance mode: %w", err)
	}
	return nil
}

// Unconfigured reports whether the machine serves whoever reaches it: it has no
// configuration, had none, and none is stored for the next boot, so it takes one;
// or it is not known whether it had, and it says so.
func (s *Store) Unconfigured() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unknown) > 0 || s.offered && s.active == nil && s.index.Boot == 0
}
