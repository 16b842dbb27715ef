package authz

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	_ "talos/api/cluster"
	_ "talos/api/configuration"
	_ "talos/api/health"
	_ "talos/api/inspect"
	_ "talos/api/integrity"
	"talos/api/machine"
	_ "talos/api/network"
	_ "talos/api/roster"
	_ "talos/api/security"
	_ "talos/api/signer"
	_ "talos/api/storage"
	_ "talos/api/time"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
)

// elsewhere are services that never pass apid: they have doors of their own.
var elsewhere = []string{
	"securityapi.SecurityService", // trustd: a token
	"talos.v1.MembershipService",  // trustd: a token
	"talos.v1.Signer",             // machined, for trustd's user alone
}

// later are services that clients know and the API gets in a later release;
// the table has them so that callers read "unimplemented", not "denied".
var later = []string{
	"machine.ImageService", "machine.LifecycleService", "machine.DebugService", "machine.LVMService", "machine.MDService",
}

// TestEveryMethodHasARole walks every service that is compiled in.
func TestEveryMethodHasARole(t *testing.T) {
	_ = v1alpha1.State_ServiceDesc // registers cosi.resource.State
	found := map[string]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		pkg := string(file.Package())
		if strings.HasPrefix(pkg, "google.") || strings.HasPrefix(pkg, "grpc.") {
			return true
		}
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			if slices.Contains(elsewhere, string(s.FullName())) {
				continue
			}
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				name := "/" + string(s.FullName()) + "/" + string(m.Name())
				found[name] = true
				have, ok := Lookup(name)
				if !ok || have.Roles == 0 {
					t.Errorf("%s has no role", name)
				}
				if stream := m.IsStreamingClient() || m.IsStreamingServer(); stream != have.Stream {
					t.Errorf("%s: stream = %v in the table, %v in the protocol", name, have.Stream, stream)
				}
				if wrapped := carriesMetadata(m); wrapped != have.Wrapped {
					t.Errorf("%s: wrapped = %v in the table, %v in the protocol", name, have.Wrapped, wrapped)
				}
			}
		}
		return true
	})
	if len(found) < 70 {
		t.Fatalf("walked %d methods, expected all services", len(found))
	}
	for name := range table() {
		service, _, _ := strings.Cut(name[1:], "/")
		if !found[name] && !slices.Contains(later, service) {
			t.Errorf("the table has %s, the protocol does not", name)
		}
	}
}

// carriesMetadata looks for common.Metadata as field 1 of a streamed answer,
// or of the items in field 1 of a unary one.
func carriesMetadata(m protoreflect.MethodDescriptor) bool {
	item := m.Output()
	if !m.IsStreamingServer() {
		list := item.Fields().ByNumber(1)
		if list == nil || !list.IsList() || list.Message() == nil {
			return false
		}
		item = list.Message()
	}
	field := item.Fields().ByNumber(1)
	return field != nil && field.Message() != nil && field.Message().FullName() == "common.Metadata"
}

func TestCheck(t *testing.T) {
	const (
		version = "/machine.MachineService/Version"
		reboot  = "/machine.MachineService/Reboot"
		apply   = "/machine.MachineService/ApplyConfiguration"
		backup  = "/machine.MachineService/EtcdSnapshot"
		meta    = "/machine.MachineService/MetaWrite"
	)
	for _, c := range []struct {
		method      string
		roles       string
		maintenance bool
		want        codes.Code
	}{
		{version, "os:reader", false, codes.OK},
		{version, "", false, codes.PermissionDenied},
		{version, "os:impersonator", false, codes.PermissionDenied},
		{version, "os:etcd:backup", false, codes.PermissionDenied},
		{version, "system:masters", false, codes.PermissionDenied},
		{reboot, "os:reader", false, codes.PermissionDenied},
		{reboot, "os:operator", false, codes.OK},
		{backup, "os:etcd:backup", false, codes.OK},
		{backup, "os:reader", false, codes.PermissionDenied},
		{meta, "os:meta:writer", false, codes.OK},
		{meta, "os:operator", false, codes.PermissionDenied},
		{apply, "os:operator", false, codes.PermissionDenied},
		{apply, "os:reader", false, codes.PermissionDenied},
		{apply, "os:reader", true, codes.OK},
		{apply, "", true, codes.PermissionDenied},
		{version, "os:reader", true, codes.OK},
		{version, "", true, codes.PermissionDenied},
		{meta, "os:meta:writer", true, codes.PermissionDenied},
		{reboot, "os:reader", true, codes.PermissionDenied},
		{reboot, "os:admin", true, codes.PermissionDenied}, // there is no such certificate yet
		{"/machine.MachineService/Nothing", "os:admin", false, codes.PermissionDenied},
		{"/securityapi.SecurityService/Certificate", "os:admin", false, codes.PermissionDenied},
		{"/talos.v1.Signer/Sign", "os:admin", false, codes.PermissionDenied},
		{"", "os:admin", false, codes.PermissionDenied},
	} {
		if got := status.Code(Check(c.method, NewRoles(c.roles), c.maintenance)); got != c.want {
			t.Errorf("Check(%q, %q, %v) = %v, want %v", c.method, c.roles, c.maintenance, got, c.want)
		}
	}
}

// TestMaintenanceOffer is the list as people read it: a method that is added to
// the protocol is not offered, and one that is offered is in this list.
func TestMaintenanceOffer(t *testing.T) {
	want := []string{
		"/cosi.resource.State/Get", "/cosi.resource.State/List", "/cosi.resource.State/Watch",
		"/machine.MachineService/ApplyConfiguration", "/machine.MachineService/Dmesg", "/machine.MachineService/Events",
		"/machine.MachineService/Hostname", "/machine.MachineService/Logs", "/machine.MachineService/LogsContainers",
		"/machine.MachineService/Memory", "/machine.MachineService/ServiceList", "/machine.MachineService/Version",
		"/network.NetworkService/Interfaces", "/network.NetworkService/Routes",
		"/storage.StorageService/Disks",
	}
	var got []string
	for method := range table() {
		err := Check(method, NewRoles("os:reader"), true)
		switch {
		case err == nil:
			got = append(got, method)
		case !strings.Contains(status.Convert(err).Message(), "not offered in maintenance mode: until this node has a configuration"):
			t.Errorf("Check(%s) = %v, want the reason", method, err)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("offered in maintenance mode: %q, want %q", got, want)
	}
}

func TestIdentityMetadata(t *testing.T) {
	want := Identity{Roles: NewRoles("os:reader", "os:etcd:backup"), Subject: "alice", Serial: "0a", Peer: "10.0.0.1:4"}
	md := metadata.Pairs(MetadataRole, "os:admin", MetadataSubject, "mallory")
	want.Metadata(md)
	if got := FromMetadata(md); got != want {
		t.Errorf("FromMetadata = %+v, want %+v", got, want)
	}
}

func TestResourceRule(t *testing.T) {
	rule := ResourceRule(append(secrets.Types(), network.Types()...))
	for _, c := range []struct {
		kind  resource.Type
		verb  state.Verb
		roles string
		want  codes.Code
	}{
		{network.AddressStatusType, state.Get, "os:reader", codes.OK},
		{network.AddressStatusType, state.Watch, "os:operator", codes.OK},
		{network.AddressStatusType, state.List, "os:etcd:backup", codes.PermissionDenied},
		{network.AddressStatusType, state.List, "", codes.PermissionDenied},
		{network.AddressStatusType, state.Update, "os:admin", codes.PermissionDenied},
		{secrets.OSRootSecretsType, state.Get, "os:admin", codes.OK},
		{secrets.OSRootSecretsType, state.Get, "os:operator", codes.PermissionDenied},
		{secrets.OSRootSecretsType, state.List, "os:reader", codes.PermissionDenied},
		{secrets.OSRootSecretsType, state.Create, "os:admin", codes.PermissionDenied},
		{"Unknowns.example.org", state.Get, "os:reader", codes.PermissionDenied},
		{"Unknowns.example.org", state.Get, "os:admin", codes.OK},
	} {
		ctx := NewContext(context.Background(), Identity{Roles: NewRoles(c.roles)})
		got := status.Code(rule(ctx, state.Access{ResourceType: c.kind, Verb: c.verb}))
		if got != c.want {
			t.Errorf("rule(%s, %v, %q) = %v, want %v", c.kind, c.verb, c.roles, got, c.want)
		}
	}
	blank := true
	during := ResourceRule(append(secrets.Types(), network.Types()...), WithMaintenance(func() bool { return blank }))
	for kind, want := range map[resource.Type]codes.Code{
		network.LinkStatusType: codes.OK, network.LinkSpecType: codes.PermissionDenied, secrets.ApiCertificateType: codes.PermissionDenied,
	} {
		ctx := NewContext(context.Background(), Identity{Roles: NewRoles("os:reader")})
		if got := status.Code(during(ctx, state.Access{ResourceType: kind, Verb: state.List})); got != want {
			t.Errorf("rule in maintenance mode (%s) = %v, want %v", kind, got, want)
		}
		if got := status.Code(during(ctx, state.Access{ResourceType: kind, Verb: state.Update})); got != codes.PermissionDenied {
			t.Errorf("rule in maintenance mode: update of %s = %v, want PermissionDenied", kind, got)
		}
	}
	blank = false
	if during(NewContext(context.Background(), Identity{Roles: NewRoles("os:reader")}), state.Access{ResourceType: network.LinkStatusType, Verb: state.List}) == nil {
		t.Error("a reader may read links after maintenance mode")
	}
	for _, d := range secrets.Types() {
		kind := d.Provider.ResourceDefinition().Type
		ctx := NewContext(context.Background(), Identity{Roles: NewRoles("os:reader")})
		if rule(ctx, state.Access{ResourceType: kind, Verb: state.Get}) == nil {
			t.Errorf("a reader may read %s", kind)
		}
	}
}

type machineServer struct {
	machine.UnimplementedMachineServiceServer
	seen Identity
}

func (m *machineServer) Version(ctx context.Context, _ *emptypb.Empty) (*machine.VersionResponse, error) {
	m.seen = FromContext(ctx)
	return &machine.VersionResponse{}, nil
}

func (m *machineServer) Events(_ *machine.EventsRequest, stream grpc.ServerStreamingServer[machine.Event]) error {
	m.seen = FromContext(stream.Context())
	return nil
}

func TestInterceptors(t *testing.T) {
	impl := &machineServer{}
	server := grpc.NewServer(grpc.UnaryInterceptor(UnaryServerInterceptor()), grpc.StreamInterceptor(StreamServerInterceptor()))
	machine.RegisterMachineServiceServer(server, impl)
	listener := bufconn.Listen(1 << 16)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := machine.NewMachineServiceClient(conn)

	if _, err := client.Version(t.Context(), nil); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Version without roles = %v, want PermissionDenied", err)
	}
	id := Identity{Roles: NewRoles("os:reader"), Subject: "bob", Serial: "1f", Peer: "192.0.2.1:9"}
	md := metadata.MD{}
	id.Metadata(md)
	ctx := metadata.NewOutgoingContext(t.Context(), md)
	if _, err := client.Version(ctx, nil); err != nil || impl.seen != id {
		t.Errorf("Version = %v, seen %+v, want %+v", err, impl.seen, id)
	}
	impl.seen = Identity{}
	stream, err := client.Events(ctx, &machine.EventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = stream.Recv() // ends the stream; what counts is what the server saw
	if impl.seen != id {
		t.Errorf("Events saw %+v, want %+v", impl.seen, id)
	}
	if _, err := client.Reboot(ctx, &machine.RebootRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Reboot by a reader = %v, want PermissionDenied", err)
	}
}
