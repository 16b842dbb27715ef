// Package routerd is one door to all the daemons of a node: it forwards each
// gRPC call, undecoded, to the daemon that serves it, by the name of the
// service.
//
// It owns its socket and the connections to the daemons, which it makes at
// the first call and makes again when a daemon was restarted. It admits apid's
// user alone, and decides nothing about who may call what: apid has, and the
// daemons will.
package routerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"talos/internal/authz"
	"talos/internal/door"
	"talos/internal/layout"
	"talos/internal/linux/peercred"
	"talos/internal/proxy"
)

// grace is how long calls may go on after the daemon was told to stop.
const grace = 3 * time.Second

// Config says where the router listens and whom it forwards to.
type Config struct {
	Credentials credentials.TransportCredentials // who may connect

	Machine, Network, Time string // sockets of the daemons
}

// Run serves on the node's sockets until ctx ends.
func Run(ctx context.Context, log *slog.Logger) error {
	listener, err := peercred.Listen(layout.RouterSocket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", layout.RouterSocket, err)
	}
	return Serve(ctx, log, listener, Config{
		Credentials: peercred.Credentials(layout.APIUID),
		Machine:     layout.MachineSocket, Network: layout.NetworkSocket, Time: layout.TimeSocket,
	})
}

// Serve forwards what comes in on listener until ctx ends; it closes listener.
func Serve(ctx context.Context, log *slog.Logger, listener net.Listener, config Config) error {
	r, err := newRouter(config)
	if err != nil {
		listener.Close()
		return err
	}
	defer r.close()
	server := grpc.NewServer(
		grpc.Creds(config.Credentials), grpc.ForceServerCodecV2(proxy.Codec()), grpc.UnknownServiceHandler(r.handle),
		grpc.MaxRecvMsgSize(proxy.MaxMessage), grpc.MaxSendMsgSize(proxy.MaxMessage),
		grpc.InitialWindowSize(door.Window), grpc.InitialConnWindowSize(door.Window),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.NumStreamWorkers(proxy.Workers),
	)
	stop := context.AfterFunc(ctx, func() { door.Stop(server, grace) })
	defer stop()
	log.Info("forwarding", "socket", listener.Addr().String())
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

// router knows the daemons by the first part of a service's name.
type router struct {
	byPackage map[string]*proxy.Backend
	all       []*proxy.Backend
}

func newRouter(config Config) (*router, error) {
	r := &router{byPackage: map[string]*proxy.Backend{}}
	for _, d := range []struct{ name, socket, packages string }{
		{"machined", config.Machine, "machine cluster storage inspect health cosi talos"},
		{"networkd", config.Network, "network"},
		{"timed", config.Time, "time"},
	} {
		backend, err := proxy.NewBackend(d.name, d.socket)
		if err != nil {
			r.close()
			return nil, err
		}
		r.all = append(r.all, backend)
		for _, pkg := range strings.Fields(d.packages) {
			r.byPackage[pkg] = backend
		}
	}
	return r, nil
}

func (r *router) close() {
	for _, b := range r.all {
		_ = b.Close() // only says that it is closed already
	}
}

// find returns the daemon that serves a full method name.
func (r *router) find(method string) (*proxy.Backend, bool) {
	pkg, _, ok := strings.Cut(strings.TrimPrefix(method, "/"), ".")
	if !ok {
		return nil, false
	}
	b, ok := r.byPackage[pkg]
	return b, ok
}

func (r *router) handle(_ any, stream grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(stream)
	if !ok {
		return status.Error(codes.Internal, "a call has no method")
	}
	backend, ok := r.find(method)
	if !ok {
		return status.Errorf(codes.Unimplemented, "no daemon of this node serves %s", method)
	}
	known, ok := authz.Lookup(method)
	return proxy.Serve(stream, &proxy.Call{
		Method: method, Unary: ok && !known.Stream,
		Targets:  []proxy.Target{{Server: backend}},
		Metadata: proxy.Forwardable(stream.Context()),
	})
}
