package machine

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/testing/protocmp"

	api "talos/api/integrity"
	"talos/internal/integrity"
)

// checks are an Integrity.
type checks func(ctx context.Context, tell func(integrity.Event) error) error

func (c checks) Verify(ctx context.Context, tell func(integrity.Event) error) error {
	return c(ctx, tell)
}

func serveIntegrity(t *testing.T, s *integrityServer) api.IntegrityServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	api.RegisterIntegrityServiceServer(srv, s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(listener) // ends with Stop
	}()
	t.Cleanup(func() { srv.Stop(); <-served })
	conn, err := grpc.NewClient("passthrough:node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return api.NewIntegrityServiceClient(conn)
}

// all reads a stream to its end.
func all(stream grpc.ServerStreamingClient[api.Check], err error) (got []*api.Check, _ error) {
	for err == nil {
		var c *api.Check
		if c, err = stream.Recv(); err == nil {
			got = append(got, c)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return got, err
}

// TestVerify: what the checks tell arrives whole and in order; their error, and
// a panic of theirs, is the call's.
func TestVerify(t *testing.T) {
	events := []integrity.Event{
		{Check: "root data"}, {Check: "root data", Done: 5, Total: 10},
		{Check: "root data", Outcome: integrity.Failed, Detail: "block 1"},
		{Check: "version", Outcome: integrity.OK}, {Check: "lockdown", Outcome: integrity.NotApplicable, Detail: "none"},
	}
	want := []*api.Check{
		{Name: "root data"}, {Name: "root data", BytesDone: 5, BytesTotal: 10},
		{Name: "root data", Result: api.Check_FAILED, Detail: "block 1"},
		{Name: "version", Result: api.Check_OK}, {Name: "lockdown", Result: api.Check_NOT_APPLICABLE, Detail: "none"},
	}
	var end func() error
	client := serveIntegrity(t, newIntegrityServer(checks(func(_ context.Context, tell func(integrity.Event) error) error {
		for _, e := range events {
			if err := tell(e); err != nil {
				return err
			}
		}
		return end()
	})))
	for text, fn := range map[string]func() error{"": func() error { return nil }, "cut short": func() error { return errors.New("cut short") }, "panic: boom": func() error { panic("boom") }} {
		end = fn
		got, err := all(client.Verify(t.Context(), &api.VerifyRequest{}))
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("Verify = %v, want %q", err, text)
		}
	}
}

// TestVerifyOnce: while a disk does not answer, a call ends with its deadline,
// and the next one is told to wait until it does.
func TestVerifyOnce(t *testing.T) {
	answer, entered := make(chan struct{}), make(chan struct{}, 1)
	s := newIntegrityServer(checks(func(context.Context, func(integrity.Event) error) error {
		entered <- struct{}{}
		<-answer // whatever the context says
		return nil
	}))
	s.limit, s.patience = 50*time.Millisecond, 50*time.Millisecond
	client := serveIntegrity(t, s)
	if _, err := all(client.Verify(t.Context(), &api.VerifyRequest{})); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a call whose disk hangs = %v, want DeadlineExceeded", err)
	}
	<-entered
	if _, err := all(client.Verify(t.Context(), &api.VerifyRequest{})); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the next call = %v, want ResourceExhausted", err)
	}
	s.limit, s.patience = time.Minute, time.Minute
	time.AfterFunc(50*time.Millisecond, func() { close(answer) })
	if _, err := all(client.Verify(t.Context(), &api.VerifyRequest{})); err != nil {
		t.Errorf("a call that waits for the disk to answer = %v", err)
	}
}
