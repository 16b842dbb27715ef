package proxy

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"talos/internal/door"
)

const (
	maxBackoff = 500 * time.Millisecond
	// patience is how long a call waits for a daemon that is starting: longer
	// than maxBackoff, so that at least one more attempt falls into it.
	patience = 1200 * time.Millisecond

	// Workers serve the streams of a server that proxies; their stacks have
	// grown to what a call needs.
	Workers = 4
)

// Server is who answers a call: a Backend on this node, or another node of
// Peers.
type Server interface {
	// connect waits until there is a connection, and returns it with what is to
	// be called once after the call. The error is a gRPC status. A server that is
	// just missing may leave it to the connection to say so.
	connect(ctx context.Context) (conn *grpc.ClientConn, release func(), err error)
	// explain says who is missing where gRPC only says that some connection is.
	explain(conn *grpc.ClientConn, err error) error
}

// Backend is a gRPC server on a unix socket: dialled at the first call, and
// again soon after it went away. Many calls share its connection.
type Backend struct {
	name    string
	conn    *grpc.ClientConn
	dialErr atomic.Pointer[error] // of the last attempt; nil when it worked
}

// NewBackend names the server behind a socket; the name shows in errors.
func NewBackend(name, socket string) (*Backend, error) {
	b, err := newBackend(name, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	})
	if err != nil {
		return nil, fmt.Errorf("client of %s at %s: %w", name, socket, err)
	}
	return b, nil
}

func newBackend(name string, dial func(ctx context.Context) (net.Conn, error)) (*Backend, error) {
	b := &Backend{name: name}
	conn, err := grpc.NewClient("passthrough:///"+name,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the server learns who we are from the kernel
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return b.dial(ctx, dial) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithInitialWindowSize(door.Window), grpc.WithInitialConnWindowSize(door.Window),
		// No keepalive pings: the kernel tells when the other end of a unix socket
		// is gone, and a server takes pings for abuse and cuts long streams off.
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, err
	}
	b.conn = conn
	return b, nil
}

// Close ends the connection and every call on it.
func (b *Backend) Close() error { return b.conn.Close() }

func (b *Backend) dial(ctx context.Context, dial func(ctx context.Context) (net.Conn, error)) (net.Conn, error) {
	conn, err := dial(ctx)
	if err != nil {
		b.dialErr.Store(&err)
		return nil, err
	}
	b.dialErr.Store(nil)
	return conn, nil
}

// connect gives a daemon that is just restarting a moment to come back.
func (b *Backend) connect(ctx context.Context) (*grpc.ClientConn, func(), error) {
	b.await(ctx)
	return b.conn, func() {}, nil
}

func (b *Backend) await(ctx context.Context) {
	if b.conn.GetState() == connectivity.Ready {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	awaitReady(ctx, b.conn)
}

// awaitReady returns when the connection works or is closed, at the latest
// with ctx.
func awaitReady(ctx context.Context, conn *grpc.ClientConn) {
	for {
		current := conn.GetState()
		switch current {
		case connectivity.Ready, connectivity.Shutdown:
			return
		case connectivity.Idle:
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, current) {
			return
		}
	}
}

func (b *Backend) explain(conn *grpc.ClientConn, err error) error {
	if status.Code(err) != codes.Unavailable || conn.GetState() == connectivity.Ready {
		return err
	}
	if dialErr := b.dialErr.Load(); dialErr != nil {
		return status.Errorf(codes.Unavailable, "%s is not running (%v)", b.name, *dialErr)
	}
	return status.Errorf(codes.Unavailable, "%s went away during the call (%s)", b.name, status.Convert(err).Message())
}
