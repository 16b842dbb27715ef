package setup

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/google/go-cmp/cmp"

	"talos/config"
	"talos/internal/disk"
	"talos/internal/meta"
	configres "talos/internal/resources/config"
	"talos/internal/resources/runtime"
	"talos/internal/store"
)

// machine is a machine without disks, whose setup runs.
func machine(t *testing.T) *Setup {
	t.Helper()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{
		State: st, Log: slog.New(slog.DiscardHandler), Medium: t.TempDir(), StateDir: t.TempDir(), Meta: func() meta.Values { return nil },
		Begin: func() { t.Error("the installation began") }, Restart: func(context.Context) error { t.Error("the machine restarts"); return nil },
	})
	s.list = func(context.Context) ([]disk.Disk, error) { return nil, nil }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return s
}

// configure puts a worker's configuration with that install section in force.
func configure(t *testing.T, s *Setup, install *config.Install, disks ...config.ExtraDisk) *config.Config {
	t.Helper()
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := config.Generate(config.Input{ClusterName: "c", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	cfg := bundle.Worker
	cfg.Machine.Install, cfg.Machine.Disks = install, disks
	doc, err := cfg.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	res := configres.NewMachineConfig(configres.ActiveID)
	res.TypedSpec().Document = doc
	if err := s.State.Create(t.Context(), res); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestFromMemory: a configuration without a disk lets the machine go on.
func TestFromMemory(t *testing.T) {
	s := machine(t)
	if s.Done() {
		t.Fatal("set up before there is a configuration")
	}
	cfg := configure(t, s, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if text, err := s.Plan(ctx, cfg); text != "" || err != nil {
		t.Errorf("Plan = %q, %v, want nothing to be done", text, err)
	}
}

// TestNoSuchDisk: what is in the way is told, and nothing goes on.
func TestNoSuchDisk(t *testing.T) {
	s := machine(t)
	cfg := configure(t, s, &config.Install{Disk: "/dev/sda"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := s.State.WatchFor(ctx, runtime.NewDiagnostic(diagnosticID).Metadata(), state.WithEventTypes(state.Created, state.Updated))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(res.(*runtime.Diagnostic).TypedSpec().Details, " "); !strings.Contains(got, "no disk") {
		t.Errorf("the diagnostic says %q, want that there is no disk", got)
	}
	if s.Done() {
		t.Error("set up without the disk that the configuration names")
	}
	if _, err := s.Plan(ctx, cfg); err == nil {
		t.Error("Plan on a disk that is not there = nil error")
	}
	if list, err := safe.StateListAll[*runtime.Diagnostic](ctx, s.State); err != nil || list.Len() != 1 {
		t.Errorf("%d diagnostics, %v, want 1", list.Len(), err)
	}
}

// TestExtraDisks: a machine that came from its disk mounts the user's before
// anything may use them.
func TestExtraDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var there atomic.Bool
		st, err := store.New(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := New(Options{
			State: st, Log: slog.New(slog.DiscardHandler), Installed: true,
			Extra: func(_ context.Context, disks []config.ExtraDisk) error {
				if len(disks) != 1 || disks[0].Device != "/dev/sdb" {
					t.Errorf("asked to mount %+v", disks)
				}
				if !there.Load() {
					return errors.New("/dev/sdb is not there")
				}
				return nil
			},
		})
		ended := make(chan error, 1)
		go func() { ended <- s.Run(t.Context()) }()
		configure(t, s, nil, config.ExtraDisk{Device: "/dev/sdb"})
		synctest.Wait()
		if s.Done() {
			t.Fatal("set up without the disk")
		}
		there.Store(true) // somebody plugs it in
		time.Sleep(2 * again)
		synctest.Wait()
		if !s.Done() {
			t.Error("not set up although the disk is there")
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestTrouble: a machine whose EPHEMERAL can't be used says so, and runs nothing.
func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := store.New(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := New(Options{
			State: st, Log: slog.New(slog.DiscardHandler), Installed: true,
			Trouble: func() error { return errors.New("EPHEMERAL: it holds no XFS") },
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		configure(t, s, nil)
		time.Sleep(3 * again)
		synctest.Wait()
		if s.Done() {
			t.Error("set up without EPHEMERAL")
		}
		d, err := safe.StateGetByID[*runtime.Diagnostic](ctx, st, diagnosticID)
		if err != nil || !slices.Contains(d.TypedSpec().Details, "EPHEMERAL: it holds no XFS") {
			t.Errorf("diagnostic = %+v, %v", d, err)
		}
		if err == nil && d.Metadata().Version().Value() != 1 {
			t.Errorf("the diagnostic has version %v: it was told again", d.Metadata().Version())
		}
		created := d.Metadata().Created()
		time.Sleep(3 * again)
		if d, err := safe.StateGetByID[*runtime.Diagnostic](ctx, st, diagnosticID); err != nil || !d.Metadata().Created().Equal(created) {
			t.Errorf("the diagnostic went and came again: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestChangedMeanwhile: the configuration on the disk is the one that was applied
// last, also when that was while the disk was written.
func TestChangedMeanwhile(t *testing.T) {
	for _, changes := range []int{0, 1, 2, 100} {
		s := New(Options{Log: slog.New(slog.DiscardHandler), StateDir: t.TempDir()})
		apply := func(n int) {
			if err := os.WriteFile(filepath.Join(s.StateDir, "config.yaml"), []byte{byte(n)}, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		apply(0)
		n, disk := 0, ""
		err := s.write(func(files map[string][]byte) error {
			disk = string(files["config.yaml"])
			if n < changes {
				n++
				apply(n)
			}
			return nil
		})
		now, readErr := os.ReadFile(filepath.Join(s.StateDir, "config.yaml"))
		if readErr != nil {
			t.Fatal(readErr)
		}
		if (err == nil) != (changes < 3) || err == nil && disk != string(now) {
			t.Errorf("%d changes: write = %v, the disk has %q, in force is %q", changes, err, disk, now)
		}
	}
}

// TestRestartLater: a restart that can't begin just now is tried again, and the
// disk is not written again for it.
func TestRestartLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := store.New(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tries, written := 0, 0
		s := New(Options{State: st, Log: slog.New(slog.DiscardHandler), Restart: func(context.Context) error {
			if tries++; tries < 3 {
				return errors.New("a shutdown is under way")
			}
			return nil
		}})
		s.put = func(context.Context, *config.Config) error { written++; return nil }
		ended := make(chan error, 1)
		go func() { ended <- s.Run(t.Context()) }()
		configure(t, s, &config.Install{Disk: "/dev/sda"})
		if err := <-ended; err != nil || tries != 3 || written != 1 || s.Done() {
			t.Errorf("Run = %v after %d restarts and %d installations", err, tries, written)
		}
	})
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "config"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"config/1": []byte("a"), "identity.key": []byte("b")}
	for name, data := range want {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	got, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
}
