package proxy

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
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
	wires *links

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
	wire *wire
	err  error
	over time.Time // when it failed

	users   int
	used    time.Time
	retired bool // no longer in the map
}

// NewPeers returns a pool of at most limit connections.
func NewPeers(dial Dialer, limit int) (*Peers, error) {
	wires, err := newLinks()
	if err != nil {
		return nil, fmt.Errorf("client of other nodes: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Peers{dial: dial, limit: limit, slots: make(chan struct{}, maxAttempts), wires: wires, ctx: ctx, cancel: cancel, links: map[string]*link{}}, nil
}

// Close ends all connections and every call on them.
func (p *Peers) Close() {
	p.mu.Lock()
	p.cancel() // no attempt begins after this
	p.mu.Unlock()
	p.Renew()
	p.wg.Wait()
	p.wires.close()
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

func (n peer) connect(ctx context.Context) (connection, error) {
	l, err := n.peers.acquire(n)
	if err != nil {
		return connection{}, err
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		n.peers.release(n.name, l)
		return connection{}, status.Errorf(status.FromContextError(ctx.Err()).Code(), "node %s does not take the connection", n.name)
	}
	if l.err != nil {
		n.peers.release(n.name, l)
		return connection{}, status.Errorf(codes.Unavailable, "node %s cannot be reached: %v", n.name, l.err)
	}
	return connection{conn: n.peers.wires.conn, link: l, peer: n}, nil
}

func (n peer) explain(c connection, err error) error {
	if status.Code(err) != codes.Unavailable || c.link.wire.alive.Load() {
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
	return l.wire.alive.Load()
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
	if l.wire != nil {
		l.wire.close()
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
	l.wire, l.err = p.attempt(n)
	l.over = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	close(l.done)
	if l.retired {
		p.closeUnusedLocked(l)
	}
}

func (p *Peers) attempt(n peer) (*wire, error) {
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
	w, err := p.open(ctx, n)
	if err != nil && (ctx.Err() != nil || os.IsTimeout(err)) && p.ctx.Err() == nil {
		err = fmt.Errorf("no answer within %v: %w", connectTimeout, err)
	}
	return w, err
}

func (p *Peers) open(ctx context.Context, n peer) (*wire, error) {
	raw, err := p.dial(ctx, n.name, n.addresses)
	if err != nil {
		return nil, err
	}
	return p.wires.open(ctx, raw)
}

// unsent tells that a call failed before it was sent: its connection broke
// after connect had returned it.
func unsent(err error) bool {
	st, ok := status.FromError(err)
	return ok && st.Code() == codes.Unavailable && strings.Contains(st.Message(), errSpent.Error())
}
