package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"talos/internal/layout"
)

func TestHasListener(t *testing.T) {
	const table = `  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:C350 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 0000000000000000FFFF00000100007F:C351 0000000000000000FFFF00000100007F:9C40 01 00000000:00000000
`
	for port, want := range map[int]bool{layout.APIPort: true, layout.TrustPort: false, 80: false} {
		if got := hasListener(table, port); got != want {
			t.Errorf("hasListener(%d) = %t, want %t", port, got, want)
		}
	}
}

// TestDaemons: each has a user of its own and no more than it needs.
func TestDaemons(t *testing.T) {
	seen := map[uint32]string{0: "root"}
	for _, d := range daemons(nil) {
		if other, twice := seen[d.uid]; twice {
			t.Errorf("%s runs as the user of %s", d.name, other)
		}
		seen[d.uid] = d.name
		spec := d.spec()
		if spec.Privileged || spec.HostPID || spec.Image != "" {
			t.Errorf("%s: privileged, sees processes, or has another root", d.name)
		}
		if spec.Memory <= 0 || spec.Pids <= 0 {
			t.Errorf("%s has no limit of memory or processes", d.name)
		}
		if onTheWay := d.name == "apid" || d.name == "routerd"; d.service().Vital != onTheWay {
			t.Errorf("%s: vital = %t, want %t", d.name, !onTheWay, onTheWay)
		}
		for _, m := range spec.Mounts {
			writable := !slices.Contains(m.Options, "ro")
			if own := m.Source == "/system/run/"+d.name; writable != own {
				t.Errorf("%s: %s writable = %t, want %t", d.name, m.Source, writable, own)
			}
			if strings.HasPrefix(m.Source, layout.SecretsDir) || strings.HasPrefix(m.Source, layout.StateDir) {
				t.Errorf("%s sees %s", d.name, m.Source)
			}
		}
	}
}

func TestOutputKeepsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var console, kept bytes.Buffer
		o := newOutput()
		o.sinks = []io.Writer{&console}
		log := slog.New(slog.NewTextHandler(o, nil))
		log.Info("early")
		run := o.keepIn(&kept)
		log.Info("late")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for name, b := range map[string]*bytes.Buffer{"console": &console, "log": &kept} {
			if got := b.String(); strings.Count(got, "msg=early") != 1 || strings.Count(got, "msg=late") != 1 {
				t.Errorf("%s has %q, want each line once", name, got)
			}
		}
	})
}

// hung is a disk that does not answer.
type hung struct{}

func (hung) Write([]byte) (int, error) { select {} }

// TestOutputHung: a disk that hangs holds up nobody who has something to say.
func TestOutputHung(t *testing.T) {
	var console bytes.Buffer
	o := newOutput()
	o.sinks = []io.Writer{&console}
	run := o.keepIn(hung{})
	go run(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		log := slog.New(slog.NewTextHandler(o, nil))
		for n := range 3 * waiting {
			log.Info("line", "n", n)
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the log waits for the disk")
	}
	if got := strings.Count(console.String(), "msg=line"); got != 3*waiting {
		t.Errorf("%d lines on the console, want %d", got, 3*waiting)
	}
}

func TestZap(t *testing.T) {
	var b bytes.Buffer
	z := zapLogger(slog.New(slog.NewTextHandler(&b, nil)))
	z.With(zap.String("controller", "x")).Error("stopped", zap.Error(errors.New("boom")))
	z.Debug("chatter")
	if got := b.String(); !strings.Contains(got, `level=ERROR msg=stopped controller=x error=boom`) || strings.Contains(got, "chatter") {
		t.Errorf("zap through slog = %q", got)
	}
}

// TestGroup: a task that fails or panics is started again until it succeeds.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &group{ctx: t.Context(), log: slog.New(slog.DiscardHandler)}
		tries, done := 0, make(chan struct{})
		g.Go("x", func(context.Context) error {
			switch tries++; tries {
			case 1:
				return errors.New("boom")
			case 2:
				panic("at the disco")
			}
			close(done)
			return nil
		})
		<-done
		if tries != 3 {
			t.Errorf("%d tries, want 3", tries)
		}
	})
}
