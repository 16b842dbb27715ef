//go:build e2e

// Package e2e tests a real cluster from outside, as its user: with talosctl,
// with kubectl, and with what the kernel shows on the host.
//
// TestMain creates one cluster, every test uses it, and at the end it is
// destroyed and the host must be as before. Needs root, and what `make image`
// builds. The cluster is one node; tests called TestMany… are for one of
// several, which E2E_CONTROLPLANES=3 E2E_WORKERS=1 makes, and those called
// TestMachine… for a virtual machine, which E2E_PROVISIONER=qemu makes; TestPair…
// for two of those, a control plane and a worker (E2E_WORKERS=1).
// E2E_KUBERNETES=1.36.3 takes that version, from _out/images-soak; E2E_KEEP=1
// leaves the cluster when the tests are done, and E2E_HOME, which that prints,
// takes it for other tests.
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// env is the cluster under test and where its files are.
type env struct {
	name        string
	out         string // _out
	home        string // state, talosconfig and kubeconfig of this run alone
	talosconfig string
	kubeconfig  string
}

var cluster env

// What is under test: a version of Kubernetes, "" is the default, and the
// number of nodes, as flags.
var (
	kubernetesVersion = os.Getenv("E2E_KUBERNETES")
	controlPlanes     = cmp.Or(os.Getenv("E2E_CONTROLPLANES"), "1")
	workers           = cmp.Or(os.Getenv("E2E_WORKERS"), "0")
	provisioner       = cmp.Or(os.Getenv("E2E_PROVISIONER"), "container")
)

// init keeps the first thread to the main goroutine. Tests enter the namespaces
// of nodes with threads of their own, which end after it; the first one cannot
// end, and would stay there.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, fmt.Errorf("needs root: clusters are made of namespaces, bridges and mounts")
	}
	out, err := filepath.Abs("../../_out")
	if err != nil {
		return 1, err
	}
	if home := os.Getenv("E2E_HOME"); home != "" {
		cluster = newEnv("e2e", out, home)
		own.note(home)
		return m.Run(), nil
	}
	home, err := os.MkdirTemp("", "talos-e2e-")
	if err != nil {
		return 1, err
	}
	cluster = newEnv("e2e", out, home)
	before := snapshotHost()
	if err := cluster.create("--controlplanes", controlPlanes, "--workers", workers, "--provisioner", provisioner); err != nil {
		cluster.destroy() // best effort: the error that matters is the first
		return 1, err
	}
	code = m.Run()
	if code != 0 {
		cluster.dump()
	}
	if os.Getenv("E2E_KEEP") != "" {
		fmt.Fprintf(os.Stderr, "e2e: cluster kept; E2E_HOME=%[1]s XDG_STATE_HOME=%[1]s TALOSCONFIG=%[2]s KUBECONFIG=%[3]s\n", home, cluster.talosconfig, cluster.kubeconfig)
		return code, nil
	}
	if err := cluster.destroy(); err != nil {
		return 1, err
	}
	if left := leftBehind(before); len(left) > 0 {
		return 1, fmt.Errorf("destroy left the host changed:\n  %s", strings.Join(left, "\n  "))
	}
	fmt.Println("ok: destroy left processes, mounts, namespaces, links, cgroups, nftables and sysctls as they were")
	return code, os.RemoveAll(home)
}

func newEnv(name, out, home string) env {
	return env{name: name, out: out, home: home, talosconfig: filepath.Join(home, "talosconfig"), kubeconfig: filepath.Join(home, "kubeconfig")}
}

// create makes the cluster, of one node unless args, further flags, say else.
func (e env) create(args ...string) error {
	args = append([]string{"cluster", "create", "--name", e.name, "--controlplanes", "1", "--workers", "0"}, args...)
	if kubernetesVersion != "" {
		args = append(args, "--kubernetes-version", kubernetesVersion, "--images", filepath.Join(e.out, "images-soak"))
	}
	err := e.stream(25*time.Minute, "talosctl", args...)
	own.note(e.home)
	return err
}

func (e env) destroy() error {
	return e.stream(3*time.Minute, "talosctl", "cluster", "destroy", "--name", e.name)
}

// secondCluster makes a cluster beside the one of all tests, until t ends.
func secondCluster(t *testing.T, name string, args ...string) env {
	t.Helper()
	home, err := os.MkdirTemp("", "talos-e2e-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(name, cluster.out, home)
	t.Cleanup(func() {
		if t.Failed() {
			e.dump()
		}
		if err := e.destroy(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(home) // best effort
	})
	if err := e.create(args...); err != nil {
		t.Fatal(err)
	}
	return e
}

// dump shows what a person would look at after a failure.
func (e env) dump() {
	for _, args := range [][]string{
		{"talosctl", "services"}, {"talosctl", "get", "machinestatus", "-o", "yaml"},
		{"kubectl", "get", "nodes,pods", "-A", "-o", "wide"}, {"kubectl", "get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"talosctl", "logs", "machined", "--tail", "100"}, {"talosctl", "logs", "kubelet", "--tail", "40"},
	} {
		fmt.Fprintf(os.Stderr, "\n--- %s\n", strings.Join(args, " "))
		e.stream(30*time.Second, args[0], args[1:]...) // best effort
	}
}

func (e env) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(e.out, "bin", name), args...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+e.home, "TALOSCONFIG="+e.talosconfig, "KUBECONFIG="+e.kubeconfig, "HOME="+e.home)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (e env) stream(limit time.Duration, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := e.command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

// try runs a program and returns what it printed, apart.
func (e env) try(stdin, name string, args ...string) (stdout, stderr string, err error) {
	// Longer than what any of them is told to wait for.
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	cmd := e.command(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func talosctl(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, "", "talosctl", args...)
}
func kubectl(t *testing.T, args ...string) string { t.Helper(); return must(t, "", "kubectl", args...) }

func must(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	return cluster.must(t, stdin, name, args...)
}

func (e env) must(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	stdout, stderr, err := e.try(stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// eventually waits for check to be nil; the last reason is what a failure says.
func eventually(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// healthy waits until the node says that it is.
func healthy(t *testing.T) { t.Helper(); cluster.healthy(t) }

func (e env) healthy(t *testing.T) {
	t.Helper()
	eventually(t, 6*time.Minute, "cluster healthy", func() error {
		_, stderr, err := e.try("", "talosctl", "health", "--wait-timeout", "60s")
		if err != nil {
			return fmt.Errorf("%w: %s", err, lastLine(stderr))
		}
		return nil
	})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

const minute = time.Minute

func contains(text, want string) error {
	if !strings.Contains(text, want) {
		return fmt.Errorf("no %q in %s", want, text)
	}
	return nil
}

// leftBehind is what is not as before. The kernel takes a moment to end
// processes and namespaces: what is on its way out is not left behind.
func leftBehind(before host) (left []string) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		after := snapshotHost()
		if left = ownOnly(before.compare(after), before, after); len(left) == 0 {
			break
		}
	}
	return left
}
