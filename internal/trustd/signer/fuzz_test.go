package signer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	signerapi "talos/api/signer"
	"talos/internal/identity"
	"talos/internal/members"
	"talos/internal/pki"
)

// maxInput bounds inputs: longer ones are refused by size, and slow.
const maxInput = 2 << 10

// fixedKey is a key that is the same in every process: fuzzing has several, and
// what one has signed another must be able to check.
func fixedKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// bent is good with its bits flipped where bend has ones, and longer by the
// rest of bend. Nobody comes upon a signature by chance; so it is given, and
// the fuzzer decides what is wrong with it.
func bent(good, bend []byte) []byte {
	out := append(slices.Clone(good), bend[min(len(bend), len(good)):]...)
	for i := range min(len(bend), len(good)) {
		out[i] ^= bend[i]
	}
	return out
}

// cut splits bytes into pieces of four or sixteen.
func cut(raw []byte) (out []net.IP) {
	size := net.IPv4len
	if len(raw)%net.IPv6len == 0 {
		size = net.IPv6len
	}
	for len(raw) >= size {
		out, raw = append(out, net.IP(raw[:size])), raw[size:]
	}
	return out
}

// FuzzSign asks a signer that admits every name, for whatever names from
// wherever, by an identity whose signature and proof of a second address are
// right or not: whatever is signed names what was proven, and gives no power.
func FuzzSign(f *testing.F) {
	s, pool := serverOf(f, fixedKey("authority"))
	key, err := proofKey(mustRoot(f, s))
	if err != nil {
		f.Fatal(err)
	}
	own, who := fixedKey("request"), fixedKey("identity")
	public, err := x509.MarshalPKIXPublicKey(who.Public())
	if err != nil {
		f.Fatal(err)
	}
	second := netip.MustParseAddr("10.6.0.7")
	proof := makeProof(key, second, identity.Of(public), time.Now().Add(time.Hour))
	v4, v6 := []byte{10, 5, 0, 7}, netip.MustParseAddr("fd00::7").AsSlice()
	f.Add("worker-1 worker-1.example.org", v4, "10.5.0.7", "Talos", []byte{}, []byte{})
	f.Add("worker-1", append([]byte{10, 6, 0, 7}, v4...), "::ffff:10.5.0.7", "", []byte{}, []byte{})
	f.Add("worker-1", v6, "fd00::7", "", []byte{}, []byte{1})
	f.Add("Worker-1", v4, "10.5.0.7", "\x00", []byte{1}, []byte{})
	f.Add("localhost", []byte{127, 0, 0, 1}, "127.0.0.1", "", []byte{}, []byte{})
	f.Add("cp-1.example.org", []byte{10, 5, 0, 100}, "10.5.0.100", "", []byte{}, []byte{})
	f.Add("", []byte{}, "10.5.0.7%eth0", "", []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, names string, addresses []byte, peer, system string, bendSignature, bendProof []byte) {
		if len(names)+len(addresses)+len(peer)+len(system)+len(bendSignature)+len(bendProof) > maxInput {
			return
		}
		der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{
			Subject:  pkix.Name{CommonName: "system:masters", Organization: []string{"os:admin"}},
			DNSNames: strings.Fields(names), IPAddresses: cut(addresses),
		}, own)
		if err != nil {
			return // such a name cannot even be asked for
		}
		in := &signerapi.SignRequest{
			Csr: pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), Identity: public, Proofs: [][]byte{bent(proof, bendProof)},
			Peer: peer, OperatingSystem: system, Token: token, Usage: signerapi.Usage_USAGE_SERVER,
		}
		statement := identity.Request{CSR: in.Csr, Identity: public, Proofs: in.Proofs, OperatingSystem: system}.Statement()
		in.Signature = bent(ed25519.Sign(who, statement), bendSignature)
		out, err := s.Sign(context.Background(), in)
		if err != nil {
			return
		}
		if !bytes.Equal(in.Proofs[0], proof) || !ed25519.Verify(who.Public().(ed25519.PublicKey), statement, in.Signature) {
			t.Fatal("signed without proof, or for another")
		}
		checkIssued(t, out.GetCrt(), pool, peer, second)
	})
}

func checkIssued(t *testing.T, text []byte, pool *x509.CertPool, peer string, second netip.Addr) {
	t.Helper()
	crt, err := pki.ParseCertificate(text)
	if err != nil {
		t.Fatal(err)
	}
	if crt.IsCA || len(crt.Subject.Organization) > 0 || !slices.Equal(crt.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("certificate of %v, CA %v, for %v", crt.Subject, crt.IsCA, crt.ExtKeyUsage)
	}
	if err := pki.Verify(text, pool, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
		t.Errorf("the certificate is not the authority's: %v", err)
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
	for i, name := range crt.DNSNames {
		if !members.ValidHostname(name) || local(name) || members.SameHost("cp-1", name) || members.SameHost("api.example.org", name) {
			t.Errorf("signed for %q", name)
		}
		if i > 0 && !strings.HasPrefix(name, crt.DNSNames[0]+".") {
			t.Errorf("signed for two hosts, %q", crt.DNSNames)
		}
	}
}

// FuzzCheckProof holds that a proof is right as it was made, for whom it was
// made, as long as it lasts, and never else.
func FuzzCheckProof(f *testing.F) {
	key, now := []byte("key"), time.Unix(1_000_000, 0)
	good := makeProof(key, netip.MustParseAddr("10.0.0.1"), "node", now)
	f.Add([]byte{}, uint8(0), "node", int16(0))
	f.Add([]byte{}, uint8(16), "node", int16(120))
	f.Add([]byte{0, 0, 0, 1}, uint8(0), "", int16(121))
	f.Add(make([]byte, proofSize+1), uint8(0), "other", int16(-1))
	f.Fuzz(func(t *testing.T, bend []byte, short uint8, id string, age int16) {
		if len(bend)+len(id) > maxInput {
			return
		}
		proof := bent(good, bend)
		proof = proof[:max(0, len(proof)-int(short))]
		later := time.Duration(age) * time.Second
		addr, err := checkProof(key, proof, identity.ID(id), now.Add(later))
		right := slices.Equal(proof, good) && id == "node" && later <= proofLifetime
		if (err == nil) != right || right && addr.String() != "10.0.0.1" {
			t.Errorf("%x by %q after %v proves %v, %v; want it right: %v", proof, id, later, addr, err, right)
		}
	})
}

// signed makes a request of its fields, DER, by a signature over them.
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
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
}

// FuzzDecodeRequest reads PEM, and fields of a request that are then signed
// with the key that they name, as whoever has a key can: whatever is accepted
// is what Check and issue rely on.
func FuzzDecodeRequest(f *testing.F) {
	key := fixedKey("request")
	seeds := [][]byte{signedBy(f, key, nil), signedBy(f, key, named("a.b")), signedBy(f, key, func(r *x509.CertificateRequest) {
		r.ExtraExtensions = []pkix.Extension{{Id: knownExtensions[2], Value: []byte{0x30, 0}}, {Id: knownExtensions[1], Critical: true, Value: []byte{3, 2, 7, 0x80}}}
	})}
	for _, seed := range seeds {
		block, _ := pem.Decode(seed)
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := DecodeRequest(signed(csr.RawTBSCertificateRequest, key)); err != nil {
			f.Fatal(err)
		}
		f.Add(csr.RawTBSCertificateRequest)
	}
	f.Add(seeds[0])
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxInput {
			return
		}
		if !bytes.HasPrefix(data, []byte("-----")) {
			data = signed(data, key)
		}
		r, err := DecodeRequest(data)
		if err != nil {
			return
		}
		if r.Key == nil || acceptable(r.Key) != nil {
			t.Errorf("accepted with key %T", r.Key)
		}
		for _, name := range r.Names {
			if !members.ValidHostname(name) || name != strings.ToLower(name) {
				t.Errorf("accepted with name %q", name)
			}
		}
		for _, addr := range r.Addresses {
			if !addr.IsValid() || addr.Is4In6() {
				t.Errorf("accepted with address %v", addr)
			}
		}
	})
}
