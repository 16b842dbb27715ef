package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
)

// links are all connections to nodes as gRPC sees them: one client with a
// connection for each link, and a call says in its context which it is for. A
// client for each node would take three goroutines more for every one.
type links struct {
	conn *grpc.ClientConn

	attached chan struct{} // closed when gRPC has given us balancer
	once     sync.Once
	balancer balancer.ClientConn

	mu    sync.Mutex // guards ready
	ready map[string]net.Conn
	next  atomic.Uint64
}

// linksName is what gRPC knows our way to pick a link by.
const linksName = "talos_links"

// gRPC takes balancers only while a program is initialized.
func init() { balancer.Register(linksBuilder{}) }

func newLinks() (*links, error) {
	l := &links{attached: make(chan struct{}), ready: map[string]net.Conn{}}
	nodes := manual.NewBuilderWithScheme("nodes")
	nodes.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: "all"}}, Attributes: attributes.New(linksKey{}, l)})
	conn, err := grpc.NewClient("nodes:///all",
		grpc.WithResolvers(nodes), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+linksName+`":{}}]}`),
		grpc.WithTransportCredentials(established{}),
		grpc.WithContextDialer(l.take),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithInitialWindowSize(peerWindow), grpc.WithInitialConnWindowSize(peerConnWindow),
		// TLS has a buffer for reading; that for writing is there while it is used.
		grpc.WithReadBufferSize(0), grpc.WithSharedWriteBuffer(true),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout}),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, err
	}
	l.conn = conn
	conn.Connect()
	return l, nil
}

// open makes gRPC use a connection that is there already, and waits until the
// node has said that it speaks gRPC. When it breaks, gRPC must not mend it with
// a name and certificates of then: it gets it only once.
func (l *links) open(ctx context.Context, raw net.Conn) (*wire, error) {
	select {
	case <-l.attached:
	case <-ctx.Done():
		raw.Close()
		return nil, ctx.Err()
	}
	noted := &notedConn{Conn: raw}
	id := strconv.FormatUint(l.next.Add(1), 10)
	l.mu.Lock()
	l.ready[id] = noted
	l.mu.Unlock()
	w := &wire{links: l, up: make(chan struct{}), down: make(chan struct{})}
	sub, err := l.balancer.NewSubConn([]resolver.Address{{Addr: id}}, balancer.NewSubConnOptions{StateListener: w.listen})
	if err != nil {
		l.drop(id)
		return nil, err
	}
	w.sub = sub
	sub.Connect()
	select {
	case <-w.up:
		return w, nil
	case <-w.down:
	case <-ctx.Done():
	}
	w.close()
	l.drop(id)
	return nil, noted.reason()
}

// take is what gRPC dials with.
func (l *links) take(_ context.Context, id string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn := l.ready[id]
	if conn == nil {
		return nil, errSpent
	}
	delete(l.ready, id)
	return conn, nil
}

// drop closes what gRPC has not taken.
func (l *links) drop(id string) {
	if conn, err := l.take(context.Background(), id); err == nil {
		conn.Close()
	}
}

// close ends all connections and every call on them.
func (l *links) close() { _ = l.conn.Close() } // only says that it is closed already

// wire is one connection.
type wire struct {
	links *links
	sub   balancer.SubConn

	alive    atomic.Bool
	up, down chan struct{} // closed when it works for the first time, and never again
	first    sync.Once
	last     sync.Once
}

// listen hears from gRPC, one state after the other.
func (w *wire) listen(s balancer.SubConnState) {
	switch s.ConnectivityState {
	case connectivity.Ready:
		w.alive.Store(true)
		w.first.Do(func() { close(w.up) })
	case connectivity.TransientFailure, connectivity.Idle, connectivity.Shutdown:
		w.alive.Store(false)
		w.last.Do(func() { close(w.down) })
		// Calls that met it in between look again, and hear that it is over.
		w.links.balancer.UpdateState(picking)
	}
}

// close lets calls under way end, and then the connection.
func (w *wire) close() {
	w.alive.Store(false)
	w.sub.Shutdown()
	w.links.balancer.UpdateState(picking)
}

type (
	linksKey struct{}
	wireKey  struct{}
)

func (w *wire) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, wireKey{}, w)
}

type linksBuilder struct{}

func (linksBuilder) Name() string { return linksName }

func (linksBuilder) Build(conn balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &linksBalancer{conn: conn}
}

// linksBalancer hands gRPC's side of the client to links.
type linksBalancer struct{ conn balancer.ClientConn }

func (b *linksBalancer) UpdateClientConnState(s balancer.ClientConnState) error {
	l, ok := s.ResolverState.Attributes.Value(linksKey{}).(*links)
	if !ok {
		return errors.New("a client of nodes has no links")
	}
	b.conn.UpdateState(picking)
	l.once.Do(func() {
		l.balancer = b.conn
		close(l.attached)
	})
	return nil
}

func (b *linksBalancer) ResolverError(error)                                        {}
func (b *linksBalancer) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}
func (b *linksBalancer) Close()                                                     {}
func (b *linksBalancer) ExitIdle()                                                  {}

// picking never changes: each call knows its connection.
var picking = balancer.State{ConnectivityState: connectivity.Ready, Picker: wirePicker{}}

type wirePicker struct{}

func (wirePicker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	w, ok := info.Ctx.Value(wireKey{}).(*wire)
	if !ok || !w.alive.Load() {
		return balancer.PickResult{}, status.Error(codes.Unavailable, errSpent.Error())
	}
	return balancer.PickResult{SubConn: w.sub}, nil
}

// errSpent is what a call hears whose connection broke before it was sent.
var errSpent = errors.New("the connection to the node is over")

// notedConn remembers how reading ended: with TLS 1.3 a server refuses a
// client's certificate only after the client's handshake is over.
type notedConn struct {
	net.Conn
	err atomic.Pointer[error]
}

func (c *notedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.err.CompareAndSwap(nil, &err)
	}
	return n, err
}

func (c *notedConn) reason() error {
	if err := c.err.Load(); err != nil {
		return fmt.Errorf("it hangs up: %w", *err)
	}
	return errors.New("it does not speak gRPC there")
}

// established are the credentials of a connection that is encrypted already.
type established struct{}

func (established) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, credentials.TLSInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

func (established) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("established connections are a client's")
}

func (established) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (established) Clone() credentials.TransportCredentials { return established{} }
func (established) OverrideServerName(string) error         { return nil }
