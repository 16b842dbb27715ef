//go:build e2e

package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"talos/config"
)

const workload = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: %[1]s
        args: [netexec, --http-port=8080]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        resources: {limits: {memory: 64Mi, cpu: 200m}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default}
spec:
  containers:
  - name: client
    image: %[1]s
    args: [netexec, --http-port=8080]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`

// deployWorkload makes a Deployment, its Service and a client, and waits.
func deployWorkload(t *testing.T) {
	t.Helper()
	must(t, fmt.Sprintf(workload, agnhost), "kubectl", "apply", "-f", "-")
	kubectl(t, "rollout", "status", "deployment/web", "--timeout=300s")
	kubectl(t, "wait", "--for=condition=Ready", "pod/client", "--timeout=300s")
}

// agnhost is the image of Kubernetes's own end-to-end tests.
var agnhost = imageInLayout("e2e-test-images/agnhost")

func TestNodeIsReady(t *testing.T) {
	healthy(t)
	wide := kubectl(t, "get", "nodes", "-o", "wide")
	version := "v" + regexp.QuoteMeta(cmp.Or(kubernetesVersion, config.DefaultKubernetesVersion))
	for _, want := range []string{` Ready `, `control-plane`, version, `Talos \(v\d+\.\d+\.\d+`, `containerd://2\.`} {
		if !regexp.MustCompile(want).MatchString(wide) {
			t.Errorf("kubectl get nodes -o wide does not show %s:\n%s", want, wide)
		}
	}
	kubectl(t, "wait", "--for=condition=Ready", "pods", "--all", "-n", "kube-system", "--timeout=300s")
}

func TestServiceAnswers(t *testing.T) {
	deployWorkload(t)
	ip := strings.TrimSpace(kubectl(t, "get", "pod", "client", "-o", "jsonpath={.status.podIP}"))
	dial := fmt.Sprintf("http://%s:8080/dial?host=web.default.svc.cluster.local&port=80&request=hostname&protocol=http&tries=3", ip)
	// The client is reached through the API server, the Service from the client.
	eventually(t, 2*time.Minute, "the Service answers by name from another pod", func() error {
		out, stderr, err := cluster.try("", "kubectl", "get", "--raw", "/api/v1/namespaces/default/pods/client:8080/proxy/"+strings.SplitN(dial, "/", 4)[3])
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		if !strings.Contains(out, `"responses":["web-`) {
			return fmt.Errorf("answer %s", out)
		}
		return nil
	})
	eventually(t, 2*time.Minute, "the NodePort answers from the host", func() error {
		return get("http://"+nodeAddress(t)+":30080/hostname", "web-")
	})
}

func TestLogsExecPortForward(t *testing.T) {
	deployWorkload(t)
	if logs := kubectl(t, "logs", "deployment/web"); !strings.Contains(logs, "8080") {
		t.Errorf("kubectl logs = %q, want the server's first line with its port", logs)
	}
	if out := kubectl(t, "exec", "client", "--", "/agnhost", "--help"); !strings.Contains(out, "netexec") {
		t.Errorf("kubectl exec = %q, want agnhost's help", out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	forward := cluster.command(ctx, "kubectl", "port-forward", "deployment/web", ":8080")
	stdout, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	match := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindStringSubmatch(line)
	if err != nil || match == nil {
		t.Fatalf("kubectl port-forward printed %q, %v", line, err)
	}
	eventually(t, 30*time.Second, "the forwarded port answers", func() error { return get("http://127.0.0.1:"+match[1]+"/hostname", "web-") })
	cancel()
	forward.Wait() // it was cancelled: its error says so
}

func get(url, prefix string) error {
	body, err := fetch(url)
	if err == nil && !strings.HasPrefix(body, prefix) {
		err = fmt.Errorf("GET %s = %q, want %s…", url, body, prefix)
	}
	return err
}

// fetch is what a server answers.
func fetch(url string) (string, error) {
	// A connection of its own: one that is kept would stay with the pod that it once reached.
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return string(body), err
}

// nodeAddress is the node's address as Kubernetes knows it.
func nodeAddress(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(kubectl(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`))
}

// podStarts maps each running container to when it started and how often.
func podStarts(t *testing.T) map[string]string {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Status   struct {
				ContainerStatuses []struct {
					Name, ContainerID string
					RestartCount      int
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(kubectl(t, "get", "pods", "-A", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	starts := map[string]string{}
	for _, pod := range list.Items {
		for _, c := range pod.Status.ContainerStatuses {
			starts[pod.Metadata.Namespace+"/"+pod.Metadata.Name+":"+c.Name] = fmt.Sprintf("%s restarted %d times", c.ContainerID, c.RestartCount)
		}
	}
	return starts
}
