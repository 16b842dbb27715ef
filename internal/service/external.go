package service

import (
	"context"
	"fmt"
)

// External is the supervisor as the API may use it: services without Control
// can be looked at only.
type External struct{ s *Supervisor }

// External returns the view for the API.
func (s *Supervisor) External() External { return External{s} }

// List returns all services, sorted by id.
func (e External) List() []Status { return e.s.List() }

// Get returns one service.
func (e External) Get(id string) (Status, error) { return e.s.Get(id) }

// Start is Supervisor.Start.
func (e External) Start(ctx context.Context, id string) error {
	return e.allowed(ctx, id, e.s.Start)
}

// Stop is Supervisor.Stop; what the API itself needs can't be stopped over it.
func (e External) Stop(ctx context.Context, id string) error {
	if e.s.vital(id) {
		return fmt.Errorf("%s: %w", id, ErrNotAllowed)
	}
	return e.allowed(ctx, id, e.s.Stop)
}

// Restart is Supervisor.Restart.
func (e External) Restart(ctx context.Context, id string) error {
	return e.allowed(ctx, id, e.s.Restart)
}

func (e External) allowed(ctx context.Context, id string, do func(context.Context, string) error) error {
	status, err := e.s.Get(id)
	if err != nil {
		return err
	}
	if !status.Control {
		return fmt.Errorf("%s: %w", id, ErrNotAllowed)
	}
	return do(ctx, id)
}
