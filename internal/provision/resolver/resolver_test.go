package resolver

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// question is "example.org A?", id 0x1234.
var question = []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01")

func serve(t *testing.T, servers ...netip.AddrPort) (udp, tcp string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- New(slog.New(slog.DiscardHandler), func() []netip.AddrPort { return servers }).Serve(ctx, pc, l)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
	return pc.LocalAddr().String(), l.Addr().String()
}

func TestNoServersFailsAtOnce(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		quickest := time.Hour
		for range 3 { // a busy machine may be slow now and then
			udp, tcp := serve(t)
			address := map[string]string{"udp": udp, "tcp": tcp}[network]
			start := time.Now()
			got, err := exchange(t.Context(), network, netip.MustParseAddrPort(address), question, 30*time.Second)
			if err != nil {
				t.Fatalf("%s: %v", network, err)
			}
			if rcode := got[3] & 0xf; rcode != serverFailure || got[2]&0x80 == 0 {
				t.Errorf("%s: flags % x, want an answer with SERVFAIL", network, got[2:4])
			}
			quickest = min(quickest, time.Since(start))
		}
		if quickest > time.Second {
			t.Errorf("%s: answered after %v, want at once", network, quickest)
		}
	}
}

func TestForwards(t *testing.T) {
	up, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	go func() {
		buf := make([]byte, 512)
		n, from, err := up.ReadFrom(buf)
		if err != nil {
			return
		}
		buf[2] |= 0x80
		up.WriteTo(append(buf[:n], "answer"...), from)
	}()
	udp, _ := serve(t, netip.MustParseAddrPort(up.LocalAddr().String()))
	got, err := exchange(t.Context(), "udp", netip.MustParseAddrPort(udp), question, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(got), "answer") {
		t.Errorf("answer = %q, want the upstream's", got)
	}
}

func TestParse(t *testing.T) {
	got := parse(strings.NewReader("# x\nsearch a b\nnameserver 192.0.2.1\nnameserver\nnameserver nonsense\nnameserver fd00::1\n"))
	want := []string{"192.0.2.1:53", "[fd00::1]:53"}
	var have []string
	for _, a := range got {
		have = append(have, a.String())
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("parse (-want +got):\n%s", diff)
	}
}
