package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/client"
)

// relay stands before an endpoint and can freeze: bytes are taken and go
// nowhere, as with a process that is stopped.
type relay struct {
	address string

	mu     sync.Mutex // guards frozen
	frozen chan struct{}
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := &relay{address: l.Addr().String()}
	t.Cleanup(r.thaw)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go r.copy(in, out)
			go r.copy(out, in)
		}
	}()
	return r
}

func (r *relay) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if frozen := r.state(); frozen != nil {
			<-frozen
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (r *relay) state() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.frozen
}

func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = make(chan struct{})
}

func (r *relay) thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen != nil {
		close(r.frozen)
	}
	r.frozen = nil
}

// TestLeavesAFrozenEndpoint: an endpoint that stops in the middle of calls is
// left within a second, and the calls after that do not wait for it.
func TestLeavesAFrozenEndpoint(t *testing.T) {
	_, ctx := setup(t, 2)
	r := newRelay(t, ctx.Endpoints[0])
	ctx.Endpoints[0] = r.address
	c, seen := connect(t, ctx, client.Options{}), map[string]bool{}
	for deadline := time.Now().Add(30 * time.Second); len(seen) < 2 && time.Now().Before(deadline); {
		name, _ := hostname(t, c)
		seen[name] = true
	}
	if len(seen) != 2 {
		t.Fatalf("endpoints that answered = %v, want both", seen)
	}
	r.freeze()
	var slow int
	for range 10 {
		name, took := hostname(t, c)
		if name != "e1" || took > 10*time.Second {
			t.Errorf("answer by %s after %v, want e1 within a second or, on a busy machine, some", name, took)
		}
		if took >= 500*time.Millisecond { // after which another one is asked
			slow++
		}
	}
	if slow > 5 { // one, and those that a busy machine makes slow
		t.Errorf("%d of 10 calls waited for the frozen endpoint, want one", slow)
	}
	r.thaw()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if name, _ := hostname(t, c); name == "e0" {
			return
		}
	}
	t.Error("the endpoint is not used again after it went on")
}

// TestSlowIsNotFrozen: where no endpoint answers quickly, the first answer
// counts, and an error is the first endpoint's.
func TestSlowIsNotFrozen(t *testing.T) {
	all, ctx := setup(t, 2)
	for _, e := range all {
		e.pause = 800 * time.Millisecond
	}
	c := connect(t, ctx, client.Options{})
	if _, took := hostname(t, c); took < 800*time.Millisecond || took > 10*time.Second {
		t.Errorf("the answer took %v, want 0.8 s", took)
	}
	_, err := c.Machine.Hostname(client.WithNode(t.Context(), "denied"), &emptypb.Empty{})
	if !errors.Is(err, client.Denied) {
		t.Errorf("a slow refusal = %v, want client.Denied", err)
	}
}

// TestFollowsMany: streams to many nodes are open at the same time.
func TestFollowsMany(t *testing.T) {
	_, ctx := setup(t, 1)
	var nodes []string
	for i := range 100 {
		nodes = append(nodes, fmt.Sprint("n", i))
	}
	c := connect(t, ctx, client.Options{Nodes: nodes})
	var open sync.WaitGroup
	open.Add(len(nodes))
	answers, err := client.FollowNodes(t.Context(), c, func(ctx context.Context, node string) (struct{}, error) {
		stream, err := c.Machine.Events(ctx, &machine.EventsRequest{})
		if err != nil {
			return struct{}{}, err
		}
		event, err := stream.Recv()
		if err != nil || event.GetId() != node {
			return struct{}{}, fmt.Errorf("first event = %v, %w", event, err)
		}
		open.Done()
		open.Wait() // for the others
		if err := stream.CloseSend(); err != nil {
			return struct{}{}, err
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			return struct{}{}, fmt.Errorf("the end = %w", err)
		}
		return struct{}{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range answers {
		if a.Err != nil {
			t.Errorf("%s: %v", a.Node, a.Err)
		}
	}
	many := connect(t, ctx, client.Options{Nodes: make([]string, client.MaxStreams+1)})
	_, err = client.FollowNodes(t.Context(), many, func(context.Context, string) (struct{}, error) { return struct{}{}, nil })
	if !errors.Is(err, client.Invalid) || !strings.Contains(err.Error(), "name fewer") {
		t.Errorf("more than fit = %v, want a refusal", err)
	}
}
