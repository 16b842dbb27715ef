package signer

import (
	"context"
	"crypto/x509"
	"net/netip"
	"slices"
	"testing"
	"time"

	signerapi "talos/api/signer"
	"talos/internal/identity"
	"talos/internal/members"
	"talos/internal/pki"
)

// FuzzSign throws whole requests at a signer that knows the token and admits
// every name: whatever is signed names what was proven, and gives no power.
func FuzzSign(f *testing.F) {
	s, pool := newServer(f)
	who, err := identity.New()
	if err != nil {
		f.Fatal(err)
	}
	key, err := proofKey(mustRoot(f, s))
	if err != nil {
		f.Fatal(err)
	}
	second := netip.MustParseAddr("10.6.0.7")
	proof := makeProof(key, second, who.ID, time.Now().Add(time.Hour))
	csr := request(f, nil)
	r := identity.Request{CSR: csr, Identity: who.Public, Proofs: [][]byte{proof}}
	f.Add(csr, who.Public, who.Sign(r.Statement()), proof, "10.5.0.7", "")
	f.Add(csr, []byte{}, []byte{}, []byte{}, "10.5.0.7", "Talos")
	f.Add(request(f, named("localhost")), []byte{}, []byte{}, []byte{}, "127.0.0.1", "")
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"), []byte{1}, []byte{2}, []byte{3}, "::1", "\x00")
	f.Fuzz(func(t *testing.T, csr, id, signature, proof []byte, peer, system string) {
		in := &signerapi.SignRequest{
			Csr: csr, Identity: id, Signature: signature, Peer: peer, OperatingSystem: system, Token: token, Usage: signerapi.Usage_USAGE_SERVER,
		}
		if len(proof) > 0 {
			in.Proofs = [][]byte{proof}
		}
		out, err := s.Sign(context.Background(), in)
		if err != nil {
			return
		}
		crt, err := pki.ParseCertificate(out.GetCrt())
		if err != nil {
			t.Fatal(err)
		}
		if crt.IsCA || len(crt.Subject.Organization) > 0 || !slices.Equal(crt.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
			t.Errorf("certificate of %v, CA %v, for %v", crt.Subject, crt.IsCA, crt.ExtKeyUsage)
		}
		if pki.Verify(out.GetCrt(), pool, x509.ExtKeyUsageServerAuth, time.Now()) != nil {
			t.Error("the certificate is not the authority's")
		}
		at, err := netip.ParseAddr(peer)
		if err != nil {
			t.Fatalf("signed for a peer at %q", peer)
		}
		for _, ip := range crt.IPAddresses {
			a, _ := netip.AddrFromSlice(ip)
			if a = a.Unmap(); !members.Usable(a) || a != at.Unmap() && a != second {
				t.Errorf("signed for %v, proven are %v and %v", a, at, second)
			}
		}
	})
}

// FuzzCheckProof holds that nobody makes a proof without the key.
func FuzzCheckProof(f *testing.F) {
	key, now := []byte("key"), time.Unix(1_000_000, 0)
	good := makeProof(key, netip.MustParseAddr("10.0.0.1"), "node", now)
	f.Add(good, "node")
	f.Add(good[:40], "node")
	f.Add([]byte{}, "")
	f.Fuzz(func(t *testing.T, proof []byte, id string) {
		addr, err := checkProof(key, proof, identity.ID(id), now)
		if err == nil && (!slices.Equal(proof, good) || id != "node" || addr.String() != "10.0.0.1") {
			t.Errorf("%x by %q proves %v", proof, id, addr)
		}
	})
}
