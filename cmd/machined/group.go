package main

import (
	"context"
	"log/slog"
	"time"

	"talos/internal/loop"
)

// group owns machined's goroutines. They live as long as the machine; each is
// named, and started again when it ends badly.
type group struct {
	ctx context.Context
	log *slog.Logger
}

// Go runs fn until it succeeds. A panic counts as an error; after an error fn
// starts again, ever more slowly.
func (g *group) Go(name string, fn func(context.Context) error) {
	go func() {
		for pause := 100 * time.Millisecond; ; pause = min(2*pause, 30*time.Second) {
			err := loop.Protect(func() error { return fn(g.ctx) })
			if err == nil || g.ctx.Err() != nil {
				return
			}
			g.log.Error("task stopped", "task", name, "err", err, "retry", pause)
			select {
			case <-time.After(pause):
			case <-g.ctx.Done():
				return
			}
		}
	}()
}
