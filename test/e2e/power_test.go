//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPower takes the nodes of a cluster with a worker down, in the ways there
// are, and looks at what becomes of pods and data.
func TestPower(t *testing.T) {
	e := secondCluster(t, "power", "--workers", "1")
	worker, controlPlane := e.name+"-worker-1", e.name+"-controlplane-1"
	t.Run("health", func(t *testing.T) { bothWays(t, e) })
	t.Run("drain", func(t *testing.T) { drained(t, e, worker) })
	t.Run("reset worker", func(t *testing.T) { resetWorker(t, e, worker) })
	t.Run("reset control plane", func(t *testing.T) { resetControlPlane(t, e, controlPlane, worker) })
}

// address is where a node's API answers.
func (e env) address(t *testing.T, node string) string {
	t.Helper()
	out := e.must(t, "", "kubectl", "get", "node", node, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`)
	if out == "" {
		t.Fatalf("node %s has no address", node)
	}
	return out
}

// exits runs talosctl and wants this exit code; it returns what was said.
func (e env) exits(t *testing.T, code int, args ...string) string {
	t.Helper()
	stdout, stderr, err := e.try("", "talosctl", args...)
	got := 0
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		got = failed.ExitCode()
	}
	if got != code {
		t.Fatalf("talosctl %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stderr
}

// bothWays: a control plane node and the client find the same, on both nodes.
func bothWays(t *testing.T, e env) {
	from := func(args ...string) string {
		return e.must(t, "", "talosctl", append([]string{"health", "--wait-timeout", "60s"}, args...)...)
	}
	there, here := from(), from("--server=false")
	if there != here {
		t.Errorf("the node says\n%s\nthe client\n%s", there, here)
	}
	if n := strings.Count(there, ": OK\n"); n < 19 {
		t.Errorf("%d checks are OK:\n%s", n, there)
	}
	// A node that there is not is the first thing that is missing.
	text := e.exits(t, 4, "health", "--wait-timeout", "3s", "--control-plane-nodes", e.address(t, e.name+"-controlplane-1"), "--worker-nodes", "10.255.255.1")
	if !strings.Contains(text, "wait for apid to answer on all nodes: not within 3s; last seen: 10.255.255.1: ") {
		t.Errorf("health with a node that there is not: %s", text)
	}
}

const budgeted = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: pause, image: "registry.k8s.io/e2e-test-images/agnhost:2.66.1", args: [pause]}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
`

// drained reboots the worker: pods that a budget holds stop the drain for its
// part of the time and not longer; without one they are moved away.
func drained(t *testing.T, e env, worker string) {
	address := e.address(t, worker)
	e.must(t, budgeted, "kubectl", "apply", "-f", "-")
	e.must(t, "", "kubectl", "rollout", "status", "deployment/web", "--timeout=300s")
	if on := nodesOf(t, e); on != worker+" "+worker {
		t.Fatalf("the pods are on %q, want %s: the control plane node takes none", on, worker)
	}
	began := time.Now()
	said := e.exits(t, 0, "-n", address, "reboot", "--drain-timeout", "5s", "--timeout", "5m")
	for _, want := range []string{"2 pods to end: default/web-", "The disruption budget web needs 2 healthy pods", "not in time, going on without", "ready after"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in what the reboot said:\n%s", want, said)
		}
	}
	t.Logf("a reboot that a budget held for 5s took %v", time.Since(began))
	schedulable(t, e, worker)
	e.must(t, "", "kubectl", "rollout", "status", "deployment/web", "--timeout=300s")

	// With somewhere to go the pods are gone before anything is stopped.
	e.must(t, "", "kubectl", "delete", "pdb", "web")
	e.must(t, "", "kubectl", "taint", "node", e.name+"-controlplane-1", "node-role.kubernetes.io/control-plane-")
	said = e.exits(t, 0, "-n", address, "reboot", "--timeout", "5m")
	if strings.Contains(said, "not in time") {
		t.Errorf("the drain did not end:\n%s", said)
	}
	if on := nodesOf(t, e); strings.Contains(on, worker) {
		t.Errorf("the pods are on %q, want none on the worker", on)
	}
	schedulable(t, e, worker)
	// What an administrator cordoned stays so.
	e.must(t, "", "kubectl", "cordon", worker)
	e.must(t, "", "talosctl", "-n", address, "reboot", "--timeout", "5m")
	if out := e.must(t, "", "kubectl", "get", "node", worker, "-o", "jsonpath={.spec.unschedulable}"); out != "true" {
		t.Errorf("the administrator's cordon was taken back")
	}
	e.must(t, "", "kubectl", "uncordon", worker)
	e.must(t, "", "kubectl", "delete", "deployment", "web")
}

// nodesOf are the nodes of the pods of the Deployment.
func nodesOf(t *testing.T, e env) string {
	t.Helper()
	return e.must(t, "", "kubectl", "get", "pods", "-l", "app=web", "--field-selector", "status.phase=Running", "-o", "jsonpath={.items[*].spec.nodeName}")
}

func schedulable(t *testing.T, e env, node string) {
	t.Helper()
	eventually(t, 3*time.Minute, node+" is uncordoned", func() error {
		out := e.must(t, "", "kubectl", "get", "node", node, "-o", "jsonpath={.spec.unschedulable}{.metadata.annotations}")
		if strings.HasPrefix(out, "true") || strings.Contains(out, "cordoned-in-boot") {
			return errors.New(out)
		}
		return nil
	})
}

// resetWorker: the worker comes back from its seed, without what was on it.
func resetWorker(t *testing.T, e env, worker string) {
	address := e.address(t, worker)
	folder := filepath.Join(e.home, "talos", "clusters", e.name, "nodes", worker)
	identity, err := os.ReadFile(filepath.Join(folder, "state", "identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	e.exits(t, 2, "reset", "--confirm", e.name)                                                     // no node on the command line
	e.exits(t, 2, "-n", address, "reset")                                                           // not confirmed
	e.exits(t, 2, "-n", address, "reset", "--confirm", e.name, "--wipe-mode", "user-disks")         // which?
	e.exits(t, 1, "-n", address, "reset", "--confirm", e.name, "--user-disks-to-wipe", "/dev/null") // there are none
	said := e.exits(t, 0, "-n", address, "reset", "--confirm", e.name, "--system-labels-to-wipe", "EPHEMERAL,STATE", "--reboot", "--timeout", "5m")
	if !strings.Contains(said, "up again after") {
		t.Errorf("reset said:\n%s", said)
	}
	eventually(t, 5*time.Minute, "the worker is somebody new", func() error {
		now, err := os.ReadFile(filepath.Join(folder, "state", "identity.key"))
		if err == nil && bytes.Equal(now, identity) {
			err = errors.New("it has its old identity")
		}
		return err
	})
	e.healthy(t)
}

// resetControlPlane: the only one's data is the cluster. It is refused, and done
// for who says it in words.
func resetControlPlane(t *testing.T, e env, node, worker string) {
	address, other := e.address(t, node), e.address(t, worker)
	uid := e.must(t, "", "kubectl", "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
	said := e.exits(t, 1, "-n", address, "reset", "--confirm", e.name, "--system-labels-to-wipe", "EPHEMERAL", "--reboot")
	if !strings.Contains(said, "is the only voting member, its data is the cluster; nothing was done") {
		t.Errorf("the refusal says: %s", said)
	}
	e.exits(t, 1, "-n", address, "reset", "--confirm", e.name, "--force-quorum-loss", "another", "--reboot")
	e.exits(t, 0, "-n", address, "reset", "--confirm", e.name, "--system-labels-to-wipe", "EPHEMERAL", "--reboot", "--force-quorum-loss", e.name, "--timeout", "5m")
	eventually(t, 3*time.Minute, "etcd waits for bootstrap", func() error {
		out, stderr, err := e.try("", "talosctl", "-n", address, "service", "etcd")
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		return contains(out, "bootstrap")
	})
	eventually(t, 3*time.Minute, "etcd is bootstrapped", func() error { return e.works("talosctl", "-n", address, "bootstrap") })
	// A kubelet reports to a new cluster when it starts.
	e.must(t, "", "talosctl", "-n", other, "reboot", "--timeout", "5m")
	e.healthy(t)
	if now := e.must(t, "", "kubectl", "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"); now == uid {
		t.Error("etcd's data is still the old one")
	}
}
