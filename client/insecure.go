package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/credentials"

	"talos/internal/pki"
)

// errWantsCertificate ends the handshake with a machine that is not in
// maintenance mode any more.
var errWantsCertificate = errors.New("it wants a client certificate")

// fingerprintError says that a machine is not the one that was meant.
type fingerprintError struct{ seen pki.Fingerprint }

func (e *fingerprintError) Error() string {
	return fmt.Sprintf("its key has the fingerprint %s, which is none of those expected", e.seen)
}

// newInsecure prepares a client for a machine in maintenance mode.
func newInsecure(o Options) (*Client, error) {
	machines := o.Nodes
	if len(machines) == 0 {
		machines = o.Endpoints
	}
	if len(machines) != 1 {
		return nil, fmt.Errorf("connect without certificates: this goes to one machine, %d are named", len(machines))
	}
	g := &guest{seen: o.Seen}
	for _, text := range o.Fingerprints {
		f, err := pki.ParseFingerprint(text)
		if err != nil {
			return nil, err
		}
		g.expected = append(g.expected, f)
	}
	c := &Client{dials: newDials(), display: machines, insecure: true}
	if err := c.connect(&recorder{TransportCredentials: credentials.NewTLS(g.config()), dials: c.dials, check: g.check}); err != nil {
		return nil, err
	}
	return c, nil
}

// guest is who comes without a certificate. It is safe for concurrent use.
type guest struct {
	seen func(fingerprint string)

	mu       sync.Mutex // guards the field below
	expected []pki.Fingerprint
}

func (g *guest) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // check compares the key
		// Asked for by a machine that has a configuration, and then the first to
		// notice: its key is another one now.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, errWantsCertificate },
	}
}

// check compares the machine's key with those expected, after the handshake and
// before anything is sent. Where none was, the first one that is seen is
// expected from then on.
func (g *guest) check(state tls.ConnectionState) error {
	seen := pki.KeyFingerprint(state.PeerCertificates[0])
	g.mu.Lock()
	first := len(g.expected) == 0
	if first {
		g.expected = []pki.Fingerprint{seen}
	}
	known := slices.Contains(g.expected, seen)
	g.mu.Unlock()
	if !known {
		return &fingerprintError{seen}
	}
	if first && g.seen != nil {
		g.seen(seen.String())
	}
	return nil
}

// classifyMaintenance tells whether one of client and machine is in maintenance
// mode and the other is not.
func classifyMaintenance(err error) (Kind, string, bool) {
	var (
		print      *fingerprintError
		unverified *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, errWantsCertificate):
		return Configured, err.Error(), true
	case errors.As(err, &print):
		return UntrustedServer, print.Error(), true
	case errors.As(err, &unverified) && len(unverified.UnverifiedCertificates) > 0 && pki.Maintenance(unverified.UnverifiedCertificates[0]):
		return Unconfigured, "its certificate is that of maintenance mode", true
	case strings.Contains(err.Error(), "remote error: tls: internal error"):
		return Unreachable, "the node has no certificate to serve with yet", true
	}
	return "", "", false
}
