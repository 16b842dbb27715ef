package provision

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/provision/host"
)

func TestPickNodes(t *testing.T) {
	c := example(t, Options{Name: "demo", ControlPlanes: 2, Workers: 1})
	for _, tc := range []struct {
		names []string
		want  string // of the nodes, or part of the error
	}{
		{nil, "demo-controlplane-1, demo-controlplane-2, demo-worker-1"},
		{[]string{"demo-worker-1", "controlplane-2"}, "demo-worker-1, demo-controlplane-2"},
		{[]string{"10.5.0.2"}, "demo-controlplane-1"},
		{[]string{"worker-2"}, `has no node "worker-2": want one of demo-controlplane-1, demo-controlplane-2, demo-worker-1`},
	} {
		got, err := c.pick(tc.names)
		text := nodeList(got)
		if err != nil {
			text = err.Error()
		}
		if text != tc.want && (err == nil || !strings.Contains(text, tc.want)) {
			t.Errorf("pick(%q) = %q, want %q", tc.names, text, tc.want)
		}
	}
}

// TestNetworkOfFaults: what was cut is part of the network that is made when
// the supervisor starts, and trustd's port is forwarded where there are several nodes.
func TestNetworkOfFaults(t *testing.T) {
	c := example(t, Options{Name: "demo", ControlPlanes: 2, Workers: 1})
	for name, how := range map[string]string{"demo-controlplane-1": CutBoth, "demo-controlplane-2": CutFrom, "demo-worker-1": CutTo} {
		if err := os.WriteFile(c.dirs.nodeCut(name), []byte(how+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := c.network()
	want := []host.Cut{
		{Port: c.port("demo-controlplane-1"), FromIt: true, ToIt: true},
		{Port: c.port("demo-controlplane-2"), FromIt: true},
		{Port: c.port("demo-worker-1"), ToIt: true},
	}
	if diff := cmp.Diff(want, n.Cuts); diff != "" {
		t.Errorf("cuts (-want +got):\n%s", diff)
	}
	if len(n.Nodes) != 2 || len(n.Backends) != 2 {
		t.Errorf("forwards to %v of %v, want both control plane nodes", n.Backends, n.Nodes)
	}
	if one := example(t, Options{Name: "one", ControlPlanes: 1}).network(); len(one.Nodes) != 0 || len(one.Cuts) != 0 {
		t.Errorf("network of one node has %+v", one)
	}
}

func TestBootstrappedOnce(t *testing.T) {
	c := example(t, Options{Name: "demo", ControlPlanes: 1})
	if err := c.bootstrapped(); err == nil {
		t.Error("a new cluster is bootstrapped")
	}
	if err := c.dirs.writeSupervisor(supervisorState{Bootstrap: "connection refused"}); err != nil {
		t.Fatal(err)
	}
	if err := c.bootstrapped(); err == nil || err.Error() != "connection refused" {
		t.Errorf("bootstrapped = %v, want the last reason", err)
	}
	if err := os.WriteFile(c.dirs.bootstrapped(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.bootstrapped(); err != nil {
		t.Errorf("bootstrapped = %v after it was done", err)
	}
}

// TestHalted: a node stays off for itself or with its cluster.
func TestHalted(t *testing.T) {
	c := example(t, Options{Name: "demo", ControlPlanes: 1, Workers: 1})
	s := &supervisor{cluster: c}
	halted := func() (out []bool) {
		for _, n := range c.Nodes {
			out = append(out, s.halted(n))
		}
		return out
	}
	for _, step := range []struct {
		file string // made in this step
		want []bool
	}{
		{"", []bool{false, false}}, {c.dirs.nodeHalt("demo-worker-1"), []bool{false, true}}, {c.dirs.halt(), []bool{true, true}},
	} {
		if step.file != "" {
			if err := os.WriteFile(step.file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(step.want, halted()); diff != "" {
			t.Errorf("halted after %q (-want +got):\n%s", step.file, diff)
		}
	}
}

func TestMachineStatus(t *testing.T) {
	if err := machineStatus("stage: running\nstatus:\n    ready: true\n    unmetConditions: []\n"); err != nil {
		t.Errorf("ready = %v", err)
	}
	err := machineStatus("stage: booting\nstatus:\n    ready: false\n    unmetConditions:\n        - name: services\n          reason: etcd is not running\n")
	if want := "booting, waiting for services (etcd is not running)"; err == nil || err.Error() != want {
		t.Errorf("machineStatus = %v, want %s", err, want)
	}
}
