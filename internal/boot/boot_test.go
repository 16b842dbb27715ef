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
