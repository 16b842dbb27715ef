package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/resources/network"
	"talos/internal/store"
)

// flaky is a store whose first watches fail.
type flaky struct {
	state.State
	failures int
}

func (f *flaky) WatchKind(ctx context.Context, kind resource.Kind, events chan<- state.Event, opts ...state.WatchKindOption) error {
	if f.failures--; f.failures == 1 {
		return errors.New("no store")
	} else if f.failures == 0 {
		go func() { events <- state.Event{Type: state.Errored, Error: errors.New("store went away")} }()
		return nil
	}
	return f.State.WatchKind(ctx, kind, events, opts...)
}

func TestKind(t *testing.T) {
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	make1 := func(id string) {
		if err := st.Create(t.Context(), network.NewHostnameStatus(id)); err != nil {
			t.Fatal(err)
		}
	}
	make1("a")
	ctx, cancel := context.WithCancel(t.Context())
	pictures, done := make(chan string), make(chan struct{})
	go func() {
		defer close(done)
		Kind(ctx, &flaky{State: st, failures: 2}, slog.New(slog.DiscardHandler), network.Namespace, network.HostnameStatusType, func(all map[resource.ID]*network.HostnameStatus) {
			var ids []string
			for id := range all {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			select {
			case pictures <- fmt.Sprint(strings.Join(ids, " ")):
			case <-ctx.Done():
			}
		})
	}()
	expect := func(want string) {
		t.Helper()
		if got := <-pictures; got != want {
			t.Errorf("picture = %q, want %q", got, want)
		}
	}
	expect("a")
	make1("b")
	expect("a b")
	if err := st.Destroy(t.Context(), network.NewHostnameStatus("a").Metadata()); err != nil {
		t.Fatal(err)
	}
	expect("b")
	cancel()
	<-done
}
