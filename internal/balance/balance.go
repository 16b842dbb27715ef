// Package balance forwards connections to one of several servers of the
// Kubernetes API, and takes them away from one that fails: the load balancer
// on every node (internal/kube/localapi) and the one in front of a cluster on
// one machine (internal/provision) are made of it.
//
// It looks at connections, never at what goes through them. A server that is
// merely silent (its process frozen, its network cut) keeps its connections
// open for many minutes, and watches over them would wait that long; so servers
// are asked all the time whether they are well. One that is not gets no new
// connections while there is a better one; its open ones are cut when it is lost:
// nothing has come from it for a while, on none of them either, or it has said for
// long that it is not ready. One that is merely slow keeps what it has. And a
// connection is cut only when there is a well server that could take it: nobody
// is cut off for the sake of a server that is as ill as the others.
//
// A Pool is safe for concurrent use. Run owns the goroutines that check, Serve
// one for each connection.
package balance

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Times. Servers are a network away that answers within milliseconds; a client
// whose server fails silently waits for interval + 2 × checkTime at the most.
// Where those that are well take long, as on a machine that has too much to do,
// the others get more time too: nobody is better off for being cut then.
const (
	interval     = time.Second            // between checks of a server that is well
	again        = 250 * time.Millisecond // after a failed check
	checkTime    = time.Second            // of one check, at least
	checkTimeMax = 5 * time.Second
	unreadyTime  = 10 * time.Second // after which one that says that it is not ready is lost: long enough for a slow etcd
	dialTime     = time.Second      // of one connection
)

// Check asks a server whether it is well. It ends with ctx.
type Check func(ctx context.Context, address string) error

// Target is a server.
type Target struct {
	Address string // host:port
	Class   int    // as long as one of a lower class is well, it gets the connections
	Well    bool   // it is known to be well; otherwise it is checked before it gets any
}

// Pool is a set of servers, which may change, with what is known of them.
type Pool struct {
	log   *slog.Logger
	check Check
	poke  chan struct{} // the set changed

	mu       sync.Mutex // guards the fields below and those of the backends
	backends []*backend
	turn     int
	slowest  time.Duration // of the answers of late
	changed  chan struct{} // closed and made anew when somebody's health changed
}

type backend struct {
	Target
	health  health
	failing time.Time // since when
	links   map[*link]struct{}
	kick    chan struct{} // check now
	gone    chan struct{} // closed when it is no longer in the set
	watched bool
}

// New makes a pool of nobody; Set fills it.
func New(log *slog.Logger, check Check) *Pool {
	return &Pool{log: log, check: check, poke: make(chan struct{}, 1), changed: make(chan struct{})}
}

// Set says which servers there are. What is known of those that stay is kept.
// Connections to one that goes are left to end by themselves.
func (p *Pool) Set(targets ...Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := map[string]*backend{}
	for _, be := range p.backends {
		known[be.Address] = be
	}
	p.backends = nil
	for _, t := range targets {
		be := known[t.Address]
		delete(known, t.Address)
		if be == nil {
			be = &backend{Target: t, links: map[*link]struct{}{}, kick: make(chan struct{}, 1), gone: make(chan struct{})}
			if t.Well {
				be.health = well
			}
		}
		be.Class, be.Well = t.Class, t.Well // its address stays: checks read it at any time
		p.backends = append(p.backends, be)
	}
	for _, be := range known {
		close(be.gone)
	}
	p.tellLocked()
	poke(p.poke)
}

// poke leaves a message for who is not waiting yet; one is enough.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Run checks the servers until ctx ends.
func (p *Pool) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		for _, be := range p.unwatched() {
			wg.Go(func() { p.watch(ctx, be) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.poke:
		}
	}
}

func (p *Pool) unwatched() (out []*backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, be := range p.backends {
		if !be.watched {
			be.watched = true
			out = append(out, be)
		}
	}
	return out
}

// watch checks one server until it is gone from the set.
func (p *Pool) watch(ctx context.Context, be *backend) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-be.gone:
			return
		case <-timer.C:
		case <-be.kick:
		}
		began := time.Now()
		try, cancel := context.WithTimeout(ctx, p.limit())
		err := p.check(try, be.Address)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			p.took(time.Since(began))
		}
		pause := interval
		if p.note(be, began, err); err != nil {
			pause = max(0, again-time.Since(began))
		}
		timer.Reset(pause)
	}
}

// took writes down how long an answer took.
func (p *Pool) took(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slowest = max(d, p.slowest*9/10)
}

// limit is how long a check may take.
func (p *Pool) limit() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limitLocked()
}

func (p *Pool) limitLocked() time.Duration {
	return min(max(checkTime, 3*p.slowest), checkTimeMax)
}

// note writes down how a check or a connection went.
func (p *Pool) note(be *backend, began time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		be.failing = time.Time{}
	} else if be.failing.IsZero() {
		be.failing = began
	}
	now := be.health.next(err == nil, err != nil && p.lostLocked(be, err))
	if now == be.health {
		return
	}
	switch be.health = now; now {
	case well:
		p.log.Info("server is well", "server", be.Address)
	case ill:
		p.log.Warn("server is not well", "server", be.Address, "err", err)
	}
	p.tellLocked()
	p.cutLocked()
}

// lostLocked says whether connections to a server that has failed again can be
// given up: it is silent for as long as matters, or says for long that it is not
// ready. One that others hear of is slow.
func (p *Pool) lostLocked(be *backend, err error) bool {
	failing := time.Since(be.failing)
	if errors.As(err, new(NotReady)) {
		return failing >= unreadyTime
	}
	silence := 2 * p.limitLocked()
	if failing < silence {
		return false
	}
	for l := range be.links {
		if heard, ok := l.heard(); ok && heard < silence {
			return false
		}
	}
	return true
}

func (p *Pool) tellLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// cutLocked ends the connections to servers that are ill, if one that is well
// could take them.
func (p *Pool) cutLocked() {
	for _, be := range p.backends {
		if be.health != ill {
			continue
		}
		count := 0
		for l := range be.links {
			if p.takerLocked(l.classes) {
				l.close()
				count++
			}
		}
		if count > 0 {
			p.log.Info("cutting connections", "server", be.Address, "count", count)
		}
	}
}

// takerLocked says whether a server is well that may have a connection of those
// classes.
func (p *Pool) takerLocked(classes int) bool {
	return slices.ContainsFunc(p.backends, func(be *backend) bool {
		return be.health == well && (classes == 0 || be.Class < classes)
	})
}

// pick lists where a connection is tried now, best first, of the classes below
// limit, and what tells that the list has changed.
func (p *Pool) pick(limit int) ([]*backend, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []candidate
	for _, be := range p.backends {
		list = append(list, candidate{be.Class, be.health})
	}
	p.turn++
	var out []*backend
	for _, i := range choose(list, p.turn, limit) {
		out = append(out, p.backends[i])
	}
	return out, p.changed
}

// Well lists the servers that are well, and gives a channel that is closed when
// that may have changed.
func (p *Pool) Well() ([]string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, be := range p.backends {
		if be.health == well {
			out = append(out, be.Address)
		}
	}
	return out, p.changed
}

// dialer notices within some seconds that nobody is there any more, on
// connections with data under way as on idle ones (tcp(7)).
var dialer = net.Dialer{
	Timeout:         dialTime,
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
	Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10_000) })
		if cerr != nil {
			return cerr
		}
		return err
	},
}

// connect makes a connection to a server for a client, which may go to servers of
// those classes, and remembers it.
func (p *Pool) connect(ctx context.Context, be *backend, in net.Conn, classes int) (*link, error) {
	began := time.Now()
	out, err := dialer.DialContext(ctx, "tcp", be.Address)
	if err != nil {
		if ctx.Err() == nil {
			p.note(be, began, err)
			poke(be.kick)
		}
		return nil, err
	}
	l := &link{in: in, out: out, classes: classes}
	p.mu.Lock()
	defer p.mu.Unlock()
	if be.health == ill { // meanwhile
		out.Close()
		return nil, errNobody
	}
	be.links[l] = struct{}{}
	l.forget = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(be.links, l)
	}
	return l, nil
}
