package machine

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"talos/api/machine"
	"talos/internal/service"
)

// ServiceList reports every service with its last events.
func (s *Server) ServiceList(context.Context, *emptypb.Empty) (*machine.ServiceListResponse, error) {
	out := &machine.ServiceList{}
	for _, svc := range s.Services.List() {
		out.Services = append(out.Services, serviceInfo(svc))
	}
	return &machine.ServiceListResponse{Messages: []*machine.ServiceList{out}}, nil
}

func serviceInfo(svc service.Status) *machine.ServiceInfo {
	info := &machine.ServiceInfo{
		Id: svc.ID, State: svc.State, Events: &machine.ServiceEvents{},
		Health: &machine.ServiceHealth{
			Unknown: svc.Health.Unknown, Healthy: svc.Health.Healthy,
			LastMessage: svc.Health.Message, LastChange: timestamppb.New(svc.Health.Changed),
		},
	}
	for _, e := range svc.Events {
		info.Events.Events = append(info.Events.Events, &machine.ServiceEvent{Msg: e.Message, State: e.State, Ts: timestamppb.New(e.Time)})
	}
	return info
}

// ServiceStart starts a service that was stopped.
func (s *Server) ServiceStart(ctx context.Context, req *machine.ServiceStartRequest) (*machine.ServiceStartResponse, error) {
	if err := s.Services.Start(ctx, req.GetId()); err != nil {
		return nil, serviceError(req.GetId(), err)
	}
	return &machine.ServiceStartResponse{Messages: []*machine.ServiceStart{{Resp: `service "` + req.GetId() + `" started`}}}, nil
}

// ServiceStop stops a service until it is started again.
func (s *Server) ServiceStop(ctx context.Context, req *machine.ServiceStopRequest) (*machine.ServiceStopResponse, error) {
	if err := s.Services.Stop(ctx, req.GetId()); err != nil {
		return nil, serviceError(req.GetId(), err)
	}
	return &machine.ServiceStopResponse{Messages: []*machine.ServiceStop{{Resp: `service "` + req.GetId() + `" stopped`}}}, nil
}

// ServiceRestart stops a service and starts it.
func (s *Server) ServiceRestart(ctx context.Context, req *machine.ServiceRestartRequest) (*machine.ServiceRestartResponse, error) {
	if err := s.Services.Restart(ctx, req.GetId()); err != nil {
		return nil, serviceError(req.GetId(), err)
	}
	return &machine.ServiceRestartResponse{Messages: []*machine.ServiceRestart{{Resp: `service "` + req.GetId() + `" restarted`}}}, nil
}

func serviceError(id string, err error) error {
	switch {
	case errors.Is(err, service.ErrUnknown):
		return status.Errorf(codes.NotFound, "service %q is not known on this node", id)
	case errors.Is(err, service.ErrNotAllowed):
		return status.Errorf(codes.PermissionDenied, "service %q can't be controlled over the API: the node needs it to be reachable", id)
	}
	return err
}
