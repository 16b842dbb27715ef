//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// machineReady is how long a virtual machine may take until it is healthy again:
// without hardware support every instruction is emulated.
const machineReady = 10 * time.Minute

// machine is the one node of the cluster: a virtual machine that was blank,
// was started from the ISO, was handed its configuration over the API in
// maintenance mode, has installed itself and restarted from its disk.
const machine = "e2e-controlplane-1"

// console is what the machine's serial console has shown.
func console(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cluster.home, "talos", "clusters", cluster.name, "logs", machine+".log*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no console log of %s: %v", machine, err)
	}
	slices.Reverse(files) // the oldest first
	var all strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

// machineHealthy waits until the machine is ready, and Kubernetes on it.
func machineHealthy(t *testing.T) {
	t.Helper()
	eventually(t, machineReady, "the machine is healthy", func() error {
		_, stderr, err := cluster.try("", "talosctl", "health", "--wait-timeout", "20s")
		if err != nil {
			return fmt.Errorf("%w: %s", err, lastLine(stderr))
		}
		return nil
	})
}

// rebootMachine waits until a machine is up again, which may take minutes.
func rebootMachine(t *testing.T, node string) {
	t.Helper()
	if err := cluster.stream(machineReady+time.Minute, "talosctl", "-n", node, "reboot", "--timeout", machineReady.String()); err != nil {
		t.Fatal(err)
	}
}

// boots are the machine's last boots, the one under way first.
func boots(t *testing.T) (out []bootSpec) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(talosctl(t, "get", "boots", "-o", "json")))
	for dec.More() {
		var res struct{ Spec bootSpec }
		if err := dec.Decode(&res); err != nil {
			t.Fatal(err)
		}
		out = append(out, res.Spec)
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

type bootSpec struct {
	Boot          int
	BootID, Ended string
}

// TestMachineIsInstalled: what runs came from the disk, block by block checked,
// under a kernel that is hardened and loads nothing.
func TestMachineIsInstalled(t *testing.T) {
	text := console(t)
	rest := text
	for _, want := range []string{"device=/dev/loop", "maintenance mode", "install on /dev/", "device=/dev/vda"} {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("the console does not show %q in its place: ISO, maintenance mode, plan, disk", want)
		}
		rest = after
	}
	for _, login := range []string{"login:", "Password:", "/bin/sh"} {
		if strings.Contains(text, login) {
			t.Errorf("the console offers %q", login)
		}
	}
	if mounts := talosctl(t, "read", "/proc/mounts"); !strings.Contains(mounts, "/dev/dm-0 / squashfs ro") {
		t.Errorf("the root is not the checked device:\n%s", mounts)
	}
	for path, want := range map[string]string{
		"/proc/cmdline": "talos.root=", "/proc/sys/kernel/kptr_restrict": "2", "/proc/sys/kernel/yama/ptrace_scope": "2",
		"/sys/kernel/security/lsm": "lockdown,capability,yama,landlock,bpf", // lockdown itself comes with Secure Boot
	} {
		if got := talosctl(t, "read", path); !strings.Contains(got, want) {
			t.Errorf("%s is %q, want %q in it", path, strings.TrimSpace(got), want)
		}
	}
	if _, stderr, err := cluster.try("", "talosctl", "read", "/proc/modules"); err == nil {
		t.Errorf("the kernel can load modules: %s", stderr)
	}
}

// TestMachineDisks: the disk, and what is on it, over the API.
func TestMachineDisks(t *testing.T) {
	disks := talosctl(t, "get", "disks")
	if err := contains(disks, "vda"); err != nil {
		t.Error(err)
	}
	volumes := talosctl(t, "get", "discoveredvolumes")
	for _, label := range []string{"EFI", "ROOT-A", "ROOT-B", "META", "STATE", "EPHEMERAL"} {
		if err := contains(volumes, label); err != nil {
			t.Error(err)
		}
	}
	if err := contains(talosctl(t, "get", "systemdisk"), "vda"); err != nil {
		t.Error(err)
	}
}

// TestMachineReboot: it comes back from its disk, and what the boot before said
// is still there.
func TestMachineReboot(t *testing.T) {
	before := boots(t)[0].BootID
	rebootMachine(t, machine)
	machineHealthy(t)
	now := boots(t)
	if now[0].BootID == before || now[1].BootID != before || now[1].Ended != "reboot" {
		t.Errorf("boots = %+v, want %s ended by a reboot", now, before)
	}
	if err := contains(talosctl(t, "dmesg", "--boot", "-1"), "going down"); err != nil {
		t.Error(err)
	}
	if err := contains(talosctl(t, "logs", "machined", "--boot", "-1"), "sequence=reboot"); err != nil {
		t.Error(err)
	}
}

// TestMachinePowerButton: it goes down in order, and stays off until it is
// started.
func TestMachinePowerButton(t *testing.T) {
	before := boots(t)[0].BootID
	talosctl(t, "cluster", "fault", "press", "--name", cluster.name, "--node", machine)
	eventually(t, 5*time.Minute, "the machine is off", func() error {
		return contains(talosctl(t, "cluster", "show", "--name", cluster.name), "off")
	})
	talosctl(t, "cluster", "start", "--name", cluster.name)
	machineHealthy(t)
	if now := boots(t); now[1].BootID != before || now[1].Ended != "poweroff" {
		t.Errorf("boots = %+v, want %s ended by poweroff", now, before)
	}
}

// TestMachinePowerCut takes the power away while the machine boots, a little
// later each time: it comes back every time, with everything that Kubernetes
// has acknowledged.
func TestMachinePowerCut(t *testing.T) {
	kubectl(t, "create", "configmap", "kept", "--from-literal=a=b")
	t.Cleanup(func() { kubectl(t, "delete", "configmap", "kept") })
	for _, after := range []time.Duration{0, 12 * time.Second, 30 * time.Second} {
		t.Logf("power cut %v after power-on", after)
		time.Sleep(after) // a moment of the boot, not a wait for something
		talosctl(t, "cluster", "stop", "--name", cluster.name, "--kill")
		talosctl(t, "cluster", "start", "--name", cluster.name)
	}
	machineHealthy(t)
	if got := kubectl(t, "get", "configmap", "kept", "-o", "jsonpath={.data.a}"); got != "b" {
		t.Errorf("what was stored before is %q, want b", got)
	}
	if now := boots(t); now[1].Ended != "power loss or reset" {
		t.Errorf("boots = %+v, want the last ended by power loss", now)
	}
}

// TestMachineChangedByte: a byte that changes in the root partition is found
// before anything runs with it.
func TestMachineChangedByte(t *testing.T) {
	talosctl(t, "cluster", "stop", "--name", cluster.name)
	disk := filepath.Join(cluster.home, "talos", "clusters", cluster.name, "nodes", machine, "disk0.raw")
	at, old := rootSuperblock(t, disk)
	flip(t, disk, at, old^0xff)
	shown := len(console(t))
	if _, _, err := cluster.try("", "talosctl", "cluster", "start", "--name", cluster.name); err != nil {
		t.Log("cluster start:", err) // it may wait for a node that never answers
	}
	eventually(t, machineReady, "the changed byte is found", func() error {
		text := console(t)
		if len(text) > shown { // the log is cut when it is long
			text = text[shown:]
		}
		return contains(text, "verity")
	})
	talosctl(t, "cluster", "stop", "--name", cluster.name, "--kill")
	flip(t, disk, at, old)
	talosctl(t, "cluster", "start", "--name", cluster.name)
	machineHealthy(t)
}

// rootSuperblock finds the SquashFS of the first slot on a disk.
func rootSuperblock(t *testing.T, disk string) (int64, byte) {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	for at := int64(1 << 20); at < 2<<30; at += 1 << 20 { // partitions begin at whole MiB
		if _, err := f.ReadAt(buf, at); err != nil {
			t.Fatal(err)
		}
		if string(buf[:4]) == "hsqs" {
			return at + 96, buf[96] // behind the superblock: the first compressed block
		}
	}
	t.Fatal(errors.New("no SquashFS on the disk"))
	return 0, 0
}

func flip(t *testing.T, disk string, at int64, to byte) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{to}, at); err != nil {
		t.Fatal(err)
	}
}
