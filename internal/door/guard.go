package door

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Config says how many connections a Guard lets in. Each kind has places of its
// own, so that however many of one there are, the others come in.
type Config struct {
	// Strangers have proved nothing and come from where nobody is known.
	Strangers Limits
	// Neighbours have proved nothing, and come from where somebody is known.
	Neighbours Limits
	// Proven have shown who they are, or that they belong.
	Proven Limits
	// Members have done so from a member's address; none where Admit is told who
	// it is.
	Members Limits
	// Patience is how long one may stay that proves nothing.
	Patience time.Duration
	// Known says that somebody is at an address: a member of the cluster. May
	// be nil.
	Known func(netip.Addr) bool
	Log   *slog.Logger
}

const (
	// remembered is how many hosts are neighbours because somebody proved
	// himself from there.
	remembered = 1024
	// between is how often the log says that connections were dropped.
	between = 10 * time.Second
)

// errFull says that a caller has, or all have, as many connections as there may be.
var errFull = errors.New("too many connections")

// Guard is a listener that lets nobody exhaust a daemon's memory before he has
// shown who he is, and lets no number of strangers, from however many
// addresses, keep out those who can. It takes in every newcomer, and drops
// strangers by lot when there are too many, most likely one of the network that
// has most.
type Guard struct {
	net.Listener
	config Config

	mu                                     sync.Mutex // guards the fields below and the seats of all connections
	strangers, neighbours, proven, members *crowd
	seen                                   map[netip.Prefix]time.Time // hosts, and when somebody proved himself from there
	dropped                                int                        // since the log said so
	told                                   time.Time
}

// NewGuard puts a Guard before a listener.
func NewGuard(l net.Listener, config Config) *Guard {
	return &Guard{
		Listener: l, config: config, seen: map[netip.Prefix]time.Time{},
		strangers: newCrowd(config.Strangers), neighbours: newCrowd(config.Neighbours), proven: newCrowd(config.Proven), members: newCrowd(config.Members),
	}
}

// Conn is a connection that a Guard let in.
type Conn struct {
	net.Conn
	guard *Guard
	addr  netip.Addr
	timer *time.Timer // of who has proved nothing
	seat  seat        // guarded by the Guard's mu
}

// Accept is net.Listener; who finds no place is closed unseen.
func (g *Guard) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &Conn{Conn: conn, guard: g, addr: peerAddr(conn)}
		c.timer = time.AfterFunc(g.config.Patience, c.drop)
		known := g.config.Known != nil && g.config.Known(c.addr)
		if g.enter(c, known) {
			return c, nil
		}
		c.drop()
	}
}

// enter finds a place for a connection that has proved nothing.
func (g *Guard) enter(c *Conn, known bool) bool {
	host := Host(c.addr)
	g.mu.Lock()
	if _, ok := g.seen[host]; ok {
		known = true
	}
	var victim *Conn
	var ok bool
	if known {
		victim, ok = g.place(g.neighbours, c, host.String(), host.String())
	} else {
		victim, ok = g.place(g.strangers, c, host.String(), Network(c.addr).String())
	}
	g.mu.Unlock()
	if victim != nil {
		victim.drop()
	}
	return ok
}

// place seats a connection, whose seat until now it leaves. The one that has to
// go for it has none any more, and is to be dropped. g.mu is held.
func (g *Guard) place(w *crowd, c *Conn, caller, net string) (victim *Conn, ok bool) {
	if c.seat.crowd == w && c.seat.caller == caller {
		return nil, true
	}
	victim, ok = w.room(caller, net)
	if !ok {
		victim = nil
	}
	if victim != nil {
		w.remove(victim)
	}
	if victim != nil || !ok {
		g.count()
	}
	if !ok {
		return nil, false
	}
	if c.seat.crowd != nil {
		c.seat.crowd.remove(c)
	}
	w.add(c, caller, net)
	return victim, true
}

// count tells the log of a connection that was dropped for want of room, now
// and then. g.mu is held.
func (g *Guard) count() {
	g.dropped++
	if now := time.Now(); now.Sub(g.told) > between {
		g.config.Log.Warn("more connections than there is room for", "dropped", g.dropped,
			"strangers", g.strangers.open, "neighbours", g.neighbours.open, "proven", g.proven.open, "members", g.members.open)
		g.told, g.dropped = now, 0
	}
}

// Admit says that whoever holds a connection has proved himself: who he is, or,
// if who is empty, that he belongs to wherever he calls from. It may be said
// again: he may have become a member meanwhile. After an error there is no place
// for him, and the connection is to be closed.
func (c *Conn) Admit(who string) error {
	g := c.guard
	c.timer.Stop()
	host, network := Host(c.addr), Network(c.addr).String()
	into, caller := g.proven, host.String()
	switch {
	case who != "":
		caller, network = who, who
	case g.config.Known != nil && g.config.Known(c.addr):
		into, network = g.members, caller
	}
	g.mu.Lock()
	if c.seat.crowd == nil {
		g.mu.Unlock()
		return net.ErrClosed
	}
	victim, ok := g.place(into, c, caller, network)
	if ok {
		g.remember(host)
	}
	g.mu.Unlock()
	if victim != nil {
		victim.drop()
	}
	if !ok {
		return errFull
	}
	return nil
}

// remember makes a host a neighbour, for one that has not been seen for longest.
// g.mu is held.
func (g *Guard) remember(host netip.Prefix) {
	if _, ok := g.seen[host]; !ok && len(g.seen) >= remembered {
		var oldest netip.Prefix
		var at time.Time
		for h, seen := range g.seen {
			if at.IsZero() || seen.Before(at) {
				oldest, at = h, seen
			}
		}
		delete(g.seen, oldest)
	}
	g.seen[host] = time.Now()
}

// Stay lets a connection be that has proved nothing, until somebody else needs
// its place.
func (c *Conn) Stay() { c.timer.Stop() }

// Close is net.Conn.
func (c *Conn) Close() error {
	c.guard.mu.Lock()
	c.timer.Stop()
	if c.seat.crowd != nil {
		c.seat.crowd.remove(c)
	}
	c.guard.mu.Unlock()
	return c.Conn.Close()
}

// drop closes without ceremony, so that the kernel keeps nothing either.
func (c *Conn) drop() {
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0) // it may be closed already
	}
	_ = c.Close() // nobody is told
}

func peerAddr(conn net.Conn) netip.Addr {
	addr, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap()
}
