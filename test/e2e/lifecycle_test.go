//go:build e2e

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// secondNetwork is that of TestSecondCluster, whose node has its address from
// the configuration.
const secondNetwork = "10.191.77"

// second is the patch of TestSecondCluster: an address without DHCP, no pod
// network, a file, and workloads kept apart.
const second = `
machine:
  network:
    nameservers: [` + secondNetwork + `.1]
    interfaces:
    - {interface: eth0, addresses: [` + secondNetwork + `.2/24], routes: [{network: 0.0.0.0/0, gateway: ` + secondNetwork + `.1}]}
  files:
  - {path: /var/lib/e2e/written, permissions: 0o640, op: create, content: "by the configuration"}
cluster:
  network: {cni: {name: none}}
  inlineManifests:
  - {name: early, contents: "apiVersion: v1\nkind: Namespace\nmetadata: {name: early}\n"}
---
apiVersion: v1alpha1
kind: SecurityProfileConfig
workloadIsolation: true
`

// TestSecondCluster makes another cluster beside the first, without a pod
// network, gives it one of its own, and turns it off and on.
func TestSecondCluster(t *testing.T) {
	node := nodeInit(t)
	e := secondCluster(t, "second", "--cidr", secondNetwork+".0/24", "--wait=false", "--cpus", "1.5", "--memory", "3GiB", "--config-patch", second)
	// Who does not wait for the cluster gets it all the same.
	eventually(t, 10*minute, "Kubernetes answers and has the inline manifest", func() error { return e.works("kubectl", "get", "namespace", "early") })
	t.Run("without pod network", func(t *testing.T) { withoutNetwork(t, e) })
	t.Run("files", func(t *testing.T) {
		if got := e.must(t, "", "talosctl", "read", "/var/lib/e2e/written"); got != "by the configuration" {
			t.Errorf("machine.files wrote %q", got)
		}
	})
	t.Run("static address", func(t *testing.T) { staticAddress(t, e) })
	t.Run("apart from the first", func(t *testing.T) { apart(t, e) })
	t.Run("limits", func(t *testing.T) { limits(t, e) })
	t.Run("custom pod network", func(t *testing.T) { customNetwork(t, e) })
	t.Run("isolation", func(t *testing.T) { isolation(t, e) })
	t.Run("create again", func(t *testing.T) {
		began := time.Now()
		before := e.must(t, "", "kubectl", "get", "nodes", "-o", "jsonpath={.items[*].metadata.uid}")
		if err := e.create(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 5*time.Minute {
			t.Errorf("it took %v for a cluster that was there", took)
		}
		if after := e.must(t, "", "kubectl", "get", "nodes", "-o", "jsonpath={.items[*].metadata.uid}"); after != before {
			t.Errorf("nodes were %s and are %s", before, after)
		}
	})
	t.Run("shutdown and start", func(t *testing.T) { offAndOn(t, e, "shutdown", "--timeout", "3m") })
	t.Run("stop and start", func(t *testing.T) { offAndOn(t, e, "cluster", "stop", "--name", e.name) })
	if now := nodeInit(t); now != node {
		t.Errorf("the first cluster's machined is process %d, was %d", now, node)
	}
	healthy(t)
}

func (e env) works(name string, args ...string) error {
	_, stderr, err := e.try("", name, args...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, lastLine(stderr))
	}
	return nil
}

func withoutNetwork(t *testing.T, e env) {
	eventually(t, 5*minute, "the node is there and not Ready for want of a network", func() error {
		out, stderr, err := e.try("", "kubectl", "get", "nodes", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")]}`)
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		if err := contains(out, `"status":"False"`); err != nil {
			return err
		}
		return contains(out, "cni plugin not initialized")
	})
	conf := filepath.Join(e.home, "talos", "clusters", e.name, "nodes", e.name+"-controlplane-1", "ephemeral", "system", "cni", "net.d")
	list, err := os.ReadDir(conf)
	if err != nil || len(list) > 0 {
		t.Errorf("configurations of CNI with none asked for: %v, %v", list, err)
	}
	if out := e.must(t, "", "kubectl", "get", "daemonsets", "-n", "kube-system", "-o", "name"); strings.Contains(out, "flannel") {
		t.Errorf("flannel was installed with none asked for: %s", out)
	}
}

// staticAddress: the node has what the configuration says, and asks nobody.
func staticAddress(t *testing.T, e env) {
	for what, want := range map[string]string{"addressspecs": "eth0/" + secondNetwork + ".2/24", "routes": secondNetwork + ".1", "dnsupstreams": secondNetwork + ".1:53"} {
		if err := contains(e.must(t, "", "talosctl", "get", what), want); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if out := e.must(t, "", "talosctl", "get", "operatorspecs"); strings.Contains(out, "dhcp4") {
		t.Errorf("DHCP is spoken:\n%s", out)
	}
}

// apart: a node reaches its own cluster's API server at its gateway, and at the
// other cluster's gateway nobody.
func apart(t *testing.T, other env) {
	var file struct {
		Clusters []struct {
			Cluster struct {
				CA string `yaml:"certificate-authority-data"`
			}
		}
	}
	readYAML(t, cluster.kubeconfig, &file)
	data, err := base64.StdEncoding.DecodeString(file.Clusters[0].Cluster.CA)
	if err != nil {
		t.Fatal(err)
	}
	own := x509.NewCertPool()
	own.AppendCertsFromPEM(data)
	ours := gateway(t, cluster)
	for range 20 { // now and then a wrong one would be wrong
		conn, err := dialInNode(t, "tcp", ours+":6443")
		if err != nil {
			t.Fatalf("own gateway: %v", err)
		}
		client := tls.Client(conn, &tls.Config{RootCAs: own, ServerName: ours, MinVersion: tls.VersionTLS13})
		if err := client.Handshake(); err != nil {
			t.Errorf("own gateway: %v, want the own API server", err)
		}
		client.Close()
	}
	for _, address := range []string{gateway(t, other) + ":6443", secondNetwork + ".2:50000"} {
		if conn, err := dialInNode(t, "tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s of the other cluster answers", address)
		}
	}
}

// limits: what was asked for is shown, and the kernel holds the node to it.
func limits(t *testing.T, e env) {
	out := e.must(t, "", "talosctl", "cluster", "show", "--name", e.name)
	if !strings.Contains(out, " 1.5 ") || !strings.Contains(out, " 3072 MiB ") {
		t.Errorf("cluster show does not show the limits:\n%s", out)
	}
	found := map[string]bool{}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu"} { // version 2 and 1
		for _, file := range []string{"memory.max", "memory.limit_in_bytes", "cpu.max", "cpu.cfs_quota_us"} {
			paths, _ := filepath.Glob(filepath.Join(root, "talos", "*", e.name+"-controlplane-1", file)) // the pattern is well-formed
			for _, path := range paths {
				if data, err := os.ReadFile(path); err == nil && own.has(path) {
					found[strings.TrimSpace(string(data))] = true
				}
			}
		}
	}
	if !found[strconv.Itoa(3<<30)] || !found["150000"] && !found["150000 100000"] {
		t.Errorf("limits of the node's control group are %v, want 3 GiB and 1.5 processors", found)
	}
}

// customNetwork serves the manifest that the first cluster made for flannel,
// with the address of this one's API.
func customNetwork(t *testing.T, e env) {
	rendered := talosctl(t, "get", "manifests", "05-flannel", "-o", "json")
	port := serveFiles(t, text(strings.ReplaceAll(asList(t, rendered), gateway(t, cluster), gateway(t, e))))
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte(e.must(t, "", "talosctl", "read", "/system/state/config.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	e.must(t, "", "talosctl", "apply-config", "-f", file, "-p",
		fmt.Sprintf(`{"cluster": {"network": {"cni": {"name": "custom", "urls": ["http://%s:%d/cni.yaml"]}}}}`, gateway(t, e), port))
	e.healthy(t)
	e.must(t, "", "kubectl", "wait", "--for=condition=Ready", "pods", "--all", "-n", "kube-system", "--timeout=300s")
}

// offAndOn turns the cluster off with args, and on again.
func offAndOn(t *testing.T, e env, args ...string) {
	e.must(t, "", "kubectl", "create", "namespace", "kept-"+args[0])
	e.must(t, "", "talosctl", args...)
	eventually(t, 5*minute, "the node is off", func() error {
		return contains(lastLine(e.must(t, "", "talosctl", "cluster", "show", "--name", e.name)), " off ")
	})
	e.must(t, "", "talosctl", "cluster", "start", "--name", e.name)
	e.healthy(t)
	e.must(t, "", "kubectl", "get", "namespace", "kept-"+args[0])
}
