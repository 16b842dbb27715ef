package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/cosi-project/runtime/pkg/state/protobuf/server"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"talos/api/common"
	"talos/api/inspect"
	machineapi "talos/api/machine"
	"talos/internal/authz"
	"talos/internal/configstore"
	"talos/internal/door"
	"talos/internal/integrity"
	"talos/internal/layout"
	"talos/internal/linux/peercred"
	"talos/internal/machine"
	runtimeres "talos/internal/resources/runtime"
	"talos/internal/sequence"
	"talos/internal/service"
	"talos/internal/status"
	"talos/internal/store"
	"talos/internal/version"
)

// lastWords is how long callers may still be answered when the node goes down.
const lastWords = 200 * time.Millisecond

// maxMessage bounds what a caller may send, a configuration at the most.
const maxMessage = 32 << 20

// serveAPI answers for this node on its socket, for routerd alone.
func (n *node) serveAPI(ctx context.Context, st state.State, rt *runtime.Runtime, cfg *configstore.Store, events *machine.Events) error {
	options := machine.Options{
		State: st, Services: n.services.External(), Logs: n.logs, Boots: n.boots, Containers: n.pods, Config: cfg, Etcd: n.member, Roster: n.crowd.Facts,
		Integrity: &integrity.Node{Container: n.boot.Container, Version: version.Tag},
		Power:     n.sequence, Events: events, Graph: graph(rt), Platform: n.origin.platform.Name(), Log: n.log,
	}
	if n.setup != nil {
		options.Setup = n.setup
	}
	if n.machine != nil {
		options.UserDisks = n.machine.UserDisks
	}
	api, err := machine.New(options)
	if err != nil {
		return err
	}
	// Until there is a configuration nobody is known: whoever comes may apply one.
	unconfigured := authz.WithMaintenance(cfg.Unconfigured)
	srv := grpc.NewServer(append(door.Recover(n.log),
		grpc.Creds(peercred.Credentials(layout.RouterUID)),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.InitialWindowSize(door.Window), grpc.InitialConnWindowSize(door.Window),
		grpc.ChainUnaryInterceptor(authz.UnaryServerInterceptor(unconfigured)),
		grpc.ChainStreamInterceptor(authz.StreamServerInterceptor(unconfigured)),
	)...)
	api.Register(srv)
	v1alpha1.RegisterStateServer(srv, server.NewState(state.Filter(st, authz.ResourceRule(store.Types(), unconfigured))))
	listener, err := peercred.Listen(layout.MachineSocket)
	if err != nil {
		return fmt.Errorf("API: listen on %s: %w", layout.MachineSocket, err)
	}
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	n.sequence.OnEvent(func(e sequence.Event) {
		// Those who follow something would keep routerd and apid from ending.
		if e.Phase == sequence.StopServices && e.Step == "" && !e.Done {
			go door.Stop(srv, lastWords)
		}
	})
	return srv.Serve(listener)
}

// graph tells which controllers read and write what.
func graph(rt *runtime.Runtime) func() ([]*inspect.ControllerDependencyEdge, error) {
	kinds := map[controller.DependencyEdgeType]inspect.DependencyEdgeType{
		controller.EdgeOutputExclusive: inspect.DependencyEdgeType_OUTPUT_EXCLUSIVE, controller.EdgeOutputShared: inspect.DependencyEdgeType_OUTPUT_SHARED,
		controller.EdgeInputStrong: inspect.DependencyEdgeType_INPUT_STRONG, controller.EdgeInputWeak: inspect.DependencyEdgeType_INPUT_WEAK,
		controller.EdgeInputDestroyReady: inspect.DependencyEdgeType_INPUT_DESTROY_READY,
	}
	return func() ([]*inspect.ControllerDependencyEdge, error) {
		g, err := rt.GetDependencyGraph()
		if err != nil {
			return nil, err
		}
		var out []*inspect.ControllerDependencyEdge
		for _, e := range g.Edges {
			out = append(out, &inspect.ControllerDependencyEdge{
				ControllerName: e.ControllerName, EdgeType: kinds[e.EdgeType],
				ResourceNamespace: e.ResourceNamespace, ResourceType: e.ResourceType, ResourceId: e.ResourceID,
			})
		}
		return out, nil
	}
}

// publish turns what services and sequences do into events, and the sequences
// into the machine's stage.
func (n *node) publish(events *machine.Events, keeper *status.Machine) {
	n.services.OnEvent(func(id string, e service.Event) {
		events.Publish(&machineapi.ServiceStateEvent{Service: id, Message: e.Message, Action: action(e.State)}, "")
	})
	n.sequence.OnEvent(func(e sequence.Event) {
		if stage := n.stage(); stage != keeper.Stage() {
			keeper.SetStage(stage)
		}
		events.Publish(sequenceEvent(e), e.Actor)
	})
}

// stage is the machine's by the sequence that is under way. One that has ended
// and left the node up leads back to the beginning, from where readiness decides.
func (n *node) stage() runtimeres.MachineStage {
	switch n.sequence.Current() {
	case sequence.Reboot:
		return runtimeres.StageRebooting
	case sequence.Shutdown:
		return runtimeres.StageShuttingDown
	case sequence.Reset:
		return runtimeres.StageResetting
	}
	return runtimeres.StageBooting
}

// sequenceEvent is the beginning, the news or the end of a sequence, of its
// phase, or of a step of that.
func sequenceEvent(e sequence.Event) proto.Message {
	switch {
	case e.Step != "":
		out := &machineapi.TaskEvent{Task: e.Step, Action: machineapi.TaskEvent_START, Message: e.Message}
		if e.Done {
			out.Action = machineapi.TaskEvent_STOP
		}
		if e.Err != nil {
			out.Message = e.Err.Error()
		}
		return out
	case e.Phase != "":
		action := machineapi.PhaseEvent_START
		if e.Done {
			action = machineapi.PhaseEvent_STOP
		}
		return &machineapi.PhaseEvent{Phase: e.Phase, Action: action}
	}
	out := &machineapi.SequenceEvent{Sequence: e.Sequence, Action: machineapi.SequenceEvent_START}
	if e.Done {
		out.Action = machineapi.SequenceEvent_STOP
	}
	if e.Err != nil {
		out.Error = &common.Error{Code: common.Code_FATAL, Message: e.Err.Error()}
		if e.Stays {
			out.Error.Code = common.Code_CANCELED
		}
	}
	return out
}

// action is the wire's number of a service's state.
func action(state string) machineapi.ServiceStateEvent_Action {
	return map[string]machineapi.ServiceStateEvent_Action{
		service.StateInitialized: machineapi.ServiceStateEvent_INITIALIZED, service.StatePreparing: machineapi.ServiceStateEvent_PREPARING,
		service.StateWaiting: machineapi.ServiceStateEvent_WAITING, service.StateStarting: machineapi.ServiceStateEvent_STARTING,
		service.StateRunning: machineapi.ServiceStateEvent_RUNNING, service.StateStopping: machineapi.ServiceStateEvent_STOPPING,
		service.StateFinished: machineapi.ServiceStateEvent_FINISHED, service.StateFailed: machineapi.ServiceStateEvent_FAILED,
		service.StateSkipped: machineapi.ServiceStateEvent_SKIPPED,
	}[state]
}

// itself is machined in the list of services: it runs as long as anything does.
func itself() service.Definition {
	return service.Definition{ID: "machined", Runner: forever{}}
}

type forever struct{}

func (forever) Run(ctx context.Context, _ io.Writer, started func(pid int)) error {
	started(1)
	<-ctx.Done()
	return nil
}
