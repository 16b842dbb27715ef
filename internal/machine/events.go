package machine

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"talos/api/common"
	"talos/api/machine"
)

// eventHistory is how many events a node remembers.
const eventHistory = 1024

// Events are what happened on the machine since it started, the last ones
// only. It is safe for concurrent use; a slow reader loses events rather than
// holding anybody up.
type Events struct {
	boot string // makes ids differ from boot to boot

	mu     sync.Mutex // guards the fields below
	next   uint64     // number of the next event
	ring   []event    // the last eventHistory, oldest first
	wakeup chan struct{}
}

type event struct {
	number  uint64
	at      time.Time
	message *machine.Event
}

// NewEvents makes an empty history.
func NewEvents() *Events {
	return &Events{boot: strconv.FormatInt(time.Now().UnixNano(), 36), wakeup: make(chan struct{})}
}

// Publish adds an event; actor is the id of the sequence that it belongs to,
// or empty.
func (e *Events) Publish(payload proto.Message, actor string) {
	data, err := anypb.New(payload)
	if err != nil {
		return // only a message without a type can't be packed, and there is none
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ring = append(e.ring, event{number: e.next, at: time.Now(), message: &machine.Event{
		Metadata: &common.Metadata{}, Data: data, Id: fmt.Sprintf("%s-%d", e.boot, e.next), ActorId: actor,
	}})
	if len(e.ring) > eventHistory {
		e.ring = e.ring[len(e.ring)-eventHistory:]
	}
	e.next++
	close(e.wakeup)
	e.wakeup = make(chan struct{})
}

// since returns the events from number on, and what is closed at the next.
func (e *Events) since(number uint64) ([]event, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, ev := range e.ring {
		if ev.number >= number {
			return append([]event(nil), e.ring[i:]...), e.wakeup
		}
	}
	return nil, e.wakeup
}

// start decides with which event a stream begins: by default with the next.
func (e *Events) start(req *machine.EventsRequest) (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	oldest := e.next - uint64(len(e.ring))
	switch {
	case req.GetTailId() != "":
		text, ok := strings.CutPrefix(req.GetTailId(), e.boot+"-")
		number, err := strconv.ParseUint(text, 10, 64)
		if !ok || err != nil {
			return oldest, nil // of an earlier boot: everything since is new
		}
		return number + 1, nil
	case req.GetTailSeconds() > 0:
		from := time.Now().Add(-time.Duration(req.GetTailSeconds()) * time.Second)
		for _, ev := range e.ring {
			if ev.at.After(from) {
				return ev.number, nil
			}
		}
		return e.next, nil
	case req.GetTailEvents() < 0:
		return oldest, nil
	case req.GetTailEvents() > 0:
		return max(oldest, e.next-min(e.next, uint64(req.GetTailEvents()))), nil
	}
	return e.next, nil
}

// Follow calls send for each event from the request's start on, until ctx ends.
func (e *Events) follow(ctx context.Context, req *machine.EventsRequest, send func(*machine.Event) error) error {
	number, err := e.start(req)
	if err != nil {
		return err
	}
	for {
		events, wakeup := e.since(number)
		for _, ev := range events {
			number = ev.number + 1
			if req.GetWithActorId() != "" && ev.message.GetActorId() != req.GetWithActorId() {
				continue
			}
			if err := send(ev.message); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wakeup:
		}
	}
}

// Events streams what happens until the caller has enough.
func (s *Server) Events(req *machine.EventsRequest, stream grpc.ServerStreamingServer[machine.Event]) error {
	err := s.Options.Events.follow(stream.Context(), req, stream.Send)
	if stream.Context().Err() != nil {
		return status.FromContextError(stream.Context().Err()).Err()
	}
	return status.Errorf(codes.Internal, "events: %v", err)
}
