package timed

import (
	"context"
	"fmt"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	api "talos/api/time"
	"talos/internal/authz"
	"talos/internal/door"
	"talos/internal/layout"
	"talos/internal/linux/peercred"
	"talos/internal/resources/network"
)

// serve answers routerd until ctx ends.
func serve(ctx context.Context, socket string, d *daemon) error {
	listener, err := peercred.Listen(socket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", socket, err)
	}
	srv := grpc.NewServer(grpc.Creds(peercred.Credentials(layout.RouterUID)),
		grpc.InitialWindowSize(door.Window), grpc.InitialConnWindowSize(door.Window),
		grpc.UnaryInterceptor(authz.UnaryServerInterceptor()), grpc.StreamInterceptor(authz.StreamServerInterceptor()))
	api.RegisterTimeServiceServer(srv, &service{d: d})
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	return srv.Serve(listener)
}

type service struct {
	api.UnimplementedTimeServiceServer
	d *daemon // its state and query only; the rest belongs to run
}

// Time compares the clock with the first of the node's servers that answers.
func (s *service) Time(ctx context.Context, _ *emptypb.Empty) (*api.TimeResponse, error) {
	servers, err := safe.StateGetByID[*network.TimeServerStatus](ctx, s.d.state, network.TimeServerID)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "read the time servers: %v", err)
	}
	last := status.Error(codes.FailedPrecondition, "no time server is configured")
	for _, server := range servers.TypedSpec().TimeServers {
		answer, err := s.ask(ctx, server)
		if err == nil {
			return answer, nil
		}
		last = err
	}
	return nil, last
}

// TimeCheck compares the clock with the server that the caller names.
func (s *service) TimeCheck(ctx context.Context, r *api.TimeRequest) (*api.TimeResponse, error) {
	if r.GetServer() == "" {
		return nil, status.Error(codes.InvalidArgument, "server is empty")
	}
	return s.ask(ctx, r.GetServer())
}

func (s *service) ask(ctx context.Context, server string) (*api.TimeResponse, error) {
	answer, err := s.d.query(ctx, server)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	now := time.Now()
	return &api.TimeResponse{Messages: []*api.Time{{
		Server: server, Localtime: timestamppb.New(now), Remotetime: timestamppb.New(now.Add(answer.ClockOffset)),
	}}}, nil
}
