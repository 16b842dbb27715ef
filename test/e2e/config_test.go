//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadConfigurationChangesNothing: every mistake is named at once, with its
// place, and the node's configuration stays as it was.
func TestBadConfigurationChangesNothing(t *testing.T) {
	before := talosctl(t, "get", "machineconfig", "-o", "yaml")
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte(`version: v1alpha1
machine:
  type: controlplane
  hostnam: typo
  network:
    interfaces:
    - interface: eth0
      addresses: [10.0.0/8]
  kubelet:
    registerWithFQDN: perhaps
cluster:
  controlPlane:
    endpoint: 10.5.0.1
`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, err := cluster.try("", "talosctl", "apply-config", "-f", bad)
	if err == nil {
		t.Fatal("apply-config accepted a bad configuration")
	}
	for _, want := range []string{":4:", "hostnam", ":8:", "10.0.0/8", ":10:", "registerWithFQDN", ":13:", "endpoint", "machine.token"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("the error does not mention %q:\n%s", want, stderr)
		}
	}
	if after := talosctl(t, "get", "machineconfig", "-o", "yaml"); after != before {
		t.Error("the configuration changed")
	}
}

// TestConfigurationTakesEffect: a label and an extra host appear without a reboot.
func TestConfigurationTakesEffect(t *testing.T) {
	healthy(t)
	initBefore := nodeInit(t)
	config := filepath.Join(t.TempDir(), "node.yaml")
	document := talosctl(t, "read", "/system/state/config.yaml")
	if err := os.WriteFile(config, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { talosctl(t, "apply-config", "-f", config) })
	talosctl(t, "apply-config", "-f", config, "-p",
		`{"machine": {"nodeLabels": {"example.com/tested": "yes"}, "network": {"extraHostEntries": [{"ip": "192.0.2.10", "aliases": ["extra.example"]}]}}}`)
	eventually(t, minute, "the label is on the node", func() error {
		return contains(kubectl(t, "get", "nodes", "--show-labels"), "example.com/tested=yes")
	})
	eventually(t, minute, "the host is in /etc/hosts", func() error {
		return contains(talosctl(t, "read", "/system/etc/hosts"), "extra.example")
	})
	if now := nodeInit(t); now != initBefore {
		t.Error("the node rebooted")
	}
}
