package disk

import (
	"context"
	"errors"
	"sync"
	"time"

	"talos/internal/loop"
)

// Patience is how long a disk may take to be looked at where others wait: disks
// that stand still need ten seconds until they turn.
const Patience = 30 * time.Second

// ErrSilent is what is wrong with a disk that did not answer in time.
var ErrSilent = errors.New("it does not answer")

// Answer is what was found out of a disk, or why nothing.
type Answer[T any] struct {
	Value T
	Err   error
}

// silent counts, by node, the questions that were given up and have not come back.
// Each holds a thread.
var silent = struct {
	sync.Mutex
	nodes map[string]int
}{nodes: map[string]int{}}

// question is one that was asked.
type question[T any] struct {
	node          string
	answer        chan Answer[T]
	over, givenUp bool // guarded by silent
}

func (q *question[T]) ask(fn func() (T, error)) {
	var a Answer[T]
	a.Err = loop.Protect(func() (err error) {
		a.Value, err = fn()
		return err
	})
	silent.Lock()
	defer silent.Unlock()
	if q.over = true; q.givenUp {
		if silent.nodes[q.node]--; silent.nodes[q.node] == 0 {
			delete(silent.nodes, q.node)
		}
	}
	q.answer <- a // has room
}

// wait returns the answer, or that there is none.
func (q *question[T]) wait(ctx context.Context) Answer[T] {
	select {
	case a := <-q.answer:
		return a
	case <-ctx.Done():
	}
	silent.Lock()
	defer silent.Unlock()
	if q.over { // just now
		return <-q.answer
	}
	q.givenUp = true
	silent.nodes[q.node]++
	return Answer[T]{Err: ErrSilent}
}

// Ask asks about all disks side by side, and returns the answers in their order.
// One that has not answered within limit, or when ctx ends, is ErrSilent: a read
// of a broken disk may take for ever, and holds its goroutine and nothing else.
// Until it is over the disk is not asked again, by whomever.
func Ask[T any](ctx context.Context, disks []Disk, limit time.Duration, ask func(Disk) (T, error)) []Answer[T] {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	questions := make([]*question[T], len(disks))
	for i, d := range disks {
		silent.Lock()
		hangs := silent.nodes[d.DevPath] > 0
		silent.Unlock()
		if hangs {
			continue
		}
		questions[i] = &question[T]{node: d.DevPath, answer: make(chan Answer[T], 1)}
		go questions[i].ask(func() (T, error) { return ask(d) })
	}
	out := make([]Answer[T], len(disks))
	for i, q := range questions {
		if q == nil {
			out[i].Err = ErrSilent
			continue
		}
		out[i] = q.wait(ctx)
	}
	return out
}
