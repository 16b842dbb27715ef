package machine

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/configuration"
	"talos/api/machine"
	"talos/config"
	"talos/internal/authz"
	"talos/internal/configstore"
	"talos/internal/store"
)

// configurations is the API over a store that has one configuration.
func configurations(t *testing.T) (*Server, *Configurations, []byte) {
	t.Helper()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := configstore.New(configstore.Options{
		State: st, Log: slog.New(slog.DiscardHandler), Reboot: func(context.Context) error { return nil },
		Dir: filepath.Join(dir, "history"), File: filepath.Join(dir, "config.yaml"),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cfg.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := made.ControlPlane.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Options: Options{State: st, Config: cfg}}
	for {
		_, err = s.ApplyConfiguration(alice(t), &machine.ApplyConfigurationRequest{Data: doc, Mode: machine.ApplyConfigurationRequest_AUTO})
		if status.Code(err) != codes.Unavailable { // it is still booting
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, NewConfigurations(cfg), doc
}

func alice(t *testing.T) context.Context {
	return authz.NewContext(t.Context(), authz.Identity{Subject: "alice", Serial: "0a", Peer: "10.5.0.1:999"})
}

func TestConfigurationService(t *testing.T) {
	s, history, doc := configurations(t)
	named := []byte(strings.Replace(string(doc), "machine:\n", "machine:\n    nodeLabels: {rack: a}\n", 1))
	reply, err := s.ApplyConfiguration(alice(t), &machine.ApplyConfigurationRequest{
		Data: named, Mode: machine.ApplyConfigurationRequest_AUTO, ConfirmTimeout: durationpb.New(time.Hour), Base: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if m := reply.GetMessages()[0]; m.GetNumber() != 2 || !strings.Contains(m.GetDiff(), "+machine.nodeLabels.rack: a") || strings.Contains(m.GetModeDetails(), "rack") {
		t.Errorf("answer = %v", m)
	}
	listed, err := history.History(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	h := listed.GetMessages()[0]
	if e := h.GetEntries()[0]; e.GetNumber() != 2 || e.GetBy() != "alice" || e.GetState() != "trying" || e.GetMode() != "auto" {
		t.Errorf("the newest = %v", e)
	}
	if p := h.GetPending(); p.GetNumber() != 2 || p.GetFallback() != 1 || !p.GetInForce() || p.GetRemaining().AsDuration() < 59*time.Minute {
		t.Errorf("pending = %v", p)
	}
	got, err := history.Get(t.Context(), &configuration.ConfigurationGetRequest{})
	if err != nil || got.GetMessages()[0].GetNumber() != 2 || string(got.GetMessages()[0].GetDocument()) != string(named) {
		t.Errorf("Get = %v", err)
	}
	confirmed, err := history.Confirm(alice(t), &configuration.ConfigurationConfirmRequest{Number: 2})
	if err != nil || confirmed.GetMessages()[0].GetNumber() != 2 {
		t.Errorf("Confirm = %v, %v", confirmed, err)
	}
	back, err := history.Rollback(alice(t), &configuration.ConfigurationRollbackRequest{Mode: machine.ApplyConfigurationRequest_AUTO, DryRun: true})
	if err != nil || !strings.Contains(back.GetMessages()[0].GetModeDetails(), "-machine.nodeLabels.rack: a") {
		t.Errorf("Rollback = %v, %v", back, err)
	}
}

func TestConfigurationErrors(t *testing.T) {
	s, history, doc := configurations(t)
	auto := machine.ApplyConfigurationRequest_AUTO
	apply := func(r *machine.ApplyConfigurationRequest) error {
		_, err := s.ApplyConfiguration(alice(t), r)
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"broken":       {apply(&machine.ApplyConfigurationRequest{Data: []byte("a: b"), Mode: auto}), codes.InvalidArgument},
		"another base": {apply(&machine.ApplyConfigurationRequest{Data: doc, Mode: auto, Base: 9}), codes.Aborted},
		"too long":     {apply(&machine.ApplyConfigurationRequest{Data: doc, Mode: auto, ConfirmTimeout: durationpb.New(1000 * time.Hour)}), codes.InvalidArgument},
		"get": {func() error {
			_, err := history.Get(t.Context(), &configuration.ConfigurationGetRequest{Number: 9})
			return err
		}(), codes.NotFound},
		"confirm": {func() error {
			_, err := history.Confirm(t.Context(), &configuration.ConfigurationConfirmRequest{})
			return err
		}(), codes.FailedPrecondition},
		"rollback": {func() error {
			_, err := history.Rollback(t.Context(), &configuration.ConfigurationRollbackRequest{Number: 9})
			return err
		}(), codes.NotFound},
	} {
		if status.Code(c.err) != c.want {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
}
