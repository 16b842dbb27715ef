package csr

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
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
