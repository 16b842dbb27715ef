package apid

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"talos/internal/authz"
	"talos/internal/door"
)

// caller is who holds a connection: read from the certificate once, at the
// handshake.
type caller struct {
	credentials.TLSInfo
	chain   []*x509.Certificate
	expires time.Time
	roles   authz.Roles
	subject string
	serial  string
	print   string // SHA-256 of the certificate, hexadecimal

	verified atomic.Pointer[keys] // the state of the node's certificates that accepted chain
}

func newCaller(info credentials.TLSInfo, k *keys) *caller {
	c := &caller{TLSInfo: info, chain: info.State.PeerCertificates}
	c.verified.Store(k)
	if len(c.chain) == 0 { // maintenance: whoever reaches the node may look at it
		c.roles, c.subject = authz.NewRoles(string(authz.Reader)), "maintenance"
		return c
	}
	leaf := c.chain[0]
	sum := sha256.Sum256(leaf.Raw)
	c.expires = leaf.NotAfter
	c.roles = authz.NewRoles(leaf.Subject.Organization...)
	c.subject = leaf.Subject.CommonName
	c.serial = fmt.Sprintf("%x", leaf.SerialNumber)
	c.print = hex.EncodeToString(sum[:])
	return c
}

// check holds for each call what the handshake held for the connection, since
// a connection may outlive its certificate or the CA that signed it.
func (c *caller) check(current *keys, now time.Time) error {
	if len(c.chain) > 0 && now.After(c.expires) {
		return status.Errorf(codes.Unauthenticated, "the client certificate expired at %s", c.expires.UTC().Format(time.RFC3339))
	}
	if current == c.verified.Load() {
		return nil
	}
	if !current.maintenance {
		if len(c.chain) == 0 {
			return status.Error(codes.Unauthenticated, "maintenance mode is over: this node has a configuration, and wants a client certificate")
		}
		if err := current.verify(c.chain, now); err != nil {
			return status.Error(codes.Unauthenticated, err.Error())
		}
	}
	c.verified.Store(current)
	return nil
}

// callerFrom returns who makes a call, from where, and which of our addresses
// it came in on.
func callerFrom(ctx context.Context) (c *caller, remote, local string, err error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, "", "", status.Error(codes.Unauthenticated, "the call has no peer")
	}
	c, ok = p.AuthInfo.(*caller)
	if !ok {
		return nil, "", "", status.Error(codes.Unauthenticated, "the call has no TLS peer")
	}
	if p.LocalAddr != nil {
		local = p.LocalAddr.String()
	}
	return c, p.Addr.String(), local, nil
}

// doorman does TLS handshakes and writes down those that fail.
type doorman struct {
	credentials.TransportCredentials
	ring *keyring
	log  *slog.Logger

	pace  *rate.Limiter // of log lines: a flood of bad handshakes must not become one of logs
	muted *atomic.Int64 // lines left out since the last one
}

func newDoorman(ring *keyring, log *slog.Logger) *doorman {
	return &doorman{
		TransportCredentials: credentials.NewTLS(ring.serverConfig()), ring: ring, log: log,
		pace: rate.NewLimiter(20, 100), muted: new(atomic.Int64),
	}
}

// ServerHandshake is credentials.TransportCredentials.
func (d *doorman) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := d.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		d.refused(raw.RemoteAddr(), err)
		return nil, nil, err
	}
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok {
		conn.Close()
		return nil, nil, fmt.Errorf("handshake gave %T", info)
	}
	// The state may have changed since the handshake began; check then
	// verifies again.
	c := newCaller(tlsInfo, nil)
	if k := d.ring.now.Load(); len(c.chain) == 0 && !k.maintenance {
		conn.Close()
		return nil, nil, errors.New("no client certificate")
	}
	if err := seat(raw, c.print); err != nil {
		conn.Close()
		d.refused(raw.RemoteAddr(), fmt.Errorf("client %q, serial %s: %w", c.subject, c.serial, err))
		return nil, nil, err
	}
	return conn, c, nil
}

// seat takes a connection out of the strangers' number: the certificate has
// a number of its own. In maintenance nobody can show one; all stay strangers.
func seat(raw net.Conn, print string) error {
	conn, ok := raw.(*door.Conn)
	if !ok {
		return fmt.Errorf("connection is a %T", raw)
	}
	if print == "" {
		conn.Stay()
		return nil
	}
	return conn.Admit(print)
}

// Clone is credentials.TransportCredentials.
func (d *doorman) Clone() credentials.TransportCredentials {
	clone := *d
	clone.TransportCredentials = d.TransportCredentials.Clone()
	return &clone
}

func (d *doorman) refused(addr net.Addr, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) { // by us: the door's log has a number
		d.log.Debug("connection closed before the handshake", "peer", addr)
		return
	}
	if !d.pace.Allow() {
		d.muted.Add(1)
		return
	}
	attrs := []any{"peer", addr.String(), "reason", err.Error()}
	if n := d.muted.Swap(0); n > 0 {
		attrs = append(attrs, "unlogged", n)
	}
	d.log.Warn("handshake refused", attrs...)
}
