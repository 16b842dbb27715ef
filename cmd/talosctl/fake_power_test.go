package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"talos/api/common"
	"talos/api/machine"
	"talos/internal/resources/runtime"
)

// Nodes of the fake cluster that go down in their own ways: quorum refuses,
// stuck01 never goes down, stays gives up, all others come back at once.

// Reboot makes the machine's status anew, as a new boot does.
func (f *fake) Reboot(ctx context.Context, r *machine.RebootRequest) (*machine.RebootResponse, error) {
	switch target(ctx) {
	case "quorum":
		if r.GetForceQuorumLoss() == "" {
			return nil, status.Error(codes.FailedPrecondition, "reboot: etcd would lose its quorum: 2 of 3 voters up; nothing was done. To do it nevertheless: --force-quorum-loss=demo")
		}
	case "stuck01":
		return &machine.RebootResponse{Messages: []*machine.Reboot{{ActorId: "stuck01"}}}, nil
	}
	return &machine.RebootResponse{Messages: []*machine.Reboot{{ActorId: "reboot"}}}, f.again(ctx)
}

// Nodes that are rebooted side by side share the status: one anew at a time.
func (f *fake) again(ctx context.Context) error {
	f.rebooting.Lock()
	defer f.rebooting.Unlock()
	if err := f.state.Destroy(ctx, runtime.NewMachineStatus("machine").Metadata()); err != nil {
		return err
	}
	again := runtime.NewMachineStatus("machine")
	again.TypedSpec().Stage = runtime.StageRunning
	again.TypedSpec().Status.Ready = true
	return f.state.Create(ctx, again)
}

func (f *fake) Reset(ctx context.Context, r *machine.ResetRequest) (*machine.ResetResponse, error) {
	if len(r.GetUserDisksToWipe()) > 0 {
		return nil, status.Error(codes.FailedPrecondition, "reset: a node in container mode has no user disks")
	}
	if target(ctx) == "stays" {
		return &machine.ResetResponse{Messages: []*machine.Reset{{ActorId: "stays"}}}, nil
	}
	return &machine.ResetResponse{Messages: []*machine.Reset{{ActorId: "reset"}}}, f.again(ctx)
}

// Events are those of the sequence that is asked for.
func (f *fake) Events(r *machine.EventsRequest, s grpc.ServerStreamingServer[machine.Event]) error {
	list := map[string][]proto.Message{
		"reboot": {
			&machine.SequenceEvent{Sequence: "reboot", Action: machine.SequenceEvent_START},
			&machine.PhaseEvent{Phase: "drain", Action: machine.PhaseEvent_START},
			&machine.TaskEvent{Task: "drain", Message: "waiting for 1 pods to end: default/web (The disruption budget web needs 1 healthy pods)"},
			&machine.TaskEvent{Task: "drain", Action: machine.TaskEvent_STOP, Message: "drain: not in time, going on without"},
			&machine.PhaseEvent{Phase: "drain", Action: machine.PhaseEvent_STOP},
			&machine.SequenceEvent{Sequence: "reboot", Action: machine.SequenceEvent_STOP},
		},
		"stuck01": {&machine.PhaseEvent{Phase: "stop pods", Action: machine.PhaseEvent_START}},
		"stays": {
			&machine.PhaseEvent{Phase: "leave the cluster", Action: machine.PhaseEvent_START},
			&machine.SequenceEvent{Sequence: "reset", Action: machine.SequenceEvent_STOP, Error: &common.Error{Code: common.Code_CANCELED, Message: "reset: leave the cluster: no leader"}},
		},
	}[r.GetWithActorId()]
	for _, payload := range list {
		data, err := anypb.New(payload)
		if err != nil {
			return err
		}
		if err := s.Send(&machine.Event{Data: data, ActorId: r.GetWithActorId()}); err != nil {
			return err
		}
	}
	if r.GetWithActorId() == "stuck01" {
		<-s.Context().Done()
	}
	return nil
}
