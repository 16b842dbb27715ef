//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestNetworkIsRestored: what somebody takes away from what networkd made
// comes back.
func TestNetworkIsRestored(t *testing.T) {
	healthy(t)
	address := nodeAddress(t)
	has := func(what, want string, args ...string) func() error {
		return func() error {
			if out := inNode(t, "ip", args...); !strings.Contains(out, want) {
				return fmt.Errorf("%s: %s", what, out)
			}
			return nil
		}
	}
	for _, c := range []struct {
		name  string
		harm  []string
		check func() error
	}{
		{"address", []string{"addr", "flush", "dev", "eth0", "scope", "global"}, has("addresses", address+"/", "-4", "addr", "show", "dev", "eth0")},
		{"default route", []string{"route", "del", "default"}, has("routes", "default via", "-4", "route", "show")},
		{"link down", []string{"link", "set", "eth0", "down"}, func() error {
			if err := has("link", ",UP", "link", "show", "eth0")(); err != nil {
				return err
			}
			return has("routes", "default via", "-4", "route", "show")()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			podsBefore := podStarts(t)
			if err := c.check(); err != nil {
				t.Fatalf("before: %v", err)
			}
			inNode(t, "ip", c.harm...)
			eventually(t, minute, c.name+" restored", c.check)
			time.Sleep(2 * time.Second) // time for something wrong to happen
			if diff := cmp.Diff(podsBefore, podStarts(t)); diff != "" {
				t.Errorf("pods were restarted for it (-before +after):\n%s", diff)
			}
		})
	}
	healthy(t)
}

// TestForeignObjectsStay: what the pod network or a person made is not
// networkd's to remove, even after it was killed and looked at everything anew.
func TestForeignObjectsStay(t *testing.T) {
	healthy(t)
	deployWorkload(t)
	inNode(t, "ip", "link", "add", "foreign0", "type", "bridge")
	inNode(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "foreign0")
	inNode(t, "ip", "link", "set", "foreign0", "up")
	inNode(t, "ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.2")
	t.Cleanup(func() { inNode(t, "ip", "link", "del", "foreign0") })
	before := inNode(t, "ip", "-4", "-o", "addr") + inNode(t, "ip", "-4", "route", "show", "table", "all")
	kill(t, nodeProcess(t, "networkd"))
	eventually(t, 2*time.Minute, "networkd runs again", func() error {
		if nodeProcess(t, "networkd") == 0 {
			return fmt.Errorf("no process")
		}
		return nil
	})
	healthy(t)
	time.Sleep(2 * time.Second) // time for something wrong to happen
	if after := inNode(t, "ip", "-4", "-o", "addr") + inNode(t, "ip", "-4", "route", "show", "table", "all"); stable(after) != stable(before) {
		t.Errorf("addresses and routes before:\n%s\nafter:\n%s", before, after)
	}
}

// stable drops the lifetimes of leases, which count down.
func stable(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		var fields []string
		for _, field := range strings.Fields(line) {
			if !strings.HasSuffix(field, "sec") {
				fields = append(fields, field)
			}
		}
		out = append(out, strings.Join(fields, " "))
	}
	return strings.Join(out, "\n")
}
