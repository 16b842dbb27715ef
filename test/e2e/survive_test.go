//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestKilledDaemonsComeBack kills each program of the node in turn. It must
// come back and be healthy, machined must not notice more than that, and no
// running pod may be restarted.
func TestKilledDaemonsComeBack(t *testing.T) {
	healthy(t)
	deployWorkload(t)
	for _, c := range []struct {
		service string
		comm    string
		args    []string // what tells it from others of the name
	}{
		{"networkd", "networkd", nil},
		{"timed", "timed", nil},
		{"routerd", "routerd", nil},
		{"apid", "apid", nil},
		{"trustd", "trustd", nil},
		{"containerd", "containerd", []string{"/system/etc/containerd/"}},
		{"cri", "containerd", []string{"/system/etc/cri/"}},
		{"etcd", "etcd", nil},
		{"kubelet", "kubelet", nil},
	} {
		t.Run(c.service, func(t *testing.T) {
			initBefore, podsBefore := nodeInit(t), podStarts(t)
			victim := nodeProcess(t, c.comm, c.args...)
			if victim == 0 {
				t.Fatalf("no process %s %v runs on the node", c.comm, c.args)
			}
			kill(t, victim)
			eventually(t, 2*time.Minute, c.service+" runs again", func() error {
				if now := nodeProcess(t, c.comm, c.args...); now == 0 || now == victim {
					return fmt.Errorf("process %d", now)
				}
				return nil
			})
			healthy(t)
			if now := nodeInit(t); now != initBefore {
				t.Errorf("machined is process %d, was %d: it must not be touched", now, initBefore)
			}
			if diff := cmp.Diff(podsBefore, podStarts(t)); diff != "" {
				t.Errorf("pods changed (-before +after):\n%s", diff)
			}
		})
	}
}

// TestSupervisorKilled: nodes go on without their supervisor, and a new one
// takes them over.
func TestSupervisorKilled(t *testing.T) {
	healthy(t)
	initBefore := nodeInit(t)
	kill(t, supervisor(t))
	time.Sleep(2 * time.Second) // a node that died with it would be gone by now
	if now := nodeInit(t); now != initBefore {
		t.Fatalf("machined is process %d, was %d", now, initBefore)
	}
	talosctl(t, "version") // the node's API needs no supervisor
	talosctl(t, "cluster", "start", "--name", cluster.name)
	if now := nodeInit(t); now != initBefore {
		t.Errorf("after cluster start machined is process %d, was %d: it must be taken over, not started again", now, initBefore)
	}
	eventually(t, 2*time.Minute, "kubectl works again through the supervisor's load balancer", func() error {
		_, stderr, err := cluster.try("", "kubectl", "get", "nodes")
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		return nil
	})
}

// supervisor finds the cluster's own.
func supervisor(t *testing.T) int {
	t.Helper()
	for pid, comm := range processes() {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if comm != "talosctl" || err != nil || !strings.Contains(string(cmdline), "supervise-cluster") {
			continue
		}
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && strings.Contains(string(environ), cluster.home) {
			return pid
		}
	}
	t.Fatal("the cluster has no supervisor")
	return 0
}

// TestReboot: the node comes back by itself with its data and its workloads.
func TestReboot(t *testing.T) {
	healthy(t)
	deployWorkload(t)
	kubectl(t, "create", "configmap", "remember", "--from-literal=what=this")
	t.Cleanup(func() { kubectl(t, "delete", "configmap", "remember") })
	initBefore := nodeInit(t)
	talosctl(t, "reboot", "--wait", "--timeout", "3m")
	if now := nodeInit(t); now == initBefore {
		t.Fatal("machined is the same process: the node did not reboot")
	}
	healthy(t)
	if got := kubectl(t, "get", "configmap", "remember", "-o", "jsonpath={.data.what}"); got != "this" {
		t.Errorf("configmap after the reboot = %q, want what was written before", got)
	}
	eventually(t, 2*time.Minute, "the Deployment serves again", func() error {
		return get("http://"+nodeAddress(t)+":30080/hostname", "web-")
	})
}

// TestBootstrapAgain: a cluster is bootstrapped once.
func TestBootstrapAgain(t *testing.T) {
	_, stderr, err := cluster.try("", "talosctl", "bootstrap")
	if err == nil || !strings.Contains(stderr, "AlreadyExists") && !strings.Contains(stderr, "already") {
		t.Errorf("second bootstrap = %v, %q; want AlreadyExists", err, stderr)
	}
}

// TestDaemonsHaveLeastPrivilege reads what the kernel knows of each daemon.
func TestDaemonsHaveLeastPrivilege(t *testing.T) {
	for daemon, want := range map[string]struct {
		uid  int
		caps uint64
	}{
		"apid": {50, 0}, "routerd": {51, 0}, "trustd": {52, 0},
		"networkd": {53, 1<<10 | 1<<12 | 1<<13}, // NET_BIND_SERVICE, NET_ADMIN, NET_RAW: capabilities(7)
		"timed":    {54, 1 << 25},               // SYS_TIME at the most
	} {
		t.Run(daemon, func(t *testing.T) {
			pid := nodeProcess(t, daemon)
			data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
			if err != nil {
				t.Fatal(err)
			}
			fields := map[string]string{}
			for line := range strings.Lines(string(data)) {
				key, value, _ := strings.Cut(line, ":")
				fields[key] = strings.TrimSpace(value)
			}
			if uid := strings.Fields(fields["Uid"])[0]; uid != strconv.Itoa(want.uid) {
				t.Errorf("uid = %s, want %d", uid, want.uid)
			}
			for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
				have, err := strconv.ParseUint(fields[set], 16, 64)
				if err != nil || have&^want.caps != 0 {
					t.Errorf("%s = %#x, want nothing beyond %#x", set, have, want.caps)
				}
			}
			if fields["NoNewPrivs"] != "1" {
				t.Errorf("NoNewPrivs = %s, want 1", fields["NoNewPrivs"])
			}
			if fields["Seccomp"] != "2" {
				t.Errorf("Seccomp = %s, want 2 (a filter)", fields["Seccomp"])
			}
		})
	}
}
