package install

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"talos/internal/gpt"
	"talos/internal/meta"
	"talos/internal/volume"
	"talos/internal/wipe"
)

// loop makes a block device of a sparse file.
func loop(t *testing.T, size int64, sector int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("loop devices need root")
		}
		t.Skip("loop devices need root")
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", strconv.Itoa(sector), file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		// Partitions hold the device; one without any makes partx fail.
		_ = exec.Command("partx", "--delete", dev).Run()
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return dev
}

// TestExecute: on a block device, from a plan to the first boot's file systems
// with the configuration in them; then again, over that.
func TestExecute(t *testing.T) {
	need(t, "/usr/sbin/mkfs.xfs")
	for _, sector := range []int{512, 4096} {
		t.Run(strconv.Itoa(sector), func(t *testing.T) {
			dev := loop(t, 4*gib, sector)
			runtime.LockOSThread() // and never let go: the thread ends with its namespace
			if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS), unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")); err != nil {
				t.Fatal(err)
			}
			s := open(t, source(t, "v1"))
			o := Options{Meta: meta.Values{meta.UserReserved1: []byte("mine")}, State: files(), Run: run}
			p := Plan{Disk: Target{Path: dev, Size: 4 * gib, SectorSize: sector}}
			for pass := range 2 {
				if err := Execute(t.Context(), p, s, o); err != nil {
					t.Fatal(err)
				}
				boot(t, dev)
				// Not again without leave, and not on another disk.
				if err := Execute(t.Context(), p, s, o); pass == 0 && (err == nil || !strings.Contains(err.Error(), "something was written to it since the plan was made: an earlier installation")) {
					t.Errorf("Execute on an installed disk = %v", err)
				}
				p.Wipe = true
			}
			p.Disk.Size++
			if err := Execute(t.Context(), p, s, o); err == nil || !strings.Contains(err.Error(), "another disk") {
				t.Errorf("Execute on a disk of another size = %v", err)
			}
		})
	}
}

// boot does what the first boot does, and finds what an installation has left.
func boot(t *testing.T, dev string) {
	t.Helper()
	nodes, change, err := volume.Prepare(t.Context(), dev)
	if err != nil || change != volume.Create {
		t.Fatalf("Prepare = %v, %v", change, err)
	}
	dir := t.TempDir()
	state, ephemeral := volume.State(nodes[wipe.State]), volume.Ephemeral(nodes[wipe.Ephemeral])
	state.Target, ephemeral.Target = filepath.Join(dir, "state"), filepath.Join(dir, "var")
	ephemeral.Data = "" // not every kernel has quotas
	for v, formatted := range map[*volume.Volume]bool{&state: false, &ephemeral: true} {
		if r, err := v.Mount(t.Context(), run); err != nil || r.Formatted != formatted {
			t.Errorf("Mount of %s = %+v, %v", v.Label, r, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(state.Target, "config.yaml")); string(got) != "version: v1alpha1\n" || err != nil {
		t.Errorf("config.yaml = %q, %v", got, err)
	}
	d, err := gpt.Open(dev, true)
	if err == nil {
		d.Close()
	}
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("Open of a disk in use = %v, want EBUSY", err)
	}
	if err := errors.Join(ephemeral.Unmount(), state.Unmount()); err != nil {
		t.Error(err)
	}
	m, err := meta.OpenFile(nodes[wipe.Meta])
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if v, _ := m.Get(meta.UserReserved1); string(v) != "mine" {
		t.Errorf("META has %v", m.All())
	}
	if err := m.Set(meta.UserReserved2, []byte("more")); err != nil {
		t.Error(err)
	}
}
