package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"talos/internal/members"
)

const (
	maxRequest   = 16 << 10 // bytes of PEM
	maxAddresses = 16
	pemType      = "CERTIFICATE REQUEST"
)

// Request is what counts of a signing request.
type Request struct {
	Key       crypto.PublicKey
	Names     []string // lower case
	Addresses []netip.Addr
}

// Extensions that a request may carry: the names, and the usages, which are
// read over because ours are fixed.
var knownExtensions = []asn1.ObjectIdentifier{{2, 5, 29, 17}, {2, 5, 29, 15}, {2, 5, 29, 37}}

// DecodeRequest reads PEM of exactly one signing request whose signature is
// its own key's.
func DecodeRequest(data []byte) (*Request, error) {
	if len(data) > maxRequest {
		return nil, fmt.Errorf("signing request has %d bytes, over %d", len(data), maxRequest)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil || !bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN ")):
		return nil, errors.New("signing request is not PEM")
	case block.Type != pemType:
		return nil, fmt.Errorf("signing request is PEM of a %.40q, not of a %s", block.Type, pemType)
	case len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("signing request has something beside it")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signing request: %w", err)
	}
	if err := acceptable(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("signing request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("signing request: its signature: %w", err)
	}
	if len(csr.URIs) > 0 || len(csr.EmailAddresses) > 0 {
		return nil, errors.New("signing request names URIs or e-mail addresses, which are not issued")
	}
	for _, extension := range csr.Extensions {
		if !slices.ContainsFunc(knownExtensions, extension.Id.Equal) {
			return nil, fmt.Errorf("signing request asks for extension %v, which is not issued", extension.Id)
		}
	}
	return names(csr)
}

func names(csr *x509.CertificateRequest) (*Request, error) {
	r := &Request{Key: csr.PublicKey}
	if len(csr.IPAddresses) > maxAddresses {
		return nil, fmt.Errorf("signing request names %d addresses, over %d", len(csr.IPAddresses), maxAddresses)
	}
	for _, ip := range csr.IPAddresses {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return nil, fmt.Errorf("signing request names an address of %d bytes", len(ip))
		}
		r.Addresses = append(r.Addresses, addr.Unmap())
	}
	for _, name := range csr.DNSNames {
		name = strings.ToLower(name)
		if !members.ValidHostname(name) {
			return nil, fmt.Errorf("signing request names %.80q, which is no host name", name)
		}
		if !slices.Contains(r.Names, name) {
			r.Names = append(r.Names, name)
		}
	}
	slices.SortFunc(r.Names, func(a, b string) int { return len(a) - len(b) })
	return r, nil
}

// acceptable admits the keys that nodes make, and others of their strength.
func acceptable(key crypto.PublicKey) error {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("its key is on curve %s", key.Curve.Params().Name)
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > 4096 {
			return fmt.Errorf("its RSA key has %d bits, not 2048 to 4096", bits)
		}
		return nil
	}
	return fmt.Errorf("its key is a %T", key)
}

// Reserved is what no node may be certified as by asking.
type Reserved struct {
	Names     []string
	Addresses []netip.Addr
}

// Check holds the request against what its sender has proven: that he is at
// some addresses, the first being the one that he calls from. He may be known
// by one host name, short and with its domain, which is nobody's that matters.
func (r *Request) Check(proven []netip.Addr, taken Reserved) error {
	for _, addr := range proven {
		if !members.Usable(addr) {
			return fmt.Errorf("%v is no address of a node", addr)
		}
		if slices.Contains(taken.Addresses, addr) {
			return fmt.Errorf("%s is a control plane node's address", addr)
		}
	}
	for _, addr := range r.Addresses {
		if !slices.Contains(proven, addr) {
			return fmt.Errorf("the request names %s, but comes from %s without a proof of the other", addr, proven[0])
		}
	}
	if len(r.Names) == 0 {
		return errors.New("the request names no host")
	}
	for _, name := range r.Names {
		if local(name) {
			return fmt.Errorf("the name %q is not a node's", name)
		}
		if slices.ContainsFunc(taken.Names, func(t string) bool { return members.SameHost(t, name) }) {
			return fmt.Errorf("the name %q is a control plane node's", name)
		}
	}
	// Names are sorted by length: a host name, then the same with its domain. The
	// host name stands for the node wherever the cluster's members are looked up,
	// such as in the nodes' name servers: with a domain it could be anybody's.
	if strings.Contains(r.Names[0], ".") {
		return fmt.Errorf("the request names %s without the host name alone", r.Names[0])
	}
	if len(r.Names) > 2 || len(r.Names) == 2 && !strings.HasPrefix(r.Names[1], r.Names[0]+".") {
		return fmt.Errorf("the request names several hosts: %s", strings.Join(r.Names, ", "))
	}
	return nil
}

// local says whether a name means something else than a node wherever it is
// used: this machine, Kubernetes' own service, a trustd.
func local(name string) bool {
	for _, domain := range []string{"localhost", "kubernetes", "talos.internal", "localdomain"} {
		if name == domain || strings.HasSuffix(name, "."+domain) || strings.HasPrefix(name, domain+".") {
			return true
		}
	}
	return false
}
