package container

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"talos/internal/provision/process"
)

// frozenNode makes a node of one process, in a control group that can be frozen.
func frozenNode(t *testing.T) (Node, *exec.Cmd) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	n := Node{Dir: t.TempDir(), Hostname: "frozen", Cgroup: "/talos-test-" + strconv.Itoa(os.Getpid())}
	if err := n.Prepare(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if err := RemoveCgroup(context.Background(), n.Cgroup); err != nil { // the next test makes one of this name
			t.Error(err)
		}
	})
	roots, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, root := range roots {
		dir := filepath.Join(root, n.Cgroup)
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue // read-only here
		}
		t.Cleanup(func() { _ = os.Remove(dir) }) // gone already, when all went well
		for _, f := range freezers {
			if _, err := os.Stat(filepath.Join(dir, f.file)); err == nil {
				found = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0) == nil || found
			}
		}
	}
	if !found {
		t.Skip("control groups can't be frozen here")
	}
	p, err := process.Find(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Record(n.record()); err != nil {
		t.Fatal(err)
	}
	return n, cmd
}

func TestFreezeAndThaw(t *testing.T) {
	n, _ := frozenNode(t)
	if n.Frozen(t.Context()) {
		t.Error("it is frozen before it was")
	}
	for range 2 {
		if err := n.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !n.Frozen(t.Context()) {
			t.Error("it is not frozen")
		}
	}
	for range 2 {
		if err := n.Thaw(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n.Frozen(t.Context()) {
			t.Error("it is frozen after it was thawed")
		}
	}
}

// TestEndOfFrozen: what is frozen can be killed, and its disk erased then.
func TestEndOfFrozen(t *testing.T) {
	n, cmd := frozenNode(t)
	if err := n.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Erase("STATE"); err == nil {
		t.Error("the disk of a node that runs was erased")
	}
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	if err := n.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-waited:
	case <-time.After(30 * time.Second):
		t.Fatal("a frozen process does not end")
	}
	for _, dir := range []string{n.StateDir(), n.EphemeralDir(), n.MetaDir()} {
		if err := os.MkdirAll(filepath.Join(dir, "some", "folder"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Erase("STATE", "EPHEMERAL"); err != nil {
		t.Fatal(err)
	}
	for dir, kept := range map[string]bool{n.StateDir(): false, n.EphemeralDir(): false, n.MetaDir(): true} {
		if _, err := os.Stat(filepath.Join(dir, "some")); (err == nil) != kept {
			t.Errorf("%s after erasing: %v, want it kept: %v", dir, err, kept)
		}
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("the folder itself: %v", err)
		}
	}
	if err := n.Erase("META"); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("erase META = %v, want a refusal", err)
	}
}
