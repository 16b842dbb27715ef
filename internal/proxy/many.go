package proxy

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// early returns a context for n servers that ends a little before the caller's
// deadline, so that what the others answered still reaches him. Many answers
// take longer to put together.
func early(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	most := 500*time.Millisecond + time.Duration(n)*time.Millisecond
	margin := min(max(time.Until(deadline)/5, 10*time.Millisecond), most)
	return context.WithDeadline(ctx, deadline.Add(-margin))
}

// late says in words that a server gave no answer in time; other errors stay.
// The server knows the deadline too and may be the first to say so.
func late(ctx context.Context, err error) error {
	deadline, ok := ctx.Deadline()
	if ok && status.Code(err) == codes.DeadlineExceeded && time.Until(deadline) < 100*time.Millisecond {
		return status.Error(codes.DeadlineExceeded, "no answer within the caller's deadline")
	}
	return err
}

func serveMany(ctx context.Context, stream grpc.ServerStream, call *Call) error {
	if call.Unary {
		return unaryMany(ctx, stream, call)
	}
	return streamMany(ctx, stream, call)
}

// unaryMany asks all targets at once and answers with one list: the items of
// those that answered and, for each that did not, an item that says why.
func unaryMany(ctx context.Context, stream grpc.ServerStream, call *Call) error {
	var in frame
	if err := receive(stream, &in); err != nil {
		return err
	}
	defer in.free()
	ctx, cancel := early(ctx, len(call.Targets))
	defer cancel()
	a := &asking{call: call, in: &in, most: answerLimit(len(call.Targets))}
	answers := make(mem.BufferSlice, len(call.Targets))
	var wg sync.WaitGroup
	for i, target := range call.Targets {
		if target.Err != nil {
			answers[i] = failed(target.Name, target.Err)
			continue
		}
		wg.Go(func() {
			answer, err := a.ask(ctx, target)
			if err != nil {
				answers[i] = failed(target.Name, late(ctx, err))
				return
			}
			answers[i] = mem.SliceBuffer(answer)
		})
	}
	wg.Wait()
	out := frame{data: answers}
	return stream.SendMsg(&out)
}

// answerLimit bounds the answer of one of n nodes: all of them may come at the
// same time.
func answerLimit(n int) int { return MaxMessage / max(n/8, 1) }

// asking is one question to many.
type asking struct {
	call  *Call
	in    *frame
	most  int          // bytes of an answer
	bytes atomic.Int64 // of the answers so far
}

func (a *asking) ask(ctx context.Context, target Target) ([]byte, error) {
	var out frame
	if err := invoke(ctx, target, a.call.Method, a.in, &out, grpc.MaxCallRecvMsgSize(a.most)); err != nil {
		return nil, err
	}
	defer out.free()
	answer, err := StampList(out.bytes(), target.Name)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "mark the answer of %s: %v", target.Name, err)
	}
	if a.bytes.Add(int64(len(answer))) > MaxMessage {
		return nil, status.Errorf(codes.ResourceExhausted, "the answers of all nodes together have more than %d bytes: ask fewer at a time", MaxMessage)
	}
	return answer, nil
}

func failed(name string, err error) mem.Buffer { return mem.SliceBuffer(listOf(failure(name, err))) }

const (
	// backlog is how many messages of the caller may wait for one target.
	backlog = 8
	// stalled is how long a target with a full backlog may hold up the others.
	stalled = 5 * time.Second
)

// streamMany sends the caller's messages to every target and interleaves what
// they stream; a target that fails ends with an item that says why.
func streamMany(ctx context.Context, stream grpc.ServerStream, call *Call) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	legsCtx, stop := early(ctx, len(call.Targets))
	defer stop()
	out := &merged{ServerStream: stream}
	legs := make([]*leg, len(call.Targets))
	var wg sync.WaitGroup
	for i, target := range call.Targets {
		l := &leg{target: target, in: make(chan frame, backlog)}
		l.ctx, l.cancel = context.WithCancelCause(legsCtx)
		legs[i] = l
		wg.Go(func() {
			err := l.run(out, call.Method)
			l.cancel(nil)
			if err != nil && ctx.Err() == nil {
				// When this fails, so does the caller's stream.
				_ = out.fail(target.Name, late(legsCtx, err))
			}
		})
	}
	upstream := distribute(cancel, stream, legs)
	wg.Wait()
	if err := upstream.get(); err != nil {
		return err
	}
	return status.FromContextError(ctx.Err()).Err()
}

// leg is the part of a merged stream between us and one target.
type leg struct {
	target Target
	in     chan frame      // what the caller sends; closed after the last
	ctx    context.Context // ends with the leg
	cancel context.CancelCauseFunc
}

var errStalled = errors.New("it does not take what is streamed")

func (l *leg) run(out *merged, method string) error {
	if l.target.Err != nil {
		return l.target.Err
	}
	down, err := open(l.ctx, l.target, method)
	if err != nil {
		return err
	}
	defer down.release()
	var wg sync.WaitGroup
	wg.Go(func() { l.send(down) })
	err = drain(out, down, l.target.Name)
	if err != nil {
		err = down.explain(err)
	}
	if errors.Is(context.Cause(l.ctx), errStalled) {
		err = status.Errorf(codes.DeadlineExceeded, "%v for %v", errStalled, stalled)
	}
	l.cancel(nil)
	wg.Wait()
	return err
}

// send passes on what the caller sends; errors show where answers are read.
func (l *leg) send(down grpc.ClientStream) {
	for {
		select {
		case <-l.ctx.Done():
			return
		case f, ok := <-l.in:
			if !ok {
				_ = down.CloseSend()
				return
			}
			err := down.SendMsg(&f)
			f.free()
			if err != nil {
				return
			}
		}
	}
}

// distribute hands the caller's messages to all legs that are alive. Its
// goroutine ends as that of feed does.
func distribute(cancel context.CancelFunc, stream grpc.ServerStream, legs []*leg) cause {
	c := cause{ch: make(chan error, 1)}
	go func() {
		for {
			var f frame
			if err := stream.RecvMsg(&f); errors.Is(err, io.EOF) {
				for _, l := range legs {
					close(l.in)
				}
				return
			} else if err != nil {
				c.ch <- err
				cancel()
				return
			}
			for _, l := range legs {
				l.take(f)
			}
			f.free()
		}
	}()
	return c
}

// take queues a message. A target that takes none for too long is given up.
func (l *leg) take(f frame) {
	f.data.Ref()
	select {
	case l.in <- f:
		return
	case <-l.ctx.Done():
		f.free()
		return
	default:
	}
	timer := time.NewTimer(stalled)
	defer timer.Stop()
	select {
	case l.in <- f:
		return
	case <-l.ctx.Done():
	case <-timer.C:
		l.cancel(errStalled)
	}
	f.free()
}

// merged lets several goroutines send on one stream.
type merged struct {
	grpc.ServerStream
	mu      sync.Mutex // held while sending; guards headers
	headers bool       // sent: those of the first server that answers go out
}

func (m *merged) SendHeader(md metadata.MD) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.headers {
		return nil
	}
	m.headers = true
	return m.ServerStream.SendHeader(md)
}

func (m *merged) SendMsg(v any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.headers = true // a message sends them
	return m.ServerStream.SendMsg(v)
}

func (m *merged) fail(name string, err error) error {
	f := frame{data: mem.BufferSlice{mem.SliceBuffer(failure(name, err))}}
	return m.SendMsg(&f)
}
