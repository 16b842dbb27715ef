// Package resolver forwards DNS questions of a cluster's nodes to the host's
// own name servers, over UDP and TCP, so that nodes have a resolver that
// always answers: with SERVFAIL at once when the host has no name server or
// none of them has answered lately.
//
// Messages pass through unparsed, save for the header. A Forwarder is safe
// for concurrent use.
package resolver

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	upstreamTimeout = 2 * time.Second
	deadFor         = 5 * time.Second // how long servers that did not answer are not waited for
	tcpIdle         = 10 * time.Second
	headerLen       = 12
	maxUDP          = 64 << 10
	maxInFlight     = 256
	serverFailure   = 2
)

// Forwarder passes questions on.
type Forwarder struct {
	servers   func() []netip.AddrPort
	log       *slog.Logger
	deadUntil atomic.Int64 // unix nanoseconds
}

// New makes a forwarder; servers is asked for the name servers at every question.
func New(log *slog.Logger, servers func() []netip.AddrPort) *Forwarder {
	return &Forwarder{servers: servers, log: log}
}

// HostServers reads the name servers of a resolv.conf.
func HostServers(path string) []netip.AddrPort {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	return parse(f)
}

func parse(r io.Reader) []netip.AddrPort {
	var out []netip.AddrPort
	for s := bufio.NewScanner(r); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}

// Serve answers on both sockets until ctx ends, then closes them.
func (f *Forwarder) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		udp.Close()
		tcp.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	wg.Go(func() { errs <- f.serveUDP(ctx, udp) })
	wg.Go(func() { errs <- f.serveTCP(ctx, tcp) })
	err := <-errs
	cancel()
	wg.Wait()
	return err
}

func (f *Forwarder) serveUDP(ctx context.Context, conn net.PacketConn) error {
	slots := make(chan struct{}, maxInFlight)
	buf := make([]byte, maxUDP)
	for {
		n, from, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default: // a flood: drop, as the network would
			continue
		}
		question := append([]byte(nil), buf[:n]...)
		go func() {
			defer func() { <-slots }()
			if answer := f.answer(ctx, "udp", question); answer != nil {
				conn.WriteTo(answer, from) // who asked will ask again
			}
		}()
	}
}

func (f *Forwarder) serveTCP(ctx context.Context, l net.Listener) error {
	slots := make(chan struct{}, maxInFlight)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		go func() {
			defer func() { <-slots }()
			defer conn.Close()
			for {
				conn.SetDeadline(time.Now().Add(tcpIdle))
				question, err := readFrame(conn)
				if err != nil {
					return
				}
				answer := f.answer(ctx, "tcp", question)
				if answer == nil || writeFrame(conn, answer) != nil {
					return
				}
			}
		}()
	}
}

// answer returns what a name server said, SERVFAIL, or nil for what is not a question.
func (f *Forwarder) answer(ctx context.Context, network string, question []byte) []byte {
	if len(question) < headerLen || question[2]&0x80 != 0 {
		return nil
	}
	now := time.Now()
	if servers := f.servers(); len(servers) > 0 && now.UnixNano() >= f.deadUntil.Load() {
		for _, s := range servers {
			answer, err := exchange(ctx, network, s, question, upstreamTimeout/time.Duration(len(servers)))
			if err == nil {
				return answer
			}
			f.log.Debug("forward question", "server", s.String(), "err", err)
		}
		f.deadUntil.Store(time.Now().Add(deadFor).UnixNano())
	}
	return failure(question)
}

// failure turns a question into the answer SERVFAIL.
func failure(question []byte) []byte {
	out := append([]byte(nil), question...)
	out[2] |= 0x80                              // an answer
	out[3] = out[3]&0x70 | 0x80 | serverFailure // recursion available
	binary.BigEndian.PutUint16(out[6:], 0)      // no answers
	binary.BigEndian.PutUint16(out[8:], 0)      // no authorities
	return out
}

func exchange(ctx context.Context, network string, server netip.AddrPort, question []byte, timeout time.Duration) ([]byte, error) {
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(timeout))
	if network == "tcp" {
		if err := writeFrame(conn, question); err != nil {
			return nil, err
		}
		return readFrame(conn)
	}
	if _, err := conn.Write(question); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDP)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if n >= headerLen && buf[0] == question[0] && buf[1] == question[1] {
			return append([]byte(nil), buf[:n]...), nil
		}
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, buf)
	return buf, err
}

func writeFrame(w io.Writer, msg []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	return err
}
