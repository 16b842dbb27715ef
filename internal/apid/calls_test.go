package apid

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestCallsAreBounded(t *testing.T) {
	var c calls
	var ends []func()
	open := func(who string, n int) {
		t.Helper()
		for range n {
			end, err := c.begin(who, 1)
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, end)
		}
	}
	refused := func(who string) {
		t.Helper()
		if _, err := c.begin(who, 1); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one call more of %s = %v, want ResourceExhausted", who, err)
		}
	}
	open("greedy", maxCallsPerCaller)
	refused("greedy")
	for i := range maxCalls/maxCallsPerCaller - 1 {
		open(fmt.Sprint("other", i), maxCallsPerCaller)
	}
	refused("late")
	ends[0]()
	ends = ends[1:]
	open("late", 1)
	for _, end := range ends {
		end()
	}
	if c.open != (load{}) || len(c.byWho) != 0 {
		t.Errorf("after all ended %+v are open, of %v", c.open, c.byWho)
	}
	open("greedy", 1)

	// Targets count too.
	fleet, err := c.begin("greedy", maxNodes)
	if err != nil {
		t.Fatalf("one call to %d nodes: %v", maxNodes, err)
	}
	if _, err := c.begin("greedy", 3); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("two nodes more = %v, want ResourceExhausted", err)
	}
	if _, err := c.begin("other", maxNodes); err != nil {
		t.Errorf("a fleet of another caller: %v", err)
	}
	fleet()
	if _, err := c.begin("greedy", maxNodes); err != nil {
		t.Errorf("after the first ended: %v", err)
	}
}
