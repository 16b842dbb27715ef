package hostdns

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// question makes a query as a resolver does: id 0x1234, EDNS with a size.
func question(name string, kind uint16, size int) []byte {
	b := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	b = append(b, 0, byte(kind>>8), byte(kind), 0, classIN)
	if size > 0 {
		b[11] = 1
		b = append(b, 0, 0, typeOPT, byte(size>>8), byte(size), 0, 0, 0x80, 0, 0, 0)
	}
	return b
}

var taken atomic.Int32 // by free

// free is an address that nobody has, on a loopback address of this process
// alone: on 127.0.0.1 others take ports all the time.
func free(t *testing.T) netip.AddrPort {
	t.Helper()
	own := netip.AddrFrom4([4]byte{127, 128 | byte(os.Getpid()>>8), byte(os.Getpid()), byte(taken.Add(1))})
	l, err := net.Listen("tcp", netip.AddrPortFrom(own, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// serve runs a server and returns a resolver that asks it alone.
func serve(t *testing.T, upstreams ...netip.AddrPort) (*Server, *net.Resolver, netip.AddrPort) {
	t.Helper()
	s, addr := New(slog.New(slog.DiscardHandler)), free(t)
	s.SetUpstreams(upstreams)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, []netip.AddrPort{addr}) }()
	select {
	case <-s.Changed():
		if got := s.Running(); !slices.Equal(got, []netip.AddrPort{addr}) {
			t.Errorf("Running = %v, want %v", got, addr)
		}
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run = %v, want that it was cancelled", err)
		}
		if got := s.Running(); len(got) > 0 {
			t.Errorf("Running = %v after the end", got)
		}
	})
	return s, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr.String())
	}}, addr
}

// upstream answers every question by fn, and counts them but for those by which
// we find out whether it answers again.
func upstream(t *testing.T, fn func(query) []byte) (netip.AddrPort, *atomic.Int32) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	asked := new(atomic.Int32)
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			q, err := parseQuery(slices.Clone(buf[:n]))
			if err != nil || q.name != "" {
				asked.Add(1)
			}
			if err == nil {
				if answer := fn(q); answer != nil {
					conn.WriteTo(answer, from)
				}
			}
		}
	}()
	return netip.MustParseAddrPort(conn.LocalAddr().String()), asked
}

var one = []netip.Addr{netip.MustParseAddr("192.0.2.1")}

func known(q query) []byte { return q.addresses(one, time.Minute) }

// dnsmasq is a name server as people run them.
func dnsmasq(t *testing.T, args ...string) netip.AddrPort {
	t.Helper()
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		t.Skip("needs dnsmasq")
	}
	addr := free(t)
	cmd := exec.Command(path, append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--bind-interfaces",
		"--user=", "--pid-file=", "--listen-address=" + addr.Addr().String(), fmt.Sprintf("--port=%d", addr.Port())}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) // killed is how it ends
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial("tcp", addr.String())
		if err == nil {
			conn.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("dnsmasq does not listen: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestRealServer asks dnsmasq through us with Go's own resolver: small and
// large answers, over UDP and TCP, and what does not exist.
func TestRealServer(t *testing.T) {
	args := []string{"--host-record=small.example,192.0.2.1,2001:db8::1", "--local=/example/", "--local-ttl=300"}
	var want []string
	for i := range 200 { // about 3,200 bytes: more than 1,232, which Go's resolver takes over UDP
		want = append(want, fmt.Sprintf("198.51.100.%d", i))
		args = append(args, "--host-record=large.example,"+want[i])
	}
	_, r, _ := serve(t, dnsmasq(t, args...))
	for range 2 { // the second time from the cache
		got, err := r.LookupNetIP(t.Context(), "ip", "small.example")
		if err != nil || len(got) != 2 {
			t.Errorf("small.example = %v, %v; want two addresses", got, err)
		}
		large, err := r.LookupHost(t.Context(), "large.example")
		slices.Sort(large)
		slices.Sort(want)
		if diff := cmp.Diff(want, large); diff != "" || err != nil {
			t.Errorf("large.example: %v (-want +got):\n%s", err, diff)
		}
		_, err = r.LookupHost(t.Context(), "none.example")
		if dnsErr, ok := err.(*net.DNSError); !ok || !dnsErr.IsNotFound {
			t.Errorf("none.example = %v, want that it is not found", err)
		}
	}
}

func TestFailover(t *testing.T) {
	silent, asked := upstream(t, func(query) []byte { return nil })
	good, _ := upstream(t, known)
	s, r, _ := serve(t, silent, good)
	for i := range 2 {
		before := asked.Load()
		got, err := r.LookupHost(t.Context(), fmt.Sprintf("a%d.example", i))
		if err != nil || !slices.Equal(got, []string{"192.0.2.1"}) {
			t.Errorf("lookup %d = %v, %v", i, got, err)
		}
		if n := asked.Load() - before; i > 0 && n > 0 { // once bitten
			t.Errorf("lookup %d waited for the silent server %d times", i, n)
		}
	}
	if n := asked.Load(); n == 0 || n > 2 {
		t.Errorf("the silent server was asked %d times, want once for A and AAAA each", n)
	}
	want := []Upstream{{silent, false}, {good, true}}
	if diff := cmp.Diff(want, s.Upstreams(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("upstreams (-want +got):\n%s", diff)
	}
	select {
	case <-s.Changed():
	default:
		t.Error("nobody was told")
	}
}

// TestRefusalGoesOn: a server that can't answer does not end the search, and
// what the last one said is what the client gets.
func TestRefusalGoesOn(t *testing.T) {
	failing, _ := upstream(t, func(q query) []byte { return q.reply(rcodeServFail) })
	good, _ := upstream(t, known)
	_, r, _ := serve(t, failing, good)
	if got, err := r.LookupHost(t.Context(), "a.example"); err != nil || len(got) != 1 {
		t.Errorf("lookup = %v, %v", got, err)
	}
	refusing, asked := upstream(t, func(q query) []byte { return q.reply(rcodeRefused) })
	s := New(slog.New(slog.DiscardHandler))
	s.SetUpstreams([]netip.AddrPort{refusing})
	for range 2 {
		if got := s.answer(t.Context(), "udp", question("a.example", typeA, 0)); got[3]&rcodeBits != rcodeRefused {
			t.Errorf("answer has code %d, want refused", got[3]&rcodeBits)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want 2: a failure is not kept", n)
	}
}

func TestNoUpstream(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	began := time.Now()
	got := s.answer(t.Context(), "udp", question("a.example", typeA, 0))
	if got[3]&rcodeBits != rcodeServFail || time.Since(began) > 10*time.Second {
		t.Errorf("answer = % x after %v, want SERVFAIL at once", got, time.Since(began))
	}
}

func TestMembers(t *testing.T) {
	addr, asked := upstream(t, func(q query) []byte { return q.reply(rcodeNoName) })
	s, r, _ := serve(t, addr)
	s.SetMembers(map[string][]netip.Addr{"Node-1.": {netip.MustParseAddr("10.5.0.2"), netip.MustParseAddr("fd00::2")}})
	got, err := r.LookupNetIP(t.Context(), "ip", "NODE-1.")
	if err != nil || len(got) != 2 {
		t.Errorf("member = %v, %v", got, err)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("upstream was asked %d times for a member", n)
	}
	s.SetMembers(nil)
	if got, err := r.LookupHost(t.Context(), "node-1."); err == nil {
		t.Errorf("former member = %v, want an error", got)
	}
}

// TestCache counts what reaches the upstream.
func TestCache(t *testing.T) {
	addr, asked := upstream(t, known)
	now := time.Unix(1000, 0)
	s := New(slog.New(slog.DiscardHandler))
	s.now = func() time.Time { return now }
	s.SetUpstreams([]netip.AddrPort{addr})
	ask := func(raw []byte) []byte { return s.answer(t.Context(), "udp", raw) }
	ttl := func(msg []byte) uint32 {
		var out uint32
		if err := eachRecord(msg, len(question("a.example", typeA, 0)), func(r record) { out = binary.BigEndian.Uint32(msg[r.at+4:]) }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct {
		what  string
		raw   []byte
		after time.Duration
		asked int32
		ttl   uint32
	}{
		{"first", question("a.example", typeA, 0), 0, 1, 60},
		{"again", question("a.example", typeA, 0), 0, 1, 60},
		{"older", question("a.example", typeA, 0), 20 * time.Second, 1, 40},
		{"another type", question("a.example", typeAAAA, 0), 0, 2, 0},
		{"with EDNS", question("a.example", typeA, 1232), 0, 3, 60},
		{"over", question("a.example", typeA, 0), 41 * time.Second, 4, 60},
	} {
		now = now.Add(c.after)
		got := ask(c.raw)
		if n := asked.Load(); n != c.asked {
			t.Errorf("%s: upstream asked %d times, want %d", c.what, n, c.asked)
		}
		if got[0] != 0x12 || got[1] != 0x34 || ttl(got) != c.ttl {
			t.Errorf("%s: id % x, TTL %d; want 12 34 and %d", c.what, got[:2], ttl(got), c.ttl)
		}
	}
	s.SetUpstreams([]netip.AddrPort{addr, netip.MustParseAddrPort("127.0.0.1:9")})
	ask(question("a.example", typeA, 0))
	if n := asked.Load(); n != 5 {
		t.Errorf("asked %d times, want 5: other upstreams may answer otherwise", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c cache
	now, answer := time.Unix(0, 0), make([]byte, 1000)
	for i := range 3 * maxEntries {
		c.put(fmt.Sprint(i), answer, headerLen, now, time.Minute)
	}
	if len(c.entries) > maxEntries || c.bytes > maxBytes || c.used.Len() != len(c.entries) || len(c.entries) < 400 {
		t.Errorf("%d entries, %d bytes, %d in the list", len(c.entries), c.bytes, c.used.Len())
	}
	if c.get("0", now) != nil || c.get(fmt.Sprint(3*maxEntries-1), now) == nil {
		t.Error("the oldest is there, or the latest is not")
	}
}

func TestLifetime(t *testing.T) {
	raw := question("a.example", typeA, 0)
	q, err := parseQuery(raw)
	if err != nil {
		t.Fatal(err)
	}
	soa := func(rcode byte, ttl, minimum uint32) []byte {
		msg := q.reply(rcode)
		msg[9] = 1 // one record of authority
		msg = append(msg, 0xc0, headerLen, 0, typeSOA, 0, classIN)
		msg = binary.BigEndian.AppendUint32(msg, ttl)
		msg = append(msg, 0, 22, 0, 0)
		msg = append(msg, make([]byte, 16)...)
		return binary.BigEndian.AppendUint32(msg, minimum)
	}
	truncated := q.addresses(one, time.Minute)
	truncated[2] |= flagTruncated
	broken := q.addresses(one, time.Minute)
	for _, c := range []struct {
		what string
		msg  []byte
		want time.Duration
	}{
		{"answer", q.addresses(one, 7*time.Second), 7 * time.Second},
		{"a day", q.addresses(one, 24*time.Hour), longest},
		{"truncated", truncated, 0},
		{"cut off", broken[:len(broken)-1], 0},
		{"no such name", soa(rcodeNoName, 30, 10), 10 * time.Second},
		{"no such type", soa(rcodeOK, 20, 900), 20 * time.Second},
		{"no such name for a day", soa(rcodeNoName, 86400, 86400), longestNo},
		{"nothing said", q.reply(rcodeNoName), 0},
		{"failure", q.reply(rcodeServFail), 0},
	} {
		if got := lifetime(c.msg, q); got != c.want {
			t.Errorf("%s: lifetime = %v, want %v", c.what, got, c.want)
		}
	}
}

// TestForged: an answer counts only under the id and with the question of the query.
func TestForged(t *testing.T) {
	q, _ := parseQuery(question("a.example", typeA, 0))
	good := q.addresses(one, time.Minute)
	other, _ := parseQuery(question("b.example", typeA, 0))
	for what, c := range map[string]struct {
		msg  []byte
		id   uint16
		want bool
	}{
		"good": {good, 0x1234, true}, "other id": {good, 0x1235, false}, "other name": {other.addresses(one, time.Minute), 0x1234, false},
		"a question": {q.raw, 0x1234, false}, "short": {good[:15], 0x1234, false},
	} {
		if got := q.answers(c.msg, c.id); got != c.want {
			t.Errorf("%s: answers = %v", what, got)
		}
	}
}

// TestEDNS: the upstream gets the client's EDNS; a size beyond ours is cut.
func TestEDNS(t *testing.T) {
	seen := make(chan []byte, 1)
	addr, _ := upstream(t, func(q query) []byte { seen <- q.raw; return known(q) })
	s := New(slog.New(slog.DiscardHandler))
	s.SetUpstreams([]netip.AddrPort{addr})
	s.answer(t.Context(), "udp", question("a.example", typeA, 65000))
	if got, want := <-seen, question("a.example", typeA, maxUDP); !bytes.Equal(got[2:], want[2:]) {
		t.Errorf("upstream got % x, want % x", got, want)
	}
}

// TestNotAnswered: what is no question gets no answer, so that two servers
// never talk to each other without end; what is not understood is refused.
func TestNotAnswered(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	reply := question("a.example", typeA, 0)
	reply[2] |= flagAnswer
	update := question("a.example", typeA, 0)
	update[2] |= 5 << 3
	cut := question("a.example", typeA, 0)
	for what, raw := range map[string][]byte{"nothing": nil, "short": cut[:11], "a reply": reply, "cut off": cut[:14]} {
		if got := s.answer(t.Context(), "udp", raw); got != nil {
			t.Errorf("%s: answer = % x, want none", what, got)
		}
	}
	if got := s.answer(t.Context(), "udp", update); len(got) != headerLen || got[3]&rcodeBits != rcodeRefused {
		t.Errorf("update: answer = % x, want a refusal", got)
	}
}

// FuzzAnswer gives the server hostile questions and hostile upstreams.
func FuzzAnswer(f *testing.F) {
	f.Add(question("a.example", typeA, 1232), question("a.example", typeA, 0))
	q, _ := parseQuery(question("node", typeANY, 4096))
	f.Add(question("node", typeANY, 0), q.addresses(one, time.Hour))
	f.Fuzz(func(t *testing.T, raw, msg []byte) {
		s := New(slog.New(slog.DiscardHandler))
		s.SetMembers(map[string][]netip.Addr{"node": one})
		if out := s.answer(t.Context(), "udp", slices.Clone(raw)); out != nil {
			if len(out) < headerLen || out[2]&flagAnswer == 0 || !bytes.Equal(out[:2], raw[:2]) {
				t.Errorf("answer = % x to % x", out, raw)
			}
		}
		q, err := parseQuery(raw)
		if err != nil || q.ends == 0 {
			return
		}
		q.forUpstream(7)
		if len(msg) < q.ends || !q.answers(msg, binary.BigEndian.Uint16(msg)) {
			return
		}
		if life := lifetime(msg, q); life > 0 {
			s.cache.put("key", msg, q.ends, time.Unix(0, 0), life)
			msg = s.cache.get("key", time.Unix(0, 0))
		}
		if out := q.fit(msg, true); len(out) > q.size && len(out) > q.ends {
			t.Errorf("%d bytes for a client that takes %d", len(out), q.size)
		}
	})
}

// A dot within a label is no dot between labels: what is said of the one name
// must not be kept for the other.
func TestDotInALabel(t *testing.T) {
	odd := append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11}, "www.example\x03com\x00\x00\x01\x00\x01"...)
	a, err := parseQuery(odd)
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseQuery(question("www.example.com", typeA, 0))
	if err != nil {
		t.Fatal(err)
	}
	if a.name == b.name || a.key == b.key {
		t.Errorf("names %q and %q, keys %q and %q: want others", a.name, b.name, a.key, b.key)
	}
	c, err := parseQuery(question(`www\.example.com`, typeA, 0)) // a label that ends with a backslash
	if err != nil {
		t.Fatal(err)
	}
	if a.key == c.key {
		t.Errorf("key %q of two names", a.key)
	}
}

// Whoever holds all connections to one address takes none from another.
func TestAddressesDoNotShareConnections(t *testing.T) {
	s, addresses := New(slog.New(slog.DiscardHandler)), []netip.AddrPort{free(t), free(t)}
	s.SetMembers(map[string][]netip.Addr{"node": {netip.MustParseAddr("10.0.0.1")}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, addresses) }()
	defer func() { cancel(); <-done }()
	<-s.Changed()
	for range maxConns {
		conn, err := net.Dial("tcp", addresses[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := writeFrame(conn, question("node", typeA, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := readFrame(conn); err != nil { // it is served, and stays
			t.Fatal(err)
		}
	}
	conn, err := net.Dial("tcp", addresses[1].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := writeFrame(conn, question("node", typeA, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := readFrame(conn); err != nil {
		t.Errorf("the other address: %v", err)
	}
}
