package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is a machine of firmware only, in a folder whose name is longer than
// that of a socket may be. It is emulated everywhere: what is tested is the same.
func machine(t *testing.T) VM {
	t.Helper()
	for _, program := range []string{Program, tpmProgram} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("REQUIRE_PRIV") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	firmware, err := FindFirmware(false)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	v := VM{
		Name: "test, one", UUID: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", Serial: "S, 1", Dir: dir, Log: filepath.Join(t.TempDir(), "con,sole"),
		CPUs: 2, Memory: 256 << 20, Accel: Emulated, Firmware: firmware,
	}
	t.Cleanup(func() {
		if console, err := os.ReadFile(v.Log); err == nil && t.Failed() {
			t.Logf("console:\n%q", console)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := v.Kill(ctx); err != nil {
			t.Error(err)
		}
	})
	return v
}

func start(t *testing.T, v VM) {
	t.Helper()
	if _, err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// says waits until the console holds a text n times.
func says(t *testing.T, v VM, text string, n int) {
	t.Helper()
	eventually(t, 5*time.Minute, fmt.Sprintf("console with %d times %q", n, text), func() bool {
		data, _ := os.ReadFile(v.Log)
		return bytes.Count(data, []byte(text)) >= n
	})
}

func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %v", what, within)
		}
	}
}

// happened lists the events of a name by their reasons.
func happened(t *testing.T, v VM, name string) []string {
	t.Helper()
	events, err := v.Events()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		if e.Name == name {
			out = append(out, e.Reason)
		}
	}
	return out
}

// TestLife takes a machine with all kinds of disks through what can be done to it.
func TestLife(t *testing.T) {
	v := machine(t)
	v.TPM, v.Screen = true, true
	for _, driver := range Drivers {
		v.Disks = append(v.Disks, Disk{Path: filepath.Join(t.TempDir(), "disk,"+driver), Size: 16 << 20, Driver: driver})
	}
	v.Disks[0].WriteLog = filepath.Join(t.TempDir(), "writes")
	v.Links = []Link{{MAC: "02:54:00:00:00:01"}}
	start(t, v)
	p, running := v.Running()
	if !running {
		t.Fatal("it does not run after its start")
	}
	if _, err := v.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "it runs") {
		t.Errorf("Start of one that runs = %v, want an error", err)
	}
	says(t, v, "\x1b[2J", 1) // the firmware clears the screen first
	if err := v.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !v.Frozen(t.Context()) {
		t.Error("not frozen after Freeze")
	}
	for range 2 {
		if err := v.Thaw(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if v.Frozen(t.Context()) {
		t.Error("frozen after Thaw")
	}
	if err := v.PressReset(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Minute, "reset", func() bool { return len(happened(t, v, "RESET")) == 1 })
	shot := filepath.Join(t.TempDir(), "screen")
	if err := v.Screenshot(t.Context(), shot); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(shot); err != nil || !bytes.HasPrefix(data, []byte("P6\n")) {
		t.Errorf("no picture of the screen: %v", err)
	}
	if now, running := v.Running(); !running || now != p {
		t.Errorf("process after a reset = %v, %v; want the same, %v", now, running, p)
	}
	if err := v.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, running := v.Running(); running || p.Alive() {
		t.Error("it runs after it was killed")
	}
	if got := v.Power(); got != "" {
		t.Errorf("Power of one that was killed = %q, want none", got)
	}
	if err := v.PressPower(t.Context()); err == nil || !strings.Contains(err.Error(), "is off") {
		t.Errorf("PressPower of one that is off = %v, want an error", err)
	}
	threads, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range threads {
		if children, err := os.ReadFile(file); err == nil && len(children) > 0 {
			t.Errorf("left behind: processes %s", children)
		}
	}
	if tpm, err := os.ReadDir(v.tpmDir()); err != nil || len(tpm) == 0 {
		t.Errorf("the TPM has kept nothing: %v, %v", tpm, err)
	}
}

// TestStartFails: the reason is QEMU's own.
func TestStartFails(t *testing.T) {
	v := machine(t)
	v.Links = []Link{{MAC: "no address"}}
	_, err := v.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "mac") {
		t.Errorf("Start = %v, want what is wrong with the address", err)
	}
	if _, running := v.Running(); running {
		t.Error("it runs")
	}
}
