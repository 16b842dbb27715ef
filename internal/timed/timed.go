// Package timed measures the clock against NTP servers and, where it may,
// corrects it; the store learns whether the clock can be relied on.
//
// It owns the system clock where it has CAP_SYS_TIME. In a container it has
// not: the clock is the host's, which is relied on, and timed only measures.
// Answers are believed after checks (package beevik/ntp's, and a spike filter
// of ours). The API that it serves to routerd is safe for concurrent use.
package timed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/beevik/ntp"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"talos/internal/layout"
	"talos/internal/resources/network"
	"talos/internal/resources/timesync"
	"talos/internal/store"
)

// Run works until ctx ends. A store that is not there yet, or went away, is
// waited for.
func Run(ctx context.Context, log *slog.Logger) error {
	st, err := store.Dial(ctx)
	if err != nil {
		return err
	}
	d := &daemon{log: log, state: st, query: query, clock: systemClock{}, maySet: maySetClock()}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return repeat(ctx, log, "clock", d.run) })
	group.Go(func() error {
		return repeat(ctx, log, "time service", func(ctx context.Context) error { return serve(ctx, layout.TimeSocket, d) })
	})
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// repeat runs a task until ctx ends, again and ever more slowly when it fails.
func repeat(ctx context.Context, log *slog.Logger, task string, fn func(context.Context) error) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := fn(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("task stopped", "task", task, "err", err, "retry", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// maySetClock tells whether this process has CAP_SYS_TIME.
func maySetClock() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_TIME) != 0
}

// daemon is the state of one run.
type daemon struct {
	log    *slog.Logger
	state  state.State
	query  func(ctx context.Context, server string) (*ntp.Response, error)
	clock  clock
	maySet bool

	servers network.TimeServerStatusSpec
	filter  filter
	epoch   int
	synced  bool
	started time.Time
}

// Pauses between measurements.
const (
	pollFirst     = 16 * time.Second // until the clock is right
	pollLast      = 17 * time.Minute
	pollRetry     = 2 * time.Second // no server answered
	pollRetryLast = 5 * time.Minute
	pollRetryNew  = 30 * time.Second // while the clock has never been right, and much waits for it
	stale         = time.Hour        // so long without an answer, a set clock no longer counts as synchronised
)

// run measures until ctx ends or the store goes away.
func (d *daemon) run(ctx context.Context) error {
	events := make(chan safe.WrappedStateEvent[*network.TimeServerStatus])
	kind := network.NewTimeServerStatus(network.TimeServerID).Metadata()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := safe.StateWatch(ctx, d.state, kind, events); err != nil {
		return fmt.Errorf("watch the time servers: %w", err)
	}
	d.started = time.Now()
	d.synced = !d.maySet
	if err := d.publish(ctx); err != nil { // before a server is waited for
		return err
	}
	answered, next, again := time.Time{}, pollFirst, pollRetry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-events:
			if e.Type() == state.Errored {
				return fmt.Errorf("watch the time servers: %w", e.Error())
			}
			if !d.update(e) {
				continue
			}
			next, again = pollFirst, pollRetry
		case <-timer.C:
		}
		var pause time.Duration
		switch {
		case len(d.servers.TimeServers) == 0 || d.servers.Disabled:
			pause = pollLast
		case d.measure(ctx):
			answered, pause = time.Now(), next
			next, again = min(2*next, pollLast), pollRetry
		default:
			pause, again = again, min(2*again, d.retryLast())
			d.synced = d.synced && (!d.maySet || time.Since(answered) < stale)
		}
		if left := d.bootTimeoutLeft(); left > 0 {
			pause = min(pause, left)
		}
		if err := d.publish(ctx); err != nil {
			return err
		}
		timer.Reset(pause)
	}
}

// update takes over the servers; false when they are the same.
func (d *daemon) update(e safe.WrappedStateEvent[*network.TimeServerStatus]) bool {
	var now network.TimeServerStatusSpec
	if res, err := e.Resource(); err == nil && e.Type() != state.Destroyed {
		now = *res.TypedSpec()
	}
	same := slices.Equal(now.TimeServers, d.servers.TimeServers) && now.Disabled == d.servers.Disabled && now.BootTimeout == d.servers.BootTimeout
	d.servers = now
	return !same
}

// retryLast is the longest pause after one that no server answered.
func (d *daemon) retryLast() time.Duration {
	if d.synced {
		return pollRetryLast
	}
	return pollRetryNew
}

func (d *daemon) bootTimeoutLeft() time.Duration {
	if d.servers.BootTimeout == 0 || d.synced {
		return 0
	}
	return d.servers.BootTimeout - time.Since(d.started)
}

// measure asks the servers in order until one gives a believable answer, and
// corrects the clock by it where that is ours to do.
func (d *daemon) measure(ctx context.Context) bool {
	for _, server := range d.servers.TimeServers {
		answer, err := d.query(ctx, server)
		if err != nil {
			d.log.Info("time server gives no usable answer", "server", server, "err", err)
			continue
		}
		if d.filter.spike(answer.ClockOffset, answer.RootDistance) {
			d.log.Info("measurement not believed", "server", server, "offset", answer.ClockOffset)
			return true
		}
		if !d.maySet {
			d.log.Debug("clock measured", "server", server, "offset", answer.ClockOffset)
			return true
		}
		stepped, err := adjust(d.clock, answer)
		if err != nil {
			d.log.Warn("clock not corrected", "offset", answer.ClockOffset, "err", err)
			return true
		}
		if stepped {
			d.epoch++
			d.filter = filter{}
		}
		if !d.synced || stepped {
			d.log.Info("clock corrected", "server", server, "offset", answer.ClockOffset, "stepped", stepped)
		}
		d.synced = true
		return true
	}
	return false
}

// status says whether the clock can be relied on.
func (d *daemon) status() timesync.TimeStatusSpec {
	timeout := d.servers.BootTimeout > 0 && time.Since(d.started) >= d.servers.BootTimeout
	return timesync.TimeStatusSpec{Synced: d.synced || d.servers.Disabled || timeout, Epoch: d.epoch, SyncDisabled: d.servers.Disabled}
}

func (d *daemon) publish(ctx context.Context) error {
	status := d.status()
	if err := write(ctx, d.state, timesync.NewTimeStatus(timesync.StatusID), func(r *timesync.TimeStatus) { *r.TypedSpec() = status }); err != nil {
		return err
	}
	if err := write(ctx, d.state, timesync.NewNTPStatus(timesync.StatusID), func(r *timesync.NTPStatus) {
		*r.TypedSpec() = timesync.NTPStatusSpec{SpikeDetected: d.filter.spikes > 0, ConsecutiveSpikes: d.filter.spikes}
	}); err != nil {
		return err
	}
	adj, err := readAdjtime(d.clock)
	if err != nil {
		d.log.Debug("clock discipline not read", "err", err)
		return nil
	}
	return write(ctx, d.state, timesync.NewAdjtimeStatus(timesync.StatusID), func(r *timesync.AdjtimeStatus) { *r.TypedSpec() = adj })
}

func write[R resource.Resource](ctx context.Context, st state.State, r R, set func(R)) error {
	if err := safe.StateModify(ctx, st, r, func(r R) error {
		set(r)
		return nil
	}, state.WithUpdateOwner(owner)); err != nil {
		return fmt.Errorf("write %s: %w", r.Metadata().Type(), err)
	}
	return nil
}

const owner = "time.SyncController"
