package cli

import (
	"context"
	"errors"
	"time"

	"talos/client"
)

// CallTimeout bounds a call that is answered at once.
const CallTimeout = time.Minute

// Scope says who may answer a command that names no node.
type Scope int

const (
	Node    Scope = iota // the first endpoint, nobody else
	Cluster              // any endpoint: it is about the whole cluster
)

// Connect makes a client out of the global flags.
func (a *App) Connect(ctx context.Context, scope Scope) (*client.Client, error) {
	if a.insecure {
		return a.connectInsecure(ctx)
	}
	o := client.Options{Path: a.Talosconfig, Context: a.Context, Endpoints: a.Endpoints, Nodes: a.Nodes}
	c, err := client.New(ctx, o)
	if err != nil || scope == Cluster || len(c.Nodes()) > 0 || len(c.Endpoints()) == 1 {
		return c, err
	}
	defer c.Close()
	o.First = true
	return client.New(ctx, o)
}

// OneNode refuses a command that can only go to one node if several are named.
func OneNode(c *client.Client) error {
	if n := len(c.Nodes()); n > 1 {
		return Usage("this goes to one node only, %d are named: choose one with -n", n)
	}
	return nil
}

// Ask makes a unary call on all target nodes. It reports the nodes that failed
// and answers the others; the error is nil only if none failed.
func Ask[M client.Message, R client.Reply[M]](ctx context.Context, a *App, scope Scope, call func(context.Context, *client.Client) (R, error)) ([]client.Answer[M], error) {
	return ask(ctx, a, scope, func(*client.Client) error { return nil }, call)
}

// AskOne is Ask for what can only go to one node.
func AskOne[M client.Message, R client.Reply[M]](ctx context.Context, a *App, scope Scope, call func(context.Context, *client.Client) (R, error)) ([]client.Answer[M], error) {
	return ask(ctx, a, scope, OneNode, call)
}

func ask[M client.Message, R client.Reply[M]](ctx context.Context, a *App, scope Scope, check func(*client.Client) error, call func(context.Context, *client.Client) (R, error)) ([]client.Answer[M], error) {
	c, err := a.Connect(ctx, scope)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := check(c); err != nil {
		return nil, err
	}
	defer a.Slow("waiting for an answer …")()
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	return Sift(a, client.Collect(ctx, c, func(ctx context.Context) (R, error) { return call(ctx, c) }))
}

// Sift reports the nodes that failed and answers the others. The error says
// whether some or all did.
func Sift[M any](a *App, answers []client.Answer[M]) ([]client.Answer[M], error) {
	var good []client.Answer[M]
	var failed []error
	for _, answer := range answers {
		if answer.Err != nil {
			failed = append(failed, answer.Err)
			continue
		}
		good = append(good, answer)
	}
	if len(answers) > 1 {
		for _, err := range failed {
			a.Report(err)
		}
	}
	return good, verdict(failed, len(answers))
}

// verdict sums up what was reported already, if there were several nodes.
func verdict(failed []error, all int) error {
	switch {
	case len(failed) == 0:
		return nil
	case all == 1:
		return failed[0]
	case len(failed) < all:
		return &PartialError{Failed: len(failed), All: all}
	}
	return &Silent{Err: errors.Join(failed...)}
}

// Follow runs fn for all target nodes at the same time, until each has ended. A
// node that fails is reported at once: the others may go on for long.
func Follow(ctx context.Context, a *App, c *client.Client, fn func(ctx context.Context, node string) error) error {
	several := len(c.Nodes()) > 1
	answers, err := client.FollowNodes(ctx, c, func(ctx context.Context, node string) (struct{}, error) {
		err := fn(ctx, node)
		if err != nil && several && ctx.Err() == nil {
			a.Report(err)
		}
		return struct{}{}, err
	})
	if err != nil {
		return err
	}
	var failed []error
	for _, answer := range answers {
		if answer.Err != nil {
			failed = append(failed, answer.Err)
		}
	}
	return verdict(failed, len(answers))
}
