package networkd

import (
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	api "talos/api/network"
	"talos/internal/linux/netns"
)

// TestService calls networkd's API as routerd does, with and without a role.
func TestService(t *testing.T) {
	if !netns.Enter(t) {
		return
	}
	n := newNode(t)
	n.serve()
	netns.Run(t, "ip link set eth0 up")
	netns.Run(t, "ip addr add 10.99.0.7/24 dev eth0")
	netns.Run(t, "ip route add default via 10.99.0.1 metric 77")
	n.start()
	conn, err := grpc.NewClient("unix:"+filepath.Join(n.dir, "networkd", "networkd.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := api.NewNetworkServiceClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "talos-role", "os:reader")

	var routes *api.RoutesResponse
	n.eventually("service answers", func() bool {
		routes, err = client.Routes(ctx, &emptypb.Empty{})
		return err == nil
	})
	text := routes.String()
	for _, want := range []string{`destination:"0.0.0.0/0"`, `gateway:"10.99.0.1"`, `metric:77`, `interface:"eth0"`} {
		if !strings.Contains(text, want) {
			t.Errorf("Routes() = %s, want %s in it", text, want)
		}
	}
	links, err := client.Interfaces(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if text := links.String(); !strings.Contains(text, `ipaddress:"10.99.0.7/24"`) || !strings.Contains(text, `name:"lo"`) {
		t.Errorf("Interfaces() = %s", text)
	}
	if _, err := client.Routes(t.Context(), &emptypb.Empty{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Routes() without a role = %v, want PermissionDenied", err)
	}
}
