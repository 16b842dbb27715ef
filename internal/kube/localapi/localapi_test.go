package localapi

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/internal/balance"
	"talos/internal/resources/cluster"
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
		for { // also the checks come here
			c, err := back.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // an echo; the test sees what is missing
			}()
		}
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
	deadline(t, conn, 30*time.Second)
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

// TestTargets: the nearest first, nobody twice.
func TestTargets(t *testing.T) {
	for _, tc := range []struct {
		name     string
		local    string
		servers  [][]string
		endpoint string
		want     []balance.Target
	}{
		{"nobody yet", "", nil, "", nil},
		{"worker that knows nobody", "", nil, "lb:6443", []balance.Target{{Address: "lb:6443", Class: classEndpoint}}},
		{"control plane", "127.0.0.1:6443", [][]string{{"a:6443", "a6:6443"}, {"b:6443"}}, "lb:6443", []balance.Target{
			{Address: "127.0.0.1:6443", Well: true}, {Address: "a:6443", Class: classServer}, {Address: "b:6443", Class: classServer},
			{Address: "a6:6443", Class: classFurther}, {Address: "lb:6443", Class: classEndpoint},
		}},
		{"the endpoint is a node", "", [][]string{{"a:6443"}}, "a:6443", []balance.Target{{Address: "a:6443", Class: classServer}}},
	} {
		if diff := cmp.Diff(tc.want, targets(tc.local, tc.servers, tc.endpoint)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestAPIServers(t *testing.T) {
	addresses := []netip.Addr{netip.MustParseAddr("10.5.0.2"), netip.MustParseAddr("fd00::2")}
	for _, tc := range []struct {
		name string
		m    cluster.MemberSpec
		want []string
	}{
		{"control plane", cluster.MemberSpec{NodeID: "a", Addresses: addresses, ControlPlane: &cluster.ControlPlane{Port: 6443}}, []string{"10.5.0.2:6443", "[fd00::2]:6443"}},
		{"this node", cluster.MemberSpec{NodeID: "me", Addresses: addresses, ControlPlane: &cluster.ControlPlane{Port: 6443}}, nil},
		{"worker", cluster.MemberSpec{NodeID: "b", Addresses: addresses}, nil},
		{"no address", cluster.MemberSpec{NodeID: "c", ControlPlane: &cluster.ControlPlane{Port: 6443}}, nil},
	} {
		if diff := cmp.Diff(tc.want, apiServers(tc.m, "me")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

// TestWorkerFollowsMembers: a worker begins with the endpoint, goes to the API
// servers as it gets to know them, and back when none of them is left.
func TestWorkerFollowsMembers(t *testing.T) {
	endpoint, one, two := apiServer(t, "endpoint"), apiServer(t, "one"), apiServer(t, "two")
	f := &Forwarder{
		Log: slog.New(slog.DiscardHandler), Kubelet: free(t), Endpoint: endpoint.Listener.Addr().String(), FirstBoot: true,
		Authorities: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.Certificate().Raw}),
	}
	run(t, f)
	f.answers(t, "endpoint")
	f.SetServers([][]string{{one.Listener.Addr().String()}, {two.Listener.Addr().String()}})
	f.answers(t, "one")
	f.answers(t, "two")
	stop(one)
	f.answers(t, "two")
	stop(two)
	f.answers(t, "endpoint")
}

// answers waits until want has answered, and lets nobody wait for long.
func (f *Forwarder) answers(t *testing.T, want string) {
	t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		began := time.Now()
		got := ""
		resp, err := client.Get("https://" + f.Kubelet + "/name")
		if err == nil {
			data, _ := io.ReadAll(resp.Body) // what is missing shows below
			resp.Body.Close()
			got = string(data)
		}
		if got == want {
			return
		}
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("%q, %v came after %v", got, err, took)
		}
		if time.Now().After(end) {
			t.Fatalf("%q, %v answered last, want %q", got, err, want)
		}
	}
}

func apiServer(t *testing.T, name string) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, name) }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(func() { stop(s) })
	return s
}

func stop(s *httptest.Server) {
	s.CloseClientConnections()
	s.Close()
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

// frees counts the addresses of free.
var frees int

// free is an address that nobody else uses: a port that was free a moment ago
// may be another test process's by now. These are below those that the kernel
// gives out.
func free(t *testing.T) string {
	t.Helper()
	frees++
	return fmt.Sprintf("127.0.0.1:%d", 20000+(16*os.Getpid()+frees)%12000)
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
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
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
