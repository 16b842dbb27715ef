package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"sync"

	"talos/internal/linux/kmsg"
)

// output is where machined's own log goes: the console, the kernel's log where
// it is the node's own, and, once there is a place for it, the log "machined".
type output struct {
	mu    sync.Mutex // guards the fields below
	sinks []io.Writer
	early *bytes.Buffer // what came before there was a place; nil afterwards
}

func newOutput() *output {
	return &output{sinks: []io.Writer{os.Stdout}, early: new(bytes.Buffer)}
}

// Write never fails: nobody could be told.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.sinks {
		_, _ = w.Write(p)
	}
	if o.early != nil {
		o.early.Write(p)
	}
	return len(p), nil
}

// keepIn adds the place for the log, and what came before. It may be a disk that
// hangs: run writes there, and nobody waits for it.
func (o *output) keepIn(w io.Writer) (run func(ctx context.Context) error) {
	q := &queue{to: w, lines: make(chan []byte, waiting)}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = q.Write(o.early.Bytes())
	o.early = nil
	o.sinks = append(o.sinks, q)
	return q.run
}

// waiting is how many writes wait for a place that is slow.
const waiting = 1024

// queue hands on what is written to it, and drops what comes while too much waits.
type queue struct {
	to    io.Writer
	lines chan []byte
}

// Write never waits.
func (q *queue) Write(p []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(p):
	default:
	}
	return len(p), nil
}

func (q *queue) run(ctx context.Context) error {
	for {
		select {
		case p := <-q.lines:
			_, _ = q.to.Write(p) // nobody could be told
		case <-ctx.Done():
			return nil
		}
	}
}

// toKernel adds the kernel's log, which is on the console: that needs no copy.
func (o *output) toKernel(log *slog.Logger) {
	w, err := kmsg.Open("machined: ")
	if err != nil {
		log.Warn("the kernel's log can't be written", "err", err)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sinks[0] = w
}
