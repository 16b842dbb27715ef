package machine

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "talos/api/integrity"
	"talos/internal/integrity"
	"talos/internal/loop"
)

const (
	// verifyLimit is for all checks together: a slow disk takes minutes.
	verifyLimit = 15 * time.Minute
	// verifyPatience is how long a caller waits for his turn.
	verifyPatience = time.Minute
)

// Integrity checks what the node runs.
type Integrity interface {
	Verify(ctx context.Context, tell func(integrity.Event) error) error
}

// integrityServer lets one caller at a time have the disk read.
type integrityServer struct {
	api.UnimplementedIntegrityServiceServer
	node            Integrity
	limit, patience time.Duration
	busy            chan struct{} // holds one while the checks go on
}

func newIntegrityServer(node Integrity) *integrityServer {
	return &integrityServer{node: node, limit: verifyLimit, patience: verifyPatience, busy: make(chan struct{}, 1)}
}

// Verify streams the checks. A disk that does not answer holds up the goroutine
// that reads it, and with it who asks next, but not this call.
func (s *integrityServer) Verify(_ *api.VerifyRequest, stream grpc.ServerStreamingServer[api.Check]) error {
	turn := time.NewTimer(s.patience)
	defer turn.Stop()
	select {
	case s.busy <- struct{}{}:
	case <-turn.C:
		return status.Errorf(codes.ResourceExhausted, "others have had this node verified for %v, or its disk does not answer; try again later", s.patience)
	case <-stream.Context().Done():
		return status.FromContextError(stream.Context().Err()).Err()
	}
	ctx, cancel := context.WithTimeout(stream.Context(), s.limit)
	defer cancel()
	events, done := make(chan integrity.Event), make(chan error, 1)
	go func() { // ends with ctx, after the read that is under way
		defer func() { <-s.busy }()
		done <- s.verify(ctx, events)
	}()
	for {
		select {
		case e := <-events:
			if err := stream.Send(checkMessage(e)); err != nil {
				return err
			}
		case err := <-done:
			if ctx.Err() != nil {
				return status.FromContextError(ctx.Err()).Err()
			}
			return err
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// verify makes the checks on a thread that gives way to all others. It is not
// given back, and ends with the goroutine.
func (s *integrityServer) verify(ctx context.Context, events chan<- integrity.Event) error {
	runtime.LockOSThread()
	const least = 19
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, least) // of this thread; best effort. It also decides whose reads come first
	return loop.Protect(func() error {
		return s.node.Verify(ctx, func(e integrity.Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
}

func checkMessage(e integrity.Event) *api.Check {
	return &api.Check{
		Name: e.Check, Detail: e.Detail, BytesDone: uint64(e.Done), BytesTotal: uint64(e.Total),
		Result: map[integrity.Outcome]api.Check_Result{
			integrity.OK: api.Check_OK, integrity.Failed: api.Check_FAILED, integrity.NotApplicable: api.Check_NOT_APPLICABLE,
		}[e.Outcome],
	}
}
