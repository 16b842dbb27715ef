// Package pki makes and checks certificates: authorities, what they issue,
// what they sign for others, and whether a certificate still serves.
//
// It is pure: PEM in, PEM out, the time is handed in, and nothing is read but
// randomness. It knows no resource, no file and no role. All of it is safe for
// concurrent use.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Lifetimes, the same everywhere.
const (
	CALifetime     = 10 * 365 * 24 * time.Hour
	YearLifetime   = 365 * 24 * time.Hour
	DaemonLifetime = 24 * time.Hour
)

// Skew is how far clocks of machines may be apart: a certificate is valid from
// that long before it was made.
const Skew = 5 * time.Minute

// Algorithm is what a key is made for.
type Algorithm int

// The algorithms that keys are made with. Read are also RSA keys of 2048 bits
// and more, and the other NIST curves.
const (
	Ed25519 Algorithm = iota
	ECDSAP256
)

// Pair is a certificate with its private key, both PEM.
type Pair struct {
	Crt, Key []byte
}

// Subject names an authority.
type Subject struct {
	CommonName   string
	Organization []string
}

// CA is an authority whose key is at hand.
type CA struct {
	Certificate *x509.Certificate
	CrtPEM      []byte
	key         crypto.Signer
}

// Template is what a certificate is to say. At least one of Client and Server
// must be set; a server has at least one name or address.
type Template struct {
	CommonName   string
	Organization []string
	IPs          []netip.Addr
	DNSNames     []string
	Client       bool
	Server       bool
	Lifetime     time.Duration // cut to the authority's own
}

// NewKey makes a private key, PEM.
func NewKey(alg Algorithm) ([]byte, error) {
	key, err := generate(alg)
	if err != nil {
		return nil, err
	}
	return MarshalKey(key)
}

// NewCA makes a self-signed authority that lives CALifetime from now on.
func NewCA(alg Algorithm, subject Subject, now time.Time) (Pair, error) {
	key, err := generate(alg)
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: subject.CommonName, Organization: subject.Organization},
		NotBefore:             now.Add(-Skew).UTC(),
		NotAfter:              now.Add(CALifetime).UTC(),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign own certificate: %w", err)
	}
	keyPEM, err := MarshalKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Crt: certificatePEM(der), Key: keyPEM}, nil
}

// ParseCA reads an authority's certificate and key, which must belong together.
func ParseCA(crt, key []byte) (*CA, error) {
	c, err := ParseCertificate(crt)
	if err != nil {
		return nil, err
	}
	if !c.IsCA || !c.BasicConstraintsValid {
		return nil, errors.New("certificate is not an authority's")
	}
	k, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	if !samePublic(c.PublicKey, k.Public()) {
		return nil, errors.New("certificate and key do not belong together")
	}
	return &CA{Certificate: c, CrtPEM: slices.Clone(crt), key: k}, nil
}

// Issue makes a key of the authority's kind and a certificate for it. An RSA
// authority issues for ECDSA keys.
func (ca *CA) Issue(t Template, now time.Time) (Pair, error) {
	alg := ECDSAP256
	if _, ok := ca.key.(ed25519.PrivateKey); ok {
		alg = Ed25519
	}
	key, err := generate(alg)
	if err != nil {
		return Pair{}, err
	}
	crt, err := ca.Sign(key.Public(), t, now)
	if err != nil {
		return Pair{}, err
	}
	keyPEM, err := MarshalKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Crt: crt, Key: keyPEM}, nil
}

// Sign makes a certificate for a public key, PEM.
func (ca *CA) Sign(public crypto.PublicKey, t Template, now time.Time) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	if now.After(ca.Certificate.NotAfter) {
		return nil, fmt.Errorf("authority %q expired on %s", ca.Certificate.Subject, ca.Certificate.NotAfter.Format(time.RFC3339))
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: t.CommonName, Organization: t.Organization},
		NotBefore:             later(now.Add(-Skew), ca.Certificate.NotBefore).UTC(),
		NotAfter:              earlier(now.Add(t.Lifetime), ca.Certificate.NotAfter).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           t.usages(),
		BasicConstraintsValid: true,
		DNSNames:              t.DNSNames,
		IPAddresses:           stdIPs(t.IPs),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %q: %w", t.CommonName, err)
	}
	return certificatePEM(der), nil
}

func (t Template) check() error {
	switch {
	case !t.Client && !t.Server:
		return errors.New("certificate is for neither client nor server")
	case t.Server && len(t.IPs)+len(t.DNSNames) == 0:
		return fmt.Errorf("server certificate %q has no name and no address", t.CommonName)
	case t.Lifetime <= 0:
		return fmt.Errorf("certificate %q has no lifetime", t.CommonName)
	}
	return nil
}

func (t Template) usages() []x509.ExtKeyUsage {
	var u []x509.ExtKeyUsage
	if t.Server {
		u = append(u, x509.ExtKeyUsageServerAuth)
	}
	if t.Client {
		u = append(u, x509.ExtKeyUsageClientAuth)
	}
	return u
}

func generate(alg Algorithm) (crypto.Signer, error) {
	switch alg {
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return nil, fmt.Errorf("no algorithm %d", alg)
	}
}

func samePublic(a, b crypto.PublicKey) bool {
	eq, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && eq.Equal(b)
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func stdIPs(addrs []netip.Addr) []net.IP {
	var out []net.IP
	for _, a := range addrs {
		out = append(out, net.IP(a.Unmap().AsSlice()))
	}
	return out
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// minRSA is the shortest RSA key that is accepted, in bits.
const minRSA = 2048

func acceptable(key crypto.Signer) error {
	if k, ok := key.(*rsa.PrivateKey); ok && k.N.BitLen() < minRSA {
		return fmt.Errorf("RSA key has %d bits, want %d or more", k.N.BitLen(), minRSA)
	}
	return nil
}
