package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	// connectTimeout bounds an attempt to reach a node, from the first packet to
	// the first settings: a dead node is told of within it.
	connectTimeout = 3 * time.Second
	// retryAfter is how long a failed attempt speaks for the node: a node that
	// returns answers the first call after that.
	retryAfter = 300 * time.Millisecond
	// maxAttempts bounds the work and the memory of meeting a fleet at once; an
	// attempt counts for attemptShare at most, then it is waited for beside others.
	maxAttempts  = 32
	attemptShare = 250 * time.Millisecond
	// idleTimeout is how long a connection stays without a call.
	idleTimeout = 2 * time.Minute

	// peerWindow is door.Window for the connections to nodes. There are many of them,
	// and a caller who reads slowly may fill every one.
	peerWindow     = 128 << 10
	peerConnWindow = 256 << 10
)

// Dialer opens a connection to a node and proves that it is the one of that
// name.
type Dialer func(ctx context.Context, name string, addresses []string) (net.Conn, error)

// Peers are the connections to other nodes: made at the first call, shared by
// the calls that follow, closed when none came for a while. There are never
// more than a limit; the one that was used longest ago makes room. It is safe
// for concurrent use.
type Peers struct {
	dial  Dialer
	limit int
	slots chan struct{} // of attempts

	ctx    context.Context // of the attempts: they outlive the call that wanted them
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the fields below, and users and used of links
	links map[string]*link
	count int // of links that are not closed, in the map or not
	sweep *time.Timer
}

// link is one attempt to connect and what became of it. A connection that
// breaks is not mended: the next call gets a new link.
type link struct {
	done chan struct{} // closed when the attempt is over
	conn *grpc.ClientConn
	err  error
	over time.Time // when it failed

	users   int
	used    time.Time
	retired bool // no longer in the map
}

// NewPeers returns a pool of at most limit connections.
func NewPeers(dial Dialer, limit int) *Peers {
	ctx, cancel := context.WithCancel(context.Background())
	return &Peers{dial: dial, limit: limit, slots: make(chan struct{}, maxAttempts), ctx: ctx, cancel: cancel, links: map[string]*link{}}
}

// Close ends all connections; one with calls under way, when they end.
func (p *Peers) Close() {
	p.mu.Lock()
	p.cancel() // no attempt begins after this
	p.mu.Unlock()
	p.Renew()
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sweep != nil {
		p.sweep.Stop()
	}
}

// Renew makes calls from now on use new connections, such as after a change
// of certificates; calls under way go on with theirs.
func (p *Peers) Renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, l := range p.links {
		p.retireLocked(name, l)
	}
}

// Drop makes calls of one node from now on use a new connection, as Renew does:
// for when another may be meant by its name.
func (p *Peers) Drop(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.links[name]; l != nil {
		p.retireLocked(name, l)
	}
}

// Open is the number of connections, those being made included.
func (p *Peers) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// Node is the node that proves to have that name, at one of the addresses
// (host and port).
func (p *Peers) Node(name string, addresses []string) Server {
	return peer{peers: p, name: name, addresses: addresses}
}

type peer struct {
	peers     *Peers
	name      string
	addresses []string
}

func (n peer) connect(ctx context.Context) (*grpc.ClientConn, func(), error) {
	l, err := n.peers.acquire(n)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		n.peers.release(n.name, l)
		return nil, nil, status.Errorf(status.FromContextError(ctx.Err()).Code(), "node %s does not take the connection", n.name)
	}
	if l.err != nil {
		n.peers.release(n.name, l)
		return nil, nil, status.Errorf(codes.Unavailable, "node %s cannot be reached: %v", n.name, l.err)
	}
	return l.conn, func() { n.peers.release(n.name, l) }, nil
}

func (n peer) explain(conn *grpc.ClientConn, err error) error {
	if status.Code(err) != codes.Unavailable || conn.GetState() == connectivity.Ready {
		return err
	}
	return status.Errorf(codes.Unavailable, "node %s went away during the call (%s)", n.name, status.Convert(err).Message())
}

// acquire returns a link that lives or is being made, and counts the caller
// among its users.
func (p *Peers) acquire(n peer) (*link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil, status.Error(codes.Unavailable, "this node's API is stopping")
	}
	l := p.links[n.name]
	if l != nil && !l.usable() {
		p.retireLocked(n.name, l)
		l = nil
	}
	if l == nil {
		if p.count >= p.limit && !p.evictLocked() {
			return nil, status.Errorf(codes.ResourceExhausted, "%d connections to nodes are in use already", p.limit)
		}
		l = &link{done: make(chan struct{})}
		p.links[n.name] = l
		p.count++
		p.wg.Go(func() { p.establish(n, l) })
		if p.sweep == nil {
			p.sweep = time.AfterFunc(idleTimeout, p.closeIdle)
		}
	}
	l.users++
	return l, nil
}

// usable tells whether a call may wait for the link or use it.
func (l *link) usable() bool {
	select {
	case <-l.done:
	default:
		return true
	}
	if l.err != nil {
		return time.Since(l.over) < retryAfter
	}
	return l.conn.GetState() == connectivity.Ready
}

func (p *Peers) release(name string, l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.users--
	l.used = time.Now()
	switch {
	case l.retired:
		p.closeUnusedLocked(l)
	case l.users == 0 && p.links[name] == l && !l.usable():
		p.retireLocked(name, l)
	}
}

// retireLocked takes a link out of the map; its last user closes it.
func (p *Peers) retireLocked(name string, l *link) {
	delete(p.links, name)
	l.retired = true
	p.closeUnusedLocked(l)
}

func (p *Peers) closeUnusedLocked(l *link) {
	select {
	case <-l.done:
	default:
		return // establish does it
	}
	if l.users > 0 {
		return
	}
	p.count--
	if l.conn != nil {
		_ = l.conn.Close() // only says that it is closed already
	}
}

// evictLocked makes room by the unused link that was used longest ago.
func (p *Peers) evictLocked() bool {
	var name string
	var oldest *link
	for n, l := range p.links {
		if l.users == 0 && (oldest == nil || l.used.Before(oldest.used)) {
			name, oldest = n, l
		}
	}
	if oldest != nil {
		p.retireLocked(name, oldest)
	}
	return oldest != nil
}

// closeIdle runs now and then as long as there are links.
func (p *Peers) closeIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, l := range p.links {
		if l.users == 0 && (time.Since(l.used) >= idleTimeout || !l.usable()) {
			p.retireLocked(name, l)
		}
	}
	p.sweep = nil
	if len(p.links) > 0 {
		p.sweep = time.AfterFunc(idleTimeout/4, p.closeIdle)
	}
}

func (p *Peers) establish(n peer, l *link) {
	l.conn, l.err = p.attempt(n)
	l.over = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	close(l.done)
	if l.retired {
		p.closeUnusedLocked(l)
	}
}

func (p *Peers) attempt(n peer) (*grpc.ClientConn, error) {
	select {
	case p.slots <- struct{}{}:
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
	free := sync.OnceFunc(func() { <-p.slots })
	defer free()
	defer time.AfterFunc(attemptShare, free).Stop()
	ctx, cancel := context.WithTimeout(p.ctx, connectTimeout)
	defer cancel()
	conn, err := p.open(ctx, n)
	if err != nil && (ctx.Err() != nil || os.IsTimeout(err)) && p.ctx.Err() == nil {
		err = fmt.Errorf("no answer within %v: %w", connectTimeout, err)
	}
	return conn, err
}

// open makes one connection. gRPC gets it ready-made and only once: when it
// breaks, gRPC must not mend it with a name and certificates of then.
func (p *Peers) open(ctx context.Context, n peer) (*grpc.ClientConn, error) {
	raw, err := p.dial(ctx, n.name, n.addresses)
	if err != nil {
		return nil, err
	}
	noted := &notedConn{Conn: raw}
	var given atomic.Bool
	conn, err := grpc.NewClient("passthrough:///node",
		grpc.WithTransportCredentials(established{}),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if given.Swap(true) {
				return nil, errSpent
			}
			return noted, nil
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithInitialWindowSize(peerWindow), grpc.WithInitialConnWindowSize(peerConnWindow),
		// TLS has a buffer for reading; that for writing is there while it is used.
		grpc.WithReadBufferSize(0),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout}),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(),
	)
	if err != nil {
		raw.Close()
		return nil, err
	}
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure || !conn.WaitForStateChange(ctx, state) {
			conn.Close()
			raw.Close() // gRPC may not have taken it
			return nil, noted.reason()
		}
	}
	return conn, nil
}

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

// errSpent is what gRPC hears when it asks for a second connection.
var errSpent = errors.New("the connection to the node is over")

// unsent tells that a call failed before it was sent: the connection that
// connect returned broke in between.
func unsent(err error) bool {
	st, ok := status.FromError(err)
	return ok && st.Code() == codes.Unavailable && strings.Contains(st.Message(), errSpent.Error())
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
