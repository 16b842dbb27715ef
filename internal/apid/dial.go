package apid

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/layout"
	"talos/internal/pki"
)

const (
	// stagger is how long one address of a node is tried before the next one
	// is, beside it.
	stagger = 200 * time.Millisecond
	// unheard is how long what was sent may stay without the other kernel's
	// acknowledgement before the connection counts as broken.
	unheard = 5 * time.Second
)

// errBlank is what is wrong with a node that shows the certificate of
// maintenance mode.
var errBlank = errors.New("it is in maintenance mode and waits for its first configuration")

// dialer reaches other nodes with the node's certificates of the moment.
type dialer struct {
	ring    *keyring
	members *members
}

// dial connects to the first of the addresses where a node proves, by a
// certificate of an accepted CA, to be of that name or address.
func (d dialer) dial(ctx context.Context, name string, addresses []string) (net.Conn, error) {
	k := d.ring.now.Load()
	if k == nil || k.client == nil {
		return nil, errors.New("this node has no certificate to speak to others")
	}
	if len(addresses) == 1 {
		return d.try(ctx, k, name, addresses[0])
	}
	return race(ctx, addresses, func(ctx context.Context, address string) (net.Conn, error) {
		return d.try(ctx, k, name, address)
	})
}

func (d dialer) try(ctx context.Context, k *keys, name, address string) (net.Conn, error) {
	tcp := net.Dialer{KeepAlive: -1, Control: giveUpUnheard} // HTTP/2 has its own pings
	raw, err := tcp.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	config := k.client.Clone()
	config.ServerName = name
	conn := tls.Client(raw, config)
	err = conn.HandshakeContext(ctx)
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) && len(unverified.UnverifiedCertificates) > 0 && pki.Maintenance(unverified.UnverifiedCertificates[0]) {
		err = errBlank
	}
	if err == nil {
		err = d.mayBe(name, conn.ConnectionState())
	}
	if err == nil && conn.ConnectionState().NegotiatedProtocol != "h2" {
		err = errors.New("it does not speak HTTP/2")
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	return conn, nil
}

// mayBe holds that a control plane node shows what only control plane nodes
// have. A worker may have got a certificate for a name, or at an address, before
// a control plane node announced itself there.
func (d dialer) mayBe(name string, state tls.ConnectionState) error {
	if !d.members.controlPlane(name) {
		return nil
	}
	if err := state.PeerCertificates[0].VerifyHostname(layout.APIName); err != nil {
		return fmt.Errorf("its certificate is not that of a control plane node, which %s is", name)
	}
	return nil
}

// giveUpUnheard sets TCP_USER_TIMEOUT (tcp(7)): a node whose network is gone
// fails calls within seconds, not minutes.
func giveUpUnheard(_, _ string, raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unheard.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}

// race tries the addresses one after the other, each beside those that have
// not ended, and returns the first connection; it waits for all attempts.
func race(ctx context.Context, addresses []string, try func(context.Context, string) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex // guards winner and failed
		winner net.Conn
		failed []error
	)
	for _, address := range addresses {
		ended := make(chan struct{})
		wg.Go(func() {
			defer close(ended)
			conn, err := try(ctx, address)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed = append(failed, err)
			case winner != nil:
				conn.Close()
			default:
				winner = conn
				cancel()
			}
		})
		timer := time.NewTimer(stagger)
		select {
		case <-ended:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			break
		}
	}
	wg.Wait()
	cancel()
	if winner != nil {
		return winner, nil
	}
	return nil, errors.Join(failed...)
}
