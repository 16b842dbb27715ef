// Package hostdns is the node's own name server: it forwards questions, over
// UDP and TCP, to the upstreams that the network gave, keeps answers as long as
// they say, and knows the cluster's members by name.
//
// It resolves nothing itself and changes no answer but for the remaining life
// of its records. What it keeps, how many questions are on their way and how
// long each may take is bounded. Which upstreams there are, and on what
// addresses to answer, is decided by package networkd. A Server is safe for
// concurrent use.
package hostdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what is under way.
const (
	maxQueries = 256 // over UDP, to one address; more are dropped, as the network would
	maxConns   = 64  // over TCP, to one address; more are closed
	tcpIdle    = 10 * time.Second
	memberTTL  = 10 * time.Second
)

// Server answers questions.
type Server struct {
	log     *slog.Logger
	now     func() time.Time
	cache   cache
	changed chan struct{} // capacity 1: what Upstreams or Running say changed

	mu        sync.Mutex // guards the fields below
	upstreams []Upstream
	members   map[string][]netip.Addr // nil: members are not resolved
	running   []netip.AddrPort
}

// New makes a server that knows no upstream.
func New(log *slog.Logger) *Server {
	return &Server{log: log, now: time.Now, changed: make(chan struct{}, 1)}
}

// Changed tells that the health of an upstream changed, or that Run began or
// ended to answer.
func (s *Server) Changed() <-chan struct{} { return s.changed }

func (s *Server) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Running are the addresses on which the server answers.
func (s *Server) Running() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.running)
}

func (s *Server) setRunning(addresses []netip.AddrPort) {
	s.mu.Lock()
	s.running = slices.Clone(addresses)
	s.mu.Unlock()
	s.notify()
}

// SetUpstreams says whom to ask. One that stays keeps its health; when any
// changes, what others answered is forgotten: another network may answer
// otherwise.
func (s *Server) SetUpstreams(list []netip.AddrPort) {
	s.mu.Lock()
	var next []Upstream
	for _, addr := range list {
		u := Upstream{Addr: addr, Healthy: true}
		if i := slices.IndexFunc(s.upstreams, func(u Upstream) bool { return u.Addr == addr }); i >= 0 {
			u = s.upstreams[i]
		}
		next = append(next, u)
	}
	same := slices.EqualFunc(next, s.upstreams, func(a, b Upstream) bool { return a.Addr == b.Addr })
	s.upstreams = next
	s.mu.Unlock()
	if !same {
		s.cache.clear()
	}
}

// Upstreams are those that are asked, in the order of preference.
func (s *Server) Upstreams() []Upstream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.upstreams)
}

// SetMembers says which names are the cluster's nodes. Nil: none.
func (s *Server) SetMembers(addresses map[string][]netip.Addr) {
	names := map[string][]netip.Addr{}
	for name, list := range addresses {
		names[strings.ToLower(strings.TrimSuffix(name, "."))] = list
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = names
}

func (s *Server) member(name string) ([]netip.Addr, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, ok := s.members[name]
	return list, ok
}

// answer returns what to send to a client, nil for nothing.
func (s *Server) answer(ctx context.Context, network string, raw []byte) []byte {
	q, err := parseQuery(raw)
	if err != nil {
		return nil
	}
	if q.ends == 0 {
		return q.reply(rcodeRefused)
	}
	udp := network == "udp"
	if list, ok := s.member(q.name); ok {
		return q.fit(q.addresses(list, memberTTL), udp)
	}
	if q.key != "" {
		if kept := s.cache.get(q.key, s.now()); kept != nil {
			return q.fit(kept, udp)
		}
	}
	answer, err := s.ask(ctx, network, q)
	if err != nil {
		s.log.Debug("question not answered", "err", err)
		return q.reply(rcodeServFail)
	}
	if q.key != "" {
		s.cache.put(q.key, answer, q.ends, s.now(), lifetime(answer, q))
	}
	return q.fit(answer, udp)
}

// Run answers on the addresses until ctx ends. One Run at a time.
func (s *Server) Run(ctx context.Context, addresses []netip.AddrPort) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// An address may come later than we do, and go for a moment.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1) })
		return errors.Join(err, failed)
	}}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	failed := make(chan error, 2*len(addresses))
	for _, addr := range addresses {
		// Each address has its own: pods ask another one than the node itself, and
		// must not take away its answers.
		queries, conns := make(chan struct{}, maxQueries), make(chan struct{}, maxConns)
		udp, err := lc.ListenPacket(ctx, "udp", addr.String())
		if err != nil {
			return fmt.Errorf("listen on %s: %w", addr, err)
		}
		context.AfterFunc(ctx, func() { udp.Close() })
		tcp, err := lc.Listen(ctx, "tcp", addr.String())
		if err != nil {
			return fmt.Errorf("listen on %s: %w", addr, err)
		}
		context.AfterFunc(ctx, func() { tcp.Close() })
		wg.Go(func() { failed <- s.serveUDP(ctx, udp, queries) })
		wg.Go(func() { failed <- s.serveTCP(ctx, tcp, conns) })
	}
	wg.Go(func() { s.probe(ctx) })
	s.setRunning(addresses)
	defer s.setRunning(nil)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-failed:
		return err
	}
}

func (s *Server) serveUDP(ctx context.Context, conn net.PacketConn, slots chan struct{}) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	buf := make([]byte, maxUDP)
	for {
		n, from, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("receive questions: %w", err)
		}
		if err != nil {
			continue // such as what ICMP says of an answer that nobody waited for
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		question := slices.Clone(buf[:n])
		wg.Go(func() {
			defer func() { <-slots }()
			if answer := s.answer(ctx, "udp", question); answer != nil {
				conn.WriteTo(answer, from) // who asked will ask again
			}
		})
	}
}

func (s *Server) serveTCP(ctx context.Context, l net.Listener, slots chan struct{}) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("accept questions: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			s.serveConn(ctx, conn)
		})
	}
}

func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		conn.SetDeadline(time.Now().Add(tcpIdle))
		question, err := readFrame(conn)
		if err != nil {
			return
		}
		answer := s.answer(ctx, "tcp", question)
		if answer == nil || writeFrame(conn, answer) != nil {
			return
		}
	}
}
