package dhcp

import (
	"context"
	"log/slog"
	"net"
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
}

func (s *server) answer(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
	if s.silent.Load() {
		return
	}
	kind := dhcpv4.MessageTypeOffer
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
		if m.ServerIdentifier() == nil {
			s.confirms.Add(1)
			if s.refuse.Load() {
				kind = dhcpv4.MessageTypeNak
			}
		}
	} else {
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

	results := make(chan *Held, 16)
	run := func(known *Held) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		c := &Client{Link: "eth0", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Known: known, Report: func(h *Held) { results <- h }}
		go func() {
			defer close(done)
			c.Run(ctx)
		}()
		return func() {
			cancel()
			<-done
		}
	}
	next := func(what string, limit time.Duration, lease bool) *Held {
		t.Helper()
		select {
		case h := <-results:
			if (h != nil) != lease {
				t.Fatalf("%s: got lease %v, want %v", what, h != nil, lease)
			}
			return h
		case <-time.After(limit):
			t.Fatalf("%s: nothing within %v", what, limit)
		}
		return nil
	}

	stop := run(nil)
	first := next("granted", 3*time.Second, true)
	if first.Address.String() != "10.98.0.5/24" || first.Expire != 6*time.Second {
		t.Errorf("lease = %+v", first)
	}
	second := next("renewed", 5*time.Second, true)
	if waited := second.Granted - first.Granted; waited < 2*time.Second || s.confirms.Load() != 1 {
		t.Errorf("renewed after %v with %d requests, want after 3s with 1", waited, s.confirms.Load())
	}
	s.silent.Store(true)
	next("lost", 20*time.Second, false)
	if late := SinceBoot() - second.Granted; late < 6*time.Second {
		t.Errorf("lost after %v, want not before 6s", late)
	}
	s.silent.Store(false)
	next("granted again", 10*time.Second, true)
	s.refuse.Store(true)
	next("refused", 5*time.Second, false)
	s.refuse.Store(false)
	held := next("granted after the refusal", 5*time.Second, true)
	stop()

	discovers := s.discovers.Load()
	stop = run(held.Resume().Held())
	taken := next("taken over", 2*time.Second, true)
	stop()
	if taken.Address != held.Address || s.discovers.Load() != discovers {
		t.Errorf("a later run got %v with %d discovers, want %v with none", taken.Address, s.discovers.Load()-discovers, held.Address)
	}
}
