package proxy

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// unaryMany asks all targets at once and answers with one list: the items of
// those that answered and, for each that did not, an item that says why.
func unaryMany(ctx context.Context, stream grpc.ServerStream, call *Call) error {
	var in frame
	if err := receive(stream, &in); err != nil {
		return err
	}
	defer in.free()
	answers := make([][]byte, len(call.Targets))
	var wg sync.WaitGroup
	for i, target := range call.Targets {
		wg.Go(func() {
			answer, err := ask(ctx, target, call.Method, &in)
			if err != nil {
				answer = listOf(failure(target.Name, err))
			}
			answers[i] = answer
		})
	}
	wg.Wait()
	var all []byte
	for _, answer := range answers {
		all = append(all, answer...)
	}
	if len(all) > MaxMessage {
		return status.Errorf(codes.ResourceExhausted, "the answers of %d nodes together have %d bytes, over %d", len(answers), len(all), MaxMessage)
	}
	var out frame
	out.replace(all)
	defer out.free()
	return stream.SendMsg(&out)
}

func ask(ctx context.Context, target Target, method string, in *frame) ([]byte, error) {
	if target.Err != nil {
		return nil, target.Err
	}
	target.Backend.await(ctx)
	var out frame
	if err := target.Backend.conn.Invoke(ctx, method, in, &out); err != nil {
		return nil, target.Backend.explain(err)
	}
	defer out.free()
	return StampList(out.bytes(), target.Name)
}

// streamMany sends the caller's messages to every target and interleaves what
// they stream; a target that fails ends with an item that says why.
func streamMany(ctx context.Context, cancel context.CancelFunc, stream grpc.ServerStream, call *Call) error {
	out := &merged{ServerStream: stream}
	var open []grpc.ClientStream
	var wg sync.WaitGroup
	for _, target := range call.Targets {
		down, err := openStream(ctx, target, call.Method)
		if err != nil {
			if err := out.fail(target.Name, err); err != nil {
				return err
			}
			continue
		}
		open = append(open, down)
		wg.Go(func() {
			if err := drain(out, down, target.Name); err != nil && ctx.Err() == nil {
				// When this fails, so does the caller's stream.
				_ = out.fail(target.Name, target.Backend.explain(err))
			}
		})
	}
	var upstream cause
	if len(open) > 0 {
		upstream = feed(cancel, stream, open...)
	}
	wg.Wait()
	if err := upstream.get(); err != nil {
		return err
	}
	return status.FromContextError(ctx.Err()).Err()
}

func openStream(ctx context.Context, target Target, method string) (grpc.ClientStream, error) {
	if target.Err != nil {
		return nil, target.Err
	}
	target.Backend.await(ctx)
	down, err := target.Backend.conn.NewStream(ctx, bidi, method)
	if err != nil {
		return nil, target.Backend.explain(err)
	}
	return down, nil
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
	var f frame
	f.replace(failure(name, err))
	defer f.free()
	return m.SendMsg(&f)
}
