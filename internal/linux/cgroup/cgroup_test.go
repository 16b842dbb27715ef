package cgroup

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tree makes files below a folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestVersion1(t *testing.T) {
	root := tree(t, map[string]string{
		"cpuset/cgroup.procs":            "",
		"cpuset/cpuset.cpus":             "\n",
		"cpuset/cpuset.mems":             "0\n",
		"cpuset/cpuset.effective_cpus":   "0-1\n",
		"cpuset/system/cpuset.cpus":      "\n",
		"cpuset/system/cpuset.mems":      "\n",
		"cpu,cpuacct/cgroup.procs":       "",
		"cpu,cpuacct/a/cpuacct.usage":    "1500000000\n",
		"memory/cgroup.procs":            "",
		"memory/a/memory.usage_in_bytes": "1000\n",
		"memory/a/memory.stat":           "cache 5\ntotal_inactive_file 300\n",
		"unified/cgroup.controllers":     "",
	})
	c, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if c.V2 {
		t.Fatal("V2 = true")
	}
	if err := c.Prepare("/system"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"cpuset/cpuset.cpus": "0-1", "cpuset/cpuset.mems": "0\n", "cpuset/system/cpuset.cpus": "0-1", "cpuset/system/cpuset.mems": "0",
	} {
		if got := strings.TrimSpace(content(t, filepath.Join(root, path))); got != strings.TrimSpace(want) {
			t.Errorf("%s = %q, want %q", path, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "memory/system")); err != nil {
		t.Errorf("the group is not in every hierarchy: %v", err)
	}
	got, err := c.usage("11:memory:/a\n10:cpu,cpuacct:/a\n0::/\n")
	if want := (Usage{MemoryBytes: 700, CPU: 1500 * time.Millisecond}); err != nil || got != want {
		t.Errorf("usage = %+v, %v, want %+v", got, err, want)
	}
}

func TestVersion2(t *testing.T) {
	root := tree(t, map[string]string{
		"cgroup.controllers":     "cpu memory\n",
		"cgroup.subtree_control": "",
		"cgroup.procs":           "",
		"a/memory.current":       "1000\n",
		"a/memory.stat":          "inactive_file 2000\n",
		"a/cpu.stat":             "usage_usec 2000000\nuser_usec 1\n",
	})
	c, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.usage("0::/a\n")
	if want := (Usage{CPU: 2 * time.Second}); err != nil || got != want {
		t.Errorf("usage = %+v, %v, want %+v", got, err, want)
	}
	if err := c.delegate("/"); err != nil {
		t.Fatal(err)
	}
	if got := content(t, filepath.Join(root, "cgroup.subtree_control")); !strings.Contains(got, "+") {
		t.Errorf("subtree_control = %q, want controllers added", got)
	}
}

// TestKernelVersion2 prepares a real subtree of version 2, with a process in
// its root, and kills it there.
func TestKernelVersion2(t *testing.T) {
	base := ""
	for _, dir := range []string{Root, filepath.Join(Root, "unified")} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
			base = dir
		}
	}
	var root string
	var err error
	if base != "" {
		root, err = os.MkdirTemp(base, "talos-test-") // not what an earlier run, cut short, may have left
	}
	if base == "" || err != nil {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root and a version 2 hierarchy")
		}
		t.Skip("needs root and a version 2 hierarchy")
	}
	t.Cleanup(func() {
		for _, dir := range []string{"init", "system/x", "system", ""} {
			for range 1500 { // the kernel lets go of killed processes a moment later
				if err := os.Remove(filepath.Join(root, dir)); err == nil || os.IsNotExist(err) {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
	child := exec.Command("cat")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Enter("/", child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := c.Prepare("/system"); err != nil {
		t.Fatal(err)
	}
	pids := func(group string) []int {
		t.Helper()
		pids, err := c.Pids(group)
		if err != nil {
			t.Fatal(err)
		}
		return pids
	}
	if diff := cmp.Diff([]int{child.Process.Pid}, pids("/init")); diff != "" || len(pids("/")) != 0 {
		t.Errorf("Prepare leaves %v in the root, /init (-want +got):\n%s", pids("/"), diff)
	}
	if err := c.Make("/system/x"); err != nil {
		t.Fatal(err)
	}
	if err := c.Enter("/system/x", child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := c.KillAll("/system"); err != nil {
		t.Fatal(err)
	}
	if bufio.NewScanner(out).Scan() {
		t.Error("the child printed something")
	}
	if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the child ended with %v, want killed", err)
	}
	in.Close()
}
