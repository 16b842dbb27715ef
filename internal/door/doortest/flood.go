// Package doortest plays strangers before the doors of our servers, for tests:
// a flood of connections from any number of loopback addresses, each of a
// network of its own. It owns nothing of the servers; a Flood ends with its test.
package doortest

import (
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	workers = 8
	held    = 400                  // connections of each worker at a time: more than there are places, for longer than a test looks
	pause   = 8 * time.Millisecond // of each worker after a connection: a thousand a second, so that processors are left
)

// Flood is strangers that connect and prove nothing.
type Flood struct {
	Tries  atomic.Int64 // connections that were made or refused
	target string
	hello  []byte
	stop   chan struct{}
	wg     sync.WaitGroup
}

// Start floods an address, with up to a thousand connections a second, until the test ends, from all of 127.16.0.0 to
// 127.250.255.255: a third are silent, a third send half of a TLS handshake's
// first message, and a third all of it, so that the server has to answer.
func Start(t testing.TB, target string) *Flood {
	t.Helper()
	f := &Flood{target: target, hello: clientHello(t), stop: make(chan struct{})}
	for range workers {
		f.wg.Go(f.run)
	}
	t.Cleanup(f.Stop)
	return f
}

// Stop ends the flood; it may be called again.
func (f *Flood) Stop() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.wg.Wait()
}

func (f *Flood) run() {
	var open [held]net.Conn
	defer func() {
		for _, conn := range open {
			hangUp(conn)
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-f.stop:
			return
		case <-time.After(pause):
		}
		hangUp(open[i%held])
		open[i%held] = f.knock(i)
		f.Tries.Add(1)
	}
}

// knock makes a connection; nil where it is refused.
func (f *Flood) knock(i int) net.Conn {
	from := net.IPv4(127, byte(16+rand.IntN(235)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: time.Second}
	conn, err := d.Dial("tcp", f.target)
	if err != nil {
		return nil
	}
	switch i % 3 {
	case 1:
		_, _ = conn.Write(f.hello[:len(f.hello)/2]) // it may be dropped already
	case 2:
		_, _ = conn.Write(f.hello)
	}
	return conn
}

func hangUp(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // no port is kept
		_ = tcp.Close()      // the server may have been first
	}
}

// clientHello is what a TLS client says first.
func clientHello(t testing.TB) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	defer client.Close()
	go tls.Client(client, &tls.Config{ServerName: "node", NextProtos: []string{"h2"}}).Handshake()
	head := make([]byte, 5)
	if _, err := io.ReadFull(server, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// Heap is how much memory is in use.
func Heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc + stats.StackInuse
}
