package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"talos/client"
	"talos/client/talosconfig"
	"talos/internal/pki"
)

// watched is an output that tells when something was written.
type watched struct {
	mu   sync.Mutex // guards buf
	buf  bytes.Buffer
	some chan struct{}
	once sync.Once
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.once.Do(func() { close(w.some) })
	return w.buf.Write(p)
}

// TestFollowTellsAtOnce: the error of one node shows while others go on.
func TestFollowTellsAtOnce(t *testing.T) {
	out := &watched{some: make(chan struct{})}
	a := &App{Err: out, Getenv: func(string) string { return "" }}
	c := follower(t, "good", "bad")
	err := Follow(t.Context(), a, c, func(_ context.Context, node string) error {
		if node == "bad" {
			return errors.New("bad is gone")
		}
		select {
		case <-out.some:
			return nil
		case <-time.After(30 * time.Second):
			return errors.New("the error of the other node is not told")
		}
	})
	partial := (*PartialError)(nil)
	if !errors.As(err, &partial) || partial.Failed != 1 || partial.All != 2 {
		t.Errorf("Follow = %v, want a PartialError of 1 in 2", err)
	}
	if got := out.buf.String(); strings.Count(got, "bad is gone") != 1 {
		t.Errorf("told: %q, want the error once", got)
	}
}

func TestFollowOneNode(t *testing.T) {
	a := &App{Getenv: func(string) string { return "" }}
	want := errors.New("gone")
	if err := Follow(t.Context(), a, follower(t, "one"), func(context.Context, string) error { return want }); !errors.Is(err, want) {
		t.Errorf("Follow = %v, want %v", err, want)
	}
}

// follower is a client that is never called.
func follower(t *testing.T, nodes ...string) *client.Client {
	t.Helper()
	ca, err := pki.NewCA(pki.Ed25519, pki.Subject{Organization: []string{"talos"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(t.Context(), client.Options{Nodes: nodes, Config: &talosconfig.Config{
		Context: "c", Contexts: map[string]*talosconfig.Context{"c": {Endpoints: []string{"127.0.0.1:1"}, CA: talosconfig.Encode(ca.Crt)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
