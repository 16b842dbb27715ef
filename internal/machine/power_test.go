package machine

import (
	"context"
	"errors"
	"log/slog"
	"strings"
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
	s, power := unconfigured(t, "metal")
	s.UserDisks = userDisks
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
			sequence.Request{Kind: sequence.Reset, Drain: true, Leave: true, Again: true, Wipe: []string{"EPHEMERAL"}, Loses: true}},
		{"reset of STATE", reset(s, &machine.ResetRequest{Graceful: true, SystemPartitionsToWipe: []*machine.ResetPartitionSpec{partition("STATE", true)}}),
			sequence.Request{Kind: sequence.Reset, Drain: true, Leave: true, Wipe: []string{"STATE"}}},
		{"reset of everything without grace", reset(s, &machine.ResetRequest{Mode: machine.ResetRequest_SYSTEM_DISK}),
			sequence.Request{Kind: sequence.Reset, Wipe: []string{"EPHEMERAL", "STATE", "META"}, Loses: true}},
		{"reset in words", reset(s, &machine.ResetRequest{Graceful: true, ForceQuorumLoss: "demo"}),
			sequence.Request{Kind: sequence.Reset, Drain: true, Leave: true, Insist: true, Wipe: []string{"EPHEMERAL", "STATE", "META"}, Loses: true}},
		{"reset of everything and a disk", reset(s, &machine.ResetRequest{UserDisksToWipe: []string{"/dev/sdb"}}),
			sequence.Request{Kind: sequence.Reset, Wipe: []string{"EPHEMERAL", "STATE", "META"}, Disks: []string{"serial of /dev/sdb"}, Loses: true}},
		{"reset of disks", reset(s, &machine.ResetRequest{Mode: machine.ResetRequest_USER_DISKS, Graceful: true, UserDisksToWipe: []string{"/dev/sdb", "/dev/sdc"}}),
			sequence.Request{Kind: sequence.Reset, Drain: true, Disks: []string{"serial of /dev/sdb", "serial of /dev/sdc"}}},
		{"reset of etcd's disk", reset(s, &machine.ResetRequest{Mode: machine.ResetRequest_USER_DISKS, Graceful: true, UserDisksToWipe: []string{"/dev/etcd"}}),
			sequence.Request{Kind: sequence.Reset, Drain: true, Leave: true, Disks: []string{"serial of /dev/etcd"}, Loses: true}},
	} {
		if err := tt.ask(t.Context()); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, power.r); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// userDisks are those of a machine that keeps etcd's data on one of its own.
func userDisks(_ context.Context, names []string, path string) (marks []string, holds bool, err error) {
	for _, name := range names {
		if !strings.HasPrefix(name, "/dev/") {
			return nil, false, errors.New(name + ": there is no such disk")
		}
		marks, holds = append(marks, "serial of "+name), holds || name == "/dev/etcd" && path == "/var/lib/etcd"
	}
	return marks, holds, nil
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
	metal.UserDisks = userDisks
	disks := []string{"/dev/sdb"}
	state := []*machine.ResetPartitionSpec{{Label: "STATE", Wipe: true}}
	busy, _ := unconfigured(t, "container")
	busy.Power = &taken{busy: true}
	for name, tt := range map[string]struct {
		ask  func(context.Context) error
		want codes.Code
	}{
		"no time":                    {reboot(s, &machine.RebootRequest{Deadline: durationpb.New(time.Second)}), codes.InvalidArgument},
		"too much time":              {shutdown(s, &machine.ShutdownRequest{Deadline: durationpb.New(48 * time.Hour)}), codes.InvalidArgument},
		"negative drain":             {reboot(s, &machine.RebootRequest{DrainTimeout: durationpb.New(-time.Second)}), codes.InvalidArgument},
		"user disks":                 {reset(s, &machine.ResetRequest{UserDisksToWipe: []string{"/dev/sda"}}), codes.FailedPrecondition},
		"user disks by mode":         {reset(s, &machine.ResetRequest{Mode: machine.ResetRequest_USER_DISKS}), codes.FailedPrecondition},
		"no user disk":               {reset(metal, &machine.ResetRequest{Mode: machine.ResetRequest_USER_DISKS}), codes.InvalidArgument},
		"unknown user disk":          {reset(metal, &machine.ResetRequest{UserDisksToWipe: []string{"sdb"}}), codes.InvalidArgument},
		"both by mode":               {reset(metal, &machine.ResetRequest{Mode: machine.ResetRequest_USER_DISKS, UserDisksToWipe: disks, SystemPartitionsToWipe: state}), codes.InvalidArgument},
		"user disks beside the mode": {reset(metal, &machine.ResetRequest{Mode: machine.ResetRequest_SYSTEM_DISK, UserDisksToWipe: disks}), codes.InvalidArgument},
		"no such partition":          {reset(s, &machine.ResetRequest{SystemPartitionsToWipe: []*machine.ResetPartitionSpec{{Label: "BOOT", Wipe: true}}}), codes.InvalidArgument},
		"nothing to wipe":            {reset(s, &machine.ResetRequest{SystemPartitionsToWipe: []*machine.ResetPartitionSpec{{Label: "STATE"}}}), codes.InvalidArgument},
		"under way":                  {reboot(busy, &machine.RebootRequest{}), codes.FailedPrecondition},
	} {
		if err := tt.ask(t.Context()); status.Code(err) != tt.want {
			t.Errorf("%s = %v, want %v", name, err, tt.want)
		}
	}
	if power.r.Kind != "" || other.r.Kind != "" {
		t.Errorf("%+v %+v was begun", power.r, other.r)
	}
}
