package store

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/resource/meta"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/cosi-project/runtime/pkg/state/protobuf/client"
	"github.com/cosi-project/runtime/pkg/state/protobuf/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"talos/internal/door"
	"talos/internal/layout"
	"talos/internal/linux/peercred"
	"talos/internal/resources/cluster"
	"talos/internal/resources/files"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
	"talos/internal/resources/timesync"
)

// view is what one user may see and change. A type that is in neither list
// does not exist for that user.
type view struct {
	reads  []resource.Type
	writes []resource.Type
}

// views are the rights of the daemons by the user id that the kernel reports.
// Root is machined itself and may do everything; everybody else, nothing.
var views = map[uint32]view{
	layout.APIUID:   {reads: []resource.Type{secrets.ApiCertificateType, network.NodeAddressType, network.HostnameStatusType, cluster.MemberType}},
	layout.TrustUID: {reads: []resource.Type{secrets.TrustdCertificateType, cluster.MemberType}},
	layout.NetworkUID: {
		reads: []resource.Type{
			network.AddressSpecType, network.HostnameSpecType, network.LinkSpecType, network.OperatorSpecType, network.ResolverSpecType,
			network.RouteSpecType, network.TimeServerSpecType, network.StaticHostType, files.EtcFileStatusType, network.HostDNSConfigType, network.NodeAddressSortAlgorithmType,
			cluster.MemberType,
		},
		writes: []resource.Type{
			network.AddressSpecType, network.HostnameSpecType, network.LinkSpecType, network.OperatorSpecType, network.ResolverSpecType,
			network.RouteSpecType, network.TimeServerSpecType,
			network.AddressStatusType, network.HardwareAddressType, network.HostnameStatusType, network.LinkStatusType, network.NetworkStatusType,
			network.NodeAddressType, network.ResolverStatusType, network.RouteStatusType, network.TimeServerStatusType,
			network.DNSUpstreamType, network.DNSResolveCacheType,
		},
	},
	layout.TimeUID: {
		reads:  []resource.Type{network.TimeServerStatusType, network.NetworkStatusType},
		writes: []resource.Type{timesync.TimeStatusType, timesync.AdjtimeStatusType, timesync.NTPStatusType},
	},
}

// operatorLayer starts the ids of what networkd itself learns, such as a DHCP
// lease; what other layers want of the network is not its to change.
const operatorLayer = "operator/"

// mayAccess decides one access of one user; nil means yes.
func mayAccess(uid uint32, access state.Access) error {
	if uid == 0 {
		return nil
	}
	v := views[uid]
	denied := status.Errorf(codes.PermissionDenied, "user %d may not %s %s", uid, verb(access.Verb), access.ResourceType)
	switch {
	case contains(v.writes, access.ResourceType):
		if access.ResourceNamespace == network.ConfigNamespace && !access.Verb.Readonly() && !strings.HasPrefix(access.ResourceID, operatorLayer) {
			return denied
		}
		return nil
	case contains(v.reads, access.ResourceType) && access.Verb.Readonly():
		return nil
	case access.ResourceNamespace == meta.NamespaceName && access.Verb.Readonly():
		return nil // the list of types is no secret
	}
	return denied
}

func contains(types []resource.Type, t resource.Type) bool {
	for _, x := range types {
		if x == t {
			return true
		}
	}
	return false
}

func verb(v state.Verb) string {
	switch v {
	case state.Get:
		return "get"
	case state.List:
		return "list"
	case state.Watch:
		return "watch"
	case state.Create:
		return "create"
	case state.Update:
		return "update"
	case state.Destroy:
		return "destroy"
	default:
		return "access"
	}
}

// Serve answers on socket until ctx ends, giving each caller its own view.
func Serve(ctx context.Context, st state.State, socket string, log *slog.Logger) error {
	listener, err := peercred.Listen(socket)
	if err != nil {
		return fmt.Errorf("store: listen on %s: %w", socket, err)
	}
	uids := make([]uint32, 0, len(views))
	for uid := range views {
		uids = append(uids, uid)
	}
	filtered := state.Filter(st, func(ctx context.Context, access state.Access) error {
		caller, ok := peercred.FromContext(ctx)
		if !ok {
			return status.Error(codes.Unauthenticated, "caller is unknown")
		}
		err := mayAccess(caller.UID, access)
		if err != nil {
			log.Warn("store access denied", "uid", caller.UID, "pid", caller.PID, "verb", verb(access.Verb), "type", access.ResourceType)
		}
		return err
	})
	srv := grpc.NewServer(append(door.Recover(log), grpc.Creds(peercred.Credentials(uids...)))...)
	v1alpha1.RegisterStateServer(srv, server.NewState(filtered))
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	return srv.Serve(listener)
}

// Dial gives a daemon its view of the store. The connection is made when
// first used and again whenever it broke; calls wait for it until their ctx
// ends. The caller closes nothing: the connection lives as long as the process.
func Dial(context.Context) (state.State, error) { return DialSocket(layout.StoreSocket) }

// DialSocket is Dial for a store that is served elsewhere.
func DialSocket(socket string) (state.State, error) {
	if err := RegisterTypes(); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The socket is on this machine: looking often costs nothing, waiting does.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 500 * time.Millisecond}, MinConnectTimeout: time.Second}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, fmt.Errorf("store: dial %s: %w", socket, err)
	}
	return state.WrapCore(client.NewAdapter(v1alpha1.NewStateClient(conn))), nil
}
