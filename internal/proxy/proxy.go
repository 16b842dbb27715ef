// Package proxy passes gRPC calls on without decoding their messages: to one
// server, unchanged, or to several at once, with the answers merged and each
// marked with the name of the node that gave it (facts of the wire protocol:
// common.Metadata, `{repeated X messages = 1}`).
//
// It decides nothing: who may call what, and where a call goes, is the
// caller's affair. A Backend and Peers are safe for concurrent use; Serve runs
// within one handler.
package proxy

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Target is one server of a call.
type Target struct {
	Name   string // the node as the caller named it; used by merged calls
	Server Server // nil when Err says why there is none
	Err    error  // a gRPC status
}

// Call is what Serve passes on.
type Call struct {
	Method   string // full name
	Unary    bool   // one message each way: spares a goroutine and a copy of the stream's state
	Merged   bool   // mark answers with their target's name; else there is exactly one target
	Targets  []Target
	Metadata metadata.MD // sent to every target
}

// bidi describes every stream: one that the client half-closes at once is a
// special case of it.
var bidi = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// Serve passes the call on and returns its status when it is over. A deadline
// of the caller goes along.
func Serve(stream grpc.ServerStream, call *Call) error {
	if len(call.Targets) == 0 {
		return status.Error(codes.Internal, "a call has no target")
	}
	ctx := metadata.NewOutgoingContext(stream.Context(), call.Metadata)
	if call.Merged {
		return serveMany(ctx, stream, call)
	}
	if len(call.Targets) > 1 {
		return status.Errorf(codes.Internal, "a call that is not merged has %d targets", len(call.Targets))
	}
	if err := call.Targets[0].Err; err != nil {
		return err
	}
	if call.Unary {
		return unaryOne(ctx, stream, call)
	}
	return streamOne(ctx, stream, call)
}

func unaryOne(ctx context.Context, stream grpc.ServerStream, call *Call) error {
	var in, out frame
	if err := receive(stream, &in); err != nil {
		return err
	}
	defer in.free()
	var header, trailer metadata.MD
	err := invoke(ctx, call.Targets[0], call.Method, &in, &out, grpc.Header(&header), grpc.Trailer(&trailer))
	setTrailer(stream, trailer)
	if err != nil {
		return err
	}
	defer out.free()
	if header = passed(header); len(header) > 0 {
		if err := stream.SetHeader(header); err != nil {
			return err
		}
	}
	return stream.SendMsg(&out)
}

// invoke makes a unary call. A connection that broke before the call was sent
// is replaced once.
func invoke(ctx context.Context, target Target, method string, in, out *frame, opts ...grpc.CallOption) error {
	for attempt := 1; ; attempt++ {
		conn, release, err := target.Server.connect(ctx)
		if err != nil {
			return err
		}
		err = conn.Invoke(ctx, method, in, out, opts...)
		if err != nil && (attempt > 1 || !unsent(err)) {
			err = target.Server.explain(conn, err)
		}
		release()
		if err == nil || attempt > 1 || !unsent(err) {
			return err
		}
	}
}

// open begins a stream; release is to be called when it is over. A connection
// that broke before is replaced once.
func open(ctx context.Context, target Target, method string) (down *downstream, err error) {
	for attempt := 1; ; attempt++ {
		conn, release, err := target.Server.connect(ctx)
		if err != nil {
			return nil, err
		}
		stream, err := conn.NewStream(ctx, bidi, method)
		if err == nil {
			return &downstream{ClientStream: stream, server: target.Server, conn: conn, release: release}, nil
		}
		if attempt > 1 || !unsent(err) {
			err = target.Server.explain(conn, err)
			release()
			return nil, err
		}
		release()
	}
}

// downstream is a stream to a server.
type downstream struct {
	grpc.ClientStream
	server  Server
	conn    *grpc.ClientConn
	release func()
}

func (d *downstream) explain(err error) error { return d.server.explain(d.conn, err) }

// receive reads the one message of a unary call.
func receive(stream grpc.ServerStream, in *frame) error {
	if err := stream.RecvMsg(in); errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "the request has no message")
	} else if err != nil {
		return err
	}
	return nil
}

func streamOne(ctx context.Context, stream grpc.ServerStream, call *Call) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	down, err := open(ctx, call.Targets[0], call.Method)
	if err != nil {
		return err
	}
	defer down.release()
	upstream := feed(cancel, stream, down)
	err = drain(stream, down, "")
	setTrailer(stream, down.Trailer())
	if err == nil {
		return nil
	}
	if cause := upstream.get(); cause != nil { // our caller broke off: that is the reason
		return cause
	}
	return down.explain(err)
}

// drain sends what the server streams to our caller until it ends; a name
// marks each item.
func drain(stream grpc.ServerStream, down grpc.ClientStream, name string) error {
	header, err := down.Header()
	if err == nil && header != nil {
		if err := stream.SendHeader(passed(header)); err != nil {
			return err
		}
	}
	var mark []byte
	if name != "" {
		mark = hostField(name)
	}
	for {
		var f frame
		if err := down.RecvMsg(&f); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if mark != nil {
			if err := whole(f.bytes()); err != nil {
				f.free()
				return status.Errorf(codes.Internal, "mark the answer of %s: %v", name, err)
			}
			f.append(mark)
		}
		err := stream.SendMsg(&f)
		f.free()
		if err != nil {
			return err
		}
	}
}

// cause carries the first error out of a goroutine that nobody can wait for.
type cause struct{ ch chan error }

func (c cause) get() error {
	select {
	case err := <-c.ch:
		return err
	default:
		return nil
	}
}

// feed sends what our caller streams to the server. Its goroutine ends with
// the caller's stream, at the latest right after the handler returned: gRPC
// offers no way to interrupt RecvMsg before.
func feed(cancel context.CancelFunc, stream grpc.ServerStream, down grpc.ClientStream) cause {
	c := cause{ch: make(chan error, 1)}
	go func() {
		for {
			var f frame
			if err := stream.RecvMsg(&f); errors.Is(err, io.EOF) {
				_ = down.CloseSend() // its error shows where answers are read
				return
			} else if err != nil {
				c.ch <- err
				cancel()
				return
			}
			err := down.SendMsg(&f)
			f.free()
			if err != nil { // it shows where answers are read
				return
			}
		}
	}()
	return c
}

func setTrailer(stream grpc.ServerStream, trailer metadata.MD) {
	if trailer = passed(trailer); len(trailer) > 0 {
		stream.SetTrailer(trailer)
	}
}

// passed leaves out what belongs to the hop.
func passed(md metadata.MD) metadata.MD {
	for key := range md {
		if hopHeader(key) {
			delete(md, key)
		}
	}
	return md
}

// Forwardable returns the caller's metadata without what belongs to the hop:
// the start of the metadata for the next one.
func Forwardable(ctx context.Context) metadata.MD {
	md, ok := metadata.FromIncomingContext(ctx) // a copy
	if !ok {
		return metadata.MD{}
	}
	return passed(md)
}

func hopHeader(key string) bool {
	switch key {
	case "content-type", "user-agent", "te", "grpc-encoding", "grpc-accept-encoding", "grpc-timeout", "connection":
		return true
	}
	return key == "" || key[0] == ':'
}
