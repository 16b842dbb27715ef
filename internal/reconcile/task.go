package reconcile

import (
	"context"
	"log/slog"
	"time"

	"talos/internal/loop"
)

// Task is one piece of work beside the steps. Its key says what it works on;
// with another key the old work ends before the new begins.
type Task struct {
	key    string
	cancel context.CancelFunc
	done   chan struct{}
}

// Ensure makes fn run under key. A fn that returns an error, or panics, is
// started again after a pause that grows from 100 ms to 10 s; one that returns
// nil is finished until the key changes.
func (t *Task) Ensure(ctx context.Context, log *slog.Logger, key string, fn func(context.Context) error) {
	if t.cancel != nil && t.key == key {
		return
	}
	t.Stop()
	ctx, cancel := context.WithCancel(ctx)
	t.key, t.cancel, t.done = key, cancel, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		repeat(ctx, log, fn)
	}(t.done)
}

// Stop ends the work and waits for its end.
func (t *Task) Stop() {
	if t.cancel == nil {
		return
	}
	t.cancel()
	<-t.done
	t.cancel = nil
}

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	quiet      = 20 * time.Second // errors before that are what starting looks like
)

func repeat(ctx context.Context, log *slog.Logger, fn func(context.Context) error) {
	began := time.Now()
	for pause := firstPause; ; pause = min(pause*5/4, lastPause) {
		ran := time.Now()
		err := loop.Protect(func() error { return fn(ctx) })
		if err == nil || ctx.Err() != nil {
			return
		}
		if time.Since(ran) > lastPause { // it worked for a while
			pause = firstPause
		}
		level := slog.LevelDebug
		if time.Since(began) > quiet {
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "will try again", "err", err, "pause", pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
