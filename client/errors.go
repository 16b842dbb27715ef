package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kind classifies an error by what its reader can do about it. A Kind is an
// error itself, so that errors.Is(err, client.Denied) works.
type Kind string

// The kinds.
const (
	Other           Kind = "failed"                          // none of the below
	Unreachable     Kind = "unreachable"                     // no endpoint accepts a connection
	UntrustedServer Kind = "untrusted server"                // its certificate is of another CA, expired or for another name
	RefusedClient   Kind = "client certificate refused"      // the server does not know our CA, or wants a certificate and got none
	ExpiredClient   Kind = "client certificate expired"      // ours is past its end, or not yet valid
	Unconfigured    Kind = "not configured yet"              // it waits for its first configuration: connect with Insecure
	Configured      Kind = "configured already"              // it waits no longer: connect without Insecure
	Denied          Kind = "permission denied"               // our role may not do this
	NotFound        Kind = "not found"                       // the thing asked for is not there
	Exists          Kind = "already exists"                  // done before
	Precondition    Kind = "not possible now"                // the node is in the wrong state
	Invalid         Kind = "invalid"                         // the node refuses the input
	Unimplemented   Kind = "not implemented by this node"    // other version, or not on this platform
	Timeout         Kind = "timed out"                       // no answer within the deadline
	Canceled        Kind = "canceled"                        // by ourselves
	Lost            Kind = "connection lost during the call" // it may or may not have been carried out
)

// Error lets a Kind be the target of errors.Is.
func (k Kind) Error() string { return string(k) }

// Error is what every call of a Client fails with.
type Error struct {
	Kind     Kind
	Endpoint string // where it was sent; several, with comma, if none worked
	Node     string // the target; empty if the endpoint itself was meant
	Method   string // such as MachineService/Memory
	Text     string // what the server or the network said
	status   *status.Status
}

// Error reads as: memory on node02 over 10.5.0.2: permission denied: …
func (e *Error) Error() string {
	where := e.Endpoint
	if e.Node != "" && e.Node != e.Endpoint {
		where = e.Node + " over " + e.Endpoint
	}
	text := strings.TrimSpace(e.Text)
	if e.Kind != Other && !strings.Contains(strings.ToLower(text), string(e.Kind)) {
		text = strings.TrimSuffix(string(e.Kind)+": "+text, ": ")
	}
	return fmt.Sprintf("%s on %s: %s", e.Method, where, text)
}

// Is reports whether target is the Kind of e.
func (e *Error) Is(target error) bool {
	kind, ok := target.(Kind)
	return ok && kind == e.Kind
}

// Unwrap keeps errors.Is(err, context.Canceled) and DeadlineExceeded true.
func (e *Error) Unwrap() error {
	switch e.Kind {
	case Timeout:
		return context.DeadlineExceeded
	case Canceled:
		return context.Canceled
	}
	return nil
}

// GRPCStatus keeps status.Code(err) working.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// KindOf classifies any error that a call returned.
func KindOf(err error) Kind {
	if typed := (*Error)(nil); errors.As(err, &typed) {
		return typed.Kind
	}
	return kindOfCode(status.Code(err))
}

func kindOfCode(code codes.Code) Kind {
	switch code {
	case codes.PermissionDenied, codes.Unauthenticated:
		return Denied
	case codes.NotFound:
		return NotFound
	case codes.AlreadyExists:
		return Exists
	case codes.FailedPrecondition, codes.Aborted:
		return Precondition
	case codes.InvalidArgument, codes.OutOfRange:
		return Invalid
	case codes.Unimplemented:
		return Unimplemented
	case codes.DeadlineExceeded:
		return Timeout
	case codes.Canceled:
		return Canceled
	}
	return Other
}

// wrap turns what gRPC returned into an *Error; nil stays nil.
func (c *Client) wrap(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	e := &Error{
		Kind:     kindOfCode(st.Code()),
		Endpoint: strings.Join(c.display, ","),
		Node:     target(ctx),
		Method:   short(method),
		Text:     st.Message(),
		status:   st,
	}
	switch {
	case st.Code() == codes.Unauthenticated && c.insecure: // it got its configuration meanwhile
		e.Kind = Configured
	case st.Code() == codes.Unavailable:
		e.Kind, e.Text = c.dials.explain(st.Message())
	case e.Kind == Timeout && c.dials.silent():
		e.Kind, e.Text = Unreachable, "no answer to the connection attempt within the deadline"
	case e.Kind == Timeout:
		e.Text = "no answer within the deadline"
	}
	return e
}

// short makes MachineService/Memory of /machine.MachineService/Memory.
func short(method string) string {
	method = strings.TrimPrefix(method, "/")
	if service, name, ok := strings.Cut(method, "/"); ok {
		return service[strings.LastIndex(service, ".")+1:] + "/" + name
	}
	return method
}
