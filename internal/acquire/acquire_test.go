package acquire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	machineapi "talos/api/machine"
	"talos/config"
	"talos/internal/cmdline"
	"talos/internal/configstore"
	"talos/internal/fetch"
	"talos/internal/netsetup"
	"talos/internal/platform"
	"talos/internal/resources/network"
	"talos/internal/resources/runtime"
	"talos/internal/resources/timesync"
	"talos/internal/resources/v1alpha1"
	"talos/internal/store"
)

// told is a platform that says what it is told, and when it was asked.
type told struct {
	mu      sync.Mutex // guards the fields below
	answer  func(n int) (string, error)
	asked   []time.Time
	network error // until it is nil
}

func (p *told) Name() string { return "told" }

func (p *told) Configuration(ctx context.Context) ([]byte, string, error) {
	p.mu.Lock()
	p.asked = append(p.asked, time.Now())
	text, err := p.answer(len(p.asked))
	p.mu.Unlock()
	if text == "hang" {
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	if err != nil || text == "" {
		return nil, "", err
	}
	return []byte(text), "there", nil
}

func (p *told) Network(context.Context) (netsetup.Network, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return netsetup.Network{Hostname: "one"}, p.network
}

func (p *told) Metadata(context.Context) (runtime.PlatformMetadataSpec, error) {
	return runtime.PlatformMetadataSpec{Platform: "told", Hostname: "one"}, nil
}

func (p *told) times() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]time.Time(nil), p.asked...)
}

// keeper is a store that takes "good".
type keeper struct {
	found      bool
	configured chan struct{}
	once       sync.Once
}

func (k *keeper) Loaded(context.Context) (bool, error) { return k.found, nil }

func (k *keeper) Offer(_ context.Context, document []byte, _ string) error {
	select {
	case <-k.configured:
		return configstore.ErrTaken
	default:
	}
	if string(document) != "good" {
		return fmt.Errorf("offer: %w", config.Problems{{Key: "a", Got: "x"}, {Key: "b", Got: "y"}})
	}
	k.apply()
	return nil
}

func (k *keeper) apply() { k.once.Do(func() { close(k.configured) }) }

func (k *keeper) WaitConfigured(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-k.configured:
		return nil
	}
}

// bench is a machine on its way.
type bench struct {
	state    state.State
	platform *told
	keeper   *keeper
	logs     strings.Builder
	settings []netsetup.Network
	done     chan error
	stop     context.CancelFunc
}

// start runs it inside a bubble of synctest.
func start(t *testing.T, p *told, found bool) *bench {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{state: st, platform: p, keeper: &keeper{found: found, configured: make(chan struct{})}, done: make(chan error, 1), stop: cancel}
	go func() {
		b.done <- Run(ctx, Options{
			State: st, Log: slog.New(slog.NewTextHandler(&b.logs, nil)), Platform: p, Store: b.keeper, Cmdline: "quiet ip=dhcp",
			Network: func(n netsetup.Network) { b.settings = append(b.settings, n) },
		})
	}()
	t.Cleanup(cancel)
	return b
}

func (b *bench) status(t *testing.T) v1alpha1.AcquireConfigStatusSpec {
	t.Helper()
	s, err := safe.StateGetByID[*v1alpha1.AcquireConfigStatus](t.Context(), b.state, v1alpha1.AcquireConfigStatusID)
	if err != nil {
		t.Fatal(err)
	}
	return *s.TypedSpec()
}

func (b *bench) diagnostic(t *testing.T) string {
	t.Helper()
	d, err := safe.StateGetByID[*runtime.Diagnostic](t.Context(), b.state, DiagnosticID)
	if state.IsNotFoundError(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return d.TypedSpec().Message
}

// ended says that Run has returned by itself.
func (b *bench) ended(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-b.done:
		if err != nil {
			t.Errorf("Run = %v", err)
		}
	default:
		t.Error("Run has not ended")
	}
}

func say(text string, err error) func(int) (string, error) {
	return func(int) (string, error) { return text, err }
}

type mistake struct{ error }

func (mistake) Permanent() bool { return true }

func TestRun(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(n int) (string, error)
		found  bool
		after  time.Duration
		asked  int
		stage  string
		says   string
		wrong  bool // there is a diagnostic
		ends   bool
	}{
		"on STATE":            {answer: say("good", nil), found: true, stage: Configured, says: "at the start", ends: true},
		"given at once":       {answer: say("good", nil), asked: 1, stage: Configured, says: "from there", ends: true},
		"none":                {answer: say("", nil), after: time.Hour, asked: 1, stage: Maintenance, says: "over the API: the platform told has none"},
		"a mistake":           {answer: say("", mistake{errors.New("no URL")}), after: time.Hour, asked: 1, stage: Maintenance, says: "no URL", wrong: true},
		"server away":         {answer: say("", errors.New("refused")), after: 10 * time.Second, asked: 5, stage: Waiting, says: "refused (tried 5 times)", wrong: true},
		"away for an hour":    {answer: say("", errors.New("refused")), after: time.Hour, asked: 127, stage: Waiting, says: "refused (tried 127 times)", wrong: true},
		"a bad document":      {answer: say("bad", nil), after: 0, asked: 1, stage: Waiting, says: "from there is not usable: 2 problems, the first: : a: x", wrong: true},
		"repaired in time":    {answer: func(n int) (string, error) { return map[bool]string{true: "bad", false: "good"}[n < 4], nil }, after: time.Minute, asked: 4, stage: Configured, says: "from there", ends: true},
		"a server that hangs": {answer: say("hang", nil), after: time.Hour, asked: 1, stage: Asking, says: "asking the platform told"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, &told{answer: tt.answer}, tt.found)
				time.Sleep(tt.after)
				synctest.Wait()
				s := b.status(t)
				if s.Stage != tt.stage || !strings.Contains(s.Message, tt.says) || s.Platform != "told" {
					t.Errorf("status = %+v, want stage %s and %q", s, tt.stage, tt.says)
				}
				if got := len(b.platform.times()); got != tt.asked {
					t.Errorf("asked %d times, want %d", got, tt.asked)
				}
				if got := b.diagnostic(t); (got != "") != tt.wrong || tt.wrong && got != s.Message {
					t.Errorf("diagnostic = %q, want one: %v", got, tt.wrong)
				}
				if !strings.Contains(b.logs.String(), tt.says) {
					t.Errorf("log without %q:\n%s", tt.says, b.logs.String())
				}
				if tt.ends {
					b.ended(t)
					return
				}
				// One over the API is taken at any time.
				b.keeper.apply()
				b.ended(t)
				if s := b.status(t); s.Stage != Configured || !strings.Contains(s.Message, "over the API") || b.diagnostic(t) != "" {
					t.Errorf("after one over the API: %+v, diagnostic %q", s, b.diagnostic(t))
				}
			})
		})
	}
}

// TestNews: when the network or the clock comes to life, nobody waits for the
// pause to be over.
func TestNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &told{answer: say("", errors.New("network is unreachable"))}, false)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for _, change := range []func() error{
			func() error {
				return put(t.Context(), b.state, network.NewNetworkStatus(network.StatusID), network.NetworkStatusSpec{AddressReady: true})
			},
			func() error {
				return put(t.Context(), b.state, timesync.NewTimeStatus("node"), timesync.TimeStatusSpec{Synced: true})
			},
		} {
			before := len(b.platform.times())
			for len(b.platform.times()) == before { // so that a pause has just begun
				time.Sleep(time.Second)
				synctest.Wait()
			}
			before++
			began := time.Now()
			if err := change(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if times := b.platform.times(); len(times) <= before || times[before].Sub(began) > time.Second {
				t.Errorf("asked again %d times within 3s after news, want at once", len(times)-before)
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
		}
		b.stop()
		b.ended(t)
	})
}

// TestFacts: what the platform says of the machine is asked for at every start,
// for as long as it takes, and shown.
func TestFacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &told{network: errors.New("not yet")}
		b := start(t, p, true)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(b.settings) != 0 || strings.Count(b.logs.String(), "not yet") != 1 {
			t.Errorf("network settings %v, log:\n%s", b.settings, b.logs.String())
		}
		p.mu.Lock()
		p.network = nil
		p.mu.Unlock()
		time.Sleep(rarePause)
		synctest.Wait()
		if len(b.settings) != 1 || b.settings[0].Hostname != "one" {
			t.Errorf("network settings = %+v, want one's", b.settings)
		}
		b.ended(t)
		m, err := safe.StateGetByID[*runtime.PlatformMetadata](t.Context(), b.state, MetadataID)
		if err != nil || m.TypedSpec().Hostname != "one" {
			t.Errorf("metadata = %v, %v", m, err)
		}
		c, err := safe.StateGetByID[*runtime.KernelCmdline](t.Context(), b.state, CmdlineID)
		if err != nil || c.TypedSpec().Cmdline != "quiet ip=dhcp" {
			t.Errorf("command line = %v, %v", c, err)
		}
	})
}

// machine is one that asks a real server, with a real store.
type machine struct {
	store *configstore.Store
	state state.State
	base  []byte
}

func newMachine(t *testing.T, url string) *machine {
	t.Helper()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m := &machine{state: st, store: configstore.New(configstore.Options{
		State: st, Log: slog.New(slog.DiscardHandler), Dir: filepath.Join(dir, "config"), File: filepath.Join(dir, "config.yaml"),
	})}
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	if m.base, err = made.ControlPlane.Bytes(); err != nil {
		t.Fatal(err)
	}
	p, err := platform.New(platform.Metal, platform.Options{Cmdline: cmdline.Parse("talos.config=" + url), Fetch: fetch.New(nil, time.Now).Get})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { m.store.Run(ctx) })
	tasks.Go(func() {
		if err := Run(ctx, Options{State: st, Log: slog.New(slog.DiscardHandler), Platform: p, Store: m.store, Network: func(netsetup.Network) {}}); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		tasks.Wait()
	})
	return m
}

func (m *machine) eventually(t *testing.T, what string, ok func(v1alpha1.AcquireConfigStatusSpec) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s, err := safe.StateGetByID[*v1alpha1.AcquireConfigStatus](t.Context(), m.state, v1alpha1.AcquireConfigStatusID)
		if err == nil && ok(*s.TypedSpec()) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute: %v", what, s)
		}
	}
}

// TestServer: a server that is there late, and first with a bad document.
func TestServer(t *testing.T) {
	var mu sync.Mutex
	answer := func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		answer(w)
	}))
	t.Cleanup(s.Close)
	say := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		answer = func(w http.ResponseWriter) { fmt.Fprint(w, text) }
	}
	m := newMachine(t, s.URL+"/c")
	m.eventually(t, "the server's answer", func(s v1alpha1.AcquireConfigStatusSpec) bool {
		return s.Stage == Waiting && strings.Contains(s.Message, "/c: answered 503 Service Unavailable")
	})
	say("machine: {type: x}\nnonsense: 1\n")
	m.eventually(t, "all that is wrong", func(s v1alpha1.AcquireConfigStatusSpec) bool {
		return s.Stage == Waiting && len(s.Problems) > 1 && strings.Contains(strings.Join(s.Problems, "\n"), "machine.type")
	})
	say(string(m.base))
	m.eventually(t, "the good one", func(s v1alpha1.AcquireConfigStatusSpec) bool {
		return s.Stage == Configured && strings.Contains(s.Message, "/c")
	})
	if m.store.Active() == nil || len(m.store.History().Entries) != 1 || !strings.Contains(m.store.History().Entries[0].Note, s.URL) {
		t.Errorf("history = %+v", m.store.History())
	}
}

// TestAPIWins: a platform that never answers is no obstacle to a configuration
// over the API.
func TestAPIWins(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(s.Close)
	m := newMachine(t, s.URL+"/c")
	m.eventually(t, "asking", func(s v1alpha1.AcquireConfigStatusSpec) bool { return s.Stage == Asking })
	if _, err := m.store.Apply(t.Context(), configstore.Request{Document: m.base, Mode: machineapi.ApplyConfigurationRequest_AUTO}); err != nil {
		t.Fatal(err)
	}
	m.eventually(t, "the one over the API", func(s v1alpha1.AcquireConfigStatusSpec) bool {
		return s.Stage == Configured && strings.Contains(s.Message, "over the API")
	})
}
