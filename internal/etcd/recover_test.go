package etcd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"

	"talos/internal/etcd/backup"
	"talos/internal/service"
)

// runTool runs etcd's tool without a container around it.
func (n *realNode) runTool(ctx context.Context, spec service.ContainerSpec, out io.Writer) error {
	cmd := exec.CommandContext(ctx, n.etcd, spec.Args[1:]...)
	cmd.Args[0] = spec.Args[0]
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}

func (n *realNode) snapshot() []byte {
	n.Helper()
	from, err := n.m.Snapshot(context.Background())
	if err != nil {
		n.Fatal(err)
	}
	defer from.Close()
	var to bytes.Buffer
	if _, err := backup.Copy(&to, from); err != nil {
		n.Fatal(err)
	}
	return to.Bytes()
}

func (n *realNode) revision() int64 {
	n.Helper()
	client, err := n.m.Client(context.Background())
	if err != nil {
		n.Fatal(err)
	}
	got, err := client.Get(context.Background(), "x")
	if err != nil {
		n.Fatal(err)
	}
	return got.Header.Revision
}

// TestRecovery: all disks are erased, and the cluster comes back from a
// snapshot on one node, which the others join.
func TestRecovery(t *testing.T) {
	w := newRealm(t, 3)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	ctx := t.Context()
	a.first()
	b.boot(w.nodes...)
	b.voting()
	a.put("k", "before")
	saved, revision := b.snapshot(), a.revision()
	a.put("k", "after")
	if err := a.m.Upload(ctx, bytes.NewReader(saved)); !errors.Is(err, ErrAlreadyBootstrapped) {
		t.Errorf("Upload to a member = %v, want ErrAlreadyBootstrapped", err)
	}
	c.boot(w.nodes...)
	if err := c.m.Upload(ctx, bytes.NewReader(saved)); !errors.Is(err, ErrAlreadyBootstrapped) && !errors.Is(err, ErrClusterExists) {
		t.Errorf("Upload where a cluster exists = %v, want ErrClusterExists", err)
	}
	for _, n := range w.nodes {
		n.down()
		n.erase()
	}
	for _, n := range w.nodes {
		n.boot(w.nodes...)
		n.waitsFor("bootstrap: run")
	}

	if err := a.m.Recover(ctx, false); !errors.Is(err, ErrNoUpload) {
		t.Errorf("Recover without a snapshot = %v, want ErrNoUpload", err)
	}
	broken := bytes.Clone(saved)
	broken[len(broken)/2] ^= 1
	for name, c := range map[string]struct {
		data      []byte
		unchecked bool
		want      error
	}{
		"a bit flipped":                 {broken, false, backup.ErrDamaged},
		"cut off":                       {saved[:len(saved)-5000], false, backup.ErrDamaged},
		"cut off at a page":             {saved[:len(saved)/2/4096*4096], false, backup.ErrNoChecksum},
		"cut off at a page, unchecked":  {saved[:4096], true, ErrRestore},
		"something else":                {bytes.Repeat([]byte("no "), 9000), false, backup.ErrNoSnapshot},
		"something else, and unchecked": {bytes.Repeat([]byte("no "), 9000), true, backup.ErrNoSnapshot},
	} {
		if err := a.m.Upload(ctx, bytes.NewReader(c.data)); err != nil {
			t.Fatal(err)
		}
		if err := a.m.Recover(ctx, c.unchecked); !errors.Is(err, c.want) {
			t.Errorf("Recover from %s = %v, want %v", name, err, c.want)
		}
		if a.m.hasFiles() || exists(a.m.marker) {
			t.Fatalf("a snapshot with %s changed something: %s", name, a.reason())
		}
		a.waitsFor("bootstrap: run")
	}

	if err := a.m.Upload(ctx, bytes.NewReader(saved)); err != nil {
		t.Fatal(err)
	}
	if err := a.m.Recover(ctx, false); err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nodes {
		n.voting()
		n.has("k", "before")
	}
	a.wants("n1", "n2", "n3")
	if now := a.revision(); now < revision+revisionBump {
		t.Errorf("revision = %d after %d was saved: who watches would go back in time", now, revision)
	}
	if _, err := os.Stat(a.m.uploaded()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the snapshot is still on the node: %v", err)
	}
	if err := a.m.Recover(ctx, false); !errors.Is(err, ErrAlreadyBootstrapped) {
		t.Errorf("Recover of a member = %v, want ErrAlreadyBootstrapped", err)
	}
}

func TestReason(t *testing.T) {
	for _, c := range []struct{ said, want string }{
		{"info: x\nError: no such file\n", "Error: no such file"},
		{"info: x\npanic: runtime error: index out of range\n\ngoroutine 1 [running]:\nmain.main()\n\tmain.go:5 +0x1\n", "panic: runtime error: index out of range"},
		{"", ""},
	} {
		if got := reason(c.said); got != c.want {
			t.Errorf("reason(%q) = %q, want %q", c.said, got, c.want)
		}
	}
}
