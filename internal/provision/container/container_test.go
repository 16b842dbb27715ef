package container

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"talos/internal/layout"
)

func TestCapabilities(t *testing.T) {
	got, err := capabilities("Name:\tx\nCapBnd:\t0000000002010401\n") // SYS_TIME, SYS_MODULE, NET_BIND_SERVICE, CHOWN
	if want := []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("capabilities = %v, %v, want %v", got, err, want)
	}
	if len(capabilityNames) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names for %d capabilities", len(capabilityNames), unix.CAP_LAST_CAP+1)
	}
}

func TestSpec(t *testing.T) {
	n := Node{ID: "x", Dir: "/d", Hostname: "h", Rootfs: "/r", Args: []string{"/sbin/init"}, Cgroup: "/talos/x/h", CPUs: 1.5, Memory: 2 << 30}
	s := n.spec("/proc/1/fd/3", []string{"CAP_CHOWN"}, 1024)
	if !s.Root.Readonly || s.Linux.MaskedPaths != nil || s.Linux.ReadonlyPaths != nil {
		t.Error("want a read-only root and no masked or read-only paths")
	}
	if *s.Linux.Resources.CPU.Quota != 150_000 || *s.Linux.Resources.Memory.Limit != 2<<30 {
		t.Errorf("limits = %v, %v", *s.Linux.Resources.CPU.Quota, *s.Linux.Resources.Memory.Limit)
	}
	at := map[string]int{}
	for i, m := range s.Mounts {
		at[m.Destination] = i
	}
	for _, dir := range []string{layout.StateDir, layout.MetaDir, layout.PlatformDir} {
		if at[dir] < at["/system"] {
			t.Errorf("%s is mounted before /system, which would hide it", dir)
		}
	}
	if !slices.Contains(s.Mounts[at[layout.PlatformDir]].Options, "ro") {
		t.Error("the platform's folder is writable")
	}
}

func TestPower(t *testing.T) {
	n := Node{Dir: t.TempDir()}
	if err := n.Prepare(); err != nil {
		t.Fatal(err)
	}
	if got := n.Power(); got != "" {
		t.Errorf("Power without a file = %q", got)
	}
	if err := os.WriteFile(filepath.Join(n.MetaDir(), "power"), []byte("reboot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := n.Power(); got != "reboot" {
		t.Errorf("Power = %q, want reboot", got)
	}
	for range 2 {
		if err := n.ClearPower(); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.Power(); got != "" {
		t.Errorf("Power after clearing = %q", got)
	}
}

func TestRemoveCgroupRefusesRoot(t *testing.T) {
	for _, path := range []string{"/", "", ".", "/x/.."} {
		if err := RemoveCgroup(t.Context(), path); err == nil {
			t.Errorf("RemoveCgroup(%q) went ahead", path)
		}
	}
}
