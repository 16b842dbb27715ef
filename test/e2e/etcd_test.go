//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestManyQuorum: etcd says in words what it can lose, and what would take its
// majority away is refused before anything happens.
func TestManyQuorum(t *testing.T) {
	many(t)
	whole(t)
	nodes := ofType(t, "controlplane")
	for _, m := range nodes {
		saysOfEtcd(t, m, "3 of 3 voters up, quorum 2 of 3, can lose 1, safe to reboot: yes")
	}
	refused(t, "the cluster was bootstrapped before", "-n", nodes[1].Address, "bootstrap")
	gone, stays := nodes[2], nodes[1]
	onNode(t, gone, "stop")
	defer whole(t)
	defer onNode(t, gone, "start")
	saysOfEtcd(t, stays, "2 of 3 voters up, quorum 2 of 3, can lose 0, safe to reboot: no")
	refused(t, "--force-quorum-loss="+cluster.name, "-n", stays.Address, "reboot")
	refused(t, "1 of the 2 voters that stay would be up, and 2 are needed", "-n", stays.Address, "etcd", "leave", "--confirm="+stays.Address)
	refused(t, "1 of the 2 voters that stay would be up, and 2 are needed", "etcd", "remove-member", stays.Name, "--confirm="+stays.Name)
	saysOfEtcd(t, stays, "2 of 3 voters up")
}

// saysOfEtcd waits until the node's etcd says that of its cluster.
func saysOfEtcd(t *testing.T, m member, want string) {
	t.Helper()
	eventually(t, minute, m.Name+": "+want, func() error {
		stdout, stderr, err := cluster.try("", "talosctl", "-n", m.Address, "etcd", "status")
		if err != nil {
			return fmt.Errorf("%w: %s", err, lastLine(stderr))
		}
		return contains(stdout, want)
	})
}

// refused checks that talosctl fails and says why.
func refused(t *testing.T, why string, args ...string) {
	t.Helper()
	_, stderr, err := cluster.try("", "talosctl", args...)
	if err == nil || !strings.Contains(stderr, why) {
		t.Errorf("talosctl %s: %v %s, want it refused: %s", strings.Join(args, " "), err, stderr, why)
	}
}
