// Package apid is the node's front door: TLS with client certificates on port
// 50000, who may call what, a record of every call, and then the call passed
// on, undecoded, to routerd.
//
// It owns the port and the decision; it keeps nothing on disk and reads from
// the store only its own certificates, what the node is called, and who else is
// in the cluster. Whatever
// fails to prove itself is refused: a method that the table lacks, a
// certificate of another CA, an expired one, metadata that claims a role.
// However many connections of strangers there are, those with a certificate get
// in (package door).
// Certificates change under it without a call being dropped.
//
// While the node has no configuration it serves whoever comes, without asking
// for a certificate, and little (maintenance.go); the first configuration ends
// that for as long as the process lives.
//
// On a control plane node it also passes calls on to the nodes that they name,
// one or many (docs/explanation/forwarding.md).
package apid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"talos/internal/audit"
	"talos/internal/door"
	"talos/internal/follow"
	"talos/internal/layout"
	"talos/internal/proxy"
	"talos/internal/resources/cluster"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
	"talos/internal/store"
)

const (
	certificateID    = "api"
	grace            = 3 * time.Second  // for calls when the daemon stops
	handshakeTimeout = 10 * time.Second // for TLS and HTTP/2 to come up
	maxStreams       = 256              // calls at once on a connection
	maxHeader        = 256 << 10        // bytes of metadata in a call; a fleet's names fit
	maxPeers         = 2048             // connections to other nodes
)

// Connections at one time: of who has shown no certificate yet, and then of the
// holders of certificates, each of whom needs one or two.
var (
	strangers  = door.Limits{Total: 512, Each: 64, Net: 256}
	neighbours = door.Limits{Total: 256, Each: 64}
	callers    = door.Limits{Total: 512, Each: 64, Firm: true}
)

// Config says what apid works with.
type Config struct {
	Listener net.Listener // closed by Serve
	Store    state.State
	Router   string     // socket of routerd
	Audit    *audit.Log // closed by the caller
}

// Run serves the node's API until ctx ends. The records of calls go to
// standard output, beside the log.
func Run(ctx context.Context, log *slog.Logger) error {
	st, err := store.Dial(ctx)
	if err != nil {
		return fmt.Errorf("reach the store: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(layout.APIPort)))
	if err != nil {
		return err
	}
	records := audit.New(os.Stdout)
	defer records.Close()
	return Serve(ctx, log, Config{Listener: listener, Store: st, Router: layout.RouterSocket, Audit: records})
}

// Serve runs the API until ctx ends.
func Serve(ctx context.Context, log *slog.Logger, config Config) error {
	defer config.Listener.Close()
	backend, err := proxy.NewBackend("routerd", config.Router)
	if err != nil {
		return err
	}
	defer backend.Close()

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
	}()
	ring, own, others := &keyring{}, &self{}, &members{}
	peers := proxy.NewPeers(dialer{ring, others}.dial, maxPeers)
	defer peers.Close()
	ready, over := make(chan struct{}), make(chan struct{})
	var missing atomic.Int32 // of what a call may need to know
	seen := func() func() {
		missing.Add(1)
		return sync.OnceFunc(func() {
			if missing.Add(-1) == 0 {
				close(ready)
			}
		})
	}
	first, configured := seen(), sync.OnceFunc(func() { close(over) })
	listed, addressed, named := seen(), seen(), seen()
	wg.Go(func() {
		ring.follow(ctx, log, config.Store, func(k *keys) {
			peers.Renew()
			first()
			if !k.maintenance {
				configured()
			}
		})
	})
	wg.Go(func() { others.follow(ctx, log, config.Store, peers.Drop, listed) })
	wg.Go(func() { own.followAddresses(ctx, log, config.Store, addressed) })
	wg.Go(func() { own.followHostname(ctx, log, config.Store, named) })
	select {
	case <-ctx.Done():
		return nil
	case <-ready: // until then connections wait in the listener's queue
	}

	g := &gate{ring: ring, director: &director{self: own, members: others, local: backend, peers: peers}, audit: config.Audit}
	server := newServer(newDoorman(ring, log), g.handle)
	stop := context.AfterFunc(ctx, func() { door.Stop(server, grace) })
	defer stop()
	var listener net.Listener = door.NewGuard(config.Listener, door.Config{
		Strangers: strangers, Neighbours: neighbours, Proven: callers, Patience: handshakeTimeout, Known: others.has, Log: log,
	})
	if ring.now.Load().maintenance {
		lobby := newLobby(newDoorman(ring, log), g.handle, listener.Addr())
		wg.Go(func() { lobby.serve(ctx, over, log) })
		listener = &entrance{Listener: listener, ring: ring, lobby: lobby}
	}
	log.Info("serving", "address", config.Listener.Addr().String(), "maintenance", ring.now.Load().maintenance)
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", config.Listener.Addr(), err)
	}
	return nil
}

func newServer(creds *doorman, handle grpc.StreamHandler, more ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(creds), grpc.ForceServerCodecV2(proxy.Codec()), grpc.UnknownServiceHandler(handle),
		grpc.MaxRecvMsgSize(proxy.MaxMessage), grpc.MaxSendMsgSize(proxy.MaxMessage), grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.InitialWindowSize(door.Window), grpc.InitialConnWindowSize(door.Window),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: 30 * time.Minute}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.NumStreamWorkers(proxy.Workers),
	}, more...)...)
}

// follow keeps the ring up to date and calls changed at each new keys. Keys
// that cannot be used are reported, and those before stay. So do those that
// went away, but for those of maintenance mode: nobody comes in without a
// certificate any more, and nobody else before there is another.
func (r *keyring) follow(ctx context.Context, log *slog.Logger, st state.State, changed func(*keys)) {
	var last *secrets.ApiCertificate
	follow.Kind(ctx, st, log, secrets.Namespace, secrets.ApiCertificateType, func(all map[resource.ID]*secrets.ApiCertificate) {
		certificate, now := all[certificateID], r.now.Load()
		switch {
		case certificate == nil && now != nil && now.maintenance:
			r.now.Store(noKeys)
			log.Info("certificate of maintenance mode gone: waiting for another")
			changed(noKeys)
			return
		case certificate == nil, last != nil && same(certificate.Metadata(), last.Metadata()):
			return
		}
		last = certificate
		version := certificate.Metadata().Version()
		k, err := newKeys(certificate.TypedSpec())
		if err == nil && k.maintenance && now != nil && !now.maintenance {
			err = errConfigured
		}
		if err != nil {
			log.Error("certificates not usable", "version", version, "err", err)
			return
		}
		r.now.Store(k)
		log.Info("certificates changed", "version", version, "maintenance", k.maintenance, "forwards", k.client != nil)
		changed(k)
	})
}

// same tells whether two resources of one id are one and the same: a version
// counts from when it was created.
func same(a, b *resource.Metadata) bool {
	return a.Version().Equal(b.Version()) && a.Created().Equal(b.Created())
}

// follow keeps the list up to date, and drops what others are meant by now. It
// calls seen each time the list is.
func (m *members) follow(ctx context.Context, log *slog.Logger, st state.State, drop func(name string), seen func()) {
	follow.Kind(ctx, st, log, cluster.Namespace, cluster.MemberType, func(all map[resource.ID]*cluster.Member) {
		specs := make([]*cluster.MemberSpec, 0, len(all))
		for _, r := range all {
			specs = append(specs, r.TypedSpec())
		}
		for _, name := range m.set(specs) {
			drop(name)
		}
		seen()
	})
}

func (s *self) followAddresses(ctx context.Context, log *slog.Logger, st state.State, seen func()) {
	follow.Kind(ctx, st, log, network.Namespace, network.NodeAddressType, func(all map[resource.ID]*network.NodeAddress) {
		var own []netip.Prefix
		for _, r := range all {
			own = append(own, r.TypedSpec().Addresses...)
		}
		s.setAddresses(own)
		seen()
	})
}

func (s *self) followHostname(ctx context.Context, log *slog.Logger, st state.State, seen func()) {
	follow.Kind(ctx, st, log, network.Namespace, network.HostnameStatusType, func(all map[resource.ID]*network.HostnameStatus) {
		for _, r := range all { // there is one
			s.setHostname(r.TypedSpec().Hostname, r.TypedSpec().Domainname)
		}
		seen()
	})
}
