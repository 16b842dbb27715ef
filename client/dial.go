package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
)

// dialTimeout bounds one connection attempt to one address.
const dialTimeout = 5 * time.Second

// dials remembers how connecting to each endpoint last ended, because gRPC
// keeps only a sentence of it. Safe for concurrent use.
type dials struct {
	dialer net.Dialer

	mu          sync.Mutex // guards the fields below
	last        map[string]error
	silentUntil map[string]time.Time // endpoints that did not answer lately
}

func newDials() *dials {
	return &dials{dialer: net.Dialer{Timeout: dialTimeout}, last: map[string]error{}, silentUntil: map[string]time.Time{}}
}

var errConnecting = errors.New("connecting")

func (d *dials) note(endpoint string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last[endpoint] = err
}

// silent reports whether no endpoint has answered in any way yet.
func (d *dials) silent() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, err := range d.last {
		if err != errConnecting && !isTimeout(err) {
			return false
		}
	}
	return len(d.last) > 0
}

// dial opens a TCP connection that knows the endpoint's name. Proxies of the
// environment are not used: endpoints are machines, not web sites.
func (d *dials) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	d.note(endpoint, errConnecting)
	conn, err := d.dialer.DialContext(ctx, "tcp", endpoint)
	if err != nil {
		if ctx.Err() == nil || isTimeout(err) {
			d.note(endpoint, err)
		}
		return nil, err
	}
	return &namedConn{Conn: conn, endpoint: endpoint}, nil
}

type namedConn struct {
	net.Conn
	endpoint string
}

// recorder is TLS that notes why a handshake went wrong.
type recorder struct {
	credentials.TransportCredentials
	dials *dials
	check func(tls.ConnectionState) error // of the server; may be nil
}

func (r *recorder) Clone() credentials.TransportCredentials {
	return &recorder{TransportCredentials: r.TransportCredentials.Clone(), dials: r.dials, check: r.check}
}

func (r *recorder) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	named, ok := raw.(*namedConn)
	if !ok {
		return r.TransportCredentials.ClientHandshake(ctx, authority, raw)
	}
	conn, info, err := r.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if tlsInfo, ok := info.(credentials.TLSInfo); err == nil && ok && r.check != nil {
		if err = r.check(tlsInfo.State); err != nil {
			conn.Close()
		}
	}
	r.dials.note(named.endpoint, err)
	if err != nil {
		return nil, nil, err
	}
	return &watchedConn{Conn: conn, dials: r.dials, endpoint: named.endpoint}, info, nil
}

// watchedConn notes how reading ended: with TLS 1.3 a server refuses the
// client's certificate only after the client's handshake is over.
type watchedConn struct {
	net.Conn
	dials    *dials
	endpoint string
}

// Write fails first where the server has hung up; why is in what it sent before.
func (w *watchedConn) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		w.dials.note(w.endpoint, err)
		if w.Conn.SetReadDeadline(time.Now().Add(time.Second)) == nil {
			_, _ = w.Read(make([]byte, 1)) // notes what it finds
		}
	}
	return n, err
}

func (w *watchedConn) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil && !errors.Is(err, net.ErrClosed) && !isTimeout(err) {
		w.dials.note(w.endpoint, err)
	}
	return n, err
}

// explain says in one line what "unavailable" means: no endpoint could be used,
// or the node itself says that it can't now. said is the status's message.
func (d *dials) explain(said string) (Kind, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	works := d.worksLocked()
	if works && !transportTrouble(said) {
		return Precondition, said
	}
	kind, lines := d.reasonsLocked()
	// Without a connection to give the call to, gRPC tells of connection errors;
	// else the call had one.
	sent := !strings.Contains(said, "connection error")
	if works || len(lines) == 0 || sent && rank(kind) <= rank(Lost) {
		return Lost, said
	}
	slices.Sort(lines)
	return kind, strings.Join(lines, "; ")
}

// reasonsLocked lists why endpoints did not work, and the kind that tells most.
func (d *dials) reasonsLocked() (kind Kind, lines []string) {
	kind = Unreachable
	for endpoint, err := range d.last {
		if err == nil || err == errConnecting {
			continue
		}
		k, text := classify(err)
		if rank(k) > rank(kind) {
			kind = k
		}
		lines = append(lines, endpoint+": "+text)
	}
	return kind, lines
}

// worksLocked reports whether there is a connection to some endpoint.
func (d *dials) worksLocked() bool {
	for _, err := range d.last {
		if err == nil {
			return true
		}
	}
	return false
}

// transportTrouble tells gRPC's own messages from those of a server.
func transportTrouble(said string) bool {
	for _, mark := range []string{"connection error", "error reading", "transport", "connection is draining", "connection closed", "no children", errNoOther.Error()} {
		if strings.Contains(said, mark) {
			return true
		}
	}
	return false
}

// rank orders kinds by how much they tell: a refused certificate explains more
// than an endpoint that is down.
func rank(k Kind) int {
	return slices.Index([]Kind{Unreachable, Lost, UntrustedServer, Unconfigured, RefusedClient, Configured, ExpiredClient}, k)
}

// classify names what one failed connection means.
func classify(err error) (Kind, string) {
	if kind, text, ok := classifyMaintenance(err); ok {
		return kind, text
	}
	if kind, text, ok := classifyServer(err); ok {
		return kind, text
	}
	if kind, text, ok := classifyAlert(err.Error()); ok {
		return kind, text
	}
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Unreachable, "connection refused"
	case errors.As(err, &dns):
		return Unreachable, "no address for the name " + dns.Name
	case isTimeout(err):
		return Unreachable, fmt.Sprintf("no answer within %v", dialTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Lost, "the server closed the connection"
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return Unreachable, op.Err.Error()
	}
	return Unreachable, err.Error()
}

func classifyServer(err error) (Kind, string, bool) {
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &authority):
		return UntrustedServer, "the server's certificate is not of the CA that this context trusts", true
	case errors.As(err, &name):
		return UntrustedServer, "the server's certificate is not for this name: " + name.Error(), true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return UntrustedServer, "the server's certificate is expired or not yet valid: " + invalid.Detail, true
	case errors.As(err, &invalid):
		return UntrustedServer, "the server's certificate is not valid: " + invalid.Error(), true
	case errors.As(err, &record):
		return UntrustedServer, "the server does not speak TLS there", true
	}
	return "", "", false
}

// classifyAlert reads the TLS alerts with which a server turns a client down;
// crypto/tls does not export their type.
func classifyAlert(text string) (Kind, string, bool) {
	_, alert, ok := strings.Cut(text, "remote error: tls: ")
	if !ok {
		return "", "", false
	}
	alert, _, _ = strings.Cut(alert, "\"")
	if strings.HasPrefix(alert, "expired certificate") {
		return ExpiredClient, "the server says: expired certificate", true
	}
	return RefusedClient, "the server says: " + alert, true
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}
