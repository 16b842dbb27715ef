//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// spy is a pod that may do everything and sees all that its node shows to pods.
const spy = `{apiVersion: v1, kind: Pod, metadata: {name: spy, namespace: kube-system}, spec: {hostPID: true, tolerations: [{operator: Exists}],
  containers: [{name: c, image: "%s", args: [pause], securityContext: {privileged: true}, volumeMounts: [{name: host, mountPath: /host}]}],
  volumes: [{name: host, hostPath: {path: /}}]}}`

// isolation: a privileged pod finds neither machined nor what is machined's;
// the loss of containerd costs no pod, that of the namespaces no reboot.
func isolation(t *testing.T, e env) {
	e.must(t, fmt.Sprintf(spy, agnhost), "kubectl", "apply", "-f", "-")
	e.must(t, "", "kubectl", "wait", "--for=condition=Ready", "pod/spy", "-n", "kube-system", "--timeout=300s")
	for path, want := range map[string]string{
		"/proc/1/comm": "sandboxd", "/host/proc/1/comm": "sandboxd", "/host/etc/os-release": "Talos",
		"/host/system/state/config.yaml": "no such file", "/proc/1/root/system/state/config.yaml": "no such file",
		"/host/system/run/machined/machine.sock": "no such file", "/host/system/run/containerd/containerd.sock": "no such file",
	} {
		stdout, stderr, _ := e.try("", "kubectl", "exec", "-n", "kube-system", "spy", "--", "/agnhost", "mounttest", "--file_content="+path)
		if err := contains(stdout+stderr, want); err != nil {
			t.Errorf("the pod reads %s: %v", path, err)
		}
	}
	machined, before := e.process("init", ""), e.podIDs(t)
	if machined == 0 {
		t.Fatal("no machined runs")
	}
	e.killed(t, "containerd", "/system/etc/cri/")
	e.healthy(t)
	if after := e.podIDs(t); after != before {
		t.Errorf("pods were\n%s\nand without containerd are\n%s", before, after)
	}
	e.killed(t, "sandboxd", "")
	eventually(t, 6*minute, "all pods run anew", func() error {
		now, stderr, err := e.try("", "kubectl", "get", "pods", "-n", "kube-system", "-o", podIDs)
		if err != nil {
			return fmt.Errorf("%w: %s", err, lastLine(stderr))
		}
		for id := range strings.Lines(before) {
			if strings.Contains(now, id) {
				return errors.New(id + "is still there")
			}
		}
		return e.works("kubectl", "wait", "--for=condition=Ready", "pods", "--all", "-n", "kube-system", "--timeout=5s")
	})
	e.healthy(t)
	if now := e.process("init", ""); now != machined {
		t.Errorf("machined is process %d, was %d: the node rebooted", now, machined)
	}
	e.must(t, "", "kubectl", "delete", "pod", "spy", "-n", "kube-system", "--now")
}

const podIDs = `jsonpath={range .items[*].status.containerStatuses[*]}{.containerID}{"\n"}{end}`

func (e env) podIDs(t *testing.T) string {
	t.Helper()
	return e.must(t, "", "kubectl", "get", "pods", "-n", "kube-system", "-o", podIDs)
}

// process is the host's id of a process on the cluster's one node, 0 if none.
func (e env) process(comm, arg string) int {
	for pid, name := range processes() {
		if name != comm {
			continue
		}
		mounts, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid)) // one that has ended is none
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(mounts), filepath.Base(e.home)) && strings.Contains(string(cmdline), arg) {
			return pid
		}
	}
	return 0
}

// killed kills a program and waits until it runs again.
func (e env) killed(t *testing.T, comm, arg string) {
	t.Helper()
	victim := e.process(comm, arg)
	if victim == 0 {
		t.Fatalf("no %s runs", comm)
	}
	kill(t, victim)
	eventually(t, 2*minute, comm+" runs again", func() error {
		if now := e.process(comm, arg); now == 0 || now == victim {
			return fmt.Errorf("process %d", now)
		}
		return nil
	})
}
