package machine

import (
	"context"
	"errors"
	"testing"

	"talos/api/machine"
)

// collect reads events from the start that req asks for until n have come.
func collect(t *testing.T, e *Events, req *machine.EventsRequest, n int) []string {
	t.Helper()
	done := errors.New("enough")
	var got []string
	err := e.follow(t.Context(), req, func(ev *machine.Event) error {
		var payload machine.TaskEvent
		if err := ev.GetData().UnmarshalTo(&payload); err != nil {
			return err
		}
		if got = append(got, payload.GetTask()); len(got) == n {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatalf("follow: %v", err)
	}
	return got
}

func TestEvents(t *testing.T) {
	e := NewEvents()
	for _, task := range []string{"a", "b", "c"} {
		e.Publish(&machine.TaskEvent{Task: task}, "actor-"+task)
	}
	second := e.ring[1].message.GetId()
	for _, c := range []struct {
		name string
		req  *machine.EventsRequest
		want []string
	}{
		{"everything", &machine.EventsRequest{TailEvents: -1}, []string{"a", "b", "c"}},
		{"the last", &machine.EventsRequest{TailEvents: 1}, []string{"c"}},
		{"more than there are", &machine.EventsRequest{TailEvents: 9}, []string{"a", "b", "c"}},
		{"after an id", &machine.EventsRequest{TailId: second}, []string{"c"}},
		{"an id of an earlier boot", &machine.EventsRequest{TailId: "other-7"}, []string{"a", "b", "c"}},
		{"of one actor", &machine.EventsRequest{TailEvents: -1, WithActorId: "actor-b"}, []string{"b"}},
		{"of the last minute", &machine.EventsRequest{TailSeconds: 60}, []string{"a", "b", "c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := collect(t, e, c.req, len(c.want))
			for i := range c.want {
				if got[i] != c.want[i] {
					t.Fatalf("events = %v, want %v", got, c.want)
				}
			}
		})
	}
}

// TestEventsForgetTheOldest: memory is bounded, and a reader that asks for
// everything gets what is left.
func TestEventsForgetTheOldest(t *testing.T) {
	e := NewEvents()
	for range eventHistory + 10 {
		e.Publish(&machine.TaskEvent{Task: "x"}, "")
	}
	if len(e.ring) != eventHistory {
		t.Errorf("history holds %d events, want %d", len(e.ring), eventHistory)
	}
	if got := len(collect(t, e, &machine.EventsRequest{TailEvents: -1}, eventHistory)); got != eventHistory {
		t.Errorf("read %d events, want %d", got, eventHistory)
	}
}

// TestEventsAreFollowed: what comes later is delivered, and the end of the
// caller's context ends the stream.
func TestEventsAreFollowed(t *testing.T) {
	e := NewEvents()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string)
	ended := make(chan error)
	go func() {
		ended <- e.follow(ctx, &machine.EventsRequest{TailEvents: -1}, func(ev *machine.Event) error {
			got <- ev.GetActorId()
			return nil
		})
	}()
	e.Publish(&machine.TaskEvent{}, "first")
	if actor := <-got; actor != "first" {
		t.Errorf("event of %q, want first", actor)
	}
	e.Publish(&machine.TaskEvent{}, "second")
	if actor := <-got; actor != "second" {
		t.Errorf("event of %q, want second", actor)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("follow = %v, want canceled", err)
	}
}
