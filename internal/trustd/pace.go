package trustd

import (
	"crypto/sha256"
	"crypto/subtle"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"talos/internal/door"
)

// How often may be asked. A node asks a few times when it starts and then twice
// a day, and more often while there is nobody who could answer; guessing a token
// must take ages.
var (
	perHost = pacing{every: time.Second / 4, burst: 50}

	// guesses are calls with a token that is not known to be right.
	guesses = rates{host: perHost, net: pacing{every: time.Second / 16, burst: 200}, all: pacing{every: time.Second / 50, burst: 200}}
	// newcomers have the token; a fleet that starts at once may be of one network.
	newcomers = rates{host: perHost, net: pacing{every: time.Second / 40, burst: 160}, all: pacing{every: time.Second / 100, burst: 400}}
	// fromMembers are calls with it from a member's address.
	fromMembers = rates{host: perHost, net: pacing{every: time.Second / 200, burst: 1000}, all: pacing{every: time.Second / 200, burst: 1000}}
)

// pacing is how often: so many at once, then one every so often.
type pacing struct {
	every time.Duration
	burst int
}

// rates bound calls of one host (door.Host), of one network (door.Network), and
// of all.
type rates struct{ host, net, all pacing }

// pace limits calls. Those who show the token that machined accepted last have
// allowances that others can't use up, and so have members.
type pace struct {
	now    func() time.Time
	member func(netip.Addr) bool

	mu                                   sync.Mutex // guards the fields below
	token                                [sha256.Size]byte
	guesses, nearby, newcomers, ofMember *allowance
}

func newPace(now func() time.Time, member func(netip.Addr) bool) *pace {
	return &pace{
		now: now, member: member,
		guesses: newAllowance(guesses), nearby: newAllowance(guesses), newcomers: newAllowance(newcomers), ofMember: newAllowance(fromMembers),
	}
}

// allow counts a call.
func (p *pace) allow(addr netip.Addr, token string) bool {
	now, isMember := p.now(), p.member(addr)
	sum := sha256.Sum256([]byte(token))
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.newcomers
	switch known := subtle.ConstantTimeCompare(sum[:], p.token[:]) == 1; {
	case known && isMember:
		of = p.ofMember
	case isMember: // pods call from there too, and trustd may have heard no right token yet
		of = p.nearby
	case !known:
		of = p.guesses
	}
	return of.take(addr, now)
}

// right says that machined accepted a token. It is not kept, only its hash.
func (p *pace) right(token string) {
	sum := sha256.Sum256([]byte(token))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = sum
}

// slots is how many hosts, or networks, are told apart.
const slots = 1024

// allowance is what is left to one kind of callers. Hosts and networks have
// slots by a secret hash: that takes the same memory for any number of them, and
// nobody gets his allowance back by making others be forgotten. Two that share a
// slot share what it allows; a refused call costs nothing, so that what all
// together may is not enough to empty many.
type allowance struct {
	rates
	seed        maphash.Seed
	whole       bucket
	hosts, nets [slots]bucket
}

func newAllowance(r rates) *allowance { return &allowance{rates: r, seed: maphash.MakeSeed()} }

func (a *allowance) slot(p netip.Prefix) uint64 { return maphash.Comparable(a.seed, p) % slots }

func (a *allowance) take(addr netip.Addr, now time.Time) bool {
	host, net := &a.hosts[a.slot(door.Host(addr))], &a.nets[a.slot(door.Network(addr))]
	if !host.fits(a.host, now) || !net.fits(a.net, now) || !a.whole.fits(a.all, now) {
		return false
	}
	host.take(a.host, now)
	net.take(a.net, now)
	a.whole.take(a.all, now)
	return true
}

// bucket is when what was taken of it will be back: always full at first.
type bucket struct{ full time.Time }

// fits says whether one more may be taken.
func (b *bucket) fits(p pacing, now time.Time) bool {
	return b.full.Sub(now) <= time.Duration(p.burst-1)*p.every
}

func (b *bucket) take(p pacing, now time.Time) {
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(p.every)
}
