package dhcp

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"

	"talos/internal/linux/netns"
)

// server is a DHCP server whose answers a test bends.
type server struct {
	silent, refuse      atomic.Bool
	discovers, confirms atomic.Int32

	mu   sync.Mutex // guards last
	last dhcpv4.TransactionID
}

// again says whether a message is one that was sent before: a client whose
// answer takes long repeats itself.
func (s *server) again(m *dhcpv4.DHCPv4) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := s.last == m.TransactionID
	s.last = m.TransactionID
	return same
}

func (s *server) answer(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
	if s.silent.Load() {
		return
	}
	kind, again := dhcpv4.MessageTypeOffer, s.again(m)
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
		if m.ServerIdentifier() == nil {
			if !again {
				s.confirms.Add(1)
			}
			if s.refuse.Load() {
				kind = dhcpv4.MessageTypeNak
			}
		}
	} else if !again {
		s.discovers.Add(1)
	}
	reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 98, 0, 5)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 98, 0, 1))), dhcpv4.WithLeaseTime(6))
	if err != nil {
		return
	}
	conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
}

// TestClient follows leases of 6 s: granted, renewed, lost in silence, granted
// again, refused, taken over by a later run.
func TestClient(t *testing.T) {
	if !netns.Enter(t) {
		return
	}
	netns.Need(t, "ip")
	for _, line := range []string{
		"ip link set lo up", "ip link add eth0 type veth peer name lan0", "ip link set eth0 up", "ip link set lan0 up", "ip addr add 10.98.0.1/24 dev lan0",
	} {
		netns.Run(t, line)
	}
	s := &server{}
	srv, err := server4.NewServer("lan0", &net.UDPAddr{IP: net.IPv4zero, Port: 67}, s.answer)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	go srv.Serve()

	type result struct {
		held *Held
		at   time.Duration // since boot
	}
	results := make(chan result, 16)
	run := func(known *Held) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		c := &Client{Link: "eth0", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Known: known, Report: func(h *Held) { results <- result{h, SinceBoot()} }}
		go func() {
			defer close(done)
			c.Run(ctx)
		}()
		return func() {
			cancel()
			<-done
		}
	}
	next := func(what string) result {
		t.Helper()
		select {
		case r := <-results:
			return r
		case <-time.After(time.Minute):
			t.Fatalf("%s: nothing within a minute", what)
		}
		return result{}
	}
	granted := func(what string) *Held {
		t.Helper()
		r := next(what)
		if r.held == nil {
			t.Fatalf("%s: the lease is lost", what)
		}
		return r.held
	}
	// lost waits for the loss of a lease, which may have been renewed before the
	// server changed its mind, and returns how old it was then.
	lost := func(what string, held *Held) time.Duration {
		t.Helper()
		for range 5 {
			r := next(what)
			if r.held == nil {
				return r.at - held.Granted
			}
			held = r.held
		}
		t.Fatalf("%s: the lease is renewed again and again", what)
		return 0
	}

	stop := run(nil)
	first := granted("granted")
	if first.Address.String() != "10.98.0.5/24" || first.Expire != 6*time.Second {
		t.Errorf("lease = %+v", first)
	}
	second := granted("renewed")
	if waited := second.Granted - first.Granted; waited < 2*time.Second || s.confirms.Load() != 1 {
		t.Errorf("renewed after %v with %d requests, want after 3s with 1", waited, s.confirms.Load())
	}
	s.silent.Store(true)
	if age := lost("lost", second); age < 6*time.Second {
		t.Errorf("lost after %v, want not before 6s", age)
	}
	s.silent.Store(false)
	again := granted("granted again")
	s.refuse.Store(true)
	if age := lost("refused", again); age >= 6*time.Second {
		t.Errorf("a lease that is refused is lost after %v, want before it ends", age)
	}
	s.refuse.Store(false)
	held := granted("granted after the refusal")
	stop()

	discovers := s.discovers.Load()
	stop = run(held.Resume().Held())
	taken := granted("taken over")
	stop()
	if taken.Address != held.Address || s.discovers.Load() != discovers {
		t.Errorf("a later run got %v with %d discovers, want %v with none", taken.Address, s.discovers.Load()-discovers, held.Address)
	}
}
