package machine

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/roster"
	"talos/config"
	configres "talos/internal/resources/config"
	"talos/internal/store"
)

// names are who is on the list.
type names map[string]error

func (n names) Remove(_ context.Context, node string) ([]string, error) {
	err, there := n[node]
	if err != nil || !there {
		return nil, err
	}
	return []string{node}, nil
}

// TestForget: a control plane node forgets who is on the list; what is no name
// never gets there, and a worker keeps no list.
func TestForget(t *testing.T) {
	bundle, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: bundle})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind *config.Config
		node string
		want codes.Code
	}{
		{made.ControlPlane, "worker-1", codes.OK},
		{made.ControlPlane, "worker-2", codes.NotFound},
		{made.ControlPlane, "broken", codes.Unavailable},
		{made.ControlPlane, "", codes.InvalidArgument},
		{made.ControlPlane, "../names", codes.InvalidArgument},
		{made.Worker, "worker-1", codes.FailedPrecondition},
	} {
		st, err := store.New(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		document, err := c.kind.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		mc := configres.NewMachineConfig(configres.ActiveID)
		mc.TypedSpec().Document = document
		if err := st.Create(t.Context(), mc); err != nil {
			t.Fatal(err)
		}
		s := &Server{Options: Options{State: st, Log: slog.New(slog.DiscardHandler), Roster: names{"worker-1": nil, "broken": errors.New("no etcd")}}}
		r, err := s.Forget(t.Context(), &roster.ForgetRequest{Node: c.node})
		if status.Code(err) != c.want || err == nil && len(r.GetMessages()[0].GetNames()) != 1 {
			t.Errorf("Forget(%q) on a %s = %v, %v, want %v", c.node, c.kind.Machine.Type, r, err, c.want)
		}
	}
}
