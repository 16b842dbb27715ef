//go:build e2e && bench

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"talos/client"
	"talos/internal/provision/qemu"
)

// What nodes shall run in.
const (
	smallControlPlane = "1536MiB"
	smallWorker       = "512MiB"
)

// TestBenchMachine measures virtual machines.
func TestBenchMachine(t *testing.T) {
	healthy(t)
	talosctl(t, "cluster", "stop", "--name", cluster.name) // nothing of ours may run beside what is measured
	defer talosctl(t, "cluster", "start", "--name", cluster.name)
	var figures []figure
	add := func(name string, value float64, unit, aim string) {
		figures = append(figures, figure{name, value, unit, aim})
	}
	firmware, err := qemu.FindFirmware(false)
	if err != nil {
		t.Fatal(err)
	}
	accel, why := qemu.Choose(t.Context(), firmware)
	t.Logf("virtual machines: %s (%s)", accel, why)
	floor := powerOn(t, firmware, accel, floorImage(t), saysFloor)
	api := powerOn(t, firmware, accel, filepath.Join(cluster.out, "talos-amd64.raw"), answers)
	add("machine: power-on to the API over TLS", api.Seconds(), "s", "")
	add("machine: power-on to an empty /init, same firmware and kernel", floor.Seconds(), "s", "")
	add("machine: ratio of the two", api.Seconds()/floor.Seconds(), "", "2")
	figures = append(figures, smallCluster(t)...)
	system := 0.0
	for _, name := range []string{"vmlinuz", "initramfs.zst", "rootfs.img"} {
		mb := size(t, name)
		add("machine: "+name, mb, "MB", "")
		system += mb
	}
	add("machine: kernel, initramfs and root together", system, "MB", "64")
	report(t, "machine.json", figures)
}

// floorImage is the disk image of a machine whose first program does nothing.
func floorImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "init"), "./floor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	imager := filepath.Join(cluster.out, "bin", "imager")
	initramfs, image := filepath.Join(dir, "initramfs.zst"), filepath.Join(dir, "floor.raw")
	for _, cmd := range []*exec.Cmd{
		build,
		exec.Command(imager, "initramfs", "-init", filepath.Join(dir, "init"), "-o", initramfs),
		exec.Command(imager, "disk", "-initramfs", initramfs, "-kernel", filepath.Join(cluster.out, "kernel"),
			"-root", filepath.Join(cluster.out, "rootfs.img"), "-o", image),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	return image
}

// apiPort is where the loopback leads to the machine's API.
const apiPort = 35000

// powerOn is the median, of three, of how long a machine that starts from an
// image takes until it is there.
func powerOn(t *testing.T, firmware qemu.Firmware, accel qemu.Accel, image string, there func(context.Context, qemu.VM) error) time.Duration {
	t.Helper()
	var times []time.Duration
	for range 3 {
		dir := t.TempDir()
		v := qemu.VM{
			Name: "bench", UUID: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", Dir: dir, Log: filepath.Join(dir, "console"),
			CPUs: 2, Memory: 2 << 30, Accel: accel, Firmware: firmware,
			Disks: []qemu.Disk{{Path: filepath.Join(dir, "disk.raw"), From: image, Size: 10 << 30, Driver: "virtio"}},
			Links: []qemu.Link{{MAC: "02:54:00:00:00:01", Forwards: []qemu.Forward{{Host: apiPort, Guest: 50000}}}},
		}
		if err := v.Prepare(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := v.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, 3*time.Minute, "the machine is there", func() error { return there(t.Context(), v) })
		times = append(times, time.Since(began))
		if err := v.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(times)
	t.Logf("%s: %v", filepath.Base(image), times)
	return times[1]
}

func saysFloor(_ context.Context, v qemu.VM) error {
	data, err := os.ReadFile(v.Log)
	if err == nil && !bytes.Contains(data, []byte("floor: the first program runs")) {
		err = fmt.Errorf("%s does not say so", v.Log)
	}
	return err
}

// answers: the machine has no configuration, so it answers strangers.
func answers(ctx context.Context, _ qemu.VM) error {
	c, err := client.New(ctx, client.Options{Insecure: true, Nodes: []string{fmt.Sprintf("127.0.0.1:%d", apiPort)}})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = c.Machine.Version(ctx, &emptypb.Empty{})
	return err
}

// smallCluster makes a cluster whose nodes have little memory, and measures it.
func smallCluster(t *testing.T) (figures []figure) {
	t.Helper()
	t.Run("small", func(t *testing.T) { // its end destroys the cluster
		began := time.Now()
		e := secondCluster(t, "bench", "--provisioner", "qemu", "--workers", "1", "--memory", smallControlPlane, "--memory-workers", smallWorker)
		figures = append(figures, figure{"machine: blank to healthy from the ISO, " + smallControlPlane + " + " + smallWorker, time.Since(began).Seconds(), "s", ""})
		time.Sleep(time.Minute) // what is measured is a cluster that is idle
		for _, node := range []string{"controlplane-1", "worker-1"} {
			used := usedMemory(t, e, e.name+"-"+node)
			figures = append(figures, figure{"machine: memory in use on an idle " + strings.TrimSuffix(node, "-1"), used, "MB", ""})
		}
		e.must(t, "", "talosctl", "cluster", "stop", "--name", e.name)
		began = time.Now()
		e.must(t, "", "talosctl", "cluster", "start", "--name", e.name)
		eventually(t, machineReady, "healthy after a cold start", func() error {
			_, stderr, err := e.try("", "talosctl", "health", "--wait-timeout", "60s")
			if err != nil {
				return fmt.Errorf("%w: %s", err, lastLine(stderr))
			}
			return nil
		})
		figures = append(figures, figure{"machine: power-on to Ready, both nodes at once", time.Since(began).Seconds(), "s", ""})
	})
	return figures
}

// usedMemory is what is not available to programs (proc_meminfo(5)), in MB.
func usedMemory(t *testing.T, e env, node string) float64 {
	t.Helper()
	kib := map[string]float64{}
	for line := range strings.Lines(e.must(t, "", "talosctl", "-n", node, "read", "/proc/meminfo")) {
		if f := strings.Fields(line); len(f) > 1 {
			kib[f[0]], _ = strconv.ParseFloat(f[1], 64)
		}
	}
	if kib["MemTotal:"] == 0 || kib["MemAvailable:"] == 0 {
		t.Fatalf("no memory in /proc/meminfo of %s: %v", node, kib)
	}
	return (kib["MemTotal:"] - kib["MemAvailable:"]) * 1024 / 1e6
}
