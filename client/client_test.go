package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
	"talos/client"
	"talos/client/talosconfig"
	"talos/internal/pki"
)

// endpoint is a node's API whose host name tells which one answered.
type endpoint struct {
	machine.UnimplementedMachineServiceServer
	name    string
	address string
	stop    func()
	pause   time.Duration // before Hostname answers
}

// Events sends one that names the node.
func (e *endpoint) Events(_ *machine.EventsRequest, stream grpc.ServerStreamingServer[machine.Event]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	return stream.Send(&machine.Event{Id: md.Get("node")[0]})
}

// Hostname merges the answers of several nodes as an endpoint does; the node
// "broken" fails in such an answer, "denied" refuses.
func (e *endpoint) Hostname(ctx context.Context, _ *emptypb.Empty) (*machine.HostnameResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	time.Sleep(e.pause)
	reply := &machine.HostnameResponse{}
	for _, node := range md.Get("nodes") {
		m := &machine.Hostname{Metadata: &common.Metadata{Hostname: node}, Hostname: node}
		if node == "broken" {
			m.Metadata.Error, m.Metadata.Status = "it is broken", status.New(codes.NotFound, "it is broken").Proto()
		}
		reply.Messages = append(reply.Messages, m)
	}
	if node := md.Get("node"); len(node) > 0 {
		if node[0] == "denied" {
			return nil, status.Error(codes.PermissionDenied, "not you")
		}
		reply.Messages = append(reply.Messages, &machine.Hostname{Hostname: node[0]})
	}
	if len(reply.Messages) == 0 {
		reply.Messages = append(reply.Messages, &machine.Hostname{Hostname: e.name})
	}
	return reply, nil
}

func (e *endpoint) serve(t *testing.T, conf *tls.Config) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(conf)))
	machine.RegisterMachineServiceServer(server, e)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) }) // ends with Stop
	e.address = l.Addr().String()
	e.stop = func() { server.Stop(); wg.Wait() }
	t.Cleanup(e.stop)
}

// setup serves n endpoints and answers a context for them.
func setup(t *testing.T, n int) ([]*endpoint, *talosconfig.Context) {
	t.Helper()
	now := time.Now()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := pki.NewCA(pki.Ed25519, pki.Subject{Organization: []string{"talos"}}, now)
	must(err)
	ca, err := pki.ParseCA(root.Crt, root.Key)
	must(err)
	server, err := ca.Issue(pki.Template{Server: true, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Lifetime: time.Hour}, now)
	must(err)
	admin, err := ca.Issue(pki.Template{Client: true, Organization: []string{"os:admin"}, Lifetime: time.Hour}, now)
	must(err)
	pair, err := pki.TLS(server)
	must(err)
	pool, err := pki.Pool(root.Crt)
	must(err)
	conf := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	ctx := &talosconfig.Context{CA: talosconfig.Encode(root.Crt), Crt: talosconfig.Encode(admin.Crt), Key: talosconfig.Encode(admin.Key)}
	var all []*endpoint
	for i := range n {
		e := &endpoint{name: fmt.Sprintf("e%d", i)}
		e.serve(t, conf)
		all = append(all, e)
		ctx.Endpoints = append(ctx.Endpoints, e.address)
	}
	return all, ctx
}

func connect(t *testing.T, ctx *talosconfig.Context, o client.Options) *client.Client {
	t.Helper()
	o.Config = &talosconfig.Config{Context: "c", Contexts: map[string]*talosconfig.Context{"c": ctx}}
	c, err := client.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// hostname is who answered, and how long that took.
func hostname(t *testing.T, c *client.Client) (string, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	start := time.Now()
	reply, err := c.Machine.Hostname(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	return reply.GetMessages()[0].GetHostname(), time.Since(start)
}

func TestSpreadsOverEndpoints(t *testing.T) {
	_, ctx := setup(t, 3)
	c, seen := connect(t, ctx, client.Options{}), map[string]bool{}
	for deadline := time.Now().Add(30 * time.Second); len(seen) < 3 && time.Now().Before(deadline); {
		name, _ := hostname(t, c)
		seen[name] = true
	}
	if len(seen) != 3 {
		t.Errorf("endpoints that answered = %v, want all three", seen)
	}
}

func TestFirstStaysWithTheFirst(t *testing.T) {
	_, ctx := setup(t, 3)
	c := connect(t, ctx, client.Options{First: true})
	for range 10 {
		if name, _ := hostname(t, c); name != "e0" {
			t.Fatalf("answer by %s, want e0", name)
		}
	}
}

// TestFailsOver: endpoints that refuse, that stay silent, and that die later
// cost less than a second, on a busy machine some: less than the five seconds
// for which one that is silent is tried.
func TestFailsOver(t *testing.T) {
	all, ctx := setup(t, 2)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, never speaks
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx.Endpoints = append([]string{silent.Addr().String(), "127.0.0.1:1"}, ctx.Endpoints...) // nobody is at the second
	c := connect(t, ctx, client.Options{})
	if _, took := hostname(t, c); took > 4*time.Second {
		t.Errorf("first call took %v with two bad endpoints, want under a second", took)
	}
	all[0].stop()
	for range 4 {
		if name, took := hostname(t, c); name != "e1" || took > 4*time.Second {
			t.Errorf("answer by %s after %v, want e1 within a second", name, took)
		}
	}
}

func TestCollectPerNode(t *testing.T) {
	_, ctx := setup(t, 1)
	c := connect(t, ctx, client.Options{Nodes: []string{"n1", "denied", "n2"}})
	answers := client.Collect(t.Context(), c, func(ctx context.Context) (*machine.HostnameResponse, error) {
		return c.Machine.Hostname(ctx, &emptypb.Empty{})
	})
	if len(answers) != 3 {
		t.Fatalf("Collect = %d answers, want 3", len(answers))
	}
	for i, want := range []string{"n1", "denied", "n2"} {
		if answers[i].Node != want {
			t.Errorf("answer %d is of %s, want %s", i, answers[i].Node, want)
		}
	}
	if err := answers[1].Err; !errors.Is(err, client.Denied) || status.Code(err) != codes.PermissionDenied {
		t.Errorf("error of the node that denies = %v (%v), want client.Denied and PermissionDenied", err, status.Code(err))
	}
	if got := answers[2].Message.GetHostname(); got != "n2" {
		t.Errorf("host name of n2 = %q", got)
	}
}

// TestMergedAnswers: one call for several nodes, whose endpoint merges.
func TestMergedAnswers(t *testing.T) {
	_, ctx := setup(t, 1)
	c := connect(t, ctx, client.Options{})
	answers := client.Collect(t.Context(), c, func(ctx context.Context) (*machine.HostnameResponse, error) {
		return c.Machine.Hostname(client.WithNodes(ctx, "n1", "broken"), &emptypb.Empty{})
	})
	if len(answers) != 2 || answers[0].Node != "n1" || answers[0].Err != nil {
		t.Fatalf("Collect = %+v, want n1 and broken", answers)
	}
	if err := answers[1].Err; !errors.Is(err, client.NotFound) {
		t.Errorf("error of broken = %v, want client.NotFound", err)
	}
}

func TestErrorKinds(t *testing.T) {
	_, ctx := setup(t, 1)
	_, strangers := setup(t, 1)
	with := func(change func(*talosconfig.Context)) *talosconfig.Context {
		copied := *ctx
		change(&copied)
		return &copied
	}
	for name, tc := range map[string]struct {
		ctx  *talosconfig.Context
		want client.Kind
	}{
		"nobody there":             {with(func(c *talosconfig.Context) { c.Endpoints = []string{"127.0.0.1:1"} }), client.Unreachable},
		"no such name":             {with(func(c *talosconfig.Context) { c.Endpoints = []string{"nowhere.invalid"} }), client.Unreachable},
		"server of another CA":     {with(func(c *talosconfig.Context) { c.CA = strangers.CA }), client.UntrustedServer},
		"server with another name": {with(func(c *talosconfig.Context) { c.Endpoints = []string{"localhost" + c.Endpoints[0][len("127.0.0.1"):]} }), client.UntrustedServer},
		"client of another CA":     {with(func(c *talosconfig.Context) { c.Crt, c.Key = strangers.Crt, strangers.Key }), client.RefusedClient},
		"client without":           {with(func(c *talosconfig.Context) { c.Crt, c.Key = "", "" }), client.RefusedClient},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, tc.ctx, client.Options{})
			_, err := c.Machine.Hostname(t.Context(), &emptypb.Empty{})
			if client.KindOf(err) != tc.want {
				t.Errorf("KindOf(%v) = %q, want %q", err, client.KindOf(err), tc.want)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, ctx := setup(t, 1)
	ctx.Endpoints = []string{silent.Addr().String()}
	c := connect(t, ctx, client.Options{})
	short, cancel := context.WithTimeout(t.Context(), 2*time.Second) // time to begin to connect
	defer cancel()
	_, err = c.Machine.Hostname(short, &emptypb.Empty{})
	if !errors.Is(err, client.Unreachable) {
		t.Errorf("a silent endpoint = %v, want client.Unreachable", err)
	}
}

func TestNoEndpoint(t *testing.T) {
	_, ctx := setup(t, 0)
	_, err := client.New(t.Context(), client.Options{Config: &talosconfig.Config{Context: "c", Contexts: map[string]*talosconfig.Context{"c": ctx}}})
	if err == nil {
		t.Error("New accepted a context without endpoints")
	}
}
