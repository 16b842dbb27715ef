package metal

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.uber.org/zap"

	"talos/config"
	configres "talos/internal/resources/config"
	runtimeres "talos/internal/resources/runtime"
	"talos/internal/store"
)

// fake is a timer that remembers when it was fed.
type fake struct {
	mu      sync.Mutex // guards the fields below
	timeout time.Duration
	fed     []time.Time
}

func (f *fake) SetTimeout(d time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timeout = d
	return nil
}

func (f *fake) Timeout() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.timeout
}

func (f *fake) Feed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fed = append(f.fed, time.Now())
	return nil
}

// times are when it was fed.
func (f *fake) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.fed)
}

// TestBeat: the timer never comes near its end while there is progress, and is
// not fed any more when there is none.
func TestBeat(t *testing.T) {
	for _, c := range []struct {
		name  string
		alive func(context.Context) error
		feeds bool
	}{
		{"alive", func(context.Context) error { return nil }, true},
		{"slow", func(context.Context) error { time.Sleep(hangTime / 8); return nil }, true},
		{"sick", func(context.Context) error { return errors.New("stuck") }, false},
		{"hangs", func(context.Context) error { time.Sleep(24 * time.Hour); return nil }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				f := &fake{}
				began := time.Now()
				done := make(chan error)
				go func() { done <- NewHeart(slog.New(slog.DiscardHandler), f).Beat(ctx, c.alive) }()
				time.Sleep(10*hangTime + time.Second)
				cancel()
				if err := <-done; err != nil {
					t.Errorf("Beat = %v", err)
				}
				time.Sleep(48 * time.Hour) // what hangs comes back
				if !c.feeds {
					if len(f.times()) > 0 {
						t.Errorf("fed %d times without progress", len(f.times()))
					}
					return
				}
				last := began
				for _, at := range append(f.times(), began.Add(10*hangTime)) {
					if gap := at.Sub(last); gap > hangTime/2 {
						t.Errorf("not fed for %v of %v", gap, hangTime)
					}
					last = at
				}
			})
		})
	}
}

// TestWatchdogConfig: the timer is set as the configuration says, and as before
// when it says nothing any more; what it can't say is a Diagnostic.
func TestWatchdogConfig(t *testing.T) {
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		says    *config.Watchdog
		timeout time.Duration
		problem string
	}{
		{"nothing", nil, hangTime, ""},
		{"a time", &config.Watchdog{Timeout: config.Duration(30 * time.Second)}, 30 * time.Second, ""},
		{"its device", &config.Watchdog{Device: "/dev/watchdog0", Timeout: config.Duration(2 * time.Minute)}, 2 * time.Minute, ""},
		{"another device", &config.Watchdog{Device: "/dev/watchdog1"}, hangTime, "machine.watchdog: the machine is watched over by /dev/watchdog0; /dev/watchdog1 is left alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			made.Worker.Machine.Watchdog = c.says
			document, err := made.Worker.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { watchdogConfig(t, document, c.timeout, c.problem) })
		})
	}
}

func watchdogConfig(t *testing.T, says []byte, timeout time.Duration, problem string) {
	ctx, cancel := context.WithCancel(t.Context())
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := runtime.NewRuntime(st, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	h := NewHeart(slog.New(slog.DiscardHandler), f)
	if err := rt.RegisterController(h.Controller()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- rt.Run(ctx) }()
	go func() { done <- h.Beat(ctx, func(context.Context) error { return nil }) }()
	mc := configres.NewMachineConfig(configres.ActiveID)
	mc.TypedSpec().Document = says
	if err := st.Create(ctx, mc); err != nil {
		t.Fatal(err)
	}
	settle := func(d time.Duration) {
		time.Sleep(d)
		synctest.Wait()
	}
	settle(time.Second)
	status, err := safe.StateGetByID[*runtimeres.WatchdogTimerStatus](ctx, st, runtimeres.WatchdogTimerID)
	if err != nil {
		t.Fatal(err)
	}
	if s := *status.TypedSpec(); f.Timeout() != timeout || s.Timeout != timeout || s.FeedInterval != timeout/4 {
		t.Errorf("the timer is set to %v, status = %+v, want %v", f.Timeout(), s, timeout)
	}
	fed := len(f.times())
	settle(4 * timeout)
	if got := len(f.times()) - fed; got < 15 || got > 17 {
		t.Errorf("fed %d times in four times %v, want 16", got, timeout)
	}
	d, err := safe.StateGetByID[*runtimeres.Diagnostic](ctx, st, watchdogID)
	switch {
	case problem == "" && !state.IsNotFoundError(err):
		t.Errorf("diagnostic = %v, %v, want none", d, err)
	case problem != "" && (err != nil || d.TypedSpec().Message != problem):
		t.Errorf("diagnostic = %v, %v, want %q", d, err, problem)
	}
	if err := st.Destroy(ctx, mc.Metadata()); err != nil {
		t.Fatal(err)
	}
	settle(time.Second)
	if f.Timeout() != hangTime {
		t.Errorf("without a configuration the timer is set to %v, want %v", f.Timeout(), hangTime)
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestKeep: the timer is fed for as long as the boot has time, and no longer.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 10 * time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		f := &fake{}
		began := time.Now()
		Keep(ctx, slog.New(slog.DiscardHandler), f)
		if took := time.Since(began); took != limit {
			t.Errorf("Keep took %v, want %v", took, limit)
		}
		last := began
		for _, at := range append(f.times(), began.Add(limit)) {
			if gap := at.Sub(last); gap > 10*time.Second {
				t.Errorf("not fed for %v", gap)
			}
			last = at
		}
	})
}
