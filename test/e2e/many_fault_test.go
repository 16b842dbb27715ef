//go:build e2e

package e2e

import (
	"encoding/json"
	"testing"
)

// member is a node of the cluster as `cluster show` has it.
type member struct{ Name, Type, Address, State string }

// members are the cluster's nodes.
func members(t *testing.T) []member {
	t.Helper()
	var doc struct{ Nodes []member }
	if err := json.Unmarshal([]byte(talosctl(t, "cluster", "show", "--name", cluster.name, "-o", "json")), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Nodes
}

// ofType are the members that are "controlplane" or "worker".
func ofType(t *testing.T, kind string) (out []member) {
	t.Helper()
	for _, m := range members(t) {
		if m.Type == kind {
			out = append(out, m)
		}
	}
	return out
}

// many skips a test that one node is too few for.
func many(t *testing.T) {
	t.Helper()
	if controlPlanes == "1" {
		t.Skip("needs several nodes: E2E_CONTROLPLANES=3 E2E_WORKERS=1")
	}
}

// onNode runs `talosctl cluster` with args for one node.
func onNode(t *testing.T, m member, args ...string) {
	t.Helper()
	talosctl(t, append(append([]string{"cluster"}, args...), "--name", cluster.name, "--node", m.Name)...)
}

// fault is something done to a node, and what undoes it.
type fault struct {
	name     string
	do, undo []string
}

// faults are the ways in which a node is lost and comes back.
var faults = []fault{
	{"power lost", []string{"stop", "--kill"}, []string{"start"}},
	{"network cut", []string{"fault", "cut"}, []string{"fault", "restore"}},
	{"deaf", []string{"fault", "cut", "--direction", "to"}, []string{"fault", "restore"}},
	{"mute", []string{"fault", "cut", "--direction", "from"}, []string{"fault", "restore"}},
	{"frozen", []string{"fault", "freeze"}, []string{"fault", "thaw"}},
}

// during has a fault on a node while fn runs, and undoes it whatever happens.
func (f fault) during(t *testing.T, m member, fn func()) {
	t.Helper()
	onNode(t, m, f.do...)
	defer onNode(t, m, f.undo...)
	fn()
}
