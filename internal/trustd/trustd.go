// Package trustd gives certificates to nodes that can prove they belong, and
// tells them who else does: it faces the network on port 50001, paces those
// who ask, and passes requests with the address they came from to machined,
// which knows the token, holds the CA's key and decides
// (internal/trustd/signer).
//
// It has no secret but its own server certificate, reads from the store that
// and who the members are, and keeps nothing on disk. However many strangers
// knock, from however many addresses, members and holders of the token are heard:
// they have connections and requests of their own (package door, pace).
package trustd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"talos/api/membership"
	"talos/api/security"
	signerapi "talos/api/signer"
	"talos/internal/door"
	"talos/internal/follow"
	"talos/internal/layout"
	"talos/internal/resources/cluster"
	"talos/internal/resources/secrets"
	"talos/internal/store"
)

const (
	certificateID    = "trustd"
	grace            = 3 * time.Second
	maxRequest       = 64 << 10         // bytes; a signing request has one or two thousand
	handshakeTimeout = 10 * time.Second // for TLS and HTTP/2 to come up
	patience         = 20 * time.Second // with who has not shown the token; a call takes half of it at most
	window           = 64 << 10         // bytes in flight; gRPC would let a sender have more and more
)

// Connections at one time. Each node watches the list over one; a fleet in one
// network may start at once.
var (
	strangers  = door.Limits{Total: 512, Each: 32, Net: 256}
	neighbours = door.Limits{Total: 256, Each: 32}
	holders    = door.Limits{Total: 512, Each: 16, Net: 256} // of the token
	own        = door.Limits{Total: 1024, Each: 16}          // the cluster's members
)

// Config says what trustd works with.
type Config struct {
	Listener net.Listener // closed by Serve
	Store    state.State
	Signer   string // socket of machined's signer
}

// Run serves on the node until ctx ends.
func Run(ctx context.Context, log *slog.Logger) error {
	st, err := store.Dial(ctx)
	if err != nil {
		return fmt.Errorf("reach the store: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(layout.TrustPort)))
	if err != nil {
		return err
	}
	return Serve(ctx, log, Config{Listener: listener, Store: st, Signer: layout.SignerSocket})
}

// Serve answers requests until ctx ends.
func Serve(ctx context.Context, log *slog.Logger, config Config) error {
	defer config.Listener.Close()
	signer, err := dialSigner(config.Signer)
	if err != nil {
		return err
	}
	defer signer.Close()

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
	}()
	var shown certificate
	var present roll
	ready := make(chan struct{})
	wg.Go(func() { shown.follow(ctx, log, config.Store, sync.OnceFunc(func() { close(ready) })) })
	wg.Go(func() { present.follow(ctx, log, config.Store) })
	select {
	case <-ctx.Done():
		return nil
	case <-ready:
	}

	server := newServer(&shown)
	answers := newService(log, signerapi.NewSignerClient(signer), present.has)
	security.RegisterSecurityServiceServer(server, answers)
	membership.RegisterMembershipServiceServer(server, &list{service: answers})
	stop := context.AfterFunc(ctx, func() { door.Stop(server, grace) })
	defer stop()
	log.Info("serving", "address", config.Listener.Addr().String())
	guard := door.NewGuard(config.Listener, door.Config{
		Strangers: strangers, Neighbours: neighbours, Proven: holders, Members: own, Patience: patience, Known: present.has, Log: log,
	})
	if err := server.Serve(guard); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", config.Listener.Addr(), err)
	}
	return nil
}

func newServer(shown *certificate) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(doorman{credentials.NewTLS(&tls.Config{
			MinVersion:             tls.VersionTLS13,
			NextProtos:             []string{"h2"},
			GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.current.Load(), nil },
			SessionTicketsDisabled: true,
		})}),
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxHeaderListSize(16<<10), grpc.MaxConcurrentStreams(4),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: time.Minute}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}),
	)
}

// roll is the addresses of the cluster's members.
type roll struct {
	addresses atomic.Pointer[map[netip.Addr]bool]
}

func (r *roll) follow(ctx context.Context, log *slog.Logger, st state.State) {
	follow.Kind(ctx, st, log, cluster.Namespace, cluster.MemberType, func(all map[resource.ID]*cluster.Member) {
		addresses := make(map[netip.Addr]bool, len(all))
		for _, m := range all {
			for _, a := range m.TypedSpec().Addresses {
				addresses[a.Unmap()] = true
			}
		}
		r.addresses.Store(&addresses)
	})
}

func (r *roll) has(addr netip.Addr) bool {
	addresses := r.addresses.Load()
	return addresses != nil && (*addresses)[addr]
}

// certificate is the server's certificate that counts now.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

func (c *certificate) follow(ctx context.Context, log *slog.Logger, st state.State, ready func()) {
	var last resource.Version
	follow.Kind(ctx, st, log, secrets.Namespace, secrets.TrustdCertificateType, func(all map[resource.ID]*secrets.TrustdCertificate) {
		r := all[certificateID]
		if r == nil || r.Metadata().Version().Equal(last) {
			return
		}
		last = r.Metadata().Version()
		server := r.TypedSpec().Server
		if server == nil {
			log.Error("certificate not usable", "version", last, "err", "it is empty")
			return
		}
		pair, err := tls.X509KeyPair(server.Crt, server.Key)
		if err != nil {
			log.Error("certificate not usable", "version", last, "err", err)
			return
		}
		c.current.Store(&pair)
		log.Info("certificate changed", "version", last)
		ready()
	})
}

// dialSigner makes the client of machined's signer; it connects at the first
// request and again after machined was restarted.
func dialSigner(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the signer learns who we are from the kernel
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("client of the signer at %s: %w", socket, err)
	}
	return conn, nil
}
