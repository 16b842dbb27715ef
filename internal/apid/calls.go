package apid

import (
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Calls at one time. Each that stays open, such as one that follows events,
// costs memory in every daemon that it passes and in machined.
const (
	maxCalls          = 2048
	maxCallsPerCaller = 512
)

// calls counts those that are open, by the caller's certificate: nobody takes
// all there are.
type calls struct {
	mu    sync.Mutex // guards the fields below
	open  int
	byWho map[string]int
}

// begin admits a call of who; end is to be called when it is over.
func (c *calls) begin(who string) (end func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.byWho[who] >= maxCallsPerCaller:
		return nil, status.Errorf(codes.ResourceExhausted, "%d calls of this client are open already", maxCallsPerCaller)
	case c.open >= maxCalls:
		return nil, status.Errorf(codes.ResourceExhausted, "%d calls are open already", maxCalls)
	}
	if c.byWho == nil {
		c.byWho = map[string]int{}
	}
	c.open++
	c.byWho[who]++
	return func() { c.end(who) }, nil
}

func (c *calls) end(who string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if c.byWho[who]--; c.byWho[who] == 0 {
		delete(c.byWho, who)
	}
}
