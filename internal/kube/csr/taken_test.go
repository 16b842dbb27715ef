package csr

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"testing"

	"talos/internal/resources/cluster"
)

// A node that lies about its addresses in the API must not get a certificate
// with which it could stand for another, the API server before all.
func TestWhatNodesSayOfThemselves(t *testing.T) {
	addr := netip.MustParseAddr
	known := Taken{
		Members: []cluster.MemberSpec{
			{Hostname: "cp-1", MachineType: cluster.TypeControlPlane, Addresses: []netip.Addr{addr("10.0.0.1"), addr("fd00::1")}},
			{Hostname: "cp_2", MachineType: cluster.TypeControlPlane, Addresses: []netip.Addr{addr("10.0.0.2")}},
			{Hostname: "w-1", MachineType: cluster.TypeWorker, Addresses: []netip.Addr{addr("10.0.0.11"), addr("10.0.0.100")}},
		},
		APIServer: []string{"10.0.0.1", "10.0.0.100", "10.96.0.1", "cp-1", "api.example.org", "kubernetes.default.svc"},
	}
	for _, c := range []struct{ node, name, ip, want string }{
		{"cp-1", "cp-1", "10.0.0.1", ""},
		{"cp-1", "cp-1", "fd00::1", ""},
		{"cp-1.example.org", "cp-1.example.org", "10.0.0.1", ""},
		{"cp-2", "cp-2", "10.0.0.2", ""},
		{"w-1", "w-1", "10.0.0.11", ""},
		{"w-2", "w-2", "10.0.0.12", ""}, // not on the list
		{"w-1", "w-1", "10.0.0.1", "that of node cp-1"},
		{"w-1", "w-1", "10.0.0.2", "that of node cp_2"},
		{"w-2", "w-2", "10.0.0.11", "that of node w-1"},
		{"w-1", "cp-1", "10.0.0.11", "that of node cp-1"},
		{"w-1", "CP-1.example.org", "10.0.0.11", "that of node cp-1"},
		{"w-1", "w-1", "10.96.0.1", "API server"},
		{"w-1", "w-1", "10.0.0.100", "API server"},
		{"w-1", "api.example.org", "10.0.0.11", "API server"},
		{"w-1", "Kubernetes.default.svc", "10.0.0.11", "API server"},
		{"cp-2", "cp-2", "10.0.0.1", "that of node cp-1"},
	} {
		r := Request{
			Signer: signer, Username: nodeUser + c.node, Groups: []string{nodes}, Usages: []string{"digital signature", "server auth"},
			PEM: makeRequest(t, x509.CertificateRequest{
				Subject:  pkix.Name{CommonName: nodeUser + c.node, Organization: []string{nodes}},
				DNSNames: []string{c.name}, IPAddresses: []net.IP{net.ParseIP(c.ip)},
			}),
		}
		said := func(string) (Addresses, error) { return Addresses{Names: []string{c.name}, IPs: []string{c.ip}}, nil }
		check(t, c.node+" as "+c.name+" at "+c.ip, Decide(r, said, known), c.want)
	}
}
