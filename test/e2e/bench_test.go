//go:build e2e && bench

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"talos/client"
)

// figure is one line of the table; aim is what we want, in the same unit.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Aim   string  `json:"aim,omitempty"`
}

// TestBench measures, prints a table, and writes it as JSON. It fails only
// where something can't be measured: machines differ, figures are for reading.
func TestBench(t *testing.T) {
	healthy(t)
	var figures []figure
	add := func(name string, value float64, unit, aim string) {
		figures = append(figures, figure{name, value, unit, aim})
	}
	talosctl(t, "cluster", "stop", "--name", cluster.name) // nothing of ours may run beside what is measured
	ready := createToDNS(t)
	oneAndOne := createToHealthy(t)
	threeAndTwo, unavailable := loseLeader(t)
	floor := bareFloor(t)
	talosctl(t, "cluster", "start", "--name", cluster.name)
	healthy(t)
	add("cluster create to Ready and a DNS answer in a pod", ready.Seconds(), "s", "12, never over 20")
	add("cluster create to healthy, 1 + 1 nodes", oneAndOne.Seconds(), "s", "15")
	add("cluster create to healthy, 3 + 2 nodes", threeAndTwo.Seconds(), "s", "")
	add("no write to the Kubernetes API when the leader's node dies", unavailable.Seconds(), "s", "")
	add("bare etcd + kube-apiserver to /readyz, by hand", floor.Seconds(), "s", "")
	add("ratio of the two", ready.Seconds()/floor.Seconds(), "", "")
	ours, all := memory(t)
	for _, name := range slices.Sorted(keys(all)) {
		add("memory of "+name+" (PSS)", all[name], "MB", "")
	}
	add("memory of our own daemons together (PSS)", ours, "MB", "80")
	add("node image", size(t, "rootfs.squashfs"), "MB", "60")
	add("talosctl", size(t, "bin/talosctl"), "MB", "40")
	add("talosctl version --client", startTime(t).Seconds()*1000, "ms", "25")
	for _, workers := range []int{1, 8} {
		p50, p99, rate := versionCalls(t, workers)
		aim50, aimRate := "", ""
		if workers == 1 {
			aim50 = "0.5"
		} else {
			aimRate = "5000"
		}
		add(fmt.Sprintf("version call, %d workers, p50", workers), p50.Seconds()*1000, "ms", aim50)
		add(fmt.Sprintf("version call, %d workers, p99", workers), p99.Seconds()*1000, "ms", "")
		add(fmt.Sprintf("version calls, %d workers", workers), rate, "1/s", aimRate)
	}
	report(t, "bench.json", figures)
}

func report(t *testing.T, file string, figures []figure) {
	t.Helper()
	fmt.Printf("\n%-52s %10s %-4s %s\n", "FIGURE", "VALUE", "UNIT", "AIM")
	for _, f := range figures {
		fmt.Printf("%-52s %10.2f %-4s %s\n", f.Name, f.Value, f.Unit, f.Aim)
	}
	dir := filepath.Join(cluster.out, "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// createToDNS makes a second cluster beside the first, so that building and
// first-time caches of the host are not measured.
func createToDNS(t *testing.T) time.Duration {
	t.Helper()
	second := cluster
	second.name = "bench"
	second.home = t.TempDir()
	second.talosconfig, second.kubeconfig = filepath.Join(second.home, "talosconfig"), filepath.Join(second.home, "kubeconfig")
	began := time.Now()
	if err := second.create(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := second.destroy(); err != nil {
			t.Error(err)
		}
	}()
	pod := fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: dns, namespace: default}
spec:
  restartPolicy: Never
  containers:
  - name: dns
    image: %s
    command: [/agnhost, connect, --timeout=2s, "kubernetes.default.svc.cluster.local:443"]
`, agnhost)
	eventually(t, time.Minute, "a pod can be made", func() error {
		_, stderr, err := second.try(pod, "kubectl", "apply", "-f", "-")
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		return nil
	})
	eventually(t, 2*time.Minute, "a name is resolved in a pod", func() error {
		out, stderr, err := second.try("", "kubectl", "get", "pod", "dns", "-o", "jsonpath={.status.phase}")
		if err != nil || out != "Succeeded" {
			return fmt.Errorf("pod is %s %s %v", out, stderr, err)
		}
		return nil
	})
	return time.Since(began)
}

// createToHealthy makes a cluster of 1 + 1 nodes, which its command waits for.
func createToHealthy(t *testing.T) (took time.Duration) {
	t.Helper()
	t.Run("create 1 + 1", func(t *testing.T) { // its end destroys the cluster
		began := time.Now()
		secondCluster(t, "bench", "--controlplanes", "1", "--workers", "1")
		took = time.Since(began)
	})
	return took
}

// loseLeader makes a cluster of 3 + 2 nodes and kills the node whose etcd leads:
// the median, of three, of how long no write is acknowledged.
func loseLeader(t *testing.T) (create, unavailable time.Duration) {
	t.Helper()
	t.Run("lose the leader", func(t *testing.T) {
		began := time.Now()
		e := secondCluster(t, "bench", "--controlplanes", "3", "--workers", "2")
		create = time.Since(began)
		before := cluster
		cluster = e // of which the helpers speak
		t.Cleanup(func() { cluster = before })
		deployWorkload(t)
		traffic := startTraffic(t, "http://"+ofType(t, "worker")[0].Address+":30080/hostname")
		var gaps []time.Duration
		for range 3 {
			traffic.goesOn(t, time.Minute)
			victim := leader(t)
			traffic.reset()
			onNode(t, victim, "stop", "--kill")
			time.Sleep(5 * time.Second) // in which the gap shows
			traffic.goesOn(t, time.Minute)
			write, _ := traffic.pauses()
			gaps = append(gaps, write)
			onNode(t, victim, "start")
			whole(t)
		}
		slices.Sort(gaps)
		unavailable = gaps[1]
	})
	return create, unavailable
}

// bareFloor starts etcd and kube-apiserver by hand, as little as possible.
func bareFloor(t *testing.T) time.Duration {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "sa.key")
	if out, err := exec.Command("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key).CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	etcd := exec.CommandContext(ctx, component("etcd", "etcd"), "--data-dir", filepath.Join(dir, "etcd"),
		"--listen-client-urls", "http://127.0.0.1:32379", "--advertise-client-urls", "http://127.0.0.1:32379",
		"--listen-peer-urls", "http://127.0.0.1:32380", "--initial-advertise-peer-urls", "http://127.0.0.1:32380", "--initial-cluster", "default=http://127.0.0.1:32380")
	apiserver := exec.CommandContext(ctx, filepath.Join(dir, "kube-apiserver"), "--etcd-servers=http://127.0.0.1:32379", "--secure-port=36443",
		"--bind-address=127.0.0.1", "--cert-dir="+dir, "--service-account-issuer=https://bench", "--service-account-key-file="+key,
		"--service-account-signing-key-file="+key, "--service-cluster-ip-range=10.96.0.0/12", "--authorization-mode=RBAC", "--anonymous-auth=true")
	if err := os.Symlink(component("kubernetes", "kubernetes"), apiserver.Path); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{etcd, apiserver} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait() // it is cancelled first
	}
	defer cancel()
	http := http.Client{Timeout: time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	eventually(t, time.Minute, "the bare API server is ready", func() error {
		resp, err := http.Get("https://127.0.0.1:36443/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			return fmt.Errorf("readyz: %s", resp.Status)
		}
		return nil
	})
	return time.Since(began)
}

// component finds a built program that is not ours.
func component(name, program string) string {
	return filepath.Join(cluster.out, "components", name, program)
}

// memory sums the proportional set size of each of the node's own programs.
func memory(t *testing.T) (ours float64, all map[string]float64) {
	t.Helper()
	root := nodeInit(t)
	all = map[string]float64{}
	for pid, comm := range processes() {
		if comm == "init" {
			comm = "machined"
		}
		if !descends(pid, root) || !slices.Contains([]string{"machined", "networkd", "timed", "routerd", "apid", "trustd", "sandboxd", "containerd", "containerd-shim"}, comm) {
			continue
		}
		pss := pssOf(pid)
		all[comm] += pss
		if !strings.HasPrefix(comm, "containerd") {
			ours += pss
		}
	}
	return ours, all
}

// pssOf reads smaps_rollup (proc_pid_smaps(5)), in MB.
func pssOf(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			if err == nil {
				return kib * 1024 / 1e6
			}
		}
	}
	return 0
}

func size(t *testing.T, name string) float64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(cluster.out, name))
	if err != nil {
		t.Fatal(err)
	}
	return float64(info.Size()) / 1e6
}

// startTime is the median of some runs.
func startTime(t *testing.T) time.Duration {
	t.Helper()
	var times []time.Duration
	for range 21 {
		began := time.Now()
		if err := cluster.command(t.Context(), "talosctl", "version", "--client").Run(); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// versionCalls makes calls through apid, routerd and machined for a while.
func versionCalls(t *testing.T, workers int) (p50, p99 time.Duration, rate float64) {
	t.Helper()
	c, err := client.New(t.Context(), client.Options{Path: cluster.talosconfig})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Machine.Version(t.Context(), &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	const span = 5 * time.Second
	end := time.Now().Add(span) // no deadline on the calls: near its end they would fail by themselves
	var failed atomic.Int64
	var reason atomic.Value // the last error
	var mu sync.Mutex       // guards all
	var all []time.Duration
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var mine []time.Duration
			for began := time.Now(); began.Before(end); began = time.Now() {
				if _, err := c.Machine.Version(t.Context(), &emptypb.Empty{}); err == nil {
					mine = append(mine, time.Since(began))
				} else {
					failed.Add(1)
					reason.Store(err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 || len(all) == 0 {
		t.Fatalf("%d of %d version calls failed, the last with %v", n, n+int64(len(all)), reason.Load())
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100], float64(len(all)) / span.Seconds()
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
