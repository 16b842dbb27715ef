package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

const (
	// pollPeriod is how often what is waited for is looked at.
	pollPeriod = 500 * time.Millisecond
	// oneLook bounds a look: one that hangs is one that failed.
	oneLook = 5 * time.Second
)

// Waiting is what --wait and --timeout say.
type Waiting struct {
	On    bool
	Limit time.Duration
}

// WaitFlags gives cmd the flags --wait and --timeout; what says what is waited
// for.
func WaitFlags(cmd *cobra.Command, on bool, limit time.Duration, what string) *Waiting {
	w := &Waiting{}
	cmd.Flags().BoolVar(&w.On, "wait", on, "wait until "+what+", and tell what it waits for")
	cmd.Flags().DurationVar(&w.Limit, "timeout", limit, "how long to wait")
	return w
}

// TimeoutError says that what was waited for did not come in time, and what it
// was seen to be last. It is what users need instead of "deadline exceeded".
type TimeoutError struct {
	What  string // "node01 to be ready"
	Limit time.Duration
	Last  string // "" if nothing was ever seen
}

func (e *TimeoutError) Error() string {
	text := fmt.Sprintf("wait for %s: not within %v", e.What, e.Limit)
	if e.Last != "" {
		text += "; last seen: " + e.Last
	}
	return text
}

// Look tells how what is waited for is, in words, and whether that is it. An
// error ends the waiting: what may still get better is a state.
type Look func(ctx context.Context) (state string, done bool, err error)

// Wait looks until it is done, and tells each new state once. A Look that ends
// with its context counts as one that failed, not as the end.
func (w Waiting) Wait(ctx context.Context, what string, tell func(state string), look Look) error {
	ctx, cancel := context.WithTimeout(ctx, w.Limit)
	defer cancel()
	last := ""
	for {
		lookCtx, done := context.WithTimeout(ctx, oneLook)
		state, over, err := look(lookCtx)
		done()
		if !ending(ctx) && state != "" && state != last && !over {
			tell(state)
			last = state
		}
		switch {
		case over:
			return nil
		case err != nil && !ending(ctx):
			return err
		}
		select {
		case <-time.After(pollPeriod):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return &TimeoutError{What: what, Limit: w.Limit, Last: last}
		}
	}
}

// ending says whether ctx is over, or so nearly that a call has failed for it.
func ending(ctx context.Context) bool {
	deadline, bounded := ctx.Deadline()
	return ctx.Err() != nil || bounded && time.Until(deadline) < 50*time.Millisecond
}
