package boot

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestMachineID(t *testing.T) {
	dir := t.TempDir()
	kept, shown := filepath.Join(dir, "machine-id"), filepath.Join(dir, "etc", "machine-id")
	get := func() string {
		t.Helper()
		if err := machineID(kept, shown); err != nil {
			t.Fatal(err)
		}
		a, err := os.ReadFile(kept)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(shown)
		if err != nil || string(a) != string(b) || !validMachineID.Match(a) {
			t.Fatalf("kept %q, shown %q, %v, want the same valid id", a, b, err)
		}
		if err := os.RemoveAll(filepath.Dir(shown)); err != nil { // tmpfs forgets
			t.Fatal(err)
		}
		return string(a)
	}
	first := get()
	if again := get(); again != first {
		t.Errorf("second boot has id %q, want %q", again, first)
	}
	if err := os.Chmod(kept, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := get(); got == first {
		t.Error("a torn file gives the old id, which nobody can know")
	}
}

// TestClear: what a pod has left in the way of our folders leads nothing anywhere.
func TestClear(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	n := &Node{Log: slog.New(slog.DiscardHandler)}
	in := func(name string) string { return filepath.Join(root, name) }
	for _, err := range []error{
		os.Symlink(elsewhere, in("lib")), os.MkdirAll(in("log/pods/kept"), 0o755), os.WriteFile(in("log/containers"), nil, 0o644),
		os.Symlink(elsewhere, in("run")), os.Symlink("/none", in("tmp")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"lib/etcd", "log", "log/pods", "log/containers", "tmp"} {
		if err := n.clear(root, in(name)); err != nil {
			t.Fatal(err)
		}
		if err := (folder{in(name), 0o700, os.Getuid()}).make(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(in(name)); err != nil || !info.IsDir() {
			t.Errorf("%s = %v, %v, want a folder", name, info, err)
		}
	}
	for range 2 {
		if err := n.link("/run", in("run")); err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(in("run")); err != nil || to != "/run" {
			t.Errorf("run leads to %q, %v", to, err)
		}
	}
	if err := n.link("/run", in("log")); err != nil {
		t.Errorf("where there is a folder: %v", err)
	}
	if _, err := os.Stat(in("log/pods/kept")); err != nil {
		t.Errorf("what is a folder does not stay: %v", err)
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 0 {
		t.Errorf("elsewhere there is %v, %v, want nothing", left, err)
	}
}

func TestUnmountable(t *testing.T) {
	for path, want := range map[string]bool{
		"/var": true, "/var/lib/kubelet/pods/x": true, "/opt": true, "/run/netns/cni-1": true, "/run/containerd/x": true,
		"/": false, "/run": false, "/system/state": false, "/variable": false, "/proc": false, "/etc/kubernetes": false,
	} {
		if got := unmountable(path); got != want {
			t.Errorf("unmountable(%s) = %t, want %t", path, got, want)
		}
	}
}

// TestPhases: names are told in logs and events, so they must differ, and every
// phase must end.
func TestPhases(t *testing.T) {
	n := &Node{Log: slog.New(slog.DiscardHandler)}
	seen := map[string]bool{}
	for _, p := range n.Phases() {
		if p.Name == "" || seen[p.Name] || p.Deadline <= 0 || len(p.Steps) == 0 {
			t.Errorf("phase %q: empty, twice, or without deadline or steps", p.Name)
		}
		seen[p.Name] = true
		for _, s := range p.Steps {
			if s.Name == "" || s.Run == nil {
				t.Errorf("phase %q has a step without name or work", p.Name)
			}
		}
	}
}

func TestFolder(t *testing.T) {
	d := folder{filepath.Join(t.TempDir(), "a", "b"), 0o711, os.Getuid()}
	for pass := range 2 {
		if err := d.make(); err != nil {
			t.Fatalf("pass %d: %v", pass, err)
		}
	}
	info, err := os.Stat(d.path)
	if err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("mode = %v, %v, want 0711", info.Mode(), err)
	}
}

// TestInner: a file system is in use while anything is mounted from it, wherever.
func TestInner(t *testing.T) {
	for path, want := range map[string]bool{
		"/": false, "/var": false, "/system/state": false, "/system/meta": false, "/system/rootfs": false, "/variable": false, "/run": false,
		"/var/lib/kubelet/pods/1/volumes/x": true, "/system/state/x": true, "/opt": true, "/etc/cni": true,
		"/run/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs": true, "/run/netns/1": true,
	} {
		if got := inner(path); got != want {
			t.Errorf("inner(%s) = %t, want %t", path, got, want)
		}
	}
}

// TestKillAll must not do what it says: this is not PID 1.
func TestKillAll(t *testing.T) {
	if err := KillAll(t.Context()); err == nil {
		t.Error("KillAll outside of PID 1 = nil")
	}
}

func TestRuns(t *testing.T) {
	for stat, want := range map[string]bool{
		"1234 (kubelet) S 1 1234 1234 0 -1 4194560 1 0": true,
		"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0":         false,
		"77 (a) b) R 1 77 77 0 -1 4194560 1 0":          true,
		"78 (dead) Z 1 78 78 0 -1 4194560 1 0":          false,
		"79 (torn":                                      false,
		"":                                              false,
	} {
		if got := runs(stat); got != want {
			t.Errorf("runs(%q) = %t, want %t", stat, got, want)
		}
	}
	if n, err := alive("/proc"); err != nil || n == 0 {
		t.Errorf("alive = %d, %v, want this process at least", n, err)
	}
}
