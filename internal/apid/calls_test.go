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
			end, err := c.begin(who)
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, end)
		}
	}
	refused := func(who string) {
		t.Helper()
		if _, err := c.begin(who); status.Code(err) != codes.ResourceExhausted {
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
	if c.open != 0 || len(c.byWho) != 0 {
		t.Errorf("after all ended %d are open, of %v", c.open, c.byWho)
	}
	open("greedy", 1)
}
