package balance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
)

// maxAnswer is how much of an answer is read.
const maxAnswer = 4 << 10

// NotReady is what a server is that answers, and says that it is not ready.
type NotReady string

func (e NotReady) Error() string { return string(e) }

// Ready asks API servers whether they are ready, without credentials, over a
// connection that is kept. Their certificates must be of roots and for name,
// the one by which clients ask for them. Call stop to end what it keeps open.
func Ready(roots *x509.CertPool, name string) (check Check, stop func()) {
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: checkTimeMax,
		MaxIdleConnsPerHost: 1,
	}
	return func(ctx context.Context, address string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
			return err
		}
		switch resp.StatusCode {
		case http.StatusOK, http.StatusUnauthorized: // the second where nobody may ask without credentials
			return nil
		default:
			return NotReady(address + "/readyz: " + resp.Status)
		}
	}, transport.CloseIdleConnections
}

// Handshake asks whether a server completes a TLS handshake, with a certificate
// of roots for its address.
func Handshake(roots *x509.CertPool) Check {
	return func(ctx context.Context, address string) error {
		d := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
