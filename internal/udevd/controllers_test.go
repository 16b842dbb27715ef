package udevd

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/controller/runtime/options"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.uber.org/zap"

	runtimeres "talos/internal/resources/runtime"
	"talos/internal/store"
)

// TestDiagnose: what a device did not take is told for as long as it is so.
func TestDiagnose(t *testing.T) {
	s := play(t)
	s.run(t)
	ctx, cancel := context.WithCancel(t.Context())
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := runtime.NewRuntime(st, zap.NewNop(), options.WithMetrics(false))
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.RegisterController(Diagnose(slog.New(slog.DiscardHandler), s.Daemon)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	diagnostic := func(want func(*runtimeres.DiagnosticSpec) bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			var have *runtimeres.DiagnosticSpec
			res, err := safe.StateGetByID[*runtimeres.Diagnostic](ctx, st, DiagnosticID)
			if err == nil {
				have = res.TypedSpec()
			} else if !state.IsNotFoundError(err) {
				t.Fatal(err)
			}
			if want(have) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the diagnostic is %+v", have)
			}
		}
	}
	if err := s.SetRules([]string{`KERNEL=="sdb", OWNER="nemo"`}); err != nil {
		t.Fatal(err)
	}
	diagnostic(func(d *runtimeres.DiagnosticSpec) bool {
		return d != nil && len(d.Details) == 1 && strings.HasSuffix(d.Details[0], `sdb: no user "nemo"`)
	})
	if err := s.SetRules(nil); err != nil {
		t.Fatal(err)
	}
	diagnostic(func(d *runtimeres.DiagnosticSpec) bool { return d == nil })
}
