package metal

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/linux/watchdog"
	"talos/internal/reconcile"
	"talos/internal/resources/runtime"
)

// hangTime is after how long without progress the machine is reset, unless the
// configuration says otherwise.
const hangTime = time.Minute

// watchdogID names what is wrong with what the configuration says of it.
const watchdogID = resource.ID("watchdog")

// timer is what a Heart needs of a watchdog.
type timer interface {
	SetTimeout(time.Duration) error
	Timeout() time.Duration
	Feed() error
}

// Watchdog takes over the timer that the initramfs has armed, or arms one. nil
// means that the machine has none.
func Watchdog(log *slog.Logger) *watchdog.Watchdog {
	w, err := watchdog.Inherit()
	if err == nil && w == nil {
		w, err = watchdog.Open(watchdog.Device, hangTime)
	}
	if err != nil {
		log.Info("no watchdog: a machine that hangs stays so", "err", err)
		return nil
	}
	return w
}

// keepEvery is how often Keep feeds: whatever time a driver has settled for.
const keepEvery = 5 * time.Second

// Keep feeds the watchdog until ctx ends, without asking whether there is
// progress: for what has a deadline of its own that is later than the watchdog's,
// such as the boot, in which a large file system is replayed or emptied.
func Keep(ctx context.Context, log *slog.Logger, w timer) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := w.Feed(); err != nil {
			log.Error("the watchdog was not fed: the machine is reset when that goes on", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// Heart feeds the machine's watchdog. It may be used concurrently.
type Heart struct {
	log     *slog.Logger
	changed chan struct{}

	mu    sync.Mutex // guards the fields below
	timer timer      // nil where the machine has none
	want  time.Duration
}

// NewHeart makes the heart of a machine with that watchdog; nil is a machine that
// has none.
func NewHeart(log *slog.Logger, t timer) *Heart {
	return &Heart{log: log, timer: t, want: hangTime, changed: make(chan struct{}, 1)}
}

// Beat feeds the watchdog for as long as the machine makes progress: alive is
// asked several times in the time that the watchdog allows, and has a part of it
// to answer in. It returns when ctx ends; the watchdog goes on.
func (h *Heart) Beat(ctx context.Context, alive func(context.Context) error) error {
	if h.timer == nil {
		return nil
	}
	h.set(h.wanted())
	h.log.Info("watchdog", "timeout", h.timeout())
	tick := time.NewTicker(h.interval())
	defer tick.Stop()
	for {
		err := ask(ctx, h.interval(), alive)
		if err == nil {
			err = h.feed()
		}
		if err != nil && ctx.Err() == nil {
			h.log.Error("the watchdog was not fed: the machine is reset when that goes on", "timeout", h.timeout(), "err", err)
		}
		select {
		case <-tick.C:
		case <-h.changed:
			tick.Reset(h.interval())
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *Heart) feed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.timer.Feed()
}

func (h *Heart) timeout() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.timer.Timeout()
}

func (h *Heart) wanted() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.want
}

// interval is how often the timer is fed.
func (h *Heart) interval() time.Duration { return max(h.timeout()/4, time.Second) }

// set changes the timer's time; a driver that does not know it keeps its own.
func (h *Heart) set(timeout time.Duration) {
	h.mu.Lock()
	h.want = timeout
	before := h.timer.Timeout()
	err := h.timer.SetTimeout(timeout)
	now := h.timer.Timeout()
	h.mu.Unlock()
	if err != nil {
		h.log.Warn("the watchdog keeps its time", "timeout", now, "err", err)
	}
	if now == before {
		return
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// Controller applies machine.watchdog, and tells how the timer is set.
func (h *Heart) Controller() controller.Controller {
	c := &reconcile.Controller{
		ID: "runtime.WatchdogTimerController", Log: h.log, In: []controller.Input{active.Input()}, Shared: []resource.Type{
			runtime.DiagnosticType, runtime.WatchdogTimerConfigType, runtime.WatchdogTimerStatusType,
		},
	}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		cfg, err := active.Config(ctx, r)
		if err != nil {
			return err
		}
		configs := map[resource.ID]runtime.WatchdogTimerConfigSpec{}
		statuses := map[resource.ID]runtime.WatchdogTimerStatusSpec{}
		problems := map[resource.ID]runtime.DiagnosticSpec{}
		want := config.Of(config.Of(cfg).Machine).Watchdog
		if want != nil {
			configs[runtime.WatchdogTimerID] = runtime.WatchdogTimerConfigSpec{Device: want.Device, Timeout: time.Duration(want.Timeout)}
			if text := h.problem(want.Device); text != "" {
				problems[watchdogID] = runtime.DiagnosticSpec{Message: "machine.watchdog: " + text}
			}
		}
		if h.timer != nil {
			timeout := time.Duration(config.Of(want).Timeout)
			if timeout == 0 {
				timeout = hangTime
			}
			h.set(timeout)
			statuses[runtime.WatchdogTimerID] = runtime.WatchdogTimerStatusSpec{Device: watchdog.Device, Timeout: h.timeout(), FeedInterval: h.interval()}
		}
		return errors.Join(
			reconcile.Output(ctx, r, c.Name(), runtime.NewWatchdogTimerConfig, configs, nil),
			reconcile.Output(ctx, r, c.Name(), runtime.NewWatchdogTimerStatus, statuses, nil),
			reconcile.Output(ctx, r, c.Name(), runtime.NewDiagnostic, problems, nil),
		)
	}
	return c
}

// problem says why a device can't be the one that watches over the machine. The
// kernel has the first one under two names.
func (h *Heart) problem(device string) string {
	switch {
	case h.timer == nil:
		return "the machine has no watchdog: when it hangs it stays so"
	case device == "" || device == watchdog.Device || device == "/dev/watchdog":
		return ""
	}
	return "the machine is watched over by " + watchdog.Device + "; " + device + " is left alone"
}

// ask bounds a question that may hang whatever its context says.
func ask(ctx context.Context, limit time.Duration, alive func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- alive(ctx) }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
