package main

import (
	"bytes"
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

// keepIn adds the place for the log, and what came before.
func (o *output) keepIn(w io.Writer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = w.Write(o.early.Bytes())
	o.early = nil
	o.sinks = append(o.sinks, w)
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
