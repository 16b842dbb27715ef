package apid

import (
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Calls at one time. Each that stays open, such as one that follows events,
// costs memory in every daemon that it passes and in machined.
const (
	maxCalls          = 2048
	maxCallsPerCaller = 512
	maxCallsPerGuest  = 64 // of one host, in maintenance mode

	// What calls to several nodes add: each node is a call of its own there.
	maxLegs          = 2 * maxNodes
	maxLegsPerCaller = maxNodes
)

// calls counts those that are open, by the caller's certificate, or host in
// maintenance mode: nobody takes all there are.
type calls struct {
	mu    sync.Mutex // guards the fields below
	open  load
	byWho map[string]load
}

// load is what is open: calls, and the targets beyond the first of each.
type load struct{ calls, legs int }

func (l load) plus(o load) load  { return load{l.calls + o.calls, l.legs + o.legs} }
func (l load) minus(o load) load { return load{l.calls - o.calls, l.legs - o.legs} }

// begin admits a call of who to a number of targets; end is to be called when
// it is over.
func (c *calls) begin(who string, targets int) (end func(), err error) {
	more := load{calls: 1, legs: max(targets, 1) - 1}
	c.mu.Lock()
	defer c.mu.Unlock()
	own, all := c.byWho[who].plus(more), c.open.plus(more)
	most := maxCallsPerCaller
	if strings.HasPrefix(who, guestPrefix) {
		most = maxCallsPerGuest
	}
	switch {
	case own.calls > most:
		return nil, status.Errorf(codes.ResourceExhausted, "%d calls of this client are open already", most)
	case own.legs > maxLegsPerCaller:
		return nil, status.Errorf(codes.ResourceExhausted, "calls of this client to %d nodes are open already", maxLegsPerCaller)
	case all.calls > maxCalls:
		return nil, status.Errorf(codes.ResourceExhausted, "%d calls are open already", maxCalls)
	case all.legs > maxLegs:
		return nil, status.Errorf(codes.ResourceExhausted, "calls to %d nodes are open already", maxLegs)
	}
	if c.byWho == nil {
		c.byWho = map[string]load{}
	}
	c.open, c.byWho[who] = all, own
	return func() { c.end(who, more) }, nil
}

func (c *calls) end(who string, less load) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = c.open.minus(less)
	if left := c.byWho[who].minus(less); left == (load{}) {
		delete(c.byWho, who)
	} else {
		c.byWho[who] = left
	}
}
