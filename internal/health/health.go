// Package health goes through what a healthy cluster has, in the order in which
// a cluster comes up: machines, etcd, kubelets, the control plane, nodes,
// workloads. What fails first explains what would fail after it.
//
// It asks nodes over their API and Kubernetes over its own, and owns neither
// connection; where it runs, on a control plane node or at a client, makes no
// difference. It changes nothing. A run belongs to one goroutine.
package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"go.yaml.in/yaml/v3"

	"talos/api/machine"
)

// Node is a machine of the cluster and how it is asked.
type Node struct {
	Name         string
	ControlPlane bool
	Addresses    []string
	Machine      machine.MachineServiceClient
	Resources    cosi.StateClient
	// Target, if set, directs a call to the node.
	Target func(ctx context.Context) context.Context
}

// Cluster is what is checked.
type Cluster struct {
	// Nodes are all that should be there. It is asked anew with each try.
	Nodes func(ctx context.Context) ([]Node, error)
	// Kubernetes asks the API for a path and decodes the answer.
	Kubernetes func(ctx context.Context, path string, into any) error
	// What the configuration leaves out.
	NoProxy, NoDNS, NoNetwork bool
	// MayLack takes a kube-proxy or CoreDNS that is not there for left out, where
	// the configuration is not known.
	MayLack bool
}

// Check is one thing that a healthy cluster has.
type Check struct {
	Name string
	// Try is nil when the cluster has it.
	Try func(ctx context.Context) error
}

// skip is why a check does not apply.
type skip string

func (s skip) Error() string { return string(s) }

const (
	interval = 500 * time.Millisecond // between two tries
	oneTry   = 15 * time.Second       // a try that hangs is a failed try
)

// Error is the end of a run: the check that was not fulfilled in time, and why.
type Error struct {
	Check string
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: not in time: %v", e.Check, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Run tries each check until it is fulfilled, and tells each new state of it
// once: OK, SKIP with a reason, or why it is not fulfilled yet.
func Run(ctx context.Context, checks []Check, tell func(check, state string) error) error {
	for _, c := range checks {
		if err := c.run(ctx, tell); err != nil {
			return err
		}
	}
	return nil
}

func (c Check) run(ctx context.Context, tell func(check, state string) error) error {
	last := ""
	for {
		tryCtx, cancel := context.WithTimeout(ctx, oneTry)
		err := c.Try(tryCtx)
		cancel()
		state, over := "OK", true
		var skipped skip
		switch {
		case errors.As(err, &skipped):
			state = "SKIP (" + string(skipped) + ")"
		case err != nil:
			state, over = err.Error(), false
		}
		if ctx.Err() != nil && !over && last != "" {
			return &Error{Check: c.Name, Err: errors.New(last)} // the try was cut short
		}
		if state != last {
			last = state
			if err := tell(c.Name, state); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
		select {
		case <-ctx.Done():
			return &Error{Check: c.Name, Err: errors.New(last)}
		case <-time.After(interval):
		}
	}
}

// onEach asks the nodes at the same time and names those that are not well.
func (c *Cluster) onEach(match func(Node) bool, ask func(ctx context.Context, n Node) error) func(context.Context) error {
	return func(ctx context.Context) error {
		nodes, err := c.matching(ctx, match)
		if err != nil {
			return err
		}
		failed := make([]string, len(nodes))
		var wg sync.WaitGroup
		for i, n := range nodes {
			wg.Go(func() {
				if err := ask(n.target(ctx), n); err != nil {
					failed[i] = n.Name + ": " + plain(err)
				}
			})
		}
		wg.Wait()
		failed = slices.DeleteFunc(failed, func(text string) bool { return text == "" })
		if len(failed) > 0 {
			return errors.New(strings.Join(failed, "; "))
		}
		return nil
	}
}

func everyNode(Node) bool      { return true }
func controlPlane(n Node) bool { return n.ControlPlane }
func names(nodes []Node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return out
}

func (c *Cluster) matching(ctx context.Context, match func(Node) bool) ([]Node, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return !match(n) })
	if len(nodes) == 0 {
		return nil, errors.New("no such node is known yet")
	}
	return nodes, nil
}

func (n Node) target(ctx context.Context) context.Context {
	if n.Target == nil {
		return ctx
	}
	return n.Target(ctx)
}

// plain leaves out of an error what gRPC says of itself.
func plain(err error) string {
	text := err.Error()
	if _, after, found := strings.Cut(text, "desc = "); found {
		text = after
	}
	return text
}

// get reads one resource's spec; found is false when there is none.
func (n Node) get(ctx context.Context, namespace, kind, id string, into any) (found bool, err error) {
	specs, err := n.list(ctx, namespace, kind)
	if err != nil {
		return false, err
	}
	text, found := specs[id]
	if !found {
		return false, nil
	}
	return true, yaml.Unmarshal([]byte(text), into)
}

// list reads the specs of a type, by id.
func (n Node) list(ctx context.Context, namespace, kind string) (map[string]string, error) {
	stream, err := n.Resources.List(ctx, &cosi.ListRequest{Namespace: namespace, Type: kind, Options: &cosi.ListOptions{}})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for {
		reply, err := stream.Recv()
		if isEnd(err) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out[reply.GetResource().GetMetadata().GetId()] = reply.GetResource().GetSpec().GetYamlSpec()
	}
}
