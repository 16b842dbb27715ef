package qemu

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"talos/internal/cpio"
)

// kernel is the one that was built: the file that TALOS_KERNEL names, or the
// one in _out. REQUIRE_IMAGE=1 (CI) makes a missing one a failure.
func kernel(t *testing.T) string {
	t.Helper()
	name := os.Getenv("TALOS_KERNEL")
	if name == "" {
		name = filepath.Join("..", "..", "..", "_out", "kernel", "vmlinuz")
	}
	name, err := filepath.Abs(name) // QEMU runs in the machine's folder
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); err != nil {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatalf("no kernel was built, and REQUIRE_IMAGE=1: %v", err)
		}
		t.Skipf("no kernel was built: %v", err)
	}
	return name
}

// initramfs packs testdata/guest as /init.
func initramfs(t *testing.T) string {
	t.Helper()
	init := filepath.Join(t.TempDir(), "init")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", init, "./testdata/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	program, err := os.ReadFile(init)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	if err := errors.Join(w.Data("init", 0o755, program), w.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "initramfs")
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestGuest has a system in the machine: the watchdog resets it, in one process
// and with the firmware's variables kept; it is frozen and goes on, and turns
// itself off at the power button, which is on record.
func TestGuest(t *testing.T) {
	v := machine(t)
	v.Kernel = &Kernel{Image: kernel(t), Initrd: initramfs(t), Cmdline: "console=ttyS0 quiet panic=-1"}
	start(t, v)
	p, _ := v.Running()
	says(t, v, "guest: watchdog: <nil>", 1)
	says(t, v, "guest: boot 2", 1)
	if got, want := happened(t, v, "WATCHDOG"), []string{"reset"}; !slices.Equal(got, want) {
		t.Errorf("watchdog did %q, want %q", got, want)
	}
	if got, want := happened(t, v, "RESET"), []string{"guest-reset"}; !slices.Equal(got, want) {
		t.Errorf("resets = %q, want %q", got, want)
	}
	if now, running := v.Running(); !running || now != p {
		t.Errorf("process after the reset = %v, %v; want the same, %v", now, running, p)
	}
	says(t, v, "guest: waits for", 1)
	if err := v.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := v.PressPower(t.Context()); err != nil {
		t.Fatal(err)
	}
	if console, _ := os.ReadFile(v.Log); bytes.Contains(console, []byte("guest: button")) {
		t.Error("the guest has seen the button while it was frozen")
	}
	if err := v.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	says(t, v, "guest: button: <nil>", 1)
	eventually(t, 5*time.Minute, "end of the process", func() bool { return !p.Alive() })
	if err := v.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if got := v.Power(); got != "poweroff" {
		t.Errorf("Power = %q, want poweroff", got)
	}
	if err := v.ClearPower(); err != nil {
		t.Fatal(err)
	}
	if got := v.Power(); got != "" {
		t.Errorf("Power after ClearPower = %q, want none", got)
	}
}
