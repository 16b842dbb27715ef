package door

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
)

// Limits of one kind of connections.
type Limits struct {
	Total int
	Each  int // of one caller
	Net   int // of callers of one network; 0: as many as there may be
	// Firm turns away who would be one too many. Else somebody has to go for
	// him, by lot, sooner an old one: of his own when it is he who has too many, or his network, and
	// of the network that has most when it is all together.
	Firm bool
}

// Host is what one machine can choose its address from: an address of IPv4, 64
// bits of IPv6.
func Host(addr netip.Addr) netip.Prefix { return prefix(addr, 32, 64) }

// Network is what one machine may have got more of: 24 bits of IPv4, 48 of IPv6.
func Network(addr netip.Addr) netip.Prefix { return prefix(addr, 24, 48) }

func prefix(addr netip.Addr, v4, v6 int) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := v6
	if addr.Is4() {
		bits = v4
	}
	p, err := addr.Prefix(bits)
	if err != nil { // no address at all
		return netip.Prefix{}
	}
	return p
}

// crowd is the connections of one kind, by who they are from. It remembers
// those that are open and nothing else, so that its size is bounded by theirs.
type crowd struct {
	Limits
	open  int
	each  map[string]*group // by caller
	nets  map[string]*group // by network
	sizes [][]*group        // networks, by how many connections they have
	most  int               // index in sizes of the largest ones
	came  uint64            // that ever were
}

// group is connections of one caller or one network, in no order.
type group struct {
	conns []*Conn
	at    int // of a network: index among those of its size
}

// seat is where a connection is in its crowd.
type seat struct {
	crowd         *crowd // nil: it is closed
	since         uint64 // the higher, the younger
	caller, net   string
	ofEach, ofNet int // indices in its groups
}

func newCrowd(limits Limits) *crowd {
	limits.Net = cmp.Or(limits.Net, limits.Total)
	return &crowd{Limits: limits, each: map[string]*group{}, nets: map[string]*group{}, sizes: make([][]*group, limits.Net+1)}
}

// room says whether another connection may come in, and which one has to go for
// it.
func (w *crowd) room(caller, net string) (victim *Conn, ok bool) {
	own, near := w.each[caller], w.nets[net]
	switch {
	case own.size() >= w.Each:
		return w.lot(own)
	case near.size() >= w.Net:
		return w.lot(near)
	case w.open < w.Total:
		return nil, true
	case near.size() >= w.most:
		return w.lot(near)
	}
	largest := w.sizes[w.most]
	victim = largest[rand.IntN(len(largest))].any()
	// Even who is firm takes of a network that has two more.
	return victim, !w.Firm || w.most > near.size()+1
}

// lot says which of a group has to go, if one has.
func (w *crowd) lot(g *group) (victim *Conn, ok bool) {
	if w.Firm || g.size() == 0 { // or the limit is none
		return nil, false
	}
	return g.any(), true
}

func (g *group) size() int {
	if g == nil {
		return 0
	}
	return len(g.conns)
}

// any is one by lot: the older one of two, because who can prove himself will
// soon have done so. Only the oldest would not do. A flood so fast that each is
// the oldest before he is through would let nobody in.
func (g *group) any() *Conn {
	a, b := g.conns[rand.IntN(len(g.conns))], g.conns[rand.IntN(len(g.conns))]
	if a.seat.since <= b.seat.since {
		return a
	}
	return b
}

// add takes a connection in; there must be room.
func (w *crowd) add(c *Conn, caller, net string) {
	own, near := w.each[caller], w.nets[net]
	if own == nil {
		own = &group{}
		w.each[caller] = own
	}
	if near == nil {
		near = &group{}
		w.nets[net] = near
	} else {
		w.unrank(near)
	}
	w.came++
	c.seat = seat{crowd: w, since: w.came, caller: caller, net: net, ofEach: len(own.conns), ofNet: len(near.conns)}
	own.conns = append(own.conns, c)
	near.conns = append(near.conns, c)
	w.rank(near)
	w.open++
}

// remove lets a connection go.
func (w *crowd) remove(c *Conn) {
	s := c.seat
	c.seat = seat{}
	own, near := w.each[s.caller], w.nets[s.net]
	w.unrank(near)
	take(own, s.ofEach, func(moved *Conn) { moved.seat.ofEach = s.ofEach })
	take(near, s.ofNet, func(moved *Conn) { moved.seat.ofNet = s.ofNet })
	if len(own.conns) == 0 {
		delete(w.each, s.caller)
	}
	if len(near.conns) == 0 {
		delete(w.nets, s.net)
	} else {
		w.rank(near)
	}
	w.open--
}

// take takes out one connection and puts the last in its place.
func take(g *group, i int, moved func(*Conn)) {
	last := len(g.conns) - 1
	if i != last {
		g.conns[i] = g.conns[last]
		moved(g.conns[i])
	}
	g.conns[last] = nil
	g.conns = g.conns[:last]
}

// rank notes how many a network has.
func (w *crowd) rank(g *group) {
	n := len(g.conns)
	g.at = len(w.sizes[n])
	w.sizes[n] = append(w.sizes[n], g)
	w.most = max(w.most, n)
}

func (w *crowd) unrank(g *group) {
	same := w.sizes[len(g.conns)]
	last := len(same) - 1
	same[g.at] = same[last]
	same[g.at].at = g.at
	same[last] = nil
	w.sizes[len(g.conns)] = same[:last]
	for w.most > 0 && len(w.sizes[w.most]) == 0 {
		w.most--
	}
}
