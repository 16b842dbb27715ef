package send

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/internal/logs"
)

// TestServe sends what was logged before and after it began.
func TestServe(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	m := logs.New(t.TempDir())
	write := func(id, line string) {
		if _, err := m.Writer(id).Write([]byte(line + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "before")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := &sender{log: slog.New(slog.DiscardHandler), logs: m}
		s.serve(ctx, destination{network: "tcp", address: listener.Addr().String(), tags: map[string]string{"node": "n1"}})
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	next := func() map[string]string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() {
			t.Fatalf("no line: %v", lines.Err())
		}
		got := map[string]string{}
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		if _, err := time.Parse(time.RFC3339Nano, got["talos-time"]); err != nil {
			t.Errorf("talos-time: %v", err)
		}
		delete(got, "talos-time")
		return got
	}
	want := map[string]string{"msg": "before", "talos-service": "a", "talos-level": "info", "node": "n1"}
	if diff := cmp.Diff(want, next()); diff != "" {
		t.Errorf("first line (-want +got):\n%s", diff)
	}
	write("b", "level=ERROR later")
	want = map[string]string{"msg": "level=ERROR later", "talos-service": "b", "talos-level": "error", "node": "n1"}
	if diff := cmp.Diff(want, next()); diff != "" {
		t.Errorf("second line (-want +got):\n%s", diff)
	}
	conn.Close()
	cancel()
	<-done
}
