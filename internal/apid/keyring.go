package apid

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"talos/internal/resources/secrets"
)

// keys are one state of the node's certificates: immutable.
type keys struct {
	config      *tls.Config
	client      *tls.Config // for calls to other nodes; nil on a node that does not forward
	roots       *x509.CertPool
	maintenance bool // nobody has a client certificate yet
}

// noKeys is the state between maintenance mode and the first certificate that
// was issued: nobody can prove anything.
var noKeys = &keys{roots: x509.NewCertPool()}

// errConfigured refuses the certificate of maintenance mode on a node that had
// another: there is no way back but a reboot.
var errConfigured = errors.New("maintenance mode: this node had a configuration already")

// keyring is the state that counts now.
type keyring struct{ now atomic.Pointer[keys] }

// newKeys reads what the resource holds.
func newKeys(spec *secrets.ApiCertificateSpec) (*keys, error) {
	if spec.Server == nil {
		return nil, errors.New("no server certificate")
	}
	pair, err := tls.X509KeyPair(spec.Server.Crt, spec.Server.Key)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	k := &keys{roots: x509.NewCertPool(), maintenance: spec.SkipVerifyingClientCert}
	count := 0
	for _, ca := range spec.AcceptedCAs {
		if ca != nil && len(bytes.TrimSpace(ca.Crt)) > 0 {
			if !k.roots.AppendCertsFromPEM(ca.Crt) {
				return nil, errors.New("accepted CA: no certificate in its PEM")
			}
			count++
		}
	}
	if count == 0 && !k.maintenance {
		return nil, errors.New("no accepted CA")
	}
	k.config = &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{pair},
		NextProtos:             []string{"h2"},
		ClientAuth:             tls.RequireAnyClientCert,
		ClientCAs:              k.roots,
		SessionTicketsDisabled: true, // a resumed session would carry an old verdict
		VerifyConnection:       k.verifyConnection,
	}
	if k.maintenance {
		k.config.ClientAuth = tls.NoClientCert
	}
	return k, k.readClient(spec)
}

// readClient takes the certificate with which the node speaks to others; only
// control plane nodes have one.
func (k *keys) readClient(spec *secrets.ApiCertificateSpec) error {
	if spec.Client == nil || k.maintenance {
		return nil
	}
	pair, err := tls.X509KeyPair(spec.Client.Crt, spec.Client.Key)
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	k.client = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2"},
		RootCAs:      k.roots,
	}
	return nil
}

func (k *keys) verifyConnection(state tls.ConnectionState) error {
	if k.maintenance {
		return nil
	}
	return k.verify(state.PeerCertificates, time.Now())
}

// verify accepts a chain that leads to an accepted CA and whose leaf is made
// for clients and nothing else: a server's key must not open doors.
func (k *keys) verify(chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("no client certificate")
	}
	leaf := chain[0]
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: k.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err == nil && !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		err = errors.New("its extended key usage is not client authentication alone")
	}
	if err != nil {
		return fmt.Errorf("client certificate %q, serial %x: %w", leaf.Subject.CommonName, leaf.SerialNumber, err)
	}
	return nil
}

// serverConfig asks the ring at every handshake.
func (r *keyring) serverConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			k := r.now.Load()
			if k == nil || k.config == nil {
				return nil, errors.New("this node has no certificate yet")
			}
			return k.config, nil
		},
	}
}
