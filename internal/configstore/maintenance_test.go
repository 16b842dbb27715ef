package configstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/resources/runtime"
)

// asks reports whether the store's request for maintenance mode is there.
func (b *bench) asks(t *testing.T) bool {
	t.Helper()
	_, err := b.State.Get(t.Context(), runtime.NewMaintenanceServiceRequest(runtime.MaintenanceServiceRequestID).Metadata())
	if err != nil && !state.IsNotFoundError(err) {
		t.Fatal(err)
	}
	return err == nil
}

func (b *bench) offers(t *testing.T, when string, want bool) {
	t.Helper()
	if b.asks(t) != want || b.Unconfigured() != want {
		t.Errorf("%s: asks for maintenance mode %v, unconfigured %v, want %v", when, b.asks(t), b.Unconfigured(), want)
	}
}

// TestMaintenanceEndsWithTheFirst: and does not come back with a reboot.
func TestMaintenanceEndsWithTheFirst(t *testing.T) {
	b := newBench(t)
	b.offers(t, "before the boot has read anything", false)
	b.boot(t)
	b.offers(t, "a blank machine", true)
	b.apply(t, Request{Document: b.base, Mode: modeAuto, DryRun: true})
	b.offers(t, "after a dry run", true)
	b.refused(t, Request{Document: []byte("machine: {}"), Mode: modeAuto}, ErrInvalid)
	b.offers(t, "after one that was refused", true)
	b.apply(t, Request{Document: b.base, Mode: modeAuto})
	b.offers(t, "configured", false)
	b.boot(t)
	b.offers(t, "after a reboot", false)
	if err := os.RemoveAll(filepath.Join(b.dir, "state")); err != nil {
		t.Fatal(err)
	}
	b.boot(t)
	b.offers(t, "after STATE was wiped", true)
}

// TestMaintenanceEndsBeforeTheReboot: between storing the first and rebooting
// for it nobody replaces it.
func TestMaintenanceEndsBeforeTheReboot(t *testing.T) {
	b := newBench(t)
	b.boot(t)
	b.apply(t, Request{Document: b.base, Mode: modeReboot})
	if b.Unconfigured() || b.reboots != 1 {
		t.Errorf("stored for the reboot: unconfigured %v, %d reboots, want false and 1", b.Unconfigured(), b.reboots)
	}
}

// TestNoMaintenanceAfterDamage: a machine that had a configuration is not
// offered to strangers, whatever became of that.
func TestNoMaintenanceAfterDamage(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, b *bench){
		"every file is noise": func(t *testing.T, b *bench) {
			for _, path := range []string{filepath.Join(b.Dir, "index.json"), filepath.Join(b.Dir, "1.yaml"), b.File} {
				b.put(t, path, "x")
			}
		},
		"the document is gone": func(t *testing.T, b *bench) {
			remove(t, filepath.Join(b.Dir, "1.yaml"))
			remove(t, b.File)
		},
		"nothing but a broken copy": func(t *testing.T, b *bench) {
			if err := os.RemoveAll(b.Dir); err != nil {
				t.Fatal(err)
			}
			b.put(t, b.File, "machine: {")
		},
		"a copy that can't be read": func(t *testing.T, b *bench) {
			if err := os.RemoveAll(b.Dir); err != nil {
				t.Fatal(err)
			}
			remove(t, b.File)
			if err := os.Mkdir(b.File, 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := configured(t)
			damage(t, b)
			for _, boot := range []string{"first", "second"} {
				if b.boot(t) {
					t.Fatalf("%s boot found a configuration", boot)
				}
				b.offers(t, boot+" boot", false)
				if got := b.diagnostics(t); len(got) == 0 {
					t.Errorf("%s boot: nobody is told", boot)
				}
			}
			res, err := b.State.Get(t.Context(), runtime.NewDiagnostic(diagnosticID).Metadata())
			if err != nil || !strings.Contains(res.(*runtime.Diagnostic).TypedSpec().Message, "no configuration that was found is usable") {
				t.Errorf("diagnostic = %v, %v", res, err)
			}
		})
	}
}

// TestMaintenanceAfterABadOffer: what the platform gave may be wrong; a machine
// that never had a configuration can still be given one.
func TestMaintenanceAfterABadOffer(t *testing.T) {
	b := newBench(t)
	for _, boot := range []string{"first", "second"} {
		b.boot(t)
		if err := b.Offer(t.Context(), []byte("machine: {"), "the platform"); err == nil {
			t.Fatal("a broken document is taken")
		}
		b.offers(t, "with a broken document from the platform, "+boot+" boot", true)
	}
	if err := b.Offer(t.Context(), b.base, "the platform"); err != nil {
		t.Fatal(err)
	}
	b.offers(t, "with a good one", false)
}

// TestNoMaintenanceWithOneAtHand: where a configuration is at hand, strangers
// are never asked for one; a bad one at hand is no obstacle.
func TestNoMaintenanceWithOneAtHand(t *testing.T) {
	for name, test := range map[string]struct {
		document string
		err      error
		offers   bool
	}{
		"a good one": {document: "good"}, "a bad one": {document: "machine: {", offers: true}, "none": {offers: true},
		"an error": {err: errors.New("no such file"), offers: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.First = func(context.Context) ([]byte, string, error) {
				if b.asks(t) || b.Unconfigured() {
					t.Error("strangers were asked first")
				}
				switch test.document {
				case "":
					return nil, "", test.err
				case "good":
					return b.base, "the platform", nil
				}
				return []byte(test.document), "the platform", nil
			}
			if err := b.begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.offers(t, "afterwards", test.offers)
			if found, err := b.Loaded(t.Context()); err != nil || found == test.offers {
				t.Errorf("Loaded = %v, %v", found, err)
			}
		})
	}
}

// TestNotKnownWhetherBlank: while a disk is silent that may hold a configuration
// the machine tells so and takes none, from strangers or from its platform; once
// it is known that there is none it does.
func TestNotKnownWhetherBlank(t *testing.T) {
	b := newBench(t)
	answers, asked := make(chan struct{}), 0
	b.First = func(context.Context) ([]byte, string, error) { asked++; return nil, "", nil }
	told := make(chan struct{})
	b.Known = func(ctx context.Context, say func([]string)) error {
		say([]string{"/dev/sda: it does not answer"})
		close(told)
		select {
		case <-answers:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	begun := make(chan error, 1)
	go func() { begun <- b.begin(t.Context()) }()
	<-told
	if !b.asks(t) || !b.Unconfigured() {
		t.Error("while it is not known nobody can ask the machine why")
	}
	const why = "it is not known whether this machine has a configuration, so it takes none: /dev/sda: it does not answer"
	if _, err := b.Apply(t.Context(), Request{Document: b.base, Mode: modeAuto}); !errors.Is(err, ErrStarting) || err.Error() != why {
		t.Errorf("Apply while it is not known = %v, want %s", err, why)
	}
	if err := b.Offer(t.Context(), b.base, "the platform"); !errors.Is(err, ErrStarting) || asked != 0 {
		t.Errorf("Offer while it is not known = %v; what is at hand was asked for %d times", err, asked)
	}
	diagnostic := runtime.NewDiagnostic("disks").Metadata()
	if d, err := b.State.Get(t.Context(), diagnostic); err != nil || !strings.Contains(strings.Join(d.(*runtime.Diagnostic).TypedSpec().Details, ""), "/dev/sda") {
		t.Errorf("the diagnostic is %v, %v", d, err)
	}
	close(answers)
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	if _, err := b.State.Get(t.Context(), diagnostic); !state.IsNotFoundError(err) || asked != 1 {
		t.Errorf("once it is known: the diagnostic = %v, what is at hand was asked for %d times", err, asked)
	}
	b.offers(t, "once it is known", true)
	b.apply(t, Request{Document: b.base, Mode: modeAuto})
	b.offers(t, "configured", false)
}
