// Package service keeps the node's programs running: it starts them in the
// order of their dependencies, watches their health, starts them again ever
// more slowly when they end, and stops them in reverse order.
//
// It owns the life of the programs and their v1alpha1.Service resources. What
// a service is made of (arguments, mounts, when it may start) belongs to the
// package that defines it. A Supervisor is safe for concurrent use.
package service

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrUnknown is returned for an id that no definition has.
var ErrUnknown = errors.New("service is not known")

// ErrSkip, returned by a Definition's Wait, says that this node has no use for
// the service: it is Skipped until somebody starts it again.
var ErrSkip = errors.New("nothing to do")

// ErrNotAllowed is returned for a service that may not be controlled from
// outside.
var ErrNotAllowed = errors.New("service may not be controlled over the API")

// Definition is everything the supervisor knows about a service.
type Definition struct {
	// ID is the service's name, unique on the node.
	ID string
	// DependsOn are services that must be running and healthy first.
	DependsOn []string
	// Wait, if set, blocks until the service may start; what it waits for is
	// shown through SetReason on its context, WaitText before that.
	Wait     func(ctx context.Context) error
	WaitText string
	// Runner is the program.
	Runner Runner
	// Health tells whether the running program works; nil: running is healthy.
	Health *Health
	// Control says that it may be started, stopped and restarted over the API.
	Control bool
	// Vital says that without it there is no API: what has Control too may be
	// restarted, but not stopped, since nobody could start it again.
	Vital bool
}

// Health is how a service's health is measured.
type Health struct {
	Check func(ctx context.Context) error
	// Period between checks, 5 s when zero. Until the first success they follow
	// each other every 50 ms; later three in a row must fail to count.
	Period time.Duration
	// Timeout of one check, 2 s when zero.
	Timeout time.Duration
}

// Runner is a program that can be run.
type Runner interface {
	// Run starts the program, or takes over the one that runs already, calls
	// started with its process id, and returns when it ended. The end of ctx
	// ends it gracefully, then by force. Lines that it prints go to out.
	Run(ctx context.Context, out io.Writer, started func(pid int)) error
}

// The states of a service, as users know them.
const (
	StateInitialized = "Initialized" // known, not asked to run
	StatePreparing   = "Preparing"   // image or files are being made ready
	StateWaiting     = "Waiting"     // for dependencies or a condition
	StateStarting    = "Starting"
	StateRunning     = "Running"
	StateStopping    = "Stopping"
	StateFinished    = "Finished" // stopped because somebody asked
	StateFailed      = "Failed"   // ended by itself; will be started again
	StateSkipped     = "Skipped"  // nothing to do on this node
)

// HealthStatus is the health of a running service.
type HealthStatus struct {
	Unknown bool // not measured yet
	Healthy bool
	Message string // of the last failed check
	Changed time.Time
}

// Event is a change of state.
type Event struct {
	Time    time.Time
	State   string
	Message string
}

// Status is what is known of a service.
type Status struct {
	ID      string
	State   string
	PID     int  // 0 when it doesn't run
	Control bool // may be started, stopped and restarted over the API
	Health  HealthStatus
	Events  []Event // the last ones, oldest first
}

type reasonKey struct{}

// SetReason tells the supervisor what a Definition's Wait is waiting for, or
// what a Runner is preparing before it has started.
func SetReason(ctx context.Context, reason string) {
	if set, ok := ctx.Value(reasonKey{}).(func(string)); ok {
		set(reason)
	}
}
