package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
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
			err := protect(g.ctx, fn)
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

func protect(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil { // any value, not only errors
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx)
}
