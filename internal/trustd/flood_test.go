package trustd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/api/membership"
	"talos/internal/door/doortest"
)

// guessing asks with wrong tokens, each time from another network, until stop
// is called.
func guessing(t *testing.T, s *server) (guesses *atomic.Int64, stop func()) {
	guesses = new(atomic.Int64)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				conn := s.dial(t, fmt.Sprintf("127.%d.%d.1", 251+rand.IntN(4), rand.IntN(256)))
				call, end := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "token", "guess"), time.Second)
				_, err := membership.NewMembershipServiceClient(conn).Prove(call, &membership.ProveRequest{})
				end()
				conn.Close()
				if code := status.Code(err); code == codes.OK {
					t.Error("a wrong token was accepted")
				}
				guesses.Add(1)
			}
		})
	}
	return guesses, func() { cancel(); wg.Wait() }
}

// TestFlood: while strangers connect as fast as they can, each time from
// another address in another network, and others guess tokens, members and those
// who have the token are answered; a member that watches goes on watching; and
// what strangers take of memory is bounded.
func TestFlood(t *testing.T) {
	const member = "127.6.0.1"
	s := start(t, &log{}, func(l net.Listener) net.Listener { return l }, member)
	shown := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "token", token)
	}
	watcher, err := membership.NewMembershipServiceClient(s.dial(t, member)).Watch(shown(t.Context()), &membership.WatchRequest{})
	if err == nil {
		_, err = watcher.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan error, 1)
	go func() {
		_, err := watcher.Recv() // the list does not change
		lost <- err
	}()

	ask := func(from string) time.Duration {
		conn := s.dial(t, from)
		defer conn.Close()
		ctx, cancel := context.WithTimeout(shown(t.Context()), time.Minute)
		defer cancel()
		began := time.Now()
		err := status.Error(codes.Unavailable, "")
		for status.Code(err) == codes.Unavailable && ctx.Err() == nil { // dropped before the call was through
			_, err = membership.NewMembershipServiceClient(conn).Prove(ctx, &membership.ProveRequest{}, grpc.WaitForReady(true))
		}
		// The address is a loopback's, of which machined says so after it has
		// looked at the token.
		if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != from+" is no address of a node" {
			t.Errorf("from %s: %v", from, err)
		}
		return time.Since(began)
	}
	const quick = 5 * time.Second // a processor may be with others for seconds
	bound := quick
	for range 10 { // on a busy machine all takes longer
		bound = max(bound, quick+3*ask(member))
	}
	heap, goroutines := doortest.Heap(), runtime.NumGoroutine()
	flood := doortest.Start(t, s.address)
	guesses, stop := guessing(t, s)
	defer stop()
	for flood.Tries.Load() < 2000 || guesses.Load() < 50 {
		time.Sleep(10 * time.Millisecond)
	}
	const times = 12
	for _, c := range []struct {
		what string
		from func(i int) string
		late int // how many may take longer
	}{
		{"a member", func(int) string { return member }, 2},
		{"a newcomer", func(i int) string { return fmt.Sprintf("127.7.%d.1", i) }, times / 3},
	} {
		late := 0
		for i := range times {
			if ask(c.from(i)) > bound {
				late++
			}
		}
		if late > c.late {
			t.Errorf("%s: %d of %d calls took longer than %v", c.what, late, times, bound)
		}
	}
	select {
	case err := <-lost:
		t.Errorf("the member that watches lost its connection: %v", err)
	default:
	}
	if now := runtime.NumGoroutine(); now > goroutines+strangers.Total*5 {
		t.Errorf("goroutines grew from %d to %d", goroutines, now)
	}
	if now := doortest.Heap(); now > heap+96<<20 {
		t.Errorf("memory grew from %d kB to %d kB", heap>>10, now>>10)
	}
	t.Logf("%d strangers knocked, %d guessed", flood.Tries.Load(), guesses.Load())
}
