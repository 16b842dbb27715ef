package csr

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func makeRequest(t *testing.T, template x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestDecide(t *testing.T) {
	subject := pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
	ip := []net.IP{net.ParseIP("10.0.0.1")}
	good := func() (Request, x509.CertificateRequest) {
		return Request{
			Signer: signer, Username: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"},
			Usages: []string{"digital signature", "server auth"},
		}, x509.CertificateRequest{Subject: subject, DNSNames: []string{"n1"}, IPAddresses: ip}
	}
	of := func(node string) (Addresses, error) {
		if node != "n1" {
			return Addresses{}, errors.New("no such node")
		}
		return Addresses{Names: []string{"n1"}, IPs: []string{"10.0.0.1", "fd00::1"}}, nil
	}
	for _, c := range []struct {
		name   string
		change func(*Request, *x509.CertificateRequest)
		want   string // part of the reason; "" approves
	}{
		{"its own names", func(*Request, *x509.CertificateRequest) {}, ""},
		{"another signer", func(r *Request, _ *x509.CertificateRequest) { r.Signer = "kubernetes.io/kube-apiserver-client" }, "signer"},
		{"a person", func(r *Request, _ *x509.CertificateRequest) { r.Username = "alice" }, "not a node"},
		{"a person who says to be a node", func(r *Request, _ *x509.CertificateRequest) { r.Groups = []string{"system:authenticated"} }, "not a node"},
		{"client usage", func(r *Request, _ *x509.CertificateRequest) { r.Usages = append(r.Usages, "client auth") }, "usage"},
		{"no server usage", func(r *Request, _ *x509.CertificateRequest) { r.Usages = []string{"digital signature"} }, "missing"},
		{"another node's subject", func(_ *Request, x *x509.CertificateRequest) { x.Subject.CommonName = "system:node:n2" }, "subject"},
		{"more organizations", func(_ *Request, x *x509.CertificateRequest) {
			x.Subject.Organization = []string{"system:nodes", "system:masters"}
		}, "subject"},
		{"another node", func(r *Request, x *x509.CertificateRequest) {
			r.Username, x.Subject.CommonName = "system:node:n2", "system:node:n2"
		}, "no such node"},
		{"another name", func(_ *Request, x *x509.CertificateRequest) { x.DNSNames = []string{"n1", "kubernetes"} }, "not a name"},
		{"another address", func(_ *Request, x *x509.CertificateRequest) { x.IPAddresses = []net.IP{net.ParseIP("10.0.0.2")} }, "not an address"},
		{"a URI", func(_ *Request, x *x509.CertificateRequest) { x.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }, "more than"},
		{"an e-mail address", func(_ *Request, x *x509.CertificateRequest) { x.EmailAddresses = []string{"a@b"} }, "more than"},
		{"nothing", func(_ *Request, x *x509.CertificateRequest) { x.DNSNames, x.IPAddresses = nil, nil }, "nothing"},
	} {
		r, x := good()
		c.change(&r, &x)
		r.PEM = makeRequest(t, x)
		check(t, c.name, Decide(r, of, Taken{}), c.want)
	}
	r, x := good()
	r.PEM = append(makeRequest(t, x), makeRequest(t, x)...)
	check(t, "two requests", Decide(r, of, Taken{}), "one PEM block")
	r.PEM = []byte("x")
	check(t, "no request", Decide(r, of, Taken{}), "one PEM block")
}

func check(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: Decide = %v, want approval", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: Decide = %v, want a refusal with %q", name, err, want)
	}
}

// FuzzDecide reads PEM, and fields of a request that are then signed with the
// key that they name, as a node that is somebody else's can: what is approved
// names that node, by what the API knows of it, and nothing else.
func FuzzDecide(f *testing.F) {
	seed := sha256.Sum256([]byte("request")) // the same key in every process
	key := ed25519.NewKeyFromSeed(seed[:])
	for _, names := range [][]string{{"n1"}, {"n1", "kubernetes"}, nil} {
		der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}, DNSNames: names,
			IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1), net.ParseIP("fd00::1")},
		}, key)
		if err != nil {
			f.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(csr.RawTBSCertificateRequest, "server auth")
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), "server auth,digital signature")
	}
	has := Addresses{Names: []string{"n1", "kubernetes"}, IPs: []string{"10.0.0.1", "fd00::1"}} // as the node itself says
	known := Taken{APIServer: []string{"kubernetes"}}
	f.Fuzz(func(t *testing.T, data []byte, usages string) {
		if len(data)+len(usages) > 2<<10 {
			return
		}
		if !bytes.HasPrefix(data, []byte("-----")) {
			data = signed(data, key)
		}
		r := Request{Signer: signer, Username: "system:node:n1", Groups: []string{nodes}, Usages: strings.Split(usages, ","), PEM: data}
		if Decide(r, func(string) (Addresses, error) { return has, nil }, known) != nil {
			return
		}
		block, _ := pem.Decode(data)
		c, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Fatalf("approved what is no request: %v", err)
		}
		if c.Subject.CommonName != r.Username || !slices.Equal(c.Subject.Organization, []string{nodes}) || strings.Contains(usages, "client") {
			t.Errorf("approved for %v, usages %q", c.Subject, usages)
		}
		for _, name := range c.DNSNames {
			if name != "n1" {
				t.Errorf("approved for %q", name)
			}
		}
		for _, ip := range c.IPAddresses {
			if !slices.Contains(has.IPs, ip.String()) {
				t.Errorf("approved for %v", ip)
			}
		}
	})
}

// signed makes a request of its fields by a signature over them.
func signed(fields []byte, key ed25519.PrivateKey) []byte {
	der, err := asn1.Marshal(struct {
		Fields    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: fields}, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}},
		asn1.BitString{Bytes: ed25519.Sign(key, fields), BitLength: 8 * ed25519.SignatureSize},
	})
	if err != nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}
