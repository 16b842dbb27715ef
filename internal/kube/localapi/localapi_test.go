package localapi

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// TestConnectionWaits: a connection made before the API is ready is served
// when it is.
func TestConnectionWaits(t *testing.T) {
	var ready atomic.Bool
	back := listen(t)
	f := &Forwarder{
		Log: slog.New(slog.DiscardHandler), Kubelet: free(t), Local: back.Addr().String(), Endpoint: "127.0.0.1:1", FirstBoot: true,
		Ready: func(context.Context) error {
			if !ready.Load() {
				return errors.New("not yet")
			}
			return nil
		},
	}
	run(t, f)
	go func() {
		c, err := back.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c) // an echo; the test sees what is missing
	}()
	conn := dial(t, f.Kubelet)
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	deadline(t, conn, 100*time.Millisecond)
	if _, err := io.ReadFull(conn, buf); err == nil {
		t.Fatal("served before the API was ready")
	}
	ready.Store(true)
	deadline(t, conn, 5*time.Second)
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hello" {
		t.Fatalf("read %q, %v; want the echo", buf, err)
	}
}

// TestKubeletIsRefused: one that has pods of an earlier boot is told at once
// that there is no API yet, in a way that it believes; components wait.
func TestKubeletIsRefused(t *testing.T) {
	f := &Forwarder{
		Log: slog.New(slog.DiscardHandler), Kubelet: free(t), Components: free(t), Local: free(t), Endpoint: "127.0.0.1:1",
		Ready: func(context.Context) error { return errors.New("never") },
	}
	run(t, f)
	kubelet := dial(t, f.Kubelet)
	err := tls.Client(kubelet, &tls.Config{InsecureSkipVerify: true}).Handshake()
	if err == nil || err.Error() != "remote error: tls: internal error" {
		t.Errorf("handshake = %v, want an alert", err)
	}
	component := dial(t, f.Components)
	deadline(t, component, 200*time.Millisecond)
	if _, err := component.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read = %v, want the component to wait", err)
	}
}

// TestEndOfOneSide: the answer still arrives after the question ended.
func TestEndOfOneSide(t *testing.T) {
	back := listen(t)
	f := &Forwarder{Log: slog.New(slog.DiscardHandler), Kubelet: free(t), Endpoint: back.Addr().String()}
	run(t, f)
	go func() {
		c, err := back.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		data, _ := io.ReadAll(c)
		_, _ = c.Write(append([]byte("got "), data...))
	}()
	conn := dial(t, f.Kubelet).(*net.TCPConn)
	_, err := conn.Write([]byte("all"))
	if err := errors.Join(err, conn.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	deadline(t, conn, 5*time.Second)
	if got, err := io.ReadAll(conn); err != nil || string(got) != "got all" {
		t.Errorf("read %q, %v", got, err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func free(t *testing.T) string {
	t.Helper()
	l := listen(t)
	l.Close()
	return l.Addr().String()
}

func run(t *testing.T, f *Forwarder) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func deadline(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
}
