package hostdns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Times of asking.
const (
	tryTime    = 1500 * time.Millisecond // of one upstream, when there are others
	askTime    = 4 * time.Second         // of all: clients wait five seconds
	probePause = 5 * time.Second         // of one that did not answer
)

// Upstream is a name server and whether it answered when it was asked last.
type Upstream struct {
	Addr    netip.AddrPort
	Healthy bool
}

var errNoUpstream = errors.New("no name server is known")

// ask sends a query to one upstream after the other until one knows an answer.
// Those that did not answer lately come last. The whole list is asked again
// while there is time: packets get lost.
func (s *Server) ask(ctx context.Context, network string, q query) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var last []byte // the answer of one that could not answer
	err := errNoUpstream
	for range 2 {
		for _, addr := range s.ordered() {
			answer, failed := exchange(ctx, network, addr, q)
			if ctx.Err() == nil {
				s.mark(addr, failed == nil)
			}
			if failed != nil {
				err = failed
				continue
			}
			if rcode := answer[3] & rcodeBits; rcode != rcodeServFail && rcode != rcodeRefused {
				return answer, nil
			}
			last = answer
		}
		if last != nil || ctx.Err() != nil {
			break
		}
	}
	if last != nil {
		return last, nil
	}
	return nil, err
}

// exchange asks one upstream once.
func exchange(ctx context.Context, network string, addr netip.AddrPort, q query) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	// A socket of its own for each query: a port that nobody can guess.
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", addr, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	id := uint16(rand.Uint32()) // of a generator that is seeded from the kernel and can't be predicted
	if network == "tcp" {
		err = writeFrame(conn, q.forUpstream(id))
	} else {
		_, err = conn.Write(q.forUpstream(id))
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", addr, err)
	}
	for {
		msg, err := receive(conn, network)
		if err != nil {
			return nil, fmt.Errorf("answer of %s: %w", addr, err)
		}
		if q.answers(msg, id) {
			return msg, nil
		}
	}
}

func receive(conn net.Conn, network string) ([]byte, error) {
	if network == "tcp" {
		return readFrame(conn)
	}
	buf := make([]byte, maxUDP)
	n, err := conn.Read(buf)
	return buf[:n], err
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
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))), msg...))
	return err
}

// ordered are the upstreams, the healthy ones first.
func (s *Server) ordered() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	var healthy, down []netip.AddrPort
	for _, u := range s.upstreams {
		if u.Healthy {
			healthy = append(healthy, u.Addr)
		} else {
			down = append(down, u.Addr)
		}
	}
	return append(healthy, down...)
}

// mark notes whether an upstream answered.
func (s *Server) mark(addr netip.AddrPort, healthy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.upstreams, func(u Upstream) bool { return u.Addr == addr })
	if i < 0 || s.upstreams[i].Healthy == healthy {
		return
	}
	s.upstreams[i].Healthy = healthy
	s.log.Info("name server changed", "server", addr.String(), "answers", healthy)
	s.notify()
}

// probe asks those that did not answer for the root's name servers, until
// they answer again.
func (s *Server) probe(ctx context.Context) {
	q, _ := parseQuery([]byte("\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"))
	tick := time.NewTicker(probePause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, u := range s.Upstreams() {
			if u.Healthy {
				continue
			}
			if _, err := exchange(ctx, "udp", u.Addr, q); err == nil {
				s.mark(u.Addr, true)
			}
		}
	}
}
