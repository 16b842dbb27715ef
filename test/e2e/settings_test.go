//go:build e2e

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// settings are what TestSettingsTakeEffect changes on the running node; the
// holes are the host's address, the ports of its servers, and agnhost.
const settings = `
machine:
  nodeLabels: {example.com/tested: "yes"}
  nodeTaints: {example.com/tested: "yes:PreferNoSchedule"}
  nodeAnnotations: {example.com/note: written}
  certSANs: [extra.example, 192.0.2.77]
  env: {E2E_VARIABLE: is-set}
  network:
    nameservers: [192.0.2.53]
    searchDomains: [search.example]
    extraHostEntries: [{ip: 192.0.2.10, aliases: [extra-host.example]}]
  pods:
  - apiVersion: v1
    kind: Pod
    metadata: {name: mine, namespace: default}
    spec: {containers: [{name: mine, image: "%[6]s", args: [pause]}]}
  logging:
    destinations:
    - {endpoint: "udp://%[1]s:%[2]d", format: json_lines, extraTags: {where: by-udp}}
    - {endpoint: "tcp://%[1]s:%[3]d", format: json_lines, extraTags: {where: by-tcp}}
  registries:
    mirrors: {registry.example: {endpoints: ["http://%[1]s:%[4]d"]}}
    config: {"%[1]s:%[4]d": {auth: {username: somebody, password: known}}}
cluster:
  inlineManifests:
  - {name: inline, contents: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: inline, namespace: default}\ndata: {from: inline}\n"}
  extraManifests: ["http://%[1]s:%[5]d/extra.yaml"]
`

const extraManifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: default}\ndata: {from: extra}\n"

// configure applies a patch to the node's configuration, and takes it back
// when t ends.
func configure(t *testing.T, patch string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte(talosctl(t, "read", "/system/state/config.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		talosctl(t, "apply-config", "-f", file, "--mode", "no-reboot")
		healthy(t)
	})
	talosctl(t, "apply-config", "-f", file, "--mode", "no-reboot", "-p", patch)
}

// TestSettingsTakeEffect changes much at once on the running node, without a
// reboot, and looks for each where a user would.
func TestSettingsTakeEffect(t *testing.T) {
	healthy(t)
	deployWorkload(t)
	node, initBefore, podsBefore := nodeAddress(t), nodeInit(t), podStarts(t)
	udp, tcp, udpPort, tcpPort := listenLogs(t)
	images, files := serveFiles(t, registry("somebody", "known")), serveFiles(t, text(extraManifest))
	t.Cleanup(func() { // after the configuration is what it was before: the next test finds the pods that it expects
		eventually(t, 2*time.Minute, "the static pod of the test is gone", func() error {
			if pods := kubectl(t, "get", "pods", "-o", "name"); strings.Contains(pods, "mine-") {
				return fmt.Errorf("pods are %s", pods)
			}
			return nil
		})
	})
	configure(t, fmt.Sprintf(settings, gateway(t, cluster), udpPort, tcpPort, images, files, agnhost))
	must(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: pulled, namespace: default}\nspec: {containers: [{name: c, image: \"registry.example/some/thing:v1\", args: [pause]}]}\n",
		"kubectl", "apply", "-f", "-")
	t.Cleanup(func() {
		kubectl(t, "delete", "--ignore-not-found", "--timeout=90s", "pod/pulled", "configmap/inline", "configmap/extra")
	})
	for _, c := range []struct {
		name  string
		check func() error
	}{
		{"nodeLabels", func() error { return nodeHas(t, "{.metadata.labels}", `"example.com/tested":"yes"`) }},
		{"nodeTaints", func() error {
			return nodeHas(t, "{.spec.taints}", `"effect":"PreferNoSchedule","key":"example.com/tested"`)
		}},
		{"nodeAnnotations", func() error { return nodeHas(t, "{.metadata.annotations}", `"example.com/note":"written"`) }},
		{"certSANs", func() error { return servesFor(node, "extra.example", "192.0.2.77", node) }},
		{"env", func() error { return hasVariable(t, "E2E_VARIABLE=is-set") }},
		{"extraHostEntries", func() error { return contains(talosctl(t, "read", "/etc/hosts"), "extra-host.example") }},
		{"nameservers", func() error { return contains(talosctl(t, "get", "dnsupstreams"), "192.0.2.53:53") }},
		{"searchDomains", func() error { return contains(talosctl(t, "read", "/etc/resolv.conf"), "search.example") }},
		{"pods", func() error { return running(t, "mine-"+cluster.name+"-controlplane-1") }},
		{"logging over UDP", func() error { return sent(udp, "by-udp") }},
		{"logging over TCP", func() error { return sent(tcp, "by-tcp") }},
		{"registries", func() error { return running(t, "pulled") }},
		{"inlineManifests", func() error { return configMap("inline") }},
		{"extraManifests", func() error { return configMap("extra") }},
	} {
		t.Run(c.name, func(t *testing.T) { eventually(t, 2*minute, c.name+" took effect", c.check) })
	}
	healthy(t)
	if now := nodeInit(t); now != initBefore {
		t.Error("the node rebooted")
	}
	podsAfter := podStarts(t)
	for pod, started := range podsBefore {
		if podsAfter[pod] != started {
			t.Errorf("%s was %s and is %s: it must not be restarted for this", pod, started, podsAfter[pod])
		}
	}
}

func nodeHas(t *testing.T, path, want string) error {
	t.Helper()
	return contains(kubectl(t, "get", "nodes", "-o", "jsonpath={range .items[0]}"+path+"{end}"), want)
}

func running(t *testing.T, pod string) error {
	t.Helper()
	out, stderr, err := cluster.try("", "kubectl", "get", "pod", pod, "-o", "jsonpath={.status.phase} {.status.containerStatuses[*].state}")
	if err != nil {
		return fmt.Errorf("%w: %s", err, stderr)
	}
	return contains(out, "Running ")
}

func configMap(name string) error {
	out, stderr, err := cluster.try("", "kubectl", "get", "configmap", name, "-o", "jsonpath={.data.from}")
	if err != nil || out != name {
		return fmt.Errorf("data %q, %v: %s", out, err, stderr)
	}
	return nil
}

// servesFor looks at the certificate that apid shows before it asks for ours.
func servesFor(node string, names ...string) error {
	var shown error
	conn, err := tls.Dial("tcp", net.JoinHostPort(node, "50000"), &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		VerifyConnection: func(s tls.ConnectionState) error {
			for _, name := range names {
				if err := s.PeerCertificates[0].VerifyHostname(name); err != nil && shown == nil {
					shown = err
				}
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	conn.Close()
	return shown
}

// hasVariable looks at what the container runtime of Kubernetes was started with.
func hasVariable(t *testing.T, want string) error {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(nodeProcess(t, "containerd", "cri")), "environ"))
	if err != nil {
		return err
	}
	return contains(strings.ReplaceAll(string(data), "\x00", " "), want)
}

// sent wants a line that is JSON with the tag, and says whose it is.
func sent(to *lines, tag string) error {
	line, err := to.with(tag, "talos-service")
	if err != nil {
		return err
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		return fmt.Errorf("line %q: %w", line, err)
	}
	if fields["msg"] == nil || fields["where"] != tag {
		return fmt.Errorf("line %q: no msg, or where is not %s", line, tag)
	}
	return nil
}

// TestKubeletSettings: the kubelet is restarted for its settings, and nothing else.
func TestKubeletSettings(t *testing.T) {
	healthy(t)
	deployWorkload(t)
	others := func() map[string]int {
		pids := map[string]int{"machined": nodeInit(t), "cri": nodeProcess(t, "containerd", "cri")}
		for _, name := range []string{"networkd", "timed", "routerd", "apid", "trustd", "etcd", "kube-apiserver", "kube-controller", "kube-scheduler"} {
			pids[name] = nodeProcess(t, name)
		}
		return pids
	}
	before, podsBefore, kubelet := others(), podStarts(t), nodeProcess(t, "kubelet")
	configure(t, `{"machine": {"kubelet": {"extraConfig": {"maxPods": 77}, "extraArgs": {"v": "3"}}}}`)
	eventually(t, 2*minute, "the node takes 77 pods", func() error { return nodeHas(t, "{.status.capacity.pods}", "77") })
	healthy(t)
	now := nodeProcess(t, "kubelet", "--v=3")
	if now == 0 || now == kubelet {
		t.Errorf("kubelet is process %d with --v=3, was %d: it must be started again", now, kubelet)
	}
	if diff := gocmp.Diff(before, others()); diff != "" {
		t.Errorf("other processes (-before +after):\n%s", diff)
	}
	if diff := gocmp.Diff(podsBefore, podStarts(t)); diff != "" {
		t.Errorf("pods (-before +after):\n%s", diff)
	}
}
