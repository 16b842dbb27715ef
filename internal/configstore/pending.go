package configstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"talos/config"
	"talos/internal/configstore/journal"
)

// Confirm keeps the configuration that waits for it; number may be 0 if any is
// meant. One that is confirmed already may be confirmed again.
func (s *Store) Confirm(ctx context.Context, number uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		return 0, s.starting()
	}
	p := s.index.Pending
	switch {
	case p != nil && (number == 0 || number == p.Number):
		if p.Number != s.inForce {
			return 0, refuse(ErrNothing, "configuration %d is not in force yet: confirm it after the reboot", p.Number)
		}
		return p.Number, s.keep(ctx, p.Number)
	case number == 0:
		return 0, refuse(ErrNothing, "no configuration waits for confirmation")
	case number == s.index.Boot:
		return number, nil
	}
	e, ok := s.index.Find(number)
	if !ok {
		return 0, refuse(ErrNotFound, "no configuration has number %d", number)
	}
	return 0, refuse(ErrNothing, "configuration %d can't be confirmed any more: it was %s (%s)", number, s.state(e), e.Note)
}

// keep confirms the pending configuration.
func (s *Store) keep(ctx context.Context, number uint64) error {
	x := s.index.Clone()
	if staged := x.Boot; x.Pending.Try && staged != x.Pending.Fallback {
		x = x.Mark(staged, journal.Discarded, fmt.Sprintf("replaced by %d before it was in force", number))
	}
	x.Boot, x.Pending = number, nil
	if err := s.commit(ctx, x); err != nil {
		return err
	}
	s.setDeadline()
	s.Log.Info("configuration confirmed", "number", number)
	return nil
}

// Rollback applies an earlier configuration again; r gives the rest. 0 is the
// one that the node would fall back to, else the last good one before what it
// boots with.
func (s *Store) Rollback(ctx context.Context, number uint64, r Request) (Result, error) {
	s.mu.Lock()
	if number == 0 && r.Base == 0 {
		r.Base = s.head() // what is one before the present one holds for this one alone
	}
	result, document, err := s.rollback(ctx, &number, r)
	s.mu.Unlock()
	if err != nil || document == nil {
		return result, err
	}
	r.Document, r.Note = document, fmt.Sprintf("rollback to %d", number)
	return s.Apply(ctx, r)
}

// rollback ends what waits for confirmation, if that is what is asked for; else
// it finds the document to apply.
func (s *Store) rollback(ctx context.Context, number *uint64, r Request) (Result, []byte, error) {
	if !s.loaded {
		return Result{}, nil, s.starting()
	}
	w := s.waiting()
	if *number == 0 && w != nil {
		*number = w.Fallback
	}
	if *number == 0 {
		last, ok := s.index.LastGood(s.index.Boot, s.head())
		if !ok {
			return Result{}, nil, refuse(ErrNothing, "there is no configuration before the present one")
		}
		*number = last.Number
	}
	e, ok := s.index.Find(*number)
	if !ok {
		return Result{}, nil, refuse(ErrNotFound, "no configuration has number %d: `config history` lists those there are", *number)
	}
	cfg, document, err := s.readEntry(e)
	if err != nil {
		return Result{}, nil, refuse(ErrInvalid, "configuration %d can't be used: %w", *number, err)
	}
	if w == nil || *number != w.Fallback || r.limit() > 0 || r.Mode == modeStaged {
		return Result{}, document, nil
	}
	result := Result{Mode: modeNoReboot, Number: *number, Details: fmt.Sprintf("went back to configuration %d", *number), Diff: config.Diff(s.active, cfg)}
	if s.needReboot(cfg) {
		result.Mode, result.Details = modeReboot, result.Details+"; the node reboots"
	}
	if r.DryRun {
		return result, nil, nil
	}
	return result, nil, s.revert(ctx, "by "+r.By)
}

func (s *Store) needReboot(cfg *config.Config) bool {
	return s.active != nil && len(config.NeedReboot(config.Changed(s.active, cfg))) > 0
}

// revertTimeout bounds what the node does by itself.
const revertTimeout = time.Minute

// expire goes back when the time to confirm is over.
func (s *Store) expire(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, revertTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.waiting()
	if w == nil || time.Now().Before(s.deadline) { // confirmed or replaced a moment ago
		s.setDeadline()
		return
	}
	if err := s.revert(ctx, fmt.Sprintf("not confirmed within %s", w.Timeout)); err != nil {
		s.Log.Error("go back to the last confirmed configuration", "err", err)
		if s.waiting() != nil {
			s.deadline = time.Now().Add(w.Timeout) // once more
		}
	}
}

// revert goes back from the configuration that waits for confirmation, with a
// reboot where that needs one.
func (s *Store) revert(ctx context.Context, why string) error {
	p := *s.index.Pending
	e, _ := s.index.Find(p.Fallback)
	cfg, document, err := s.readEntry(e)
	if err != nil {
		return fmt.Errorf("configuration %d: %w", p.Fallback, err)
	}
	s.Log.Warn("going back", "from", p.Number, "to", p.Fallback, "why", why)
	x := back(s.index, why)
	saved := s.commit(ctx, x)
	if saved == nil && s.needReboot(cfg) {
		if err = s.Reboot(ctx); err == nil {
			s.setDeadline()
			return nil
		}
	}
	// With a STATE that takes nothing, or a node that can't reboot, what can be
	// in force without a boot must be.
	s.index = x
	err = errors.Join(saved, err, s.publish(ctx, cfg, document, p.Fallback))
	s.setDeadline()
	return err
}
