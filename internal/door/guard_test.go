package door

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// network is a listener that connections come to from any address.
type network struct {
	incoming chan net.Conn
	open     atomic.Int64 // of the connections that came in
}

func newNetwork() *network { return &network{incoming: make(chan net.Conn)} }

func (n *network) Accept() (net.Conn, error) {
	c, ok := <-n.incoming
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (n *network) Close() error   { return nil }
func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

// from is a connection from an address, without another end.
type from struct {
	net.Conn // nil
	network  *network
	addr     netip.Addr
	closed   atomic.Bool
}

func (f *from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.addr, 40000))
}

func (f *from) Close() error {
	if !f.closed.Swap(true) {
		f.network.open.Add(-1)
	}
	return nil
}

// call comes in from an address.
func (n *network) call(addr netip.Addr) *from {
	c := &from{network: n, addr: addr}
	n.open.Add(1)
	n.incoming <- c
	return c
}

// guarded accepts for ever, and hands over what was let in.
func guarded(t *testing.T, config Config) (*network, *Guard, <-chan *Conn) {
	t.Helper()
	n := newNetwork()
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Patience == 0 {
		config.Patience = time.Hour
	}
	g := NewGuard(n, config)
	in := make(chan *Conn, 1<<16)
	go func() {
		for {
			conn, err := g.Accept()
			if err != nil {
				return
			}
			in <- conn.(*Conn)
		}
	}()
	t.Cleanup(func() { close(n.incoming) })
	return n, g, in
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

var some = Limits{Total: 32, Each: 4, Net: 16}

// TestPrefixes: what one machine can choose its addresses from is one.
func TestPrefixes(t *testing.T) {
	for _, c := range []struct{ addr, host, network string }{
		{"192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"},
		{"::ffff:192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"},
		{"2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"},
		{"fe80::1%eth0", "fe80::/64", "fe80::/48"},
	} {
		if host, network := Host(addr(c.addr)).String(), Network(addr(c.addr)).String(); host != c.host || network != c.network {
			t.Errorf("%s is of %s in %s, want %s in %s", c.addr, host, network, c.host, c.network)
		}
	}
	if got := Host(netip.Addr{}); got.IsValid() {
		t.Errorf("no address is of %v", got)
	}
}

// TestManyAddresses: whoever has many addresses, of one network or of a
// thousand, has a bounded number of connections, and no newcomer is refused.
func TestManyAddresses(t *testing.T) {
	for _, c := range []struct {
		what string
		at   func(i uint32) netip.Addr
		most int
	}{
		{"one address", func(uint32) netip.Addr { return addr("192.0.2.1") }, some.Each},
		{"a /24", func(i uint32) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }, some.Net},
		{"the whole of IPv4", func(i uint32) netip.Addr {
			i *= 2654435761
			return netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
		}, some.Total},
		{"a /64", func(i uint32) netip.Addr { return v6(0, i) }, some.Each},
		{"a /48", func(i uint32) netip.Addr { return v6(i, rand.Uint32()) }, some.Net},
	} {
		n, g, in := guarded(t, Config{Strangers: some, Neighbours: some, Proven: some})
		const many = 50_000
		for i := range uint32(many) {
			n.call(c.at(i))
			<-in // each is let in
		}
		if open := int(n.open.Load()); open != c.most {
			t.Errorf("%s: %d connections are open, want %d", c.what, open, c.most)
		}
		if got := g.strangers; got.open != c.most || len(got.each) > c.most || len(got.nets) > c.most || len(g.seen) > 0 {
			t.Errorf("%s: it remembers %d connections, %d callers, %d networks, %d seen; at most %d", c.what, got.open, len(got.each), len(got.nets), len(g.seen), c.most)
		}
	}
}

func v6(net, host uint32) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, byte(net >> 8), byte(net), 0, 0, 0, 0, byte(host >> 24), byte(host >> 16), byte(host >> 8), byte(host)})
}

// TestLoneStranger: a flood from few networks costs itself, and nobody else
// his place.
func TestLoneStranger(t *testing.T) {
	n, _, in := guarded(t, Config{Strangers: some, Neighbours: some, Proven: some})
	flood := func() {
		for i := range 10_000 {
			n.call(netip.AddrFrom4([4]byte{198, 51, byte(i % 8), byte(i >> 3)}))
			<-in
		}
	}
	flood()
	lone := n.call(addr("203.0.113.9"))
	<-in
	flood()
	if lone.closed.Load() {
		t.Error("it was dropped for a network that has more")
	}
}

// TestPlacesOfTheirOwn: neither strangers nor those who have proved something
// take the places of others.
func TestPlacesOfTheirOwn(t *testing.T) {
	member := addr("10.0.0.7")
	n, g, in := guarded(t, Config{
		Strangers: some, Neighbours: some, Proven: some, Members: Limits{Total: 8, Each: 4},
		Known: func(a netip.Addr) bool { return a == member },
	})
	flood := func(from netip.Addr, admit bool) {
		for range 1000 {
			n.call(from)
			if c := <-in; admit {
				_ = c.Admit("") // there may be no room
			}
			from = from.Next()
		}
	}
	watching := n.call(member)
	if err := (<-in).Admit(""); err != nil {
		t.Fatal(err)
	}
	asking := n.call(member)
	last := <-in
	flood(addr("192.0.2.0"), false)
	flood(addr("198.51.100.0"), true)
	if watching.closed.Load() || asking.closed.Load() {
		t.Errorf("a member that watches was dropped: %v; that asks: %v", watching.closed.Load(), asking.closed.Load())
	}
	if err := last.Admit(""); err != nil || g.members.open != 2 {
		t.Errorf("Admit of a member = %v, %d have a place", err, g.members.open)
	}
	if g.proven.open != some.Total || g.strangers.open > some.Total {
		t.Errorf("%d strangers and %d that proved themselves are there, want at most %d and %[3]d", g.strangers.open, g.proven.open, some.Total)
	}
	// One that is a member's at an address that was nobody's.
	n.call(addr("203.0.113.1"))
	later := <-in
	if err := later.Admit(""); err != nil || later.seat.crowd != g.proven {
		t.Errorf("Admit = %v, not among those who proved themselves", err)
	}
	member = addr("203.0.113.1")
	if err := later.Admit(""); err != nil || later.seat.crowd != g.members {
		t.Errorf("Admit = %v, not among the members", err)
	}
}

// TestNeighbours: from where somebody has proved himself the next comes in
// beside the strangers; the memory of it is bounded, and strangers don't change it.
func TestNeighbours(t *testing.T) {
	n, g, in := guarded(t, Config{Strangers: some, Neighbours: some, Proven: Limits{Total: 5000, Each: 5000}})
	n.call(addr("203.0.113.9"))
	if err := (<-in).Admit("alice"); err != nil {
		t.Fatal(err)
	}
	n.call(addr("203.0.113.9"))
	if c := <-in; c.seat.crowd != g.neighbours {
		t.Error("she comes as a stranger again")
	}
	for i := range 3 * remembered {
		n.call(v6(uint32(i), 1))
		if err := (<-in).Admit("bob"); err != nil {
			t.Fatal(err)
		}
	}
	if len(g.seen) != remembered {
		t.Errorf("it remembers %d hosts, want %d", len(g.seen), remembered)
	}
}

// TestFirm: who has as many connections as he may have gets no more and loses
// none; one that has few gets in when all places are taken by others.
func TestFirm(t *testing.T) {
	n, _, in := guarded(t, Config{Strangers: some, Neighbours: some, Proven: Limits{Total: 10, Each: 6, Firm: true}})
	open := func(who string) (*from, error) {
		f := n.call(addr("203.0.113.9"))
		return f, (<-in).Admit(who)
	}
	for i := range 6 {
		if _, err := open("alice"); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if _, err := open("alice"); err == nil {
		t.Error("alice has one more than she may")
	}
	for i := range 4 {
		if _, err := open("bob"); err != nil {
			t.Fatalf("bob's %d: %v", i, err)
		}
	}
	before := n.open.Load()
	if _, err := open("carol"); err != nil {
		t.Errorf("carol's first: %v", err)
	}
	if n.open.Load() != before { // hers for one of alice's
		t.Errorf("%d connections are open, want %d", n.open.Load(), before)
	}
	if _, err := open("bob"); err == nil {
		t.Error("bob took a place of one that has as many")
	}
}

// TestPatience: who proves nothing goes after a while; who stays, stays.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, g, in := guarded(t, Config{Strangers: some, Neighbours: some, Proven: some, Patience: 10 * time.Second})
		silent, staying, proven := n.call(addr("192.0.2.1")), n.call(addr("192.0.2.2")), n.call(addr("192.0.2.3"))
		<-in
		(<-in).Stay()
		last := <-in
		time.Sleep(9 * time.Second)
		if err := last.Admit("alice"); err != nil || silent.closed.Load() {
			t.Errorf("after 9 s: %v, closed %v", err, silent.closed.Load())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !silent.closed.Load() || staying.closed.Load() || proven.closed.Load() {
			t.Errorf("closed: silent %v, staying %v, proven %v", silent.closed.Load(), staying.closed.Load(), proven.closed.Load())
		}
		last.Close()
		last.Close() // counted once
		if g.strangers.open != 1 || g.proven.open != 0 {
			t.Errorf("%d strangers, %d proven are open", g.strangers.open, g.proven.open)
		}
		if err := last.Admit("alice"); err == nil {
			t.Error("a closed connection was admitted")
		}
	})
}

// TestCounts plays at random and holds the books against a plain count.
func TestCounts(t *testing.T) {
	var conns []*Conn
	w := newCrowd(Limits{Total: 20, Each: 3, Net: 7})
	for step := range 20_000 {
		if len(conns) > 0 && rand.IntN(3) == 0 {
			i := rand.IntN(len(conns))
			w.remove(conns[i])
			conns = slices.Delete(conns, i, i+1)
		} else {
			caller := fmt.Sprint(rand.IntN(12))
			net := caller[:1]
			victim, ok := w.room(caller, net)
			if !ok {
				t.Fatalf("step %d: no room", step)
			}
			if victim != nil {
				w.remove(victim)
				conns = slices.DeleteFunc(conns, func(c *Conn) bool { return c == victim })
			}
			c := &Conn{}
			w.add(c, caller, net)
			conns = append(conns, c)
		}
		each, nets, most := map[string]int{}, map[string]int{}, 0
		for _, c := range conns {
			each[c.seat.caller]++
			nets[c.seat.net]++
			most = max(most, nets[c.seat.net])
			if each[c.seat.caller] > 3 || nets[c.seat.net] > 7 || w.each[c.seat.caller].conns[c.seat.ofEach] != c || w.nets[c.seat.net].conns[c.seat.ofNet] != c {
				t.Fatalf("step %d: %+v is wrong", step, c.seat)
			}
		}
		if w.open != len(conns) || len(conns) > 20 || len(w.each) != len(each) || len(w.nets) != len(nets) || w.most != most {
			t.Fatalf("step %d: %d connections, %d callers, %d networks, most %d; counted %d, %d, %d, %d",
				step, w.open, len(w.each), len(w.nets), w.most, len(conns), len(each), len(nets), most)
		}
	}
}

// TestLog: the log says that connections are dropped, a line now and then.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		n, _, in := guarded(t, Config{Strangers: some, Neighbours: some, Proven: some, Log: slog.New(slog.NewTextHandler(&text, nil))})
		for range 2 {
			for range 1000 {
				n.call(addr("192.0.2.1"))
				<-in
			}
			time.Sleep(11 * time.Second)
		}
		n.call(addr("192.0.2.1"))
		<-in
		if lines := strings.Count(text.String(), "\n"); lines != 3 || !strings.Contains(text.String(), "dropped=1000") {
			t.Errorf("%d lines:\n%s", lines, text.String())
		}
	})
}

// TestReal: a real listener lets go of what it drops, on both sides.
func TestReal(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	guard := NewGuard(inner, Config{Strangers: Limits{Total: 8, Each: 2}, Neighbours: some, Proven: some, Patience: time.Hour, Log: slog.New(slog.DiscardHandler)})
	defer guard.Close()
	go func() {
		for {
			conn, err := guard.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, conn)
		}
	}()
	var all []net.Conn
	for i := range 200 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 7, byte(i), 1)}}
		conn, err := d.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		all = append(all, conn)
	}
	left := 0
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		left = 0
		for _, conn := range all {
			_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // a real socket takes deadlines
			if _, err := conn.Read(make([]byte, 1)); err != nil && strings.Contains(err.Error(), "timeout") {
				left++
			}
		}
		if left == 8 {
			return
		}
	}
	t.Errorf("%d connections are left, want 8", left)
}
