package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Pool is the set of the authorities in the given PEM bundles.
func Pool(bundles ...[]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, b := range bundles {
		all, err := ParseCertificates(b)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			pool.AddCert(c)
		}
	}
	return pool, nil
}

// TLS makes of a pair what crypto/tls serves or dials with.
func TLS(p Pair) (tls.Certificate, error) {
	crt, err := tls.X509KeyPair(p.Crt, p.Key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load certificate and key: %w", err)
	}
	return crt, nil
}

// Verify says whether one of the roots vouches for the certificate, for that use, at that time.
func Verify(crt []byte, roots *x509.CertPool, use x509.ExtKeyUsage, now time.Time) error {
	all, err := ParseCertificates(crt)
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, c := range all[1:] {
		between.AddCert(c)
	}
	_, err = all[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use},
	})
	return err
}

// Serves says whether a pair can be kept: made by ca, saying what t wants, and
// not past half of its life. Names and addresses count as sets. A pair that
// does not parse does not serve.
func (ca *CA) Serves(p Pair, t Template, now time.Time) bool {
	crt, err := ParseCertificate(p.Crt)
	if err != nil {
		return false
	}
	key, err := ParseKey(p.Key)
	if err != nil || !samePublic(crt.PublicKey, key.Public()) {
		return false
	}
	if crt.CheckSignatureFrom(ca.Certificate) != nil || !bytes.Equal(crt.RawIssuer, ca.Certificate.RawSubject) {
		return false
	}
	return says(crt, t) && lives(crt, ca.Certificate, t.Lifetime) && now.Before(RenewAt(crt)) && !now.Before(crt.NotBefore)
}

// RenewAt is the time at which half of a certificate's life is over.
func RenewAt(crt *x509.Certificate) time.Time {
	start := crt.NotBefore.Add(Skew)
	return start.Add(crt.NotAfter.Sub(start) / 2)
}

func says(crt *x509.Certificate, t Template) bool {
	return crt.Subject.CommonName == t.CommonName &&
		sameSet(crt.Subject.Organization, t.Organization) &&
		sameSet(crt.DNSNames, t.DNSNames) &&
		sameSet(addrs(crt), unmapped(t.IPs)) &&
		slices.Equal(crt.ExtKeyUsage, t.usages())
}

// lives says whether a certificate was made for the lifetime, unless its
// authority ends before.
func lives(crt, ca *x509.Certificate, lifetime time.Duration) bool {
	got := crt.NotAfter.Sub(crt.NotBefore.Add(Skew))
	return (got-lifetime).Abs() <= time.Minute || crt.NotAfter.Equal(ca.NotAfter)
}

func addrs(crt *x509.Certificate) []netip.Addr {
	var out []netip.Addr
	for _, ip := range crt.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func unmapped(in []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range in {
		out = append(out, a.Unmap())
	}
	return out
}

func sameSet[T comparable](a, b []T) bool {
	in := func(x []T) map[T]bool {
		m := map[T]bool{}
		for _, v := range x {
			m[v] = true
		}
		return m
	}
	x, y := in(a), in(b)
	if len(x) != len(y) {
		return false
	}
	for v := range x {
		if !y[v] {
			return false
		}
	}
	return true
}
