//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"talos/internal/verity"
)

// checked is one check of `talosctl verify -o json`.
type checked struct{ Node, Check, Result, Detail string }

// verify asks the node for all checks, with more flags before the command.
func verify(t *testing.T, flags ...string) (checks map[string]checked, failed bool) {
	t.Helper()
	out, stderr, err := cluster.try("", "talosctl", append(flags, "verify", "-o", "json")...)
	checks = map[string]checked{}
	dec := json.NewDecoder(strings.NewReader(out))
	for dec.More() {
		var c checked
		if err := dec.Decode(&c); err != nil {
			t.Fatal(err)
		}
		checks[c.Check] = c
	}
	if err != nil && !strings.Contains(stderr, "checks failed") {
		t.Fatalf("verify: %v: %s", err, stderr)
	}
	if len(checks) < 12 {
		t.Fatalf("verify made %d checks: %+v", len(checks), checks)
	}
	return checks, err != nil
}

// TestVerify: a node in a container runs the image that the cluster was created
// with, a reader may ask, and what is the host's is not said to be good.
func TestVerify(t *testing.T) {
	if provisioner != "container" {
		t.Skip("of nodes in containers")
	}
	reader := filepath.Join(t.TempDir(), "reader")
	talosctl(t, "config", "new", reader, "--roles", "os:reader", "--crt-ttl", "1h")
	checks, failed := verify(t, "--talosconfig", reader)
	if failed {
		t.Errorf("verify fails: %+v", checks)
	}
	for name, c := range checks {
		want := "not applicable"
		if name == "root data" || name == "version" {
			want = "ok"
		}
		if c.Result != want || c.Detail == "" {
			t.Errorf("%+v, want it %s, and why", c, want)
		}
	}

	// The other way round: an image is run that the cluster was not created with.
	note := filepath.Join(cluster.home, "talos", "clusters", cluster.name, "nodes", cluster.name+"-controlplane-1", "platform", "rootfs.sha256")
	noted, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	set := func(text string) {
		t.Helper()
		if err := os.WriteFile(note, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	defer set(string(noted))
	set(strings.Repeat("0", 64) + "\n")
	checks, failed = verify(t)
	if !failed || checks["root data"].Result != "failed" {
		t.Errorf("with the digest of another image: failed = %t, %+v", failed, checks["root data"])
	}
}

// TestMachineVerify: a machine that came from its disk is what it should be, in
// every check that does not want Secure Boot; and a byte that changes under it,
// which nothing reads, is found.
func TestMachineVerify(t *testing.T) {
	checks, failed := verify(t)
	if failed {
		t.Errorf("verify fails: %+v", checks)
	}
	for _, name := range []string{
		"root hash", "root device", "root data", "version", "kernel modules", "boot entry", "kernel image", "kernel arguments",
	} {
		if checks[name].Result != "ok" {
			t.Errorf("%s: %+v, want it ok", name, checks[name])
		}
	}
	_, count, _ := strings.Cut(checks["root hash"].Detail, ":")
	blocks, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		t.Fatalf("root hash: %+v: %v", checks["root hash"], err)
	}

	// The last byte of the data: padding, or a table that is read at the start only.
	disk := filepath.Join(cluster.home, "talos", "clusters", cluster.name, "nodes", machine, "disk0.raw")
	superblock, _ := rootSuperblock(t, disk)
	at := superblock - 96 + blocks*verity.BlockSize - 1
	old := byteOf(t, disk, at)
	flip(t, disk, at, old^0xff)
	changed, failed := verify(t)
	flip(t, disk, at, old)
	if c := changed["root data"]; !failed || c.Result != "failed" || !strings.Contains(c.Detail, "block "+strconv.FormatInt(blocks-1, 10)) {
		t.Errorf("with the last byte of the root changed: failed = %t, %+v, want block %d named", failed, c, blocks-1)
	}
	if checks, failed := verify(t); failed {
		t.Errorf("with the byte as it was: %+v", checks)
	}
}

func byteOf(t *testing.T, file string, at int64) byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return b[0]
}
