// Package audit writes down who called what on the API, and how it went: one
// line of JSON per call, reads and denials too, never what was sent or
// answered.
//
// A Log may be used by many goroutines at once. It never makes a call wait:
// lines queue up to a limit, beyond it they are dropped, and the next line
// that is written says how many are missing.
package audit

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Record is one call.
type Record struct {
	Start    time.Time
	Duration time.Duration
	Subject  string   // common name of the client's certificate
	Serial   string   // its serial number, hexadecimal
	Print    string   // its SHA-256 fingerprint, hexadecimal
	Roles    []string // that the decision was made with
	Via      string   // the node that spoke for the subject, if one did: name and serial
	From     string   // address the subject called from, as that node saw it
	Peer     string   // address
	Method   string   // full name
	Nodes    []string // targets as the caller named them
	Code     string   // of the outcome, as gRPC names it
	Reason   string   // why apid refused, if it did
}

// limit bounds what waits to be written, in bytes.
const limit = 1 << 20

// Log writes records to one writer.
type Log struct {
	out  io.Writer
	slog *slog.Logger
	done chan struct{}

	mu      sync.Mutex // guards the fields below
	wake    *sync.Cond
	queue   bytes.Buffer // whole lines
	spare   []byte       // what the writer goroutine gave back
	dropped int
	closed  bool
}

// New starts a log; Close ends it.
func New(out io.Writer) *Log {
	l := &Log{out: out, done: make(chan struct{})}
	l.wake = sync.NewCond(&l.mu)
	l.slog = slog.New(slog.NewJSONHandler(queueWriter{l}, nil))
	go l.write()
	return l
}

// Record queues the line of one call.
func (l *Log) Record(r Record) {
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("subject", r.Subject), slog.String("serial", r.Serial), slog.String("fingerprint", r.Print),
		slog.Any("roles", r.Roles), slog.String("peer", r.Peer), slog.String("method", r.Method),
		slog.String("code", r.Code), slog.Float64("ms", float64(r.Duration.Microseconds())/1000))
	if len(r.Nodes) > 0 {
		attrs = append(attrs, slog.Any("nodes", r.Nodes))
	}
	if r.Via != "" {
		attrs = append(attrs, slog.String("via", r.Via), slog.String("from", r.From))
	}
	if r.Reason != "" {
		attrs = append(attrs, slog.String("reason", r.Reason))
	}
	line := slog.NewRecord(r.Start, slog.LevelInfo, "audit", 0)
	line.AddAttrs(attrs...)
	// The handler's only error is the writer's, and that has none.
	_ = l.slog.Handler().Handle(context.Background(), line)
}

// Close writes what is queued and returns when that is done.
func (l *Log) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wake.Signal()
	<-l.done
}

// queueWriter takes the handler's lines: one per Write.
type queueWriter struct{ *Log }

func (q queueWriter) Write(line []byte) (int, error) {
	q.mu.Lock()
	if q.closed || q.queue.Len()+len(line) > limit {
		q.dropped++
	} else {
		q.queue.Write(line)
	}
	q.mu.Unlock()
	q.wake.Signal()
	return len(line), nil
}

func (l *Log) write() {
	defer close(l.done)
	for {
		l.mu.Lock()
		for l.queue.Len() == 0 && !l.closed {
			l.wake.Wait()
		}
		if l.queue.Len() == 0 {
			l.mu.Unlock()
			return
		}
		lines, dropped := l.queue, l.dropped
		l.queue, l.dropped = *bytes.NewBuffer(l.spare[:0]), 0
		l.mu.Unlock()

		// A sink that is gone must not stop the API.
		_, _ = l.out.Write(lines.Bytes())
		if dropped > 0 {
			slog.New(slog.NewJSONHandler(l.out, nil)).Warn("audit lines dropped", "lines", dropped)
		}
		if lines.Cap() <= limit/16 {
			l.spare = lines.Bytes()
		} else {
			l.spare = nil
		}
	}
}
