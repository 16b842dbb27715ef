package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		var task Task
		defer task.Stop()
		var ran []string
		work := func(name string, fails int) func(context.Context) error {
			return func(ctx context.Context) error {
				ran = append(ran, name)
				switch fails--; {
				case fails == 0:
					panic("any value")
				case fails > 0:
					return errors.New("not yet")
				}
				<-ctx.Done()
				ran = append(ran, name+" ended")
				return ctx.Err()
			}
		}
		task.Ensure(t.Context(), log, "a", work("a", 2))
		time.Sleep(time.Minute)
		task.Ensure(t.Context(), log, "a", work("another a", 0)) // the same work runs already
		synctest.Wait()
		task.Ensure(t.Context(), log, "b", work("b", 0))
		synctest.Wait()
		if want := []string{"a", "a", "a", "a ended", "b"}; !slices.Equal(ran, want) {
			t.Errorf("ran %v, want %v: again after an error and a panic, and ended before other work begins", ran, want)
		}
	})
}
