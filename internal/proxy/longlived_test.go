package proxy

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// pipes is a listener whose connections stay in the bubble of a test.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// TestStreamLivesOn: a stream on which nothing is said for an hour, as of a log
// that is followed, is there still. The client pings as package client does, the
// front takes pings as apid does; machined's server takes none and would cut
// off who sends them.
func TestStreamLivesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back, front := newPipes(), newPipes()
		machined := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			for {
				var m wrapperspb.StringValue
				if err := stream.RecvMsg(&m); err != nil {
					return err
				}
				if err := stream.SendMsg(&m); err != nil {
					return err
				}
			}
		}))
		go machined.Serve(back)
		defer machined.Stop()
		backend, err := newBackend("machined", back.dial)
		if err != nil {
			t.Fatal(err)
		}
		defer backend.Close()
		apid := grpc.NewServer(
			grpc.ForceServerCodecV2(Codec()),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: 30 * time.Minute}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
			grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
				method, _ := grpc.MethodFromServerStream(stream)
				return Serve(stream, &Call{Method: method, Targets: []Target{{Server: backend}}, Metadata: Forwardable(stream.Context())})
			}))
		go apid.Serve(front)
		defer apid.Stop()
		conn, err := grpc.NewClient("passthrough:///apid",
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return front.dial(ctx) }),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := conn.NewStream(ctx, bidi, "/any.Service/Follow")
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"before", "after an hour"} {
			if err := stream.SendMsg(wrapperspb.String(word)); err != nil {
				t.Fatal(err)
			}
			var answer wrapperspb.StringValue
			if err := stream.RecvMsg(&answer); err != nil || answer.GetValue() != word {
				t.Fatalf("answer to %q = %q, %v", word, answer.GetValue(), err)
			}
			time.Sleep(time.Hour)
		}
	})
}
