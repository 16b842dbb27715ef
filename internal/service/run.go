package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/loop"
	"talos/internal/resources/v1alpha1"
)

// owner is who writes Service resources.
const owner = "v1alpha1.ServiceController"

// keep runs a service again and again until ctx ends or it has nothing to do.
func (s *Supervisor) keep(ctx context.Context, u *unit) {
	for pause := eagerPause; ; pause = min(2*pause, longPause) {
		ran := never
		err := loop.Protect(func() (err error) {
			ran, err = s.once(ctx, u)
			return err
		})
		if ctx.Err() != nil {
			s.event(u, StateFinished, outcome(err, "stopped"))
			return
		}
		if errors.Is(err, ErrSkip) {
			s.event(u, StateSkipped, strings.TrimSuffix(err.Error(), ": "+ErrSkip.Error()))
			return
		}
		switch {
		case ran >= stableAfter:
			pause = firstPause
		case ran != never:
			pause = max(pause, firstPause)
		}
		s.event(u, StateFailed, fmt.Sprintf("%s; next start in %v", outcome(err, "exited"), pause))
		if !loop.Sleep(ctx, pause) {
			s.event(u, StateFinished, "stopped")
			return
		}
	}
}

func outcome(err error, otherwise string) string {
	if err == nil || errors.Is(err, context.Canceled) {
		return otherwise
	}
	return err.Error()
}

// never stands for how long a program ran that was not started at all.
const never = time.Duration(-1)

// once takes a service from waiting to its end; it returns how long it ran.
func (s *Supervisor) once(ctx context.Context, u *unit) (time.Duration, error) {
	if err := s.waitToStart(ctx, u); err != nil {
		return never, err
	}
	s.event(u, StateStarting, "starting")
	runCtx, ended := context.WithCancel(context.WithValue(ctx, reasonKey{}, func(reason string) {
		s.event(u, StatePreparing, reason)
	}))
	var health sync.WaitGroup
	var began time.Time
	err := loop.Protect(func() error {
		return u.def.Runner.Run(runCtx, s.logs.Writer(u.def.ID), func(pid int) {
			began = time.Now()
			s.running(u, pid)
			if u.def.Health != nil {
				health.Go(func() { s.watchHealth(runCtx, u) })
			}
		})
	})
	ended()
	health.Wait()
	if began.IsZero() {
		return never, err
	}
	return time.Since(began), err
}

// waitingFor makes a sentence of a reason, however far that has one already.
func waitingFor(reason string) string {
	for _, prefix := range []string{"waiting ", "for "} {
		reason = strings.TrimPrefix(reason, prefix)
	}
	return "waiting for " + reason
}

func (s *Supervisor) running(u *unit, pid int) {
	s.mu.Lock()
	u.status.PID = pid
	u.status.Health = HealthStatus{Unknown: true, Changed: time.Now()}
	if u.def.Health == nil {
		u.status.Health = HealthStatus{Healthy: true, Changed: time.Now()}
	}
	s.eventLocked(u, StateRunning, fmt.Sprintf("started with process id %d", pid))
	s.mu.Unlock()
	s.publish(u)
}

// waitToStart waits for dependencies, then for the service's own condition.
func (s *Supervisor) waitToStart(ctx context.Context, u *unit) error {
	waiting := func(reason string) { s.event(u, StateWaiting, waitingFor(reason)) }
	err := s.await(ctx, func() string { return s.missingLocked(u.def.DependsOn) }, waiting)
	if err != nil || u.def.Wait == nil {
		return err
	}
	if u.def.WaitText != "" {
		waiting(u.def.WaitText)
	}
	return loop.Protect(func() error { return u.def.Wait(context.WithValue(ctx, reasonKey{}, waiting)) })
}

const (
	eagerPeriod    = 50 * time.Millisecond
	usualPeriod    = 5 * time.Second
	usualTimeout   = 2 * time.Second
	failuresToTell = 3
)

// watchHealth measures a running service until ctx ends.
func (s *Supervisor) watchHealth(ctx context.Context, u *unit) {
	period, timeout := u.def.Health.Period, u.def.Health.Timeout
	if period <= 0 {
		period = usualPeriod
	}
	if timeout <= 0 {
		timeout = usualTimeout
	}
	pause, failures := min(eagerPeriod, period), 0
	for {
		checkCtx, cancel := context.WithTimeout(ctx, timeout)
		err := loop.Protect(func() error { return u.def.Health.Check(checkCtx) })
		cancel()
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			failures, pause = 0, period
			s.healthy(u, true, "")
		case pause != period: // never healthy so far
			s.healthy(u, false, err.Error())
		default:
			if failures++; failures >= failuresToTell {
				s.healthy(u, false, err.Error())
			}
		}
		if !loop.Sleep(ctx, pause) {
			return
		}
	}
}

func (s *Supervisor) healthy(u *unit, healthy bool, message string) {
	s.mu.Lock()
	h := &u.status.Health
	if u.status.State != StateRunning {
		s.mu.Unlock()
		return
	}
	h.Message = message
	if !h.Unknown && h.Healthy == healthy {
		s.mu.Unlock()
		return
	}
	first := h.Unknown
	*h = HealthStatus{Healthy: healthy, Message: message, Changed: time.Now()}
	switch {
	case healthy:
		s.eventLocked(u, StateRunning, "health check successful")
	case first: // a program that has just started is seldom ready at once
		s.wakeLocked()
	default:
		s.eventLocked(u, StateRunning, "health check: "+message)
	}
	s.mu.Unlock()
	s.publish(u)
}

// publish writes what is known of the service to the store. The store is in
// memory: it can only refuse, which is a mistake of ours worth a line.
func (s *Supervisor) publish(u *unit) {
	if s.st == nil {
		return
	}
	u.publish.Lock()
	defer u.publish.Unlock()
	s.mu.Lock()
	status := u.status
	s.mu.Unlock()
	want := v1alpha1.ServiceSpec{
		Running: status.State == StateRunning,
		Healthy: status.State == StateRunning && status.Health.Healthy,
		Unknown: status.Health.Unknown,
	}
	ctx := context.Background()
	res := v1alpha1.NewService(resource.ID(u.def.ID))
	*res.TypedSpec() = want
	err := res.Metadata().SetOwner(owner)
	if err == nil {
		err = s.st.Create(ctx, res, state.WithCreateOwner(owner))
	}
	if state.IsConflictError(err) {
		_, err = safe.StateUpdateWithConflicts(ctx, s.st, res.Metadata(), func(r *v1alpha1.Service) error {
			*r.TypedSpec() = want
			return nil
		}, state.WithUpdateOwner(owner))
	}
	if err != nil {
		s.log.Error("publish service", "service", u.def.ID, "err", err)
	}
}
