package machine

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/machine"
	"talos/internal/configstore"
	"talos/internal/sequence"
	"talos/internal/store"
)

// taken is a Power that only notes what it is asked for.
type taken struct {
	r    sequence.Request
	busy bool
}

func (p *taken) Begin(_ context.Context, r sequence.Request) (string, error) {
	if p.busy {
		return "", sequence.ErrBusy
	}
	p.r = r
	return "actor", nil
}

// unconfigured is a node without a configuration, for whose etcd nobody need ask.
func unconfigured(t *testing.T, platform string) (*Server, *taken) {
	t.Helper()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	power := &taken{}
	config := configstore.New(configstore.Options{State: st, Log: slog.New(slog.DiscardHandler), Dir: t.TempDir()})
	return &Server{Options: Options{Power: power, Platform: platform, Config: config}}, power
}

func TestPowerRequests(t *testing.T) {
	s, power := unconfigured(t, "container")
	partition := func(label string, wipe bool) *machine.ResetPartitionSpec {
		return &machine.ResetPartitionSpec{Label: label, Wipe: wipe}
	}
	limits := durationpb.New(time.Minute)
	for _, tt := range []struct {
		name string
		ask  func(context.Context) error
		want sequence.Request
	}{
		{"reboot of an older client", reboot(s, &machine.RebootRequest{}), sequence.Request{Kind: sequence.Reboot}},
		{"reboot", reboot(s, &machine.RebootRequest{Drain: true, DrainTimeout: limits, Deadline: limits}),
			sequence.Request{Kind: sequence.Reboot, Drain: true, DrainTimeout: time.Minute, Deadline: time.Minute}},
		{"power cycle", reboot(s, &machine.RebootRequest{Mode: machine.RebootRequest_POWERCYCLE}), sequence.Request{Kind: sequence.Reboot}},
		{"forced reboot", reboot(s, &machine.RebootRequest{Mode: machine.RebootRequest_FORCE, Drain: true}), sequence.Request{Kind: sequence.Reboot, Force: true}},
		{"shutdown", shutdown(s, &machine.ShutdownRequest{}), sequence.Request{Kind: sequence.Shutdown, Drain: true}},
		{"forced shutdown", shutdown(s, &machine.ShutdownRequest{Force: true}), sequence.Request{Kind: sequence.Shutdown, Force: true}},
		{"reset", reset(s, &machine.ResetRequest{Graceful: true, Reboot: true, SystemPartitionsToWipe: []*machine.ResetPartitionSpec{partition("EPHEMERAL", true), partition("STATE", false)}}),
			sequence.Request{Kind: sequence.Reset, Drain: true, Leave: true, Again: true, Wipe: []string{"EPHEMERAL"}}},
		{"reset of everything without grace", reset(s, &machine.ResetRequest{Mode: machine.ResetRequest_SYSTEM_DISK}),
			sequence.Request{Kind: sequence.Reset, Wipe: []string{"EPHEMERAL", "STATE", "META"}}},
		{"reset in words", reset(s, &machine.ResetRequest{Graceful: true, ForceQuorumLoss: "demo"}),
			sequence.Request{Kind: sequence.Reset, Drain: true, Leave: true, Insist: true, Wipe: []string{"EPHEMERAL", "STATE", "META"}}},
	} {
		if err := tt.ask(t.Context()); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, power.r); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func reboot(s *Server, r *machine.RebootRequest) func(context.Context) error {
	return func(ctx context.Context) error { _, err := s.Reboot(ctx, r); return err }
}

func shutdown(s *Server, r *machine.ShutdownRequest) func(context.Context) error {
	return func(ctx context.Context) error { _, err := s.Shutdown(ctx, r); return err }
}

func reset(s *Server, r *machine.ResetRequest) func(context.Context) error {
	return func(ctx context.Context) error { _, err := s.Reset(ctx, r); return err }
}

// TestPowerRefusals: what is refused begins nothing.
func TestPowerRefusals(t *testing.T) {
	s, power := unconfigured(t, "container")
	metal, other := unconfigured(t, "metal")
	busy, _ := unconfigured(t, "container")
	busy.Power = &taken{busy: true}
	for name, tt := range map[string]struct {
		ask  func(context.Context) error
		want codes.Code
	}{
		"no time":             {reboot(s, &machine.RebootRequest{Deadline: durationpb.New(time.Second)}), codes.InvalidArgument},
		"too much time":       {shutdown(s, &machine.ShutdownRequest{Deadline: durationpb.New(48 * time.Hour)}), codes.InvalidArgument},
		"negative drain":      {reboot(s, &machine.RebootRequest{DrainTimeout: durationpb.New(-time.Second)}), codes.InvalidArgument},
		"user disks":          {reset(s, &machine.ResetRequest{UserDisksToWipe: []string{"/dev/sda"}}), codes.FailedPrecondition},
		"user disks by mode":  {reset(s, &machine.ResetRequest{Mode: machine.ResetRequest_USER_DISKS}), codes.FailedPrecondition},
		"user disks of metal": {reset(metal, &machine.ResetRequest{Mode: machine.ResetRequest_USER_DISKS}), codes.Unimplemented},
		"no such partition":   {reset(s, &machine.ResetRequest{SystemPartitionsToWipe: []*machine.ResetPartitionSpec{{Label: "BOOT", Wipe: true}}}), codes.InvalidArgument},
		"nothing to wipe":     {reset(s, &machine.ResetRequest{SystemPartitionsToWipe: []*machine.ResetPartitionSpec{{Label: "STATE"}}}), codes.InvalidArgument},
		"under way":           {reboot(busy, &machine.RebootRequest{}), codes.FailedPrecondition},
	} {
		if err := tt.ask(t.Context()); status.Code(err) != tt.want {
			t.Errorf("%s = %v, want %v", name, err, tt.want)
		}
	}
	if power.r.Kind != "" || other.r.Kind != "" {
		t.Errorf("%+v %+v was begun", power.r, other.r)
	}
}
