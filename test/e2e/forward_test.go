//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestForwarding asks several nodes through one endpoint, by address and by
// name, a dead one among them; a worker passes nothing on.
func TestForwarding(t *testing.T) {
	e := secondCluster(t, "forward", "--workers", "1")
	control, worker := e.twoNodes(t)
	dead := control[:strings.LastIndex(control, ".")] + ".250"
	names := strings.Join([]string{control, worker, dead}, ",")

	out, stderr, err := e.try("", "talosctl", "-e", control, "-n", names, "memory")
	if code := exitCode(err); code != 5 {
		t.Errorf("memory of three nodes, one dead: exit code %d, want 5", code)
	}
	if !regexp.MustCompile(`(?m)^`+control+` +\d+.*\n`+worker+` +\d+`).MatchString(out) || strings.Contains(out, dead) {
		t.Errorf("memory of three nodes prints\n%s", out)
	}
	if !strings.Contains(stderr, "MachineService/Memory on "+dead) || !strings.Contains(stderr, "1 of 3 nodes failed") {
		t.Errorf("memory of three nodes says\n%s", stderr)
	}

	// By the name that the cluster knows the worker by.
	hostname := e.hostnameOf(t, control, worker)
	if out := e.must(t, "", "talosctl", "-e", control, "-n", hostname, "version", "--short"); !strings.Contains(out, "("+hostname+")") {
		t.Errorf("version of %s prints\n%s", hostname, out)
	}
	if _, stderr, err := e.try("", "talosctl", "-e", control, "-n", "nobody", "memory"); err == nil || !strings.Contains(stderr, `no node of the cluster is called "nobody"`) {
		t.Errorf("memory of nobody = %v, %s", err, stderr)
	}
	if _, stderr, err := e.try("", "talosctl", "-e", worker, "-n", control, "memory"); err == nil || !strings.Contains(stderr, "no request forwarding") {
		t.Errorf("through the worker = %v, %s", err, stderr)
	}
	e.must(t, "", "talosctl", "-e", worker, "-n", worker, "memory")

	// The worker writes down the person, and who spoke for him.
	eventually(t, minute, "the worker's audit line", func() error {
		log := e.must(t, "", "talosctl", "-e", worker, "-n", worker, "logs", "apid")
		for line := range strings.Lines(log) {
			if strings.Contains(line, "MachineService/Memory") && strings.Contains(line, `"via":"`) && strings.Contains(line, `"subject":"os:admin"`) {
				return nil
			}
		}
		return fmt.Errorf("no such line in\n%s", log)
	})
	e.followBoth(t, control, worker, dead)
}

// followBoth follows a log on two nodes and one that is dead: its error comes
// at once, lines of the others go on.
func (e env) followBoth(t *testing.T, control, worker, dead string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := e.command(ctx, "talosctl", "-e", control, "-n", strings.Join([]string{control, worker, dead}, ","), "logs", "-f", "apid", "--tail", "0")
	var out, errs lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // it was cancelled
	defer cancel()
	eventually(t, 90*time.Second, "the dead node's error, and lines of both others", func() error {
		e.try("", "talosctl", "-e", control, "-n", control+","+worker, "version") // makes audit lines
		if !strings.Contains(errs.String(), "MachineService/Logs on "+dead) {
			return fmt.Errorf("standard error: %s", errs.String())
		}
		for _, node := range []string{control, worker} {
			if !strings.Contains(out.String(), "\n"+node+": ") && !strings.HasPrefix(out.String(), node+": ") {
				return fmt.Errorf("nothing of %s in\n%s", node, out.String())
			}
		}
		return nil
	})
}

// twoNodes are the addresses of the control plane node and of the worker.
func (e env) twoNodes(t *testing.T) (control, worker string) {
	t.Helper()
	eventually(t, 5*time.Minute, "the endpoint knows two members", func() error {
		out, stderr, err := e.try("", "talosctl", "get", "members", "-o", "json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		control, worker = "", ""
		for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
			var m struct {
				Spec struct {
					MachineType string       `json:"machineType"`
					Addresses   []netip.Addr `json:"addresses"`
				} `json:"spec"`
			}
			if err := dec.Decode(&m); err != nil {
				return err
			}
			if len(m.Spec.Addresses) == 0 {
				continue
			}
			if m.Spec.MachineType == "worker" {
				worker = m.Spec.Addresses[0].String()
			} else {
				control = m.Spec.Addresses[0].String()
			}
		}
		if control == "" || worker == "" {
			return fmt.Errorf("members: %s", out)
		}
		return nil
	})
	return control, worker
}

func (e env) hostnameOf(t *testing.T, endpoint, node string) string {
	t.Helper()
	out := e.must(t, "", "talosctl", "-e", endpoint, "-n", node, "get", "hostname", "-o", "yaml")
	found := regexp.MustCompile(`(?m)^ +hostname: (\S+)$`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no hostname in\n%s", out)
	}
	return found[1]
}

// lockedBuffer is what a program writes while it is read.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return 0
}
