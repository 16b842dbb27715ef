package signer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	signerapi "talos/api/signer"
	"talos/internal/identity"
	"talos/internal/members"
	"talos/internal/resources/network"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
	"talos/internal/store"
)

const token = "abcdef.0123456789abcdef"

func request(t testing.TB, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signedBy(t, key, change)
}

func signedBy(t testing.TB, key any, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	template := &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: "whatever", Organization: []string{"os:admin"}},
		IPAddresses: []net.IP{net.IPv4(10, 5, 0, 7)}, DNSNames: []string{"worker-1.example.org", "Worker-1"},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
}

func newServer(t testing.TB) (*Server, *x509.CertPool) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return serverOf(t, key)
}

// serverOf signs with an authority's key.
func serverOf(t testing.TB, key ed25519.PrivateKey) (*Server, *x509.CertPool) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "os"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root := secrets.NewOSRootSecrets("os")
	*root.TypedSpec() = secrets.OSRootSecretsSpec{
		Token: token, CertSANDNSNames: []string{"api.example.org"}, CertSANIPs: []netip.Addr{netip.MustParseAddr("10.5.0.100")},
		IssuingCA: &respem.CertificateAndKey{
			Crt: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			Key: pem.EncodeToMemory(&pem.Block{Type: "ED25519 PRIVATE KEY", Bytes: pkcs8}),
		},
	}
	host := network.NewHostnameStatus("hostname")
	host.TypedSpec().Hostname = "cp-1"
	for _, err := range []error{st.Create(t.Context(), root), st.Create(t.Context(), host)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(root.TypedSpec().IssuingCA.Crt)
	return New(Options{State: st, Registry: anybody{}, List: live(t), Log: slog.New(slog.DiscardHandler)}), pool
}

// live is a list as on a control plane node that has a part in etcd.
func live(t testing.TB) *members.List {
	l := members.NewList(filepath.Join(t.TempDir(), "members.json"), slog.New(slog.DiscardHandler))
	l.Set(nil, true)
	return l
}

// mustRoot is what the server's store holds of the authority.
func mustRoot(t testing.TB, s *Server) *secrets.OSRootSecretsSpec {
	t.Helper()
	root, err := safe.StateGetByID[*secrets.OSRootSecrets](t.Context(), s.State, rootID)
	if err != nil {
		t.Fatal(err)
	}
	return root.TypedSpec()
}

// anybody admits everybody: that names are others' is shown with a real etcd
// (internal/members).
type anybody struct{}

func (anybody) Admit(context.Context, members.Claim) error { return nil }
func (anybody) Holds(context.Context, identity.ID) ([]netip.Addr, bool, error) {
	return nil, false, nil
}
func (anybody) Remove(context.Context, string) ([]string, error) { return nil, nil }

func TestSign(t *testing.T) {
	s, pool := newServer(t)
	r, err := s.Sign(t.Context(), &signerapi.SignRequest{Csr: request(t, nil), Peer: "10.5.0.7", Usage: signerapi.Usage_USAGE_SERVER, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(r.GetCrt())
	crt, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"10.5.0.7", "worker-1", "worker-1.example.org"} {
		if _, err := crt.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Errorf("verify for %s: %v", name, err)
		}
	}
	if _, err := crt.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("the certificate works for a client")
	}
	if len(crt.Subject.Organization) > 0 || crt.IsCA || crt.Subject.CommonName != "worker-1" {
		t.Errorf("subject %v, CA %v", crt.Subject, crt.IsCA)
	}
	if left := time.Until(crt.NotAfter); left > lifetime || left < lifetime-time.Minute {
		t.Errorf("it lives %v", left)
	}
	if !bytes.Contains(r.GetCa(), []byte("BEGIN CERTIFICATE")) {
		t.Errorf("ca = %q", r.GetCa())
	}
}

func TestRefusals(t *testing.T) {
	s, _ := newServer(t)
	for _, c := range []struct {
		name   string
		token  string
		peer   string
		change func(*x509.CertificateRequest)
		want   codes.Code
		words  string
	}{
		{name: "no token", token: "", want: codes.PermissionDenied, words: "token"},
		{name: "wrong token", token: token[:len(token)-1] + "0", want: codes.PermissionDenied, words: "token"},
		{name: "prefix of the token", token: token[:8], want: codes.PermissionDenied, words: "token"},
		{name: "another address", token: token, peer: "10.5.0.8", want: codes.PermissionDenied, words: "names 10.5.0.7, but comes from 10.5.0.8"},
		{name: "control plane's address", token: token, peer: "10.5.0.100", change: func(r *x509.CertificateRequest) { r.IPAddresses = nil }, want: codes.PermissionDenied, words: "control plane"},
		{name: "no peer", token: token, peer: "unix", want: codes.InvalidArgument, words: "peer"},
		{name: "control plane's name", token: token, change: named("api.example.org"), want: codes.PermissionDenied, words: "control plane"},
		{name: "its short form", token: token, change: named("api"), want: codes.PermissionDenied, words: "control plane"},
		{name: "this node's name", token: token, change: named("CP-1"), want: codes.PermissionDenied, words: "control plane"},
		{name: "with a domain", token: token, change: named("cp-1.example.org"), want: codes.PermissionDenied, words: "control plane"},
		{name: "two hosts", token: token, change: named("worker-1", "worker-2"), want: codes.PermissionDenied, words: "several"},
		{name: "localhost", token: token, change: named("localhost"), want: codes.PermissionDenied, words: "not a node's"},
		{name: "somebody else's in the world", token: token, change: named("registry.example.com"), want: codes.PermissionDenied, words: "host name alone"},
		{name: "kubernetes", token: token, change: named("kubernetes.default"), want: codes.PermissionDenied, words: "not a node's"},
		{name: "wildcard", token: token, change: named("*.example.org"), want: codes.InvalidArgument, words: "no host name"},
		{name: "address as a name", token: token, change: named("10.5.0.100"), want: codes.InvalidArgument, words: "no host name"},
		{name: "URI", token: token, change: func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }, want: codes.InvalidArgument, words: "URIs"},
		{name: "CA", token: token, want: codes.InvalidArgument, words: "2.5.29.19", change: func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}}
		}},
	} {
		peer := c.peer
		if peer == "" {
			peer = "10.5.0.7"
		}
		_, err := s.Sign(t.Context(), &signerapi.SignRequest{Csr: request(t, c.change), Peer: peer, Usage: signerapi.Usage_USAGE_SERVER, Token: c.token})
		if status.Code(err) != c.want || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: Sign = %v, want %v with %q", c.name, err, c.want, c.words)
		}
	}
	_, err := s.Sign(t.Context(), &signerapi.SignRequest{Csr: request(t, nil), Peer: "10.5.0.7", Token: token})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("no usage: Sign = %v, want InvalidArgument", err)
	}
}

func named(names ...string) func(*x509.CertificateRequest) {
	return func(r *x509.CertificateRequest) { r.DNSNames = names }
}

func TestEmptyTokenMatchesNothing(t *testing.T) {
	if sameToken("", "") {
		t.Error("an empty token is admitted by a node that has none")
	}
}

func TestDecodeRequest(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("this Go makes no small RSA key: %v", err)
	}
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader) // cannot fail
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	good := request(t, nil)
	block, _ := pem.Decode(good)
	forged := slices.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	for _, c := range []struct {
		name  string
		data  []byte
		words string // empty: accepted
	}{
		{"ed25519", good, ""},
		{"p256", signedBy(t, p256, nil), ""},
		{"p224", signedBy(t, p224, nil), "P-224"},
		{"small rsa", signedBy(t, small, nil), "1024 bits"},
		{"empty", nil, "not PEM"},
		{"text", []byte("hello"), "not PEM"},
		{"text before", append([]byte("hello\n"), good...), "not PEM"},
		{"twice", append(slices.Clone(good), good...), "beside it"},
		{"another type", bytes.ReplaceAll(good, []byte("CERTIFICATE REQUEST"), []byte("CERTIFICATE")), "not of a"},
		{"forged", pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: forged}), "signature"},
		{"trailing", pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: append(slices.Clone(block.Bytes), 0)}), "trailing"},
		{"huge", make([]byte, maxRequest+1), "bytes"},
	} {
		r, err := DecodeRequest(c.data)
		switch {
		case c.words == "" && (err != nil || !slices.Equal(r.Names, []string{"worker-1", "worker-1.example.org"})):
			t.Errorf("%s: %+v, %v", c.name, r, err)
		case c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)):
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.words)
		}
	}
}
