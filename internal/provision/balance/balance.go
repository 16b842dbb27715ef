// Package balance is the TCP load balancer in front of a cluster's Kubernetes
// API: one address that stays while control plane nodes come and go.
//
// It only looks at connections, never at what goes through them. Backends are
// probed by connecting; a connection is also tried on the next backend when
// its own refuses, so that a probe's delay is never seen. A Balancer is safe
// for concurrent use.
package balance

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"talos/internal/loop"
)

// How often backends are probed, and how long a connection may take: they are
// one bridge away.
const (
	probeHealthy   = time.Second
	probeUnhealthy = 200 * time.Millisecond
	dialTimeout    = time.Second
)

// Balancer spreads connections over backends.
type Balancer struct {
	backends []*backend
	next     atomic.Uint32
	log      *slog.Logger
}

type backend struct {
	address string
	healthy atomic.Bool
}

// New makes a balancer over addresses (host:port).
func New(log *slog.Logger, addresses ...string) *Balancer {
	b := &Balancer{log: log}
	for _, a := range addresses {
		b.backends = append(b.backends, &backend{address: a})
	}
	return b
}

// Serve accepts on l until ctx ends, then closes l and all connections.
func (b *Balancer) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, be := range b.backends {
		wg.Go(func() { b.probe(ctx, be) })
	}
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors: leave what is open time to end
			b.log.Warn("accept", "address", l.Addr().String(), "err", err)
			loop.Sleep(ctx, 100*time.Millisecond)
			continue
		}
		wg.Go(func() { b.forward(ctx, conn) })
	}
}

func (b *Balancer) probe(ctx context.Context, be *backend) {
	for {
		conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", be.address)
		if err == nil {
			conn.Close()
		}
		if ctx.Err() != nil {
			return
		}
		if was := be.healthy.Swap(err == nil); was != (err == nil) {
			b.log.Info("backend changed", "backend", be.address, "healthy", err == nil)
		}
		pause := probeHealthy
		if err != nil {
			pause = probeUnhealthy
		}
		if !loop.Sleep(ctx, pause) {
			return
		}
	}
}

// order lists backends in the order in which a connection tries them: healthy
// ones first, starting with the next one in turn.
func (b *Balancer) order() []*backend {
	var first, last []*backend
	start := int(b.next.Add(1))
	for i := range b.backends {
		be := b.backends[(start+i)%len(b.backends)]
		if be.healthy.Load() {
			first = append(first, be)
		} else {
			last = append(last, be)
		}
	}
	return append(first, last...)
}

func (b *Balancer) forward(ctx context.Context, client net.Conn) {
	defer client.Close()
	for _, be := range b.order() {
		server, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", be.address)
		if err != nil {
			be.healthy.Store(false)
			continue
		}
		pipe(ctx, client, server)
		return
	}
}

// pipe copies both ways until both sides have ended or ctx ends. The copies
// are splice(2) between the sockets.
func pipe(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() {
		a.Close()
		b.Close()
	})
	defer stop()
	defer b.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		half(a, b)
	}()
	half(b, a)
	<-done
}

// half copies one way and passes the end on. A broken connection ends both.
func half(dst, src net.Conn) {
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		src.Close()
		return
	}
	if c, ok := dst.(*net.TCPConn); ok {
		c.CloseWrite() // fails only when the connection is gone already
	}
}
