package loop

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Group runs functions side by side; the first that fails ends the context of
// all. A panic of one is its error: in the first process of a machine it would
// otherwise be the kernel's.
type Group struct{ group *errgroup.Group }

// NewGroup makes a group, and the context for its functions.
func NewGroup(ctx context.Context) (*Group, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	return &Group{group}, ctx
}

// Go runs fn.
func (g *Group) Go(fn func() error) {
	g.group.Go(func() error { return Protect(fn) })
}

// Wait waits for all, and returns the first error.
func (g *Group) Wait() error { return g.group.Wait() }
