package routerd

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/internal/linux/peercred"
)

// serve starts a router in front of daemons that answer with their name.
func serve(t *testing.T, config Config) *grpc.ClientConn {
	t.Helper()
	dir := t.TempDir()
	for name, socket := range map[string]*string{"machined": &config.Machine, "networkd": &config.Network, "timed": &config.Time} {
		*socket = filepath.Join(dir, name)
		listener, err := net.Listen("unix", *socket)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			return status.Error(codes.DataLoss, name)
		}))
		go server.Serve(listener)
		t.Cleanup(server.Stop)
	}
	listener, err := peercred.Listen(filepath.Join(dir, "routerd"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, slog.New(slog.DiscardHandler), listener, config) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	conn, err := grpc.NewClient("unix:"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestRoutes(t *testing.T) {
	conn := serve(t, Config{Credentials: peercred.Credentials(uint32(os.Getuid()))})
	for method, want := range map[string]string{
		"/machine.MachineService/Version":                           "machined",
		"/machine.ImageService/List":                                "machined",
		"/cluster.ClusterService/HealthCheck":                       "machined",
		"/storage.StorageService/Disks":                             "machined",
		"/inspect.InspectService/ControllerRuntimeDependencies":     "machined",
		"/cosi.resource.State/Watch":                                "machined",
		"/health.Health/Check":                                      "machined",
		"/talos.v1.Anything/Do":                                     "machined",
		"/network.NetworkService/Routes":                            "networkd",
		"/time.TimeService/Time":                                    "timed",
		"/securityapi.SecurityService/Certificate":                  "",
		"/machinery.Service/X":                                      "",
		"/nodot/X":                                                  "",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": "",
	} {
		err := conn.Invoke(t.Context(), method, &emptypb.Empty{}, &emptypb.Empty{})
		if want == "" {
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("%s = %v, want Unimplemented", method, err)
			}
		} else if status.Code(err) != codes.DataLoss || status.Convert(err).Message() != want {
			t.Errorf("%s = %v, want the answer of %s", method, err, want)
		}
	}
}

// TestOnlyTheExpectedUser lets in a user that this test is not. Root always
// may, so the test needs another user.
func TestOnlyTheExpectedUser(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root is admitted everywhere; cmd/noded's test of processes covers root's machine")
	}
	conn := serve(t, Config{Credentials: peercred.Credentials(uint32(os.Getuid()) + 1)})
	err := conn.Invoke(t.Context(), "/machine.MachineService/Version", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "machined") {
		t.Errorf("a stranger's call = %v, want a refused connection", err)
	}
}
