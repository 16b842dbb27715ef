package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/logs"
)

const (
	eagerPause  = 100 * time.Millisecond // after a start that did not succeed
	firstPause  = time.Second            // after a program that ended
	longPause   = 30 * time.Second
	stableAfter = 30 * time.Second // a run this long starts the pauses anew
	keptEvents  = 32
)

// Supervisor runs services.
type Supervisor struct {
	log  *slog.Logger
	st   state.State
	logs *logs.Manager

	mu       sync.Mutex // guards the fields below and every unit's
	units    map[string]*unit
	stopping bool          // StopAll was called: nothing starts any more
	changed  chan struct{} // closed at the next change of any service
	observe  []func(id string, e Event)
}

// unit is a service and where it is. Its fields are guarded by Supervisor.mu.
type unit struct {
	def     Definition
	status  Status
	cancel  context.CancelFunc // nil when no goroutine runs it
	done    chan struct{}      // closed when that goroutine has ended
	publish sync.Mutex         // orders writes to the store; taken without mu
}

// New makes a supervisor that publishes to st, if there is one.
func New(log *slog.Logger, st state.State, l *logs.Manager) *Supervisor {
	return &Supervisor{log: log, st: st, logs: l, units: map[string]*unit{}, changed: make(chan struct{})}
}

// Add makes a service known, without starting it. An id is added once.
func (s *Supervisor) Add(d Definition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.units[d.ID]; twice {
		s.log.Error("service is defined twice, the first counts", "service", d.ID)
		return
	}
	s.units[d.ID] = &unit{def: d, status: Status{ID: d.ID, State: StateInitialized, Control: d.Control, Health: HealthStatus{Unknown: true}}}
}

// OnEvent makes fn called at every event, in order, while the supervisor is
// locked: fn must not call it and must not block.
func (s *Supervisor) OnEvent(fn func(id string, e Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observe = append(s.observe, fn)
}

// Changed returns what is closed at the next change of any service.
func (s *Supervisor) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Start asks that a service run; it does not wait until it does. One that runs
// already is left alone.
func (s *Supervisor) Start(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[id]
	if u == nil {
		return fmt.Errorf("start %s: %w", id, ErrUnknown)
	}
	if s.stopping {
		return fmt.Errorf("start %s: the node is going down", id)
	}
	if u.cancel == nil {
		s.launchLocked(u)
	}
	return nil
}

// launchLocked starts the goroutine that owns the service until it is stopped.
func (s *Supervisor) launchLocked(u *unit) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	u.cancel, u.done = cancel, done
	go func() {
		s.keep(ctx, u)
		s.mu.Lock()
		u.cancel = nil
		s.mu.Unlock()
		cancel()
		close(done)
	}()
}

// Stop ends a service and waits for its end. One that doesn't run is left alone.
func (s *Supervisor) Stop(ctx context.Context, id string) error {
	s.mu.Lock()
	u := s.units[id]
	if u == nil {
		s.mu.Unlock()
		return fmt.Errorf("stop %s: %w", id, ErrUnknown)
	}
	if u.cancel == nil {
		s.mu.Unlock()
		return nil
	}
	done := u.done
	s.eventLocked(u, StateStopping, "asked to stop")
	u.cancel()
	s.mu.Unlock()
	s.publish(u)
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", id, ctx.Err())
	}
}

// Restart stops a service and starts it again, also when ctx ends between the
// two: a caller who comes through apid loses his call with apid.
func (s *Supervisor) Restart(ctx context.Context, id string) error {
	done := make(chan error, 1)
	go func() {
		ctx := context.WithoutCancel(ctx)
		err := s.Stop(ctx, id) // ends: every Runner kills at last
		if err == nil {
			err = s.Start(ctx, id)
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("restart %s: %w", id, ctx.Err())
	}
}

// vital tells whether there is no API without the service.
func (s *Supervisor) vital(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[id]
	return u != nil && u.def.Vital
}

// StopAll ends every service, each after those that depend on it, and lets
// none start again. Services named in except stay, for StopAll to be called
// once more; what does not end before ctx is left behind and reported.
func (s *Supervisor) StopAll(ctx context.Context, except ...string) error {
	s.mu.Lock()
	s.stopping = true
	waves := stopOrder(s.dependenciesLocked())
	s.mu.Unlock()
	var errs []error
	for _, wave := range waves {
		results := make(chan error, len(wave))
		for _, id := range wave {
			if slices.Contains(except, id) {
				results <- nil
				continue
			}
			go func() { results <- s.Stop(ctx, id) }()
		}
		for range wave {
			if err := <-results; err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Supervisor) dependenciesLocked() map[string][]string {
	deps := make(map[string][]string, len(s.units))
	for id, u := range s.units {
		deps[id] = u.def.DependsOn
	}
	return deps
}

// stopOrder sorts services into waves: when a wave stops, nothing that
// depends on its members runs any more. Members of a cycle stop last, together.
func stopOrder(deps map[string][]string) [][]string {
	left := maps.Clone(deps)
	var waves [][]string
	for len(left) > 0 {
		needed := map[string]bool{}
		for _, on := range left {
			for _, id := range on {
				needed[id] = true
			}
		}
		var wave []string
		for id := range left {
			if !needed[id] {
				wave = append(wave, id)
			}
		}
		if len(wave) == 0 {
			wave = slices.Collect(maps.Keys(left))
		}
		for _, id := range wave {
			delete(left, id)
		}
		slices.Sort(wave)
		waves = append(waves, wave)
	}
	return waves
}

// List returns all services, sorted by id.
func (s *Supervisor) List() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Status, 0, len(s.units))
	for _, u := range s.units {
		list = append(list, u.copyLocked())
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Get returns one service.
func (s *Supervisor) Get(id string) (Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[id]
	if u == nil {
		return Status{}, fmt.Errorf("%s: %w", id, ErrUnknown)
	}
	return u.copyLocked(), nil
}

// WaitReady blocks until services are running and healthy, or skipped.
func (s *Supervisor) WaitReady(ctx context.Context, ids ...string) error {
	return s.await(ctx, func() string { return s.missingLocked(ids) }, func(string) {})
}

// await blocks until missing, called with mu held, returns "" and reports what
// it returns meanwhile.
func (s *Supervisor) await(ctx context.Context, missing func() string, report func(string)) error {
	for {
		s.mu.Lock()
		what, changed := missing(), s.changed
		s.mu.Unlock()
		if what == "" {
			return nil
		}
		report(what)
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}

// missingLocked names what keeps ids from being ready.
func (s *Supervisor) missingLocked(ids []string) string {
	var missing []string
	for _, id := range ids {
		u := s.units[id]
		switch {
		case u == nil:
			missing = append(missing, fmt.Sprintf("service %q to be known", id))
		case u.status.State == StateSkipped:
		case u.status.State != StateRunning:
			missing = append(missing, fmt.Sprintf("service %q to be running", id))
		case !u.status.Health.Healthy:
			missing = append(missing, fmt.Sprintf("service %q to be healthy", id))
		}
	}
	return strings.Join(missing, ", ")
}

func (u *unit) copyLocked() Status {
	c := u.status
	c.Events = slices.Clone(c.Events)
	return c
}

// eventLocked records a state; the caller publishes after unlocking.
func (s *Supervisor) eventLocked(u *unit, state, message string) {
	last := len(u.status.Events) - 1
	if last >= 0 && u.status.State == state && u.status.Events[last].Message == message {
		return
	}
	e := Event{Time: time.Now(), State: state, Message: message}
	u.status.State = state
	u.status.Events = append(u.status.Events, e)
	if extra := len(u.status.Events) - keptEvents; extra > 0 {
		u.status.Events = slices.Delete(u.status.Events, 0, extra)
	}
	if state != StateRunning && state != StateStopping {
		u.status.PID = 0
		u.status.Health = HealthStatus{Unknown: true, Changed: e.Time}
	}
	for _, fn := range s.observe {
		fn(u.def.ID, e)
	}
	s.wakeLocked()
	level := slog.LevelInfo
	if state == StateFailed {
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "service "+strings.ToLower(state), "service", u.def.ID, "message", message)
}

func (s *Supervisor) wakeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Supervisor) event(u *unit, state, message string) {
	s.mu.Lock()
	s.eventLocked(u, state, message)
	s.mu.Unlock()
	s.publish(u)
}
