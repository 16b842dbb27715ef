package join

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc"

	"talos/api/membership"
	"talos/api/security"
	"talos/internal/identity"
	"talos/internal/pki"
)

// Want is what a node would like to be certified as.
type Want struct {
	Names           []string     // the host name; the same with its domain
	Addresses       []netip.Addr // its own
	OperatingSystem string
}

// Granted is what it got.
type Granted struct {
	pki.Pair
	Addresses []netip.Addr
	// LeftOut are addresses that could not be proven, with the reason.
	LeftOut map[netip.Addr]error
}

// Certificate makes a key and has a certificate signed for it. Every address
// is proven by a call from it; one from which no control plane node can be
// reached is left out. Without any the error says why.
func (c *Client) Certificate(ctx context.Context, cluster Cluster, want Want, now time.Time) (Granted, error) {
	keyPEM, err := pki.NewKey(pki.Ed25519)
	if err != nil {
		return Granted{}, err
	}
	key, err := pki.ParseKey(keyPEM)
	if err != nil {
		return Granted{}, err
	}
	granted := Granted{Pair: pki.Pair{Key: keyPEM}, LeftOut: map[netip.Addr]error{}}
	var proofs [][]byte
	var last netip.Addr // what the request itself proves
	for _, addr := range want.Addresses {
		if !last.IsValid() {
			if err := c.reachable(ctx, cluster, addr); err != nil {
				granted.LeftOut[addr] = err
				continue
			}
			last = addr
			granted.Addresses = append(granted.Addresses, addr)
			continue
		}
		proof, err := c.prove(ctx, cluster, addr)
		if err != nil {
			granted.LeftOut[addr] = err
			continue
		}
		proofs = append(proofs, proof)
		granted.Addresses = append(granted.Addresses, addr)
	}
	if !last.IsValid() {
		return Granted{}, unreachable(granted.LeftOut)
	}
	csr, err := signingRequest(key, want.Names, granted.Addresses)
	if err != nil {
		return Granted{}, err
	}
	answer, err := c.request(ctx, cluster, last, identity.Request{
		CSR: csr, Identity: c.Identity.Public, Proofs: proofs, OperatingSystem: want.OperatingSystem, Unlisted: cluster.Unlisted,
	})
	if err != nil {
		return Granted{}, err
	}
	if err := usable(answer.GetCrt(), key.Public(), cluster.Roots, now); err != nil {
		return Granted{}, fmt.Errorf("the certificate that trustd sent: %w", err)
	}
	granted.Crt = answer.GetCrt()
	return granted, nil
}

// unreachable is one reason when all are the same.
func unreachable(why map[netip.Addr]error) error {
	var all []error
	seen := map[string]bool{}
	for _, err := range why {
		if !seen[err.Error()] {
			seen[err.Error()] = true
			all = append(all, err)
		}
	}
	if len(all) == 0 {
		return errors.New("the node has no address to ask from")
	}
	return errors.Join(all...)
}

// reachable says whether any candidate can be connected to from an address.
func (c *Client) reachable(ctx context.Context, cluster Cluster, from netip.Addr) error {
	reach := c.Dial
	if reach == nil {
		reach = dial
	}
	var problems []error
	for _, host := range cluster.candidates() {
		conn, err := reach(ctx, from, host)
		if err == nil {
			return conn.Close()
		}
		problems = append(problems, err)
	}
	if len(problems) == 0 {
		return errors.New("no control plane node is known: cluster.controlPlane.endpoint names no host")
	}
	return errors.Join(problems...)
}

func (c *Client) prove(ctx context.Context, cluster Cluster, from netip.Addr) ([]byte, error) {
	var proof []byte
	err := c.ask(ctx, cluster, from, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		answer, err := membership.NewMembershipServiceClient(conn).Prove(ctx, &membership.ProveRequest{Identity: c.Identity.Public})
		proof = answer.GetProof()
		return err
	})
	return proof, err
}

func (c *Client) request(ctx context.Context, cluster Cluster, from netip.Addr, r identity.Request) (*security.CertificateResponse, error) {
	statement := r.Statement()
	var answer *security.CertificateResponse
	err := c.ask(ctx, cluster, from, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		answer, err = security.NewSecurityServiceClient(conn).Certificate(ctx, &security.CertificateRequest{
			Csr: r.CSR, Identity: r.Identity, Signature: c.Identity.Sign(statement), Mac: cluster.mac(statement),
			Proofs: r.Proofs, OperatingSystem: r.OperatingSystem, Unlisted: r.Unlisted,
		})
		return err
	})
	return answer, err
}

func signingRequest(key crypto.Signer, names []string, addresses []netip.Addr) ([]byte, error) {
	template := &x509.CertificateRequest{DNSNames: names}
	if len(names) > 0 {
		template.Subject = pkix.Name{CommonName: names[0]}
	}
	for _, a := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(a.Unmap().AsSlice()))
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("make the signing request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// usable holds that an answer is a server's certificate for our key.
func usable(crt []byte, key crypto.PublicKey, roots *x509.CertPool, now time.Time) error {
	leaf, err := pki.ParseCertificate(crt)
	if err != nil {
		return err
	}
	own, ok := key.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(leaf.PublicKey) {
		return errors.New("it is for another key")
	}
	return pki.Verify(crt, roots, x509.ExtKeyUsageServerAuth, now)
}
