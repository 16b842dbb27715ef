package door

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/health"
)

// faulty panics in every call.
type faulty struct {
	health.UnimplementedHealthServer
}

func (faulty) Check(context.Context, *emptypb.Empty) (*health.HealthCheckResponse, error) {
	panic("secret of a unary call")
}

func (faulty) Watch(*health.HealthWatchRequest, grpc.ServerStreamingServer[health.HealthCheckResponse]) error {
	panic("in a stream")
}

func TestRecover(t *testing.T) {
	var log bytes.Buffer
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(Recover(slog.New(slog.NewTextHandler(&log, nil)))...)
	health.RegisterHealthServer(server, faulty{})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := health.NewHealthClient(conn)

	_, err = client.Check(t.Context(), &emptypb.Empty{})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Errorf("Check of a server that panics = %v, want Internal without what it panicked with", err)
	}
	stream, err := client.Watch(t.Context(), &health.HealthWatchRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Internal {
		t.Errorf("Watch of a server that panics = %v, want Internal", err)
	}
	server.GracefulStop()
	if got := strings.Count(log.String(), "call panicked"); got != 2 {
		t.Errorf("%d panics in the log, want 2:\n%s", got, log.String())
	}
}
