// Package acquire gets the machine its first configuration: the one on STATE,
// else what the platform gives, asked again and again, while one may be applied
// over the API at any time: the first good one wins. It says on the way, in the
// resource AcquireConfigStatus and in the log, what the machine waits for; and
// it makes resources of what the platform tells of the machine.
//
// Where a platform's configuration comes from is package platform's, whether it
// is a good one package configstore's. Run is called once; it owns its
// goroutines.
package acquire

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/config"
	"talos/internal/configstore"
	"talos/internal/loop"
	"talos/internal/netsetup"
	"talos/internal/resources/network"
	"talos/internal/resources/runtime"
	"talos/internal/resources/timesync"
	"talos/internal/resources/v1alpha1"
)

// The ids of what is made here.
const (
	CmdlineID    = "cmdline"
	MetadataID   = "platformmetadata"
	DiagnosticID = "configuration-source"
)

// Pauses between questions. News of the network or of the clock end one that
// is longer than the first.
const (
	firstPause = time.Second
	maxPause   = 30 * time.Second
	rarePause  = 5 * time.Minute // for what is not urgent
)

// Platform is where the machine runs. An error with a method Permanent that
// returns true is one that asking again does not mend; no document and no error
// mean that there is none.
type Platform interface {
	Name() string
	Configuration(ctx context.Context) (document []byte, from string, err error)
	Network(ctx context.Context) (netsetup.Network, error)
	Metadata(ctx context.Context) (runtime.PlatformMetadataSpec, error)
}

// Store is what keeps the configuration.
type Store interface {
	// Loaded waits until the boot has looked on STATE, and says whether one was there.
	Loaded(ctx context.Context) (found bool, err error)
	// Offer takes a first configuration, or says what is wrong with it.
	Offer(ctx context.Context, document []byte, from string) error
	// WaitConfigured waits for one, whoever brings it.
	WaitConfigured(ctx context.Context) error
}

// Options are what Run needs.
type Options struct {
	State    state.State
	Log      *slog.Logger
	Platform Platform
	Store    Store
	Cmdline  string                 // the kernel's command line, for people to see; "" in a container
	Network  func(netsetup.Network) // is told what the platform says of the network
}

// run is a Run.
type run struct {
	Options
	status v1alpha1.AcquireConfigStatusSpec // of configuration's goroutine alone
	wake   chan struct{}                    // capacity 1: the network or the clock has changed
}

// Run works until ctx ends, or until there is nothing left to do.
func Run(ctx context.Context, o Options) error {
	r := &run{Options: o, wake: make(chan struct{}, 1)}
	r.status.Platform = o.Platform.Name()
	if err := r.showCmdline(ctx); err != nil {
		return err
	}
	group, ctx := loop.NewGroup(ctx)
	group.Go(func() error { return r.network(ctx) })
	group.Go(func() error { return r.metadata(ctx) })
	group.Go(func() error { return r.configuration(ctx) })
	err := group.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (r *run) showCmdline(ctx context.Context) error {
	if r.Cmdline == "" {
		return nil
	}
	return put(ctx, r.State, runtime.NewKernelCmdline(CmdlineID), runtime.KernelCmdlineSpec{Cmdline: r.Cmdline})
}

// network asks what the platform says of the network until it answers. It is
// asked at every start, whether there is a configuration or not.
func (r *run) network(ctx context.Context) error {
	return r.insist(ctx, "network settings of the platform", func(ctx context.Context) error {
		n, err := r.Platform.Network(ctx)
		if err == nil {
			r.Network(n)
		}
		return err
	})
}

func (r *run) metadata(ctx context.Context) error {
	return r.insist(ctx, "metadata of the platform", func(ctx context.Context) error {
		m, err := r.Platform.Metadata(ctx)
		if showErr := put(ctx, r.State, runtime.NewPlatformMetadata(MetadataID), m); showErr != nil {
			return showErr
		}
		return err
	})
}

// insist asks until there is an answer, or a mistake that asking does not mend.
func (r *run) insist(ctx context.Context, what string, ask func(context.Context) error) error {
	told := ""
	for pause := firstPause; ; pause = min(2*pause, rarePause) {
		err := ask(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if text := err.Error(); text != told {
			told = text
			r.Log.Warn(what, "err", err)
		}
		if final(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// configuration gets one, and returns once the machine has one.
func (r *run) configuration(outer context.Context) error {
	ctx := outer
	if err := r.show(ctx, v1alpha1.AcquireConfigStatusSpec{Stage: Reading, Platform: r.status.Platform, Message: "reading the configuration on STATE"}); err != nil {
		return err
	}
	found, err := r.Store.Loaded(ctx)
	if err != nil {
		return err
	}
	if found {
		return r.happen(ctx, event{stored: true})
	}
	group, ctx := loop.NewGroup(ctx)
	asking, stop := context.WithCancel(ctx)
	group.Go(func() error { return r.watch(asking) })
	group.Go(func() error {
		defer stop()
		return r.Store.WaitConfigured(ctx)
	})
	group.Go(func() error {
		if err := r.ask(ctx, asking); err != nil && asking.Err() == nil {
			return err
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if r.status.Stage != Configured {
		return r.happen(outer, event{applied: true})
	}
	return nil
}

// ask asks the platform until it gives a good configuration, has none, or
// asking ends, as it does when there is one: the platform's own too, which is
// why what it gave is offered, and the outcome told, under ctx.
func (r *run) ask(ctx, asking context.Context) error {
	for pause := firstPause; ; pause = min(pause*3/2, maxPause) {
		if err := r.happen(asking, event{asked: true}); err != nil {
			return err
		}
		outcome := r.try(ctx, asking)
		if asking.Err() != nil && !outcome.taken {
			return asking.Err()
		}
		if err := r.happen(ctx, outcome); err != nil {
			return err
		}
		if outcome.none || outcome.final || outcome.taken || outcome.applied {
			return nil
		}
		if !r.sleep(asking, pause) {
			pause = firstPause
		}
	}
}

// try asks once.
func (r *run) try(ctx, asking context.Context) event {
	document, from, err := r.Platform.Configuration(asking)
	switch {
	case err != nil:
		return event{failed: err, final: final(err)}
	case document == nil:
		return event{none: true}
	}
	err = r.Store.Offer(ctx, document, from)
	switch {
	case err == nil:
		return event{taken: true, from: from}
	case errors.Is(err, configstore.ErrTaken):
		return event{applied: true}
	}
	return event{refused: problems(err), from: from}
}

// problems lists what is wrong with a document, one by one.
func problems(err error) []string {
	var list config.Problems
	if !errors.As(err, &list) {
		return []string{err.Error()}
	}
	var out []string
	for _, p := range list {
		out = append(out, p.Error())
	}
	return out
}

func final(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// sleep waits, and says whether nothing came between.
func (r *run) sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(firstPause) // news come in bursts, and need a moment to take effect
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return true
	case <-timer.C:
	}
	timer.Reset(pause - firstPause)
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-r.wake:
		return false
	}
	return true
}

// watch wakes who waits when the network or the clock has changed.
func (r *run) watch(ctx context.Context) error {
	events := make(chan state.Event)
	for _, kind := range []resource.Kind{network.NewNetworkStatus("").Metadata(), timesync.NewTimeStatus("").Metadata()} {
		if err := r.State.WatchKind(ctx, kind, events); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
		}
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// happen takes an event into the status.
func (r *run) happen(ctx context.Context, e event) error { return r.show(ctx, next(r.status, e)) }

// show makes s the status, and tells people when it says something new.
func (r *run) show(ctx context.Context, s v1alpha1.AcquireConfigStatusSpec) error {
	before := r.status
	r.status = s
	if s.Message != before.Message {
		r.tell(before.Problems)
	}
	if err := put(ctx, r.State, v1alpha1.NewAcquireConfigStatus(), s); err != nil {
		return err
	}
	return r.diagnose(ctx)
}

// tell logs the status, with its problems unless those were told before.
func (r *run) tell(before []string) {
	s := r.status
	if s.Stage != Waiting && len(s.Problems) == 0 {
		r.Log.Info(s.Message)
		return
	}
	r.Log.Warn(s.Message)
	if len(s.Problems) < 2 || slices.Equal(s.Problems, before) {
		return
	}
	for _, p := range s.Problems {
		r.Log.Warn("configuration is not usable", "problem", p)
	}
}

// diagnose has a diagnostic for as long as something is wrong.
func (r *run) diagnose(ctx context.Context) error {
	d := runtime.NewDiagnostic(DiagnosticID)
	switch {
	case r.status.Stage == Asking || r.status.Stage == Reading: // as before
		return nil
	case r.status.Stage == Waiting || len(r.status.Problems) > 0:
		return put(ctx, r.State, d, runtime.DiagnosticSpec{Message: r.status.Message, Details: r.status.Problems})
	}
	if err := r.State.Destroy(ctx, d.Metadata()); err != nil && !state.IsNotFoundError(err) {
		return err
	}
	return nil
}

// put makes a spec a resource that this package owns.
func put[R interface {
	resource.Resource
	TypedSpec() *S
}, S any](ctx context.Context, st state.State, r R, spec S) error {
	return safe.StateModify(ctx, st, r, func(r R) error {
		*r.TypedSpec() = spec
		return nil
	})
}
