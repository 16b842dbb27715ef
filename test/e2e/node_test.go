//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// nodeInit finds the host's process id of the node's PID 1.
func nodeInit(t *testing.T) int {
	t.Helper()
	pid := runningInit()
	if pid == 0 {
		t.Fatal("no machined runs as PID 1 of a namespace of the cluster")
	}
	return pid
}

// runningInit is the same; 0 while the node is off, as in the middle of a reboot.
func runningInit() int {
	for pid, comm := range processes() {
		if comm != "machined" && comm != "init" {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && isInitOfNamespace(string(status)) && belongsToCluster(pid) {
			return pid
		}
	}
	return 0
}

// isInitOfNamespace reads NSpid (proc_pid_status(5)): our pid, then the inner.
func isInitOfNamespace(status string) bool {
	for line := range strings.Lines(status) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "NSpid:" {
			return fields[2] == "1"
		}
	}
	return false
}

// belongsToCluster: the node's persistent folders lie in this run's home.
func belongsToCluster(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	return err == nil && strings.Contains(string(data), filepath.Base(cluster.home))
}

// nodeProcess finds the host's process id of a program on the node.
func nodeProcess(t *testing.T, name string, args ...string) int {
	t.Helper()
	root := nodeInit(t)
	for pid, comm := range processes() {
		if comm != name || !descends(pid, root) {
			continue
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		text := strings.ReplaceAll(string(cmdline), "\x00", " ")
		if !slices.ContainsFunc(args, func(arg string) bool { return !strings.Contains(text, arg) }) {
			return pid
		}
	}
	return 0
}

func descends(pid, root int) bool {
	for pid > 1 {
		if pid == root {
			return true
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		text := string(data)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return false
		}
	}
	return false
}

// inNode runs a program of the host in the node's network namespace.
func inNode(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(nodeInit(t)), "-n", name}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("in the node: %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}
