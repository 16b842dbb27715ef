//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// spread is the Deployment of the tests with a pod on every node, which stays
// there when the node is lost for a while.
const spread = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations: [{operator: Exists}]
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: %[1]s
        args: [netexec, --http-port=8080]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

// underTraffic deploys it, and has it and the Kubernetes API used until t ends.
func underTraffic(t *testing.T) *traffic {
	t.Helper()
	deploySpread(t, 2*minute)
	return startTraffic(t, "http://"+ofType(t, "worker")[0].Address+":30080/hostname")
}

// deploySpread makes the Deployment and waits until every node has its pod.
// It returns their addresses by the node's name.
func deploySpread(t *testing.T, limit time.Duration) map[string]string {
	t.Helper()
	must(t, fmt.Sprintf(spread, agnhost, len(members(t))), "kubectl", "apply", "-f", "-")
	eventually(t, limit, "the Deployment is rolled out", func() error {
		_, stderr, err := cluster.try("", "kubectl", "rollout", "status", "deployment/web", "--timeout=60s")
		if err != nil {
			return fmt.Errorf("%w: %s", err, lastLine(stderr))
		}
		return nil
	})
	on := map[string]string{}
	for _, line := range splitLines(kubectl(t, "get", "pods", "-l", "app=web", "-o", `jsonpath={range .items[*]}{.spec.nodeName}{" "}{.status.podIP}{"\n"}{end}`)) {
		node, address, _ := strings.Cut(line, " ")
		on[node] = address
	}
	if len(on) != len(members(t)) {
		t.Fatalf("the Deployment's pods are on %d of %d nodes", len(on), len(members(t)))
	}
	return on
}

// votingMembers wants every control plane node to be one.
func votingMembers(t *testing.T, want []member) error {
	t.Helper()
	out, stderr, err := cluster.try("", "talosctl", "etcd", "members", "-n", want[0].Address)
	if err != nil {
		return fmt.Errorf("%w: %s", err, lastLine(stderr))
	}
	rows := splitLines(out)[1:]
	if len(rows) != len(want) {
		return fmt.Errorf("%d members, want %d:\n%s", len(rows), len(want), out)
	}
	for _, m := range want {
		if !slices.ContainsFunc(rows, func(row string) bool {
			return slices.Contains(strings.Fields(row), m.Name) && strings.Fields(row)[len(strings.Fields(row))-1] == "false" // LEARNER
		}) {
			return fmt.Errorf("%s is not a voting member:\n%s", m.Name, out)
		}
	}
	return nil
}

// whole waits until nothing is missing: nodes, members, pods.
func whole(t *testing.T) {
	t.Helper()
	healthy(t)
	eventually(t, 5*minute, "voting members", func() error { return votingMembers(t, ofType(t, "controlplane")) })
	eventually(t, 5*minute, "every node Ready", func() error {
		out, stderr, err := cluster.try("", "kubectl", "get", "nodes", "--no-headers")
		if err != nil {
			return fmt.Errorf("%w: %s", err, lastLine(stderr))
		}
		if strings.Contains(out, "NotReady") || len(splitLines(out)) != len(members(t)) {
			return fmt.Errorf("nodes:\n%s", out)
		}
		return nil
	})
}

// leader is the control plane node whose etcd member leads.
func leader(t *testing.T) (found member) {
	t.Helper()
	eventually(t, 2*minute, "a control plane node's member leads", func() error {
		for _, m := range ofType(t, "controlplane") {
			status, err := memberStatus(m)
			if err != nil {
				return err
			}
			if status.MemberID == status.Leader {
				found = m
				return nil
			}
		}
		return fmt.Errorf("none says that it does")
	})
	return found
}

// status is what a member of etcd says of itself.
type status struct {
	MemberID, Leader uint64
	IsLearner        bool
}

func memberStatus(m member) (status, error) {
	out, stderr, err := cluster.try("", "talosctl", "etcd", "status", "-n", m.Address, "-o", "json")
	if err != nil {
		return status{}, fmt.Errorf("%w: %s", err, lastLine(stderr))
	}
	var answer struct{ MemberStatus status }
	return answer.MemberStatus, json.Unmarshal([]byte(out), &answer)
}

// memberID is that of a control plane node's member, 0 of a worker.
func memberID(t *testing.T, m member) uint64 {
	t.Helper()
	if m.Type == "worker" {
		return 0
	}
	status, err := memberStatus(m)
	if err != nil {
		t.Fatal(err)
	}
	return status.MemberID
}

// TestManyLoseOne loses one control plane node after the other, each in another
// way. Users notice a pause at most, nothing acknowledged is lost, and the node
// comes back by itself.
func TestManyLoseOne(t *testing.T) {
	many(t)
	whole(t)
	tr := underTraffic(t)
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			victim := leader(t)
			if i%2 == 1 { // also those that follow
				nodes := ofType(t, "controlplane")
				victim = nodes[(slices.IndexFunc(nodes, func(m member) bool { return m.Name == victim.Name })+1)%len(nodes)]
			}
			tr.reset()
			f.during(t, victim, func() {
				tr.goesOn(t, 2*minute)
				time.Sleep(10 * time.Second) // the loss lasts, and traffic goes on
				tr.goesOn(t, minute)
				write, request := tr.pauses()
				t.Logf("%s %s: longest pause of writes %v, of requests %v", victim.Name, f.name, write.Round(100*time.Millisecond), request.Round(100*time.Millisecond))
			})
			whole(t)
			tr.nothingLost(t)
		})
	}
}

// TestManyOneDead asks several nodes of which one is dead: the others answer.
func TestManyOneDead(t *testing.T) {
	many(t)
	whole(t)
	nodes := members(t)
	var all []string
	for _, m := range nodes {
		all = append(all, m.Address)
	}
	dead := nodes[len(nodes)-1]
	faults[len(faults)-1].during(t, dead, func() { askSome(t, all, nodes, dead) })
}

// askSome asks for one answer and for a stream of each.
func askSome(t *testing.T, all []string, nodes []member, dead member) {
	t.Helper()
	began := time.Now()
	out, stderr, err := cluster.try("", "talosctl", "memory", "-n", strings.Join(all, ","))
	if err == nil {
		t.Error("memory of several nodes, one of them dead, exits with 0")
	}
	for _, m := range nodes {
		if has := strings.Contains(out, m.Address); has != (m != dead) {
			t.Errorf("memory of %s shown: %v\n%s", m.Address, has, out)
		}
	}
	if !strings.Contains(stderr, dead.Address) {
		t.Errorf("the error does not name %s: %s", dead.Address, stderr)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	followsSome(t, all, nodes, dead)
}

// followsSome follows logs of all nodes while one is dead.
func followsSome(t *testing.T, all []string, nodes []member, dead member) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	logs := cluster.command(ctx, "talosctl", "logs", "-f", "--tail", "1", "machined", "-n", strings.Join(all, ","))
	seen := watchOutput(t, logs)
	for _, m := range nodes {
		if m != dead {
			eventually(t, 90*time.Second, "a line of "+m.Name, func() error { return contains(seen(), m.Address) })
		}
	}
}

// TestManyEraseEach erases each node's disk in turn. It comes back from its
// manifest, and nothing is lost.
func TestManyEraseEach(t *testing.T) {
	many(t)
	whole(t)
	tr := underTraffic(t)
	for _, m := range members(t) {
		t.Run(m.Type+" "+m.Name, func(t *testing.T) {
			before := memberID(t, m)
			onNode(t, m, "fault", "erase")
			if m.Type == "controlplane" {
				eventually(t, 6*minute, "a new member of etcd", func() error {
					if id, err := memberStatus(m); err != nil || id.MemberID == before {
						return fmt.Errorf("member %x, was %x: %v", id.MemberID, before, err)
					}
					return nil
				})
			}
			whole(t)
			tr.goesOn(t, 2*minute)
			tr.nothingLost(t)
		})
	}
}

// TestManyRecover erases all control plane nodes at once. A snapshot brings the
// cluster back; one that is damaged is refused.
func TestManyRecover(t *testing.T) {
	many(t)
	whole(t)
	nodes := ofType(t, "controlplane")
	kubectl(t, "create", "configmap", "remember", "--from-literal=what=this")
	good := filepath.Join(t.TempDir(), "etcd.snapshot")
	talosctl(t, "etcd", "snapshot", good, "-n", nodes[1].Address)
	args := []string{"cluster", "fault", "erase", "--name", cluster.name}
	for _, m := range nodes {
		args = append(args, "--node", m.Name)
	}
	talosctl(t, args...)
	bad := damaged(t, good)
	eventually(t, 5*minute, "a damaged snapshot is refused", func() error {
		_, stderr, err := cluster.try("", "talosctl", "bootstrap", "-n", nodes[0].Address, "-e", nodes[0].Address, "--recover-from", bad)
		if err == nil {
			t.Fatal("bootstrap took a damaged snapshot")
		}
		return contains(strings.ToLower(stderr), "snapshot")
	})
	talosctl(t, "bootstrap", "-n", nodes[0].Address, "-e", nodes[0].Address, "--recover-from", good)
	whole(t)
	if got := kubectl(t, "get", "configmap", "remember", "-o", "jsonpath={.data.what}"); got != "this" {
		t.Errorf("configmap after the recovery = %q, want what was written before", got)
	}
	kubectl(t, "delete", "configmap", "remember")
}

// damaged is a copy of the file with one byte changed.
func damaged(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 0xff
	bad := file + ".bad"
	if err := os.WriteFile(bad, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return bad
}
