package authz

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Check decides whether somebody with these roles may call the method. In
// maintenance mode, while the node has no configuration, nobody has shown a
// certificate: readers may call what the table offers then, and nobody anything
// else. The error is a gRPC status.
func Check(method string, have Roles, maintenance bool) error {
	m, ok := Lookup(method)
	if !ok {
		return status.Errorf(codes.PermissionDenied, "%s is not a method that anybody may call", method)
	}
	if maintenance && !m.Maintenance {
		return status.Errorf(codes.PermissionDenied, "%s is not offered in maintenance mode: until this node has a configuration it knows nobody, "+
			"so it shows disks, links and logs, takes a configuration, and does nothing else", method)
	}
	if have.Any(m.Roles) || maintenance && have.Has(Reader) {
		return nil
	}
	if have == 0 {
		return status.Errorf(codes.PermissionDenied, "%s needs one of %s, the caller has no role", method, m.Roles)
	}
	return status.Errorf(codes.PermissionDenied, "%s needs one of %s, the caller has %s", method, m.Roles, have)
}

// Option changes an interceptor or a rule.
type Option func(*options)

type options struct{ maintenance func() bool }

// WithMaintenance lets readers call what a node without configuration offers,
// and nothing else, while the function says so.
func WithMaintenance(now func() bool) Option {
	return func(o *options) { o.maintenance = now }
}

// UnaryServerInterceptor admits calls by the identity in their metadata and
// passes that identity on in the context. The server must be reachable by
// routerd alone.
func UnaryServerInterceptor(opts ...Option) grpc.UnaryServerInterceptor {
	o := build(opts)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := o.admit(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// StreamServerInterceptor is UnaryServerInterceptor for streams.
func StreamServerInterceptor(opts ...Option) grpc.StreamServerInterceptor {
	o := build(opts)
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := o.admit(stream.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return next(srv, &identified{ServerStream: stream, ctx: ctx})
	}
}

func build(opts []Option) *options {
	o := &options{maintenance: func() bool { return false }}
	for _, opt := range opts {
		opt(o)
	}
	return o
}

func (o *options) admit(ctx context.Context, method string) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	id := FromMetadata(md)
	if err := Check(method, id.Roles, o.maintenance()); err != nil {
		return nil, err
	}
	return NewContext(ctx, id), nil
}

type identified struct {
	grpc.ServerStream
	ctx context.Context // a stream's context is part of its interface
}

func (s *identified) Context() context.Context { return s.ctx }
