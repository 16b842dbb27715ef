// Package netns gives a test network namespaces of its own: one that the test
// process itself runs in, all of its threads, and others for its peers.
//
// It is for tests only. Everything ends with the test, and the machine's own
// network is never seen. A test that uses it runs in a second process.
package netns

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const insideEnv = "TALOS_TEST_INSIDE"

// Enter is the first call of a test. It runs the test again in a process with
// its own network, UTS and mount namespaces; there it returns true. In the
// first process it returns false after that one has ended, and the test must
// return; it has passed, failed or been skipped as it was there. Without root the
// test is skipped, unless REQUIRE_PRIV=1.
func Enter(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.count=1"}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(deadline.Add(-2*time.Second)).Round(time.Second).String())
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), insideEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in its own namespaces: %v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("in its own namespaces:\n%s", out)
	}
	if err == nil && strings.Contains("\n"+string(out), "\n--- SKIP: "+t.Name()+" ") {
		t.Skip("skipped in its own namespaces") // else it would look as if it had passed
	}
	return false
}

// Peer is another network namespace.
type Peer struct{ pid int }

// NewPeer makes a namespace that lives until the test ends.
func NewPeer(t *testing.T) *Peer {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &Peer{pid: cmd.Process.Pid}
}

// PID is a process in the namespace, for ip link set netns.
func (p *Peer) PID() string { return strconv.Itoa(p.pid) }

// Command is a program that runs in the namespace.
func (p *Peer) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", p.pid), name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Run runs a command line, fields separated by spaces, in the namespace.
func (p *Peer) Run(t *testing.T, line string) {
	t.Helper()
	fields := strings.Fields(line)
	if out, err := p.Command(t.Context(), fields[0], fields[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// Run runs a command line, fields separated by spaces, where the test is.
func Run(t *testing.T, line string) string {
	t.Helper()
	fields := strings.Fields(line)
	out, err := exec.CommandContext(t.Context(), fields[0], fields[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// Need skips the test where a program is missing, unless REQUIRE_PRIV=1.
func Need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatalf("needs %s", p)
		}
		t.Skipf("needs %s", p)
	}
}
