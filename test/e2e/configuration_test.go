//go:build e2e

package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// patched changes the node's configuration, and wants it to be taken.
func patched(t *testing.T, patch string, args ...string) {
	t.Helper()
	talosctl(t, append([]string{"patch", "machineconfig", "-p", patch}, args...)...)
}

// history is the state and the note of the newest configuration.
func history(t *testing.T) (number, state, text string) {
	t.Helper()
	out := talosctl(t, "config", "history")
	match := regexp.MustCompile(`(?m)^\S+ +(\d+) +(\w+) .*$`).FindStringSubmatch(out)
	if match == nil {
		t.Fatalf("history:\n%s", out)
	}
	return match[1], match[2], match[0]
}

// becomes waits until the newest configuration has a state.
func becomes(t *testing.T, limit time.Duration, want string) {
	t.Helper()
	eventually(t, limit, "the newest configuration is "+want, func() error {
		out, stderr, err := cluster.try("", "talosctl", "config", "history")
		if err != nil {
			return fmt.Errorf("%w: %s", err, lastLine(stderr))
		}
		if first := strings.Split(out, "\n")[1]; !strings.Contains(first, " "+want+" ") {
			return fmt.Errorf("it is %s", first)
		}
		return nil
	})
}

// TestConfigurationGoesBack cuts the node off, and it comes back by itself;
// what can be seen to cut it off is refused without a way back.
func TestConfigurationGoesBack(t *testing.T) {
	healthy(t)
	before := talosctl(t, "read", "/system/state/config.yaml")
	initBefore := nodeInit(t)
	const cut = `{"machine": {"network": {"interfaces": [{"interface": "eth0", "addresses": ["192.0.2.9/24"]}]}}}`
	_, stderr, err := cluster.try("", "talosctl", "patch", "machineconfig", "-p", cut)
	if err == nil || !strings.Contains(stderr, "the way by which you") {
		t.Fatalf("a configuration that cuts off its author: %v, %s; want it to be refused", err, stderr)
	}
	_, stderr, err = cluster.try("", "talosctl", "patch", "machineconfig", "-p", `{"machine": {"network": {"interfaces": [{"interface": "eth7", "dhcp": true}]}}}`)
	if err == nil || !strings.Contains(stderr, "this machine has no link eth7; it has eth0") {
		t.Fatalf("a configuration for a link that is not there: %v, %s", err, stderr)
	}
	_, stderr, err = cluster.try("", "talosctl", "patch", "machineconfig", "-p", cut, "--confirm-timeout", "8s")
	if err == nil || !strings.Contains(stderr, "was reverted (not confirmed within 8s)") {
		t.Errorf("patch = %v, %s; want to read that the node went back", err, stderr)
	}
	becomes(t, minute, "reverted")
	if talosctl(t, "read", "/system/state/config.yaml") != before || nodeInit(t) != initBefore {
		t.Error("the configuration is another, or the node rebooted")
	}
	healthy(t)
}

// TestConfigurationGoesBackWithReboot: applied with a reboot, it is taken back
// by another.
func TestConfigurationGoesBackWithReboot(t *testing.T) {
	healthy(t)
	before, initBefore := talosctl(t, "read", "/system/state/config.yaml"), nodeInit(t)
	patched(t, `{"machine": {"files": [{"path": "/var/lib/e2e-file", "content": "x", "op": "create"}]}}`, "--confirm-timeout", "45s", "--no-confirm") // long enough to be seen after the reboot
	becomes(t, 2*minute, "trying")
	first := nodeInit(t)
	if first == initBefore {
		t.Error("it came in force without a reboot")
	}
	becomes(t, 2*minute, "reverted")
	eventually(t, 2*minute, "the node has rebooted into the old configuration", func() error {
		if now := runningInit(); now == 0 || now == first {
			return fmt.Errorf("machined is process %d, was %d", now, first)
		}
		return nil
	})
	healthy(t)
	if talosctl(t, "read", "/system/state/config.yaml") != before {
		t.Error("the configuration is not the one from before")
	}
}

// TestConfigurationModes: try goes back, staged waits for the boot, confirmed
// stays, and a rollback leads to what was before all of it.
func TestConfigurationModes(t *testing.T) {
	healthy(t)
	start, _, _ := history(t)
	if out := talosctl(t, "config", "history"); strings.Contains(out, " reverted ") { // by a test before: the one in force is another
		for _, line := range strings.Split(out, "\n") {
			if f := strings.Fields(line); len(f) > 2 && f[2] == "active" {
				start = f[1]
			}
		}
	}
	before := talosctl(t, "read", "/system/state/config.yaml")
	host := func(name string) string {
		return `{"machine": {"network": {"extraHostEntries": [{"ip": "192.0.2.10", "aliases": ["` + name + `"]}]}}}`
	}
	hosts := func(want string, there bool) {
		t.Helper()
		eventually(t, minute, fmt.Sprintf("%s in /etc/hosts: %v", want, there), func() error {
			text, stderr, err := cluster.try("", "talosctl", "read", "/etc/hosts")
			if err != nil {
				return fmt.Errorf("%w: %s", err, lastLine(stderr))
			}
			if strings.Contains(text, want) != there {
				return fmt.Errorf("hosts are %s", text)
			}
			return nil
		})
	}
	patched(t, host("tried.example"), "--mode", "try", "--timeout", "30s") // long enough to be seen
	hosts("tried.example", true)
	hosts("tried.example", false)
	becomes(t, minute, "reverted")

	patched(t, host("kept.example"), "--confirm-timeout", "1m")
	becomes(t, minute, "active")
	hosts("kept.example", true)

	patched(t, host("staged.example"), "--mode", "staged")
	if _, state, line := history(t); state != "staged" {
		t.Errorf("the newest is %s", line)
	}
	if text := talosctl(t, "get", "machineconfig", "persistent", "-o", "yaml"); !strings.Contains(text, "staged.example") {
		t.Error("the persistent configuration is not the staged one")
	}
	hosts("staged.example", false)
	talosctl(t, "reboot")
	hosts("staged.example", true)
	if _, state, line := history(t); state != "active" {
		t.Errorf("after the reboot the newest is %s", line)
	}

	talosctl(t, "config", "rollback", start)
	hosts("kept.example", false)
	if talosctl(t, "read", "/system/state/config.yaml") != before {
		t.Errorf("after the rollback to %s the configuration is another", start)
	}
	healthy(t)
}
