package trustd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/api/security"
	signerapi "talos/api/signer"
	"talos/internal/identity"
	"talos/internal/members"
	"talos/internal/resources/cluster"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
	"talos/internal/store"
	"talos/internal/trustd/signer"
)

const token = "abcdef.0123456789abcdef"

type log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// anybody admits everybody: that names are others' is shown with a real etcd
// (internal/members).
type anybody struct{}

func (anybody) Admit(context.Context, members.Claim) error { return nil }
func (anybody) Holds(context.Context, identity.ID) ([]netip.Addr, bool, error) {
	return nil, false, nil
}
func (anybody) Remove(context.Context, string) ([]string, error) { return nil, nil }

// elsewhere makes connections come from another machine's address.
type elsewhere struct{ net.Listener }

func (l elsewhere) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return from{conn}, err
}

type from struct{ net.Conn }

func (from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 5, 0, 7), Port: 7} }

// serve starts trustd with a real signer behind it, and returns a client and
// the CA's pool.
func serve(t *testing.T, out *log) (security.SecurityServiceClient, *x509.CertPool) {
	t.Helper()
	s := start(t, out, func(l net.Listener) net.Listener { return elsewhere{l} })
	return security.NewSecurityServiceClient(s.dial(t, "127.0.0.1")), s.pool
}

// server is a trustd that runs, on a cluster whose members are told.
type server struct {
	address string
	pool    *x509.CertPool
}

// dial makes a client that calls from an address.
func (s *server) dial(t *testing.T, from string) *grpc.ClientConn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := grpc.NewClient("passthrough:///"+s.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: s.pool, ServerName: "127.0.0.1"})),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// start runs trustd behind a listener that wrap changes.
func start(t *testing.T, out *log, wrap func(net.Listener) net.Listener, present ...string) *server {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "os"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := &respem.CertificateAndKey{
		Crt: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root, own := secrets.NewOSRootSecrets("os"), secrets.NewTrustdCertificate("trustd")
	root.TypedSpec().IssuingCA, root.TypedSpec().Token = pair, token
	own.TypedSpec().Server = pair
	all := []resource.Resource{root, own}
	for _, address := range present {
		member := cluster.NewMember(address)
		member.TypedSpec().Addresses = []netip.Addr{netip.MustParseAddr(address)}
		all = append(all, member)
	}
	for _, r := range all {
		if err := st.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}

	quiet := slog.New(slog.DiscardHandler)
	live := members.NewList(filepath.Join(t.TempDir(), "members.json"), quiet)
	live.Set([]members.Record{{
		NodeID: identity.Of([]byte("cp")), Hostname: "cp-1", Addresses: []netip.Addr{netip.MustParseAddr("10.5.0.2")}, MachineType: "controlplane",
	}}, true)
	socket := filepath.Join(t.TempDir(), "s.sock")
	unix, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	signing := grpc.NewServer()
	signerapi.RegisterSignerServer(signing, signer.New(signer.Options{State: st, Registry: anybody{}, List: live, Log: quiet}))
	go signing.Serve(unix)
	t.Cleanup(signing.Stop)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, slog.New(slog.NewTextHandler(out, nil)), Config{Listener: wrap(listener), Store: st, Signer: socket})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pair.Crt)
	return &server{address: listener.Addr().String(), pool: pool}
}

func csr(t *testing.T, ip string) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{IPAddresses: []net.IP{net.ParseIP(ip)}, DNSNames: []string{"worker-1"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestCertificate(t *testing.T) {
	out := &log{}
	client, pool := serve(t, out)
	with := func(values ...string) context.Context {
		ctx := t.Context()
		for _, v := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, "token", v)
		}
		return ctx
	}
	r, err := client.Certificate(with(token), &security.CertificateRequest{Csr: csr(t, "10.5.0.7")})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(r.GetCrt())
	crt, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := crt.Verify(x509.VerifyOptions{Roots: pool, DNSName: "10.5.0.7"}); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		name string
		ctx  context.Context
		ip   string
		want codes.Code
	}{
		{"no token", with(), "10.5.0.7", codes.Unauthenticated},
		{"two tokens", with(token, token), "10.5.0.7", codes.Unauthenticated},
		{"wrong token", with("nope"), "10.5.0.7", codes.PermissionDenied},
		{"another's address", with(token), "10.0.0.1", codes.PermissionDenied},
	} {
		if _, err := client.Certificate(c.ctx, &security.CertificateRequest{Csr: csr(t, c.ip)}); status.Code(err) != c.want {
			t.Errorf("%s: Certificate = %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := client.ReadFile(with(token), &security.ReadFileRequest{Path: "/etc/hosts"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("ReadFile = %v, want PermissionDenied", err)
	}
	if _, err := client.WriteFile(with(token), &security.WriteFileRequest{Path: "/etc/hosts"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("WriteFile = %v, want PermissionDenied", err)
	}
	for i := 0; i < 20*perHost.burst && status.Code(err) != codes.ResourceExhausted; i++ { // where a call takes long, some more are allowed meanwhile
		_, err = client.Certificate(with("guess"), &security.CertificateRequest{})
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("guessing on = %v, want ResourceExhausted", err)
	}
	if text := out.String(); !strings.Contains(text, "certificate issued") || !strings.Contains(text, "peer=10.5.0.7") || strings.Contains(text, token) {
		t.Errorf("log:\n%s", text)
	}
}

// clock paces by a time that the test sets; 10.0.0.9 is a member.
func clock() (*pace, *time.Time) {
	now := time.Unix(1e9, 0)
	return newPace(func() time.Time { return now }, func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.9") }), &now
}

func (p *pace) count(tries int, token string, addr func(i int) netip.Addr) (allowed int) {
	for i := range tries {
		if p.allow(addr(i), token) {
			allowed++
		}
	}
	return allowed
}

// anywhere is a different address, of another network, for each number.
func anywhere(i int) netip.Addr {
	i = i * 2654435761
	return netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
}

func at(text string) func(int) netip.Addr {
	return func(int) netip.Addr { return netip.MustParseAddr(text) }
}

func TestPace(t *testing.T) {
	p, now := clock()
	for _, c := range []struct {
		what string
		addr func(int) netip.Addr
		want int
	}{
		{"one address", at("10.1.0.1"), perHost.burst},
		{"the next one", at("10.1.0.2"), perHost.burst},
		{"its network", func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}) }, guesses.net.burst - 2*perHost.burst},
		{"all of a /64", func(i int) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i), 14: byte(i >> 8)})
		}, 0}, // all that all may is taken
	} {
		if got := p.count(1000, "guess", c.addr); got != c.want {
			t.Errorf("%s: %d calls at once, want %d", c.what, got, c.want)
		}
	}
	*now = now.Add(2 * perHost.every)
	if got := p.count(100, "guess", at("10.2.0.1")); got != 25 { // half a second of all
		t.Errorf("half a second later: %d calls, want 25", got)
	}
	*now = now.Add(time.Hour)
	v6 := func(net, host int) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 6: byte(net), 7: byte(net >> 8), 15: byte(host)})
	}
	if got := p.count(100, "guess", func(i int) netip.Addr { return v6(0, i) }); got != perHost.burst {
		t.Errorf("addresses of one /64: %d calls, want %d", got, perHost.burst)
	}
}

// TestPaceOfOthers: guesses from however many addresses leave to those who have
// the token what is theirs, and these to the members; and nobody gets his
// allowance back by calling from other addresses.
func TestPaceOfOthers(t *testing.T) {
	p, now := clock()
	p.right(token)
	exhausted := at("192.0.2.1")
	if got := p.count(1000, "guess", exhausted); got != perHost.burst {
		t.Fatalf("%d guesses at once, want %d", got, perHost.burst)
	}
	if got := p.count(100_000, "guess", anywhere); got > guesses.all.burst {
		t.Errorf("%d guesses at once from everywhere, want at most %d", got, guesses.all.burst)
	}
	if p.allow(exhausted(0), "guess") {
		t.Error("others' calls gave one his allowance back")
	}
	if !p.allow(netip.MustParseAddr("192.0.2.1"), token) || !p.allow(netip.MustParseAddr("203.0.113.5"), token) {
		t.Error("who has the token is refused for others' guesses")
	}
	if got := p.count(100_000, token, anywhere); got > newcomers.all.burst {
		t.Errorf("%d calls with the token from everywhere, want at most %d", got, newcomers.all.burst)
	}
	if !p.allow(netip.MustParseAddr("10.0.0.9"), token) {
		t.Error("a member is refused for others' calls")
	}
	if got := p.count(100, "guess", at("10.0.0.9")); got > perHost.burst || !p.allow(netip.MustParseAddr("10.0.0.9"), token) {
		t.Errorf("%d guesses from a member's address; or it is refused for its pods' guesses", got)
	}
	// What all together may is so little that few slots are empty at any time.
	var refused int
	for second := range 60 {
		*now = now.Add(time.Second)
		p.count(10_000, token, func(i int) netip.Addr { return anywhere(1e6 + second*10_000 + i) })
		*now = now.Add(20 * time.Millisecond) // there is one for all
		if !p.allow(anywhere(-second-1), token) {
			refused++
		}
	}
	if refused > 3 {
		t.Errorf("%d of 60 newcomers share a slot with a flood", refused)
	}
}
