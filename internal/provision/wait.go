package provision

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/machine"
	"talos/client"
	"talos/client/talosconfig"
	"talos/internal/loop"
)

const (
	poll        = 50 * time.Millisecond
	tellEvery   = 15 * time.Second // that a step still waits, and for what
	givesUp     = 4                // restarts of a node that nobody asked for
	bootstrapIn = 30 * time.Second
)

// WaitHealthy waits until the cluster works: the nodes' API answers, etcd is
// bootstrapped, Kubernetes answers, all nodes are Ready, and the system's pods
// run. It ends early when a node cannot stay up.
func (c *Cluster) WaitHealthy(ctx context.Context, progress func(step string)) error {
	kube, err := newKube(c.Kubeconfig())
	if err != nil {
		return err
	}
	defer kube.close()
	for _, step := range []struct {
		what  string
		check func(context.Context) error
	}{
		{"the node's API", func(ctx context.Context) error { return c.apiAnswers(ctx, c.Nodes[:1]) }},
		{"etcd", c.bootstrap},
		{"Kubernetes", kube.ready},
		{"the API of all nodes", func(ctx context.Context) error { return c.apiAnswers(ctx, c.Nodes[1:]) }},
		{"all nodes to be Ready", func(ctx context.Context) error { return kube.nodesReady(ctx, len(c.Nodes)) }},
		{"the system's pods", func(ctx context.Context) error { return kube.podsReady(ctx, c.CoreDNS) }},
	} {
		if step.what == "the API of all nodes" && len(c.Nodes) == 1 {
			continue // seen already
		}
		if err := c.await(ctx, step.what, step.check, progress); err != nil {
			return fmt.Errorf("wait for %s: %w", step.what, err)
		}
	}
	return nil
}

// errFinal wraps what waiting does not mend.
type errFinal struct{ error }

func (e errFinal) Unwrap() error { return e.error }

func (c *Cluster) await(ctx context.Context, what string, check func(context.Context) error, progress func(string)) error {
	report(progress, "waiting for %s", what)
	tell := time.Now().Add(tellEvery)
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		var final errFinal
		if errors.As(err, &final) {
			return err
		}
		if ctx.Err() == nil {
			last = err
		}
		if err := c.crashing(); err != nil {
			return errors.Join(err, last)
		}
		if time.Now().After(tell) {
			report(progress, "waiting for %s: %v", what, last)
			tell = time.Now().Add(tellEvery)
		}
		if !loop.Sleep(ctx, poll) {
			return fmt.Errorf("%w; last: %w", ctx.Err(), last)
		}
	}
}

// crashing says that waiting is of no use.
func (c *Cluster) crashing() error {
	s := c.dirs.readSupervisor()
	if !s.Process.Alive() {
		return fmt.Errorf("the supervisor ended, see %s", c.SupervisorLog())
	}
	for name, n := range s.Nodes {
		if n.Restarts >= givesUp {
			return fmt.Errorf("node %s ended %d times, see %s", name, n.Restarts, c.LogFile(name))
		}
	}
	return nil
}

// apiAnswers connects to nodes as a client would.
func (c *Cluster) apiAnswers(ctx context.Context, nodes []Node) error {
	t, err := talosconfig.Load(c.Talosconfig())
	if err != nil {
		return errFinal{err}
	}
	access, err := t.Select(c.Name)
	if err != nil {
		return errFinal{err}
	}
	pair, err := access.Certificate()
	if err != nil {
		return errFinal{err}
	}
	roots, err := access.Authorities()
	if err != nil {
		return errFinal{err}
	}
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: time.Second},
		Config:    &tls.Config{Certificates: []tls.Certificate{*pair}, RootCAs: roots, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}},
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, n := range nodes {
		conn, err := dialer.DialContext(ctx, "tcp", n.apiAddress())
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		conn.Close()
	}
	return nil
}

// bootstrap starts etcd on the first control plane node, once.
func (c *Cluster) bootstrap(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootstrapIn)
	defer cancel()
	api, err := client.New(ctx, client.Options{Path: c.Talosconfig(), Context: c.Name, Endpoints: []string{c.controlPlanes()[0].apiAddress()}})
	if err != nil {
		return errFinal{err}
	}
	defer api.Close()
	_, err = api.Machine.Bootstrap(ctx, &machine.BootstrapRequest{})
	switch status.Code(err) {
	case codes.OK, codes.AlreadyExists:
		return nil
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.Unimplemented:
		return errFinal{err}
	default:
		return err
	}
}
