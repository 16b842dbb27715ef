// Package sequence takes the node from one state to another in named phases:
// it runs them, with a deadline each and one for all, and it knows the phases
// that take a running node down.
//
// What the phases of a boot do is package boot's. A Controller is safe for
// concurrent use; of several who ask for an end the first decides.
package sequence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// Phase is a part of a sequence: steps that run side by side. The next phase
// begins when all have ended.
type Phase struct {
	Name  string
	Steps []Step
	// Deadline is how long the phase may take; zero: as long as the sequence.
	Deadline time.Duration
}

// Step is one thing that is done.
type Step struct {
	Name string
	// Optional says that the sequence goes on when the step does not succeed.
	Optional bool
	Run      func(ctx context.Context) error
}

// Event tells of a phase: that it began (Done false), or how it ended.
type Event struct {
	Sequence string
	Phase    string
	Done     bool
	Err      error
	Took     time.Duration
}

// Run runs phases in order, up to the first of which a required step fails. A
// step that is not back when time is up is left behind and counts as failed.
func Run(ctx context.Context, log *slog.Logger, name string, phases []Phase, tell func(Event)) error {
	if tell == nil {
		tell = func(Event) {}
	}
	began := time.Now()
	for _, p := range phases {
		tell(Event{Sequence: name, Phase: p.Name})
		start := time.Now()
		err := p.run(ctx, log, name)
		took := time.Since(start)
		tell(Event{Sequence: name, Phase: p.Name, Done: true, Err: err, Took: took})
		if err != nil {
			return fmt.Errorf("%s: %s: %w", name, p.Name, err)
		}
		log.Info("phase done", "sequence", name, "phase", p.Name, "took", took.Round(time.Millisecond))
	}
	log.Info("sequence done", "sequence", name, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (p Phase) run(ctx context.Context, log *slog.Logger, sequence string) error {
	if p.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.Deadline)
		defer cancel()
	}
	results := make([]chan error, len(p.Steps))
	for i, s := range p.Steps {
		results[i] = make(chan error, 1)
		go func() { results[i] <- s.protected(ctx) }()
	}
	var errs []error
	for i, s := range p.Steps {
		err := await(ctx, results[i])
		switch {
		case err == nil:
		case s.Optional:
			log.Warn("optional step did not succeed", "sequence", sequence, "phase", p.Name, "step", s.Name, "err", err)
		default:
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// await returns a step's result, or after the deadline that there is none.
func await(ctx context.Context, result <-chan error) error {
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	// A step that obeys ctx deserves to say what it was doing.
	select {
	case err := <-result:
		return err
	case <-time.After(100 * time.Millisecond):
		return ctx.Err()
	}
}

func (s Step) protected(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil { // any value, not only errors
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return s.Run(ctx)
}
