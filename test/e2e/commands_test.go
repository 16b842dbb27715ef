//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTables: what a person reads has the columns that people know.
func TestTables(t *testing.T) {
	healthy(t)
	deployWorkload(t)
	for _, c := range []struct {
		program string
		args    []string
		want    []string // regular expressions
	}{
		{"osctl", []string{"ps"}, []string{
			`(?m)^NAMESPACE +ID +IMAGE +PID +STATUS *$`, `(?m)^system +networkd +talos/networkd +\d+ +RUNNING *$`, `(?m)^system +trustd +talos/trustd +\d+ +RUNNING *$`,
		}},
		{"osctl", []string{"ps", "-k"}, []string{`(?m)^NAMESPACE +ID +IMAGE +PID +STATUS *$`, `(?m)^k8s\.io +.*kube-system/coredns-.* +\d+ +RUNNING *$`}},
		{"talosctl", []string{"containers", "-k"}, []string{`default/web-[^ ]*:web +` + regexp.QuoteMeta(agnhost) + ` +\d+ +RUNNING`}},
		{"talosctl", []string{"memory"}, []string{`(?m)^NODE +TOTAL +USED +FREE +SHARED +BUFFERS +CACHE +AVAILABLE *$`, `(?m)^\S+( +\d+){7} *$`}},
		{"talosctl", []string{"etcd", "members"}, []string{cluster.name + `-controlplane-1 +https://[\d.]+:2380 +https://[\d.]+:2379 +false`}},
		{"talosctl", []string{"etcd", "status"}, []string{`MEMBER +DB SIZE +IN USE +LEADER`, `\d+ (kB|MB)|\d\.\d MB`}},
		{"talosctl", []string{"services"}, []string{`kubelet +Running +OK`, `etcd +Running +OK`, `apid +Running +OK`}},
		{"talosctl", []string{"processes"}, []string{`/sbin/init`, `kube-apiserver --`}},
		{"talosctl", []string{"dmesg"}, []string{`(?m)^[a-z0-9]+: +[a-z]+: \[\d{4}-\d\d-\d\dT`}},
		{"talosctl", []string{"get", "addresses"}, []string{`AddressStatus +eth0/` + regexp.QuoteMeta(nodeAddress(t))}},
		{"talosctl", []string{"get", "services", "kubelet", "-o", "json"}, []string{`"id": "kubelet"`, `"healthy": true`}},
		{"talosctl", []string{"version"}, []string{`(?s)Client.*Server.*` + regexp.QuoteMeta(nodeAddress(t))}},
		{"talosctl", []string{"cluster", "list"}, []string{`(?m)^` + cluster.name + ` +1 +1 `}},
	} {
		t.Run(c.program+" "+strings.Join(c.args, " "), func(t *testing.T) {
			out := must(t, "", c.program, c.args...)
			for _, want := range c.want {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("no %s in:\n%s", want, out)
				}
			}
		})
	}
}

// follow starts a talosctl that does not end, and collects what it prints.
func follow(t *testing.T, args ...string) *lines {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := cluster.command(ctx, "talosctl", args...)
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatalf("talosctl %v: %v", args, err)
	}
	got, done := &lines{}, make(chan struct{})
	go func() {
		defer close(done)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			got.add(scanner.Text())
		}
	}()
	t.Cleanup(func() { cancel(); <-done; cmd.Wait() }) // it was cancelled: its error says so
	return got
}

// TestRestartIsSeen restarts the kubelet, which the watch, the events and the
// log show while it happens.
func TestRestartIsSeen(t *testing.T) {
	healthy(t)
	deployWorkload(t)
	podsBefore, kubelet := podStarts(t), nodeProcess(t, "kubelet")
	watch, events, log := follow(t, "get", "services", "kubelet", "-w"), follow(t, "events"), follow(t, "logs", "-f", "--tail", "0", "kubelet")
	eventually(t, minute, "the watch shows what is there", func() error { _, err := watch.with("kubelet", "+"); return err })
	talosctl(t, "service", "kubelet", "restart")
	for what, seen := range map[string]func() error{
		"watch":  func() error { return watch.atLeast(3, "kubelet") }, // as it was, stopped, running
		"events": func() error { _, err := events.with("ServiceStateEvent", "kubelet", "RUNNING"); return err },
		"log":    func() error { _, err := log.with("kubelet"); return err },
		"process": func() error {
			if now := nodeProcess(t, "kubelet"); now == 0 || now == kubelet {
				return fmt.Errorf("process %d", now)
			}
			return nil
		},
	} {
		eventually(t, minute, "the restart is seen in the "+what, seen)
	}
	healthy(t)
	if after := podStarts(t); fmt.Sprint(after) != fmt.Sprint(podsBefore) {
		t.Errorf("pods before %v\nand after %v", podsBefore, after)
	}
}

// TestAudit: who did what is written down, by the machine's API and by
// Kubernetes's.
func TestAudit(t *testing.T) {
	talosctl(t, "etcd", "members")
	eventually(t, minute, "apid wrote down the call with its caller", func() error {
		return someLine(talosctl(t, "logs", "apid", "--tail", "50"), `"msg":"audit"`, `"subject":"os:admin"`, `"method":"/machine.MachineService/EtcdMemberList"`, `"code":"OK"`, `"peer":"`)
	})
	kubectl(t, "create", "configmap", "audited", "--from-literal=a=b")
	kubectl(t, "delete", "configmap", "audited")
	eventually(t, minute, "kube-apiserver wrote down the request", func() error {
		return someLine(talosctl(t, "read", "/var/log/audit/kube/kube-apiserver.log"), `"verb":"create"`, "/api/v1/namespaces/default/configmaps", `"user":{"username":"admin"`)
	})
}

func someLine(text string, parts ...string) error {
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return nil
		}
	}
	return fmt.Errorf("no line with %q; the last is %s", parts, lastLine(text))
}

// TestSecretsAreEncrypted looks for a secret's value in etcd's own files. A
// ConfigMap's is there: that shows that the search would find it.
func TestSecretsAreEncrypted(t *testing.T) {
	value := fmt.Sprintf("e2e-value-%d", time.Now().UnixNano())
	kubectl(t, "create", "secret", "generic", "hidden", "--from-literal=v=hidden-"+value)
	kubectl(t, "create", "configmap", "open", "--from-literal=v=open-"+value)
	t.Cleanup(func() { kubectl(t, "delete", "secret/hidden", "configmap/open") })
	eventually(t, minute, "the ConfigMap is found in etcd's files", func() error {
		if !inEtcdFiles(t, "open-"+value) {
			return fmt.Errorf("not found")
		}
		return nil
	})
	if inEtcdFiles(t, "hidden-"+value) {
		t.Error("the secret's value is readable in etcd's files")
	}
}

func inEtcdFiles(t *testing.T, what string) bool {
	t.Helper()
	found := false
	root := filepath.Join(cluster.home, "talos", "clusters", cluster.name, "nodes")
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.Contains(path, "/etcd/member/") {
			return nil // files come and go
		}
		data, err := os.ReadFile(path)
		found = found || err == nil && strings.Contains(string(data), what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestPodSecurity: what is privileged runs in kube-system only.
func TestPodSecurity(t *testing.T) {
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: strong, namespace: default}\n" +
		"spec: {hostNetwork: true, containers: [{name: c, image: x, securityContext: {privileged: true}}]}\n"
	_, stderr, err := cluster.try(pod, "kubectl", "apply", "-f", "-")
	if err == nil || !strings.Contains(stderr, "violates PodSecurity") {
		t.Errorf("a privileged pod in default = %v, %q, want it forbidden by PodSecurity", err, stderr)
	}
}

// TestKubeletCertificate: the kubelet serves with a certificate of the cluster's
// CA, requested and approved, or the API server could not fetch logs.
func TestKubeletCertificate(t *testing.T) {
	out := kubectl(t, "get", "csr", "-o", `jsonpath={range .items[*]}{.spec.signerName} {.spec.username} {.status.conditions[*].type}{"\n"}{end}`)
	if err := someLine(out, "kubernetes.io/kubelet-serving", "system:node:"+cluster.name+"-controlplane-1", "Approved"); err != nil {
		t.Errorf("requests for certificates: %v", err)
	}
	out = talosctl(t, "read", "/etc/kubernetes/kubelet.yaml")
	if err := contains(out, "serverTLSBootstrap: true"); err != nil {
		t.Error(err)
	}
	if logs := kubectl(t, "logs", "-n", "kube-system", "-l", "k8s-app=kube-dns", "--tail=3"); logs == "" {
		t.Error("kubectl logs of CoreDNS printed nothing")
	}
}

// TestAccessFiles: kubeconfig and talosconfig keep what is in them.
func TestAccessFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	const others = "apiVersion: v1\nkind: Config\ncurrent-context: theirs\nclusters:\n- {name: theirs, cluster: {server: https://192.0.2.1}}\n" +
		"contexts:\n- {name: theirs, context: {cluster: theirs, user: them}}\nusers:\n- {name: them, user: {token: abc}}\n"
	if err := os.WriteFile(file, []byte(others), 0o600); err != nil {
		t.Fatal(err)
	}
	talosctl(t, "kubeconfig", file)
	contexts := kubectl(t, "--kubeconfig", file, "config", "get-contexts", "-o", "name")
	if !strings.Contains(contexts, "theirs\n") || !strings.Contains(contexts, "admin@"+cluster.name+"\n") {
		t.Errorf("contexts after the merge: %q, want theirs and ours", contexts)
	}
	if out := kubectl(t, "--kubeconfig", file, "get", "nodes", "-o", "name"); !strings.Contains(out, "node/"+cluster.name) {
		t.Errorf("nodes through the merged kubeconfig: %q", out)
	}
	operator := filepath.Join(t.TempDir(), "operator")
	talosctl(t, "config", "new", operator, "--roles", "os:operator", "--crt-ttl", "1h")
	if out := talosctl(t, "--talosconfig", operator, "config", "info"); !strings.Contains(out, "os:operator") {
		t.Errorf("config info does not show the role:\n%s", out)
	}
	talosctl(t, "--talosconfig", operator, "service", "timed", "restart")
	if _, stderr, err := cluster.try("", "talosctl", "--talosconfig", operator, "get", "machineconfig"); err == nil {
		t.Errorf("an operator read the machine's configuration, which holds its secrets: %q", stderr)
	}
	healthy(t)
}
