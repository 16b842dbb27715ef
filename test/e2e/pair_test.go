//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestPairWorkload: a control plane and a worker that are virtual machines,
// each installed from the ISO. A workload lies across both; it goes on when the
// worker restarts and when its power is cut, and nothing acknowledged is lost.
func TestPairWorkload(t *testing.T) {
	const worker = "e2e-worker-1"
	on := deploySpread(t, machineReady)
	reachEachOther(t, on)
	for _, node := range members(t) {
		answered := map[string]bool{}
		eventually(t, machineReady, "the pods of both nodes answer on the port of "+node.Name, func() error {
			name, err := fetch("http://" + node.Address + ":30080/hostname")
			if err != nil {
				return err
			}
			if answered[name] = true; len(answered) < len(on) {
				return fmt.Errorf("%v alone has", name)
			}
			return nil
		})
	}
	traffic := startTraffic(t, "http://"+ofType(t, "controlplane")[0].Address+":30080/hostname")
	traffic.goesOn(t, machineReady)

	began := time.Now()
	rebootMachine(t, worker)
	machineHealthy(t)
	write, request := traffic.pauses()
	t.Logf("the worker restarted: healthy after %v; longest without a write %v, without an answer %v", time.Since(began), write, request)

	traffic.reset()
	began = time.Now()
	talosctl(t, "cluster", "stop", "--name", cluster.name, "--node", worker, "--kill")
	talosctl(t, "cluster", "start", "--name", cluster.name, "--node", worker)
	machineHealthy(t)
	write, request = traffic.pauses()
	t.Logf("the worker lost its power: healthy after %v; longest without a write %v, without an answer %v", time.Since(began), write, request)

	reachEachOther(t, deploySpread(t, machineReady))
	traffic.goesOn(t, machineReady)
	traffic.nothingLost(t)
}

// reachEachOther has each of the Deployment's pods ask the others, by their
// addresses: over the network between the nodes.
func reachEachOther(t *testing.T, on map[string]string) {
	t.Helper()
	for from, asker := range on {
		pod := strings.TrimSpace(kubectl(t, "get", "pods", "-l", "app=web", "--field-selector", "spec.nodeName="+from, "-o", "jsonpath={.items[0].metadata.name}"))
		for to, asked := range on {
			if from == to {
				continue
			}
			eventually(t, machineReady, fmt.Sprintf("the pod on %s (%s) reaches the one on %s (%s)", from, asker, to, asked), func() error {
				out, stderr, err := cluster.try("", "kubectl", "get", "--raw",
					"/api/v1/namespaces/default/pods/"+pod+":8080/proxy/dial?host="+asked+"&port=8080&request=hostname&protocol=http&tries=1")
				if err != nil {
					return fmt.Errorf("%w: %s", err, lastLine(stderr))
				}
				return contains(out, `"responses":["web-`)
			})
		}
	}
}
