// Package follow keeps a daemon's picture of some resources up to date: it
// lists them, watches them, and starts over when the store went away.
//
// It holds no picture itself; what it calls gets a whole one every time. It
// runs in the caller's goroutine.
package follow

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/state"
)

const maxPause = 2 * time.Second

// Kind calls apply with all resources of a namespace and type, by id, at the
// start and after every change, until ctx ends. The map and what is in it
// belong to the caller of apply: read only.
func Kind[R resource.Resource](ctx context.Context, st state.State, log *slog.Logger, ns resource.Namespace, kind resource.Type, apply func(map[resource.ID]R)) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, maxPause) {
		began := time.Now()
		err := watch(ctx, st, resource.NewMetadata(ns, kind, "", resource.VersionUndefined), apply)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxPause {
			pause = 50 * time.Millisecond
		}
		log.Warn("watch ended", "type", kind, "err", err, "retry", pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func watch[R resource.Resource](ctx context.Context, st state.State, kind resource.Kind, apply func(map[resource.ID]R)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan state.Event)
	if err := st.WatchKind(ctx, kind, events, state.WithBootstrapContents(true)); err != nil {
		return err
	}
	have, complete := map[resource.ID]R{}, false
	for {
		var event state.Event
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event = <-events:
		}
		switch event.Type {
		case state.Errored:
			return event.Error
		case state.Bootstrapped:
			complete = true
		case state.Noop:
			continue
		case state.Destroyed:
			delete(have, event.Resource.Metadata().ID())
		case state.Created, state.Updated:
			r, ok := event.Resource.(R)
			if !ok {
				return fmt.Errorf("watch %s: got a %T", kind.Type(), event.Resource)
			}
			have[r.Metadata().ID()] = r
		}
		if complete {
			apply(have)
		}
	}
}
