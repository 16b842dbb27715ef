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

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/api/security"
	signerapi "talos/api/signer"
	"talos/internal/identity"
	"talos/internal/members"
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

func (anybody) Admit(context.Context, members.Record, []string, bool) error { return nil }
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
	for _, err := range []error{st.Create(t.Context(), root), st.Create(t.Context(), own)} {
		if err != nil {
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
		done <- Serve(ctx, slog.New(slog.NewTextHandler(out, nil)), Config{Listener: elsewhere{listener}, Store: st, Signer: socket})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pair.Crt)
	conn, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return security.NewSecurityServiceClient(conn), pool
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
	for range perPeerBurst {
		_, err = client.Certificate(with("guess"), &security.CertificateRequest{})
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("guessing on = %v, want ResourceExhausted", err)
	}
	if text := out.String(); !strings.Contains(text, "certificate issued") || !strings.Contains(text, "peer=10.5.0.7") || strings.Contains(text, token) {
		t.Errorf("log:\n%s", text)
	}
}

func TestPace(t *testing.T) {
	now := time.Unix(0, 0)
	p := newPace(func() time.Time { return now })
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	count := func(addr netip.Addr, tries int) (allowed int) {
		for range tries {
			if p.allow(addr) {
				allowed++
			}
		}
		return allowed
	}
	if got := count(a, 100); got != perPeerBurst {
		t.Errorf("at once = %d, want %d", got, perPeerBurst)
	}
	if got := count(b, 1); got != 1 {
		t.Errorf("another peer = %d, want 1", got)
	}
	now = now.Add(2 * perPeerEvery)
	if got := count(a, 100); got != 2 {
		t.Errorf("later = %d, want 2", got)
	}
	// One who owns a whole network is still one.
	now = now.Add(time.Hour)
	prefix := netip.MustParsePrefix("2001:db8::/64")
	got := 0
	for addr, i := prefix.Addr(), 0; i < 100; addr, i = addr.Next(), i+1 {
		got += count(addr, 1)
	}
	if got != perPeerBurst {
		t.Errorf("addresses of one /64 = %d, want %d", got, perPeerBurst)
	}
	// Memory is bounded.
	for i := range 3 * maxPeers {
		p.allow(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}))
		now = now.Add(time.Second)
	}
	if len(p.peers) > maxPeers {
		t.Errorf("remembers %d peers, at most %d", len(p.peers), maxPeers)
	}
}
