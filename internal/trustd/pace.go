package trustd

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How often a peer may ask. A node asks a few times when it starts and then
// twice a day, and more often while there is nobody who could answer; guessing
// a token must take ages.
const (
	perPeerEvery = time.Second / 4
	perPeerBurst = 50
	allPerSecond = 50 // a fleet that starts at once
	allBurst     = 200
	maxPeers     = 4096 // remembered
)

// pace limits requests per peer and altogether.
type pace struct {
	now func() time.Time
	all *rate.Limiter

	mu    sync.Mutex // guards peers
	peers map[netip.Prefix]*rate.Limiter
}

func newPace(now func() time.Time) *pace {
	return &pace{now: now, all: rate.NewLimiter(allPerSecond, allBurst), peers: map[netip.Prefix]*rate.Limiter{}}
}

// allow counts a request.
func (p *pace) allow(addr netip.Addr) bool {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	key := neighbourhood(addr)
	limiter, ok := p.peers[key]
	if !ok {
		if len(p.peers) >= maxPeers {
			p.forget(now)
		}
		limiter = rate.NewLimiter(rate.Every(perPeerEvery), perPeerBurst)
		p.peers[key] = limiter
	}
	return limiter.AllowN(now, 1) && p.all.AllowN(now, 1)
}

// forget drops peers whose allowance is whole again, and all of them when
// that is not enough: the limit for all still holds then.
func (p *pace) forget(now time.Time) {
	for key, limiter := range p.peers {
		if limiter.TokensAt(now) >= perPeerBurst {
			delete(p.peers, key)
		}
	}
	if len(p.peers) >= maxPeers {
		clear(p.peers)
	}
}

// neighbourhood is what one machine can choose its address from.
func neighbourhood(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked()
}
