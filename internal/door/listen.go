package door

import (
	"net"
	"net/netip"
	"sync"
)

// limiter refuses connections beyond what the daemon's memory allows, so that
// nobody can exhaust it before having shown a certificate.
type limiter struct {
	net.Listener
	total, perPeer int

	mu    sync.Mutex // guards the fields below
	open  int
	peers map[netip.Addr]int
}

// Limit closes connections beyond total, or beyond perPeer from one address,
// as soon as they come in.
func Limit(l net.Listener, total, perPeer int) net.Listener {
	return &limiter{Listener: l, total: total, perPeer: perPeer, peers: map[netip.Addr]int{}}
}

// Accept is net.Listener; a connection beyond the limits is closed unseen.
func (l *limiter) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := peerAddr(conn)
		if l.take(peer) {
			return &counted{Conn: conn, release: sync.OnceFunc(func() { l.release(peer) })}, nil
		}
		conn.Close()
	}
}

func (l *limiter) take(peer netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.total || l.peers[peer] >= l.perPeer {
		return false
	}
	l.open++
	l.peers[peer]++
	return true
}

func (l *limiter) release(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.peers[peer]--; l.peers[peer] == 0 {
		delete(l.peers, peer)
	}
}

func peerAddr(conn net.Conn) netip.Addr {
	addr, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap()
}

type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}
