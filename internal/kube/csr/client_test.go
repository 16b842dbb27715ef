package csr

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"strings"
	"testing"

	"talos/internal/resources/cluster"
)

// TestDecideClient: the bootstrap token, which every worker's manifest holds,
// makes no one a control plane node.
func TestDecideClient(t *testing.T) {
	taken := Taken{Members: []cluster.MemberSpec{
		{Hostname: "CP_1", MachineType: cluster.TypeControlPlane},
		{Hostname: "worker-1", MachineType: cluster.TypeWorker},
	}}
	for _, c := range []struct {
		name   string
		change func(*Request, *x509.CertificateRequest)
		want   string // part of the reason; "" approves
	}{
		{"a new worker", func(*Request, *x509.CertificateRequest) {}, ""},
		{"a worker that comes back", func(_ *Request, x *x509.CertificateRequest) { x.Subject.CommonName = "system:node:worker-1" }, ""},
		{"a control plane node", func(_ *Request, x *x509.CertificateRequest) { x.Subject.CommonName = "system:node:cp-1" }, "control plane"},
		{"a control plane node, with its domain", func(_ *Request, x *x509.CertificateRequest) { x.Subject.CommonName = "system:node:cp-1.example.org" }, "control plane"},
		{"a node that asks for another", func(r *Request, _ *x509.CertificateRequest) {
			r.Username, r.Groups = "system:node:worker-1", []string{"system:nodes"}
		}, "not a bootstrap token"},
		{"a person in the group", func(r *Request, _ *x509.CertificateRequest) { r.Username = "alice" }, "not a bootstrap token"},
		{"another token", func(r *Request, _ *x509.CertificateRequest) { r.Groups = []string{"system:bootstrappers"} }, "not a bootstrap token"},
		{"an administrator", func(_ *Request, x *x509.CertificateRequest) {
			x.Subject = pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}
		}, "not a node's"},
		{"a node that is an administrator", func(_ *Request, x *x509.CertificateRequest) {
			x.Subject.Organization = []string{"system:nodes", "system:masters"}
		}, "not a node's"},
		{"nobody", func(_ *Request, x *x509.CertificateRequest) { x.Subject.CommonName = "system:node:" }, "not a node's"},
		{"a server", func(r *Request, _ *x509.CertificateRequest) { r.Usages = append(r.Usages, "server auth") }, "usage"},
		{"not a client", func(r *Request, _ *x509.CertificateRequest) { r.Usages = []string{"digital signature"} }, "missing"},
		{"with addresses", func(_ *Request, x *x509.CertificateRequest) { x.IPAddresses = []net.IP{{10, 0, 0, 1}} }, "hosts or addresses"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Request{
				Signer: clientSigner, Username: "system:bootstrap:abcdef", Groups: []string{"system:bootstrappers", bootstrappers, "system:authenticated"},
				Usages: []string{"digital signature", "client auth"},
			}
			x := x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:worker-2", Organization: []string{"system:nodes"}}}
			c.change(&r, &x)
			r.PEM = makeRequest(t, x)
			err := Decide(r, func(string) (Addresses, error) { return Addresses{}, errors.New("not asked for") }, taken)
			if c.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("Decide = %v, want %q", err, c.want)
			}
		})
	}
}
