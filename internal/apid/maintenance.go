package apid

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"google.golang.org/grpc"

	"talos/internal/door"
)

// Limits of the server for callers who have shown nothing.
const (
	guestStreams = 32      // calls at once on a connection
	guestMessage = 9 << 20 // bytes: the largest configuration there may be
)

// guestPrefix begins what callers without a certificate are counted by: no
// certificate's fingerprint does.
const guestPrefix = "guest "

// host is what one machine can choose its address from: an address of IPv4, 64
// bits of IPv6.
func host(peer string) string {
	addr, err := netip.ParseAddrPort(peer)
	if err != nil {
		return ""
	}
	bits, plain := 32, addr.Addr().Unmap().WithZone("")
	if plain.Is6() {
		bits = 64
	}
	prefix, err := plain.Prefix(bits)
	if err != nil {
		return ""
	}
	return prefix.String()
}

// lobby is the server of maintenance mode: for those who come before the
// machine has a configuration. It is a server of its own so that their
// connections, and no others, end with the mode: each call is answered, the one
// that brought the configuration too, and then the connection closes.
type lobby struct {
	server *grpc.Server
	conns  chan net.Conn
	closed chan struct{}
	close  func()
	addr   net.Addr
}

func newLobby(creds *doorman, handle grpc.StreamHandler, addr net.Addr) *lobby {
	l := &lobby{
		server: newServer(creds, handle, grpc.MaxConcurrentStreams(guestStreams), grpc.MaxRecvMsgSize(guestMessage)),
		conns:  make(chan net.Conn), closed: make(chan struct{}), addr: addr,
	}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

// serve answers until the mode is over or ctx ends.
func (l *lobby) serve(ctx context.Context, over <-chan struct{}, log *slog.Logger) {
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-over:
			log.Info("maintenance mode is over: connections without a client certificate end")
		case <-ctx.Done():
		}
		door.Stop(l.server, grace)
	})
	if err := l.server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		log.Error("serve maintenance mode", "err", err)
	}
	wg.Wait()
}

// Accept is net.Listener.
func (l *lobby) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener.
func (l *lobby) Close() error {
	l.close()
	return nil
}

// Addr is net.Listener.
func (l *lobby) Addr() net.Addr { return l.addr }

// entrance is the listener of the node's server that sends to the lobby who
// comes in maintenance mode.
type entrance struct {
	net.Listener
	ring  *keyring
	lobby *lobby
}

// Accept is net.Listener.
func (e *entrance) Accept() (net.Conn, error) {
	for {
		conn, err := e.Listener.Accept()
		if err != nil || !e.ring.now.Load().maintenance {
			return conn, err
		}
		select {
		case e.lobby.conns <- conn:
		case <-e.lobby.closed:
			return conn, nil
		}
	}
}
