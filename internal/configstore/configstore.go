// Package configstore keeps the machine configuration: it finds it on STATE,
// checks what is applied against the machine, stores it so that a power cut
// leaves the old one or the new one whole, keeps the ones before it, goes back
// from one that nobody confirms, and makes the one in force a resource.
//
// Where the first one comes from is package acquire's. What the keys mean is package config's; what they lead to, the controllers'.
// How the documents lie on STATE is package journal's, what a machine can't
// take is package fit's. A Store is safe for concurrent use: one change at a
// time. Run owns all that happens by itself.
package configstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/protobuf/proto"

	"talos/api/machine"
	"talos/config"
	"talos/internal/configstore/journal"
	"talos/internal/layout"
	"talos/internal/resources/cluster"
	configres "talos/internal/resources/config"
	"talos/internal/resources/runtime"
)

// Why something is refused; the text of the error says more.
var (
	ErrInvalid  = errors.New("invalid configuration")         // the document or the request itself
	ErrMisfit   = errors.New("does not fit this machine")     // the document on this machine
	ErrChanged  = errors.New("the configuration has changed") // since the one that the caller's was made from
	ErrPending  = errors.New("another configuration waits for confirmation")
	ErrNothing  = errors.New("nothing to confirm or to go back to")
	ErrNotFound = errors.New("no such configuration")
	ErrStarting = errors.New("the node is still reading its configuration")
	ErrTaken    = errors.New("the node has a configuration already")
)

// refusal is one of the errors above, in the words of another.
type refusal struct {
	error
	kind error
}

func (r refusal) Unwrap() []error { return []error{r.kind, r.error} }

func refuse(kind error, format string, args ...any) error {
	return refusal{fmt.Errorf(format, args...), kind}
}

// Options are what a Store needs.
type Options struct {
	State  state.State
	Log    *slog.Logger
	Reboot func(ctx context.Context) error // starts the machine again, or at least starts doing so
	Notify func(event proto.Message)       // may be nil

	// Plan says what a configuration has installed, "" for nothing, or why that
	// can't be; nil on nodes that have no disks.
	Plan func(ctx context.Context, cfg *config.Config) (string, error)

	// Known, if set, returns once it is known whether there is a STATE: before, the
	// machine may be one that has a configuration. It says on the way what it waits
	// for.
	Known func(ctx context.Context, say func(why []string)) error

	// First, if set, is asked where STATE has no configuration, once, before
	// anybody may bring one: for what is at hand, and soon. May say nothing.
	First func(ctx context.Context) (document []byte, from string, err error)
	// Where things are; the zero values mean the node's usual places.
	Dir, File string
	// Disks is the folder that lists the machine's disks, /sys/block; "" on
	// machines that have none of their own.
	Disks string
}

// Store holds the configuration of one node.
type Store struct {
	Options
	journal *journal.Journal
	wake    chan struct{} // the deadline has changed
	ready   chan struct{} // closed once the boot has looked for a configuration
	begun   sync.Once     // closes ready

	examining sync.Mutex // held while a document is read and disks are looked at; before mu

	mu       sync.Mutex // one change at a time; guards the fields below
	loaded   bool       // what the boot found is in force, or there was nothing
	stored   bool       // STATE holds what is left of one
	offered  bool       // this boot found that the machine never had one
	unknown  []string   // why it is not known whether it has; empty once it is
	index    journal.Index
	active   *config.Config // in force; nil before the first
	inForce  uint64         // its number
	bad      string         // digest of a document that came from outside and is no good
	deadline time.Time      // when the node goes back, by the monotonic clock; zero: never
}

// New makes the store of a node.
func New(o Options) *Store {
	for field, usual := range map[*string]string{&o.Dir: layout.ConfigHistoryDir, &o.File: layout.ConfigFile} {
		if *field == "" {
			*field = usual
		}
	}
	if o.Notify == nil {
		o.Notify = func(proto.Message) {}
	}
	return &Store{Options: o, journal: journal.New(o.Dir, o.File, o.Log), wake: make(chan struct{}, 1), ready: make(chan struct{})}
}

// Run puts the configuration in force that the boot finds, and from then on
// goes back from those that are not confirmed in time, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	for {
		var expired <-chan time.Time
		if wait, ok := s.remaining(); ok {
			expired = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-expired:
			s.expire(ctx)
		}
	}
}

// remaining is the time until the node goes back, if it is to.
func (s *Store) remaining() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Until(s.deadline), !s.deadline.IsZero()
}

// setDeadline starts counting the time of the pending configuration, which is
// in force now; without one it stops.
func (s *Store) setDeadline() {
	s.deadline = time.Time{}
	if p := s.index.Pending; p != nil && p.Number == s.inForce {
		s.deadline = time.Now().Add(p.Timeout)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// publish makes a configuration the one that controllers see.
func (s *Store) publish(ctx context.Context, cfg *config.Config, document []byte, number uint64) error {
	if err := s.put(ctx, configres.ActiveID, document); err != nil {
		return err
	}
	if err := upsert(ctx, s.State, configres.NewMachineType(), func(res *configres.MachineType) {
		res.TypedSpec().Type = cluster.ParseMachineType(cfg.Machine.Type)
	}); err != nil {
		return fmt.Errorf("publish machine type: %w", err)
	}
	s.active, s.inForce = cfg, number
	return s.closeOffer(ctx)
}

// put makes a document a resource.
func (s *Store) put(ctx context.Context, id resource.ID, document []byte) error {
	if err := upsert(ctx, s.State, configres.NewMachineConfig(id), func(res *configres.MachineConfig) {
		res.TypedSpec().Document = document
	}); err != nil {
		return fmt.Errorf("publish configuration: %w", err)
	}
	return nil
}

// commit makes x the history, and what it says of the next boot a resource.
func (s *Store) commit(ctx context.Context, x journal.Index) error {
	if err := s.journal.Commit(x); err != nil {
		return fmt.Errorf("store configuration: %w", err)
	}
	s.index = x
	s.show(ctx)
	return nil
}

// diagnosticID names what people should know of the stored configurations.
const diagnosticID = "machine-configuration"

// show publishes what the index says. The index is what counts: what can't be
// shown is logged.
func (s *Store) show(ctx context.Context) {
	err := s.showProblem(ctx)
	if e, ok := s.index.Find(s.index.Boot); ok {
		document, readErr := s.journal.Document(e)
		if readErr == nil {
			readErr = s.put(ctx, configres.PersistentID, document)
		}
		err = errors.Join(err, readErr)
	}
	if err != nil {
		s.Log.Warn("show the stored configuration", "err", err)
	}
}

func (s *Store) showProblem(ctx context.Context) error {
	if s.index.Problem == "" {
		err := s.State.Destroy(ctx, runtime.NewDiagnostic(diagnosticID).Metadata())
		if state.IsNotFoundError(err) {
			return nil
		}
		return err
	}
	return upsert(ctx, s.State, runtime.NewDiagnostic(diagnosticID), func(res *runtime.Diagnostic) {
		res.TypedSpec().Message = "a stored configuration was not usable; the last good one is in force"
		if s.index.Boot == 0 {
			res.TypedSpec().Message = "no configuration that was found is usable"
		}
		res.TypedSpec().Details = []string{s.index.Problem}
	})
}

// trouble tells everybody who may listen that a stored configuration is not usable.
func (s *Store) trouble(text string) {
	s.Log.Error("stored configuration", "err", text)
	s.Notify(&machine.ConfigLoadErrorEvent{Error: text})
}

// Active is the configuration in force, nil when there is none.
func (s *Store) Active() *config.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// Loaded waits until the boot has looked for a configuration, and says whether
// one is in force.
func (s *Store) Loaded(ctx context.Context) (found bool, err error) {
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-s.ready:
		return s.Active() != nil, nil
	}
}

// WaitConfigured blocks until there is a configuration.
func (s *Store) WaitConfigured(ctx context.Context) error {
	_, err := s.State.WatchFor(ctx, configres.NewMachineConfig(configres.ActiveID).Metadata(), state.WithEventTypes(state.Created, state.Updated))
	return err
}

// upsert creates or changes a resource that this package owns.
func upsert[R interface {
	resource.Resource
	comparable
}](ctx context.Context, st state.State, fresh R, change func(R)) error {
	change(fresh)
	err := st.Create(ctx, fresh)
	if err == nil || !state.IsConflictError(err) {
		return err
	}
	_, err = safe.StateUpdateWithConflicts(ctx, st, fresh.Metadata(), func(res R) error {
		change(res)
		return nil
	})
	return err
}
