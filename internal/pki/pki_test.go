package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func authority(t *testing.T, alg Algorithm, name string) *CA {
	t.Helper()
	pair, err := NewCA(alg, Subject{CommonName: name}, now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := ParseCA(pair.Crt, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func server() Template {
	return Template{
		CommonName: "node-1", DNSNames: []string{"node-1", "localhost"}, IPs: []netip.Addr{netip.MustParseAddr("10.5.0.2"), netip.MustParseAddr("fd00::2")},
		Server: true, Lifetime: DaemonLifetime,
	}
}

func mustIssue(t *testing.T, ca *CA, tmpl Template) Pair {
	t.Helper()
	p, err := ca.Issue(tmpl, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIssueAndVerify(t *testing.T) {
	for _, alg := range []Algorithm{Ed25519, ECDSAP256} {
		ca, other := authority(t, alg, "a"), authority(t, alg, "a")
		p := mustIssue(t, ca, server())
		roots, _ := Pool(ca.CrtPEM)
		wrong, _ := Pool(other.CrtPEM)
		for _, test := range []struct {
			name  string
			roots *x509.CertPool
			use   x509.ExtKeyUsage
			at    time.Time
			ok    bool
		}{
			{"own", roots, x509.ExtKeyUsageServerAuth, now, true},
			{"a slow clock", roots, x509.ExtKeyUsageServerAuth, now.Add(-4 * time.Minute), true},
			{"too early", roots, x509.ExtKeyUsageServerAuth, now.Add(-6 * time.Minute), false},
			{"expired", roots, x509.ExtKeyUsageServerAuth, now.Add(24*time.Hour + time.Second), false},
			{"as client", roots, x509.ExtKeyUsageClientAuth, now, false},
			{"other authority of the same name", wrong, x509.ExtKeyUsageServerAuth, now, false},
		} {
			if err := Verify(p.Crt, test.roots, test.use, test.at); (err == nil) != test.ok {
				t.Errorf("algorithm %d, %s: Verify = %v, want ok %v", alg, test.name, err, test.ok)
			}
		}
		if _, err := TLS(p); err != nil {
			t.Errorf("TLS = %v", err)
		}
		crt, _ := ParseCertificate(p.Crt)
		for _, host := range []string{"node-1", "10.5.0.2", "fd00::2"} {
			if err := crt.VerifyHostname(host); err != nil {
				t.Errorf("VerifyHostname(%s) = %v", host, err)
			}
		}
		if crt.IsCA {
			t.Error("what was issued is an authority")
		}
	}
}

func TestServes(t *testing.T) {
	ca, other := authority(t, Ed25519, "a"), authority(t, Ed25519, "a")
	p := mustIssue(t, ca, server())
	foreign := mustIssue(t, ca, server())
	change := func(f func(*Template)) Template {
		tmpl := server()
		f(&tmpl)
		return tmpl
	}
	for name, test := range map[string]struct {
		ca   *CA
		p    Pair
		t    Template
		at   time.Time
		want bool
	}{
		"same":            {ca, p, server(), now, true},
		"other order":     {ca, p, change(func(t *Template) { t.DNSNames = []string{"localhost", "node-1", "node-1"} }), now, true},
		"just before":     {ca, p, server(), now.Add(12*time.Hour - time.Second), true},
		"half life over":  {ca, p, server(), now.Add(12*time.Hour + time.Second), false},
		"clock went back": {ca, p, server(), now.Add(-time.Hour), false},
		"more names":      {ca, p, change(func(t *Template) { t.DNSNames = append(t.DNSNames, "x") }), now, false},
		"fewer names":     {ca, p, change(func(t *Template) { t.DNSNames = t.DNSNames[:1] }), now, false},
		"other address":   {ca, p, change(func(t *Template) { t.IPs = t.IPs[:1] }), now, false},
		"other name":      {ca, p, change(func(t *Template) { t.CommonName = "node-2" }), now, false},
		"other group":     {ca, p, change(func(t *Template) { t.Organization = []string{"os:admin"} }), now, false},
		"other use":       {ca, p, change(func(t *Template) { t.Client = true }), now, false},
		"other lifetime":  {ca, p, change(func(t *Template) { t.Lifetime = YearLifetime }), now, false},
		"other CA":        {other, p, server(), now, false},
		"other key":       {ca, Pair{Crt: p.Crt, Key: foreign.Key}, server(), now, false},
		"nothing":         {ca, Pair{}, server(), now, false},
	} {
		if got := test.ca.Serves(test.p, test.t, test.at); got != test.want {
			t.Errorf("%s: Serves = %v, want %v", name, got, test.want)
		}
	}
}

// A certificate never outlives its authority, and is then kept for half of
// what is left.
func TestLifetimeIsCut(t *testing.T) {
	ca := authority(t, ECDSAP256, "a")
	late := now.Add(CALifetime - time.Hour)
	p, err := ca.Issue(server(), late)
	if err != nil {
		t.Fatal(err)
	}
	crt, _ := ParseCertificate(p.Crt)
	if !crt.NotAfter.Equal(ca.Certificate.NotAfter) || !ca.Serves(p, server(), late) {
		t.Errorf("NotAfter = %v, serves %v; want the authority's %v and true", crt.NotAfter, ca.Serves(p, server(), late), ca.Certificate.NotAfter)
	}
	if _, err := ca.Issue(server(), now.Add(CALifetime+time.Hour)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("Issue with an expired authority = %v, want an error", err)
	}
}

// TestSign: what a certificate says comes from the template alone.
func TestSign(t *testing.T) {
	ca := authority(t, Ed25519, "a")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ca.Sign(key.Public(), server(), now)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := ParseCertificate(out)
	if err != nil {
		t.Fatal(err)
	}
	if crt.Subject.CommonName != "node-1" || len(crt.Subject.Organization) != 0 || !key.Public().(ed25519.PublicKey).Equal(crt.PublicKey) {
		t.Errorf("signed %v %v, want what the template says, for the key", crt.Subject, crt.DNSNames)
	}
}

func TestParseRefuses(t *testing.T) {
	ca, other := authority(t, ECDSAP256, "a"), authority(t, ECDSAP256, "b")
	key, _ := MarshalKey(ca.key)
	otherKey, _ := MarshalKey(other.key)
	leaf := mustIssue(t, ca, server())
	for want, f := range map[string]func() error{
		"do not belong together":           func() error { _, err := ParseCA(ca.CrtPEM, otherKey); return err },
		"not an authority's":               func() error { _, err := ParseCA(leaf.Crt, leaf.Key); return err },
		"certificate is not PEM":           func() error { _, err := ParseCertificate([]byte("x")); return err },
		"no certificate given":             func() error { _, err := ParseCertificate(nil); return err },
		"want a certificate":               func() error { _, err := ParseCertificate(key); return err },
		"want a private key":               func() error { _, err := ParseKey(ca.CrtPEM); return err },
		"private key is not PEM":           func() error { _, err := ParseKey([]byte("x")); return err },
		"neither client nor server":        func() error { _, err := ca.Issue(Template{Lifetime: time.Hour}, now); return err },
		"has no name and no address":       func() error { _, err := ca.Issue(Template{Server: true, Lifetime: time.Hour}, now); return err },
		"has no lifetime":                  func() error { _, err := ca.Issue(Template{Client: true}, now); return err },
		"has 1024 bits, want 2048 or more": func() error { _, err := ParseKey(weakRSA); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %q", err, want)
		}
	}
}

// Keys of existing clusters come in all these forms.
func TestParseKeyForms(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	sec1, _ := x509.MarshalECPrivateKey(ec)
	for kind, der := range map[string][]byte{
		"EC PRIVATE KEY": sec1, "RSA PRIVATE KEY": x509.MarshalPKCS1PrivateKey(rsaKey), "ED25519 PRIVATE KEY": pkcs8(t, ed), "PRIVATE KEY": pkcs8(t, ec),
	} {
		data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		if _, err := ParseKey(data); err != nil {
			t.Errorf("ParseKey(%s) = %v", kind, err)
		}
		if _, err := PublicKeyPEM(data); err != nil {
			t.Errorf("PublicKeyPEM(%s) = %v", kind, err)
		}
	}
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// weakRSA is a key that nobody uses, too short on purpose.
var weakRSA = []byte("-----BEGIN " + pemRSA + "-----\n" + `MIICXAIBAAKBgQDMWpY8ojEkJ4R/i9lw+Na5sjHU3487BhxShOIeUnmCx7kx27ja
aCI/7Rm0XHu/EFucmgF1Xb7WymryAItYYrBLTsgQv5ogB9L9fgGWF5Zebtzp0eHZ
7NLISLFLHSZ4n221Bv059NyM/3ukDPYh1q5BuQy3cXJr4jMAXW5zorx/eQIDAQAB
AoGBAIB2Gad4FggyR1qeoUwhQWpumGDHQJTMHJXLLxH8qqIJx2OOSkAR4iXpeJUm
5iuPrudc8LnE+qivilci/HXNZCBzI5l7w/ybPIyWTP6OlH+zNAcmQdSL4B3cWA2H
I83eDSP09Jfmm0mh9+pKD/1F09EZvVmPzf/Wvw/3PjwPFVHZAkEA8WmalvAllDsq
4p0+/zVniSac167I8nQIhy0LZhjR+JpNf1XFdWR+36t0FDEB1HW5/LfRABAq98HE
JotMEnantwJBANizuYio1SkbLE40n+Zc37vYNsRhjb4NzvojXNafwhsE9DY8e9kE
JvJ6vqfDk2CA8PCM53RubC9JYyYVbeWLMk8CQHCiNdcwakgTpvmeJhNKZmkOE+Vp
jiXYz1XKRWQ4NlcIHxpG+V7BKZTP2NPG3bSzzLfFR4UBBhscU5ksKqz+oVcCQCAm
UeFXgwBtOp6DqjFoF/1rb3ylKH1I2Ss9MdnZq9eMXZrqUEl7FzgkQ8Lp/iR0HMrj
bLdWZpCBZ8dPqJVEmHsCQFQNc8M0XRPsYUH0mGBOZFvWxUkGyfyWjnbErXWsNwwv
P1MfBhZT1dzlvKWhceBzrkF4eCGe6vos4WisYpxrm14=` + "\n-----END " + pemRSA + "-----\n")
