// Package sequence takes the node from one state to another in named phases:
// it runs them, with a deadline each and one for all, and it knows the phases
// that take a running node down.
//
// What the phases of a boot do is package boot's; cordon and drain, etcd and the
// wipe are others' too, behind interfaces. A Controller is safe for concurrent
// use: one sequence at a time, and a stronger one may take over a weaker one.
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
	// Deadline is how long the phase may take; zero: as long as the sequence. In
	// a sequence with less time than all its phases together it is shortened in
	// the same measure, so that none takes the time of those after it.
	Deadline time.Duration
}

// Step is one thing that is done.
type Step struct {
	Name string
	// Optional says that the sequence goes on when the step does not succeed.
	Optional bool
	Run      func(ctx context.Context) error
}

// Event tells of a sequence, of a phase of it, or of a step of that: that it
// began (Done false), what it does just now (Message), or how it ended.
type Event struct {
	Actor    string // the id that the caller who began the sequence was given
	Sequence string
	Phase    string // "" for the sequence as a whole
	Step     string // "" for the phase as a whole
	Message  string
	Done     bool
	Stays    bool // the sequence has ended, and the node stays up
	Err      error
	Took     time.Duration
}

// Run runs phases in order, up to the first of which a required step fails, or
// until ctx is over. A step that is not back when time is up is left behind and
// counts as failed.
func Run(ctx context.Context, log *slog.Logger, name string, phases []Phase, tell func(Event)) error {
	if tell == nil {
		tell = func(Event) {}
	}
	began := time.Now()
	for i, p := range phases {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %s not begun: %w", name, p.Name, err)
		}
		tell(Event{Sequence: name, Phase: p.Name})
		start := time.Now()
		p.Deadline = share(ctx, phases[i:])
		err := p.run(ctx, log, name, tell)
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

// share is how long the first of the phases that are left may take.
func share(ctx context.Context, left []Phase) time.Duration {
	own := left[0].Deadline
	end, bounded := ctx.Deadline()
	if !bounded || own == 0 {
		return own
	}
	var all time.Duration
	for _, p := range left {
		all += p.Deadline
	}
	if rest := time.Until(end); rest < all {
		return time.Duration(float64(own) * float64(rest) / float64(all))
	}
	return own
}

func (p Phase) run(ctx context.Context, log *slog.Logger, sequence string, tell func(Event)) error {
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
			tell(Event{Sequence: sequence, Phase: p.Name, Step: s.Name, Done: true, Err: err})
		default:
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// lastWords is how long a step whose time is over may take to say so.
const lastWords = 100 * time.Millisecond

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
	case <-time.After(lastWords):
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
