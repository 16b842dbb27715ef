package balance

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// echo serves its name on every connection, after reading to the end.
func echo(t *testing.T, name string) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(io.Discard, c)
				io.WriteString(c, name)
			}()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), func() { l.Close() }
}

func ask(t *testing.T, address string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "hello")
	c.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestSpreadsAndFailsOver(t *testing.T) {
	one, stopOne := echo(t, "one")
	two, _ := echo(t, "two")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- New(slog.New(slog.DiscardHandler), one, two).Serve(ctx, l) }()

	seen := map[string]int{}
	for range 20 {
		seen[ask(t, l.Addr().String())]++
	}
	if seen["one"] == 0 || seen["two"] == 0 || seen["one"]+seen["two"] != 20 {
		t.Errorf("20 connections reached %v, want both backends and nothing else", seen)
	}
	stopOne()
	for range 10 {
		if got := ask(t, l.Addr().String()); got != "two" {
			t.Errorf("with one stopped, a connection got %q, want %q", got, "two")
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve after cancel = %v, want nil", err)
	}
}
