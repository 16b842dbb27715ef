package platform

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loop makes a block device of a file.
func loop(t *testing.T, path string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 20 { // others may take the one that is free
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		device, err := os.OpenFile(name, os.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(file.Fd()))
		if errors.Is(err, unix.EBUSY) {
			device.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := unix.IoctlRetInt(int(device.Fd()), unix.LOOP_CLR_FD); err != nil {
				t.Errorf("free %s: %v", name, err)
			}
			device.Close()
		})
		return name
	}
	t.Fatal("no loop device is free")
	return ""
}

// TestMount reads a cidata volume of either kind off a device, as a machine
// does. A kernel that lacks the file system is a reason to skip, but for a
// virtual machine under our own kernel.
func TestMount(t *testing.T) {
	for _, kind := range []string{"iso9660", "fat12"} {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "volume")
			if err := os.WriteFile(path, image(t, kind), 0o600); err != nil {
				t.Fatal(err)
			}
			device := loop(t, path)
			b := newBench(t, "")
			b.Volumes = &Volumes{Devices: func() ([]string, error) { return []string{device}, nil }}
			p := b.platform(t, NoCloud)
			got, from, err := p.Configuration(t.Context())
			if errors.Is(err, unix.ENODEV) && os.Getenv("TALOS_IN_VM") != "1" {
				t.Skip(err)
			}
			if err != nil || string(got) != "version: v1alpha1\n" || from != "the volume cidata, user-data" {
				t.Errorf("Configuration = %q, %q, %v", got, from, err)
			}
			if m, err := p.Metadata(t.Context()); err != nil || m.InstanceID != "i1" {
				t.Errorf("Metadata = %+v, %v", m, err)
			}
			mounts, err := os.ReadFile("/proc/self/mounts")
			if err != nil || strings.Contains(string(mounts), device+" ") {
				t.Errorf("the volume is still mounted: %v\n%s", err, mounts)
			}
		})
	}
}

// TestDevices: the machine's own disks are listed by paths that exist.
func TestDevices(t *testing.T) {
	paths, err := blockDevices()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/dev/") || strings.Contains(p, "/loop") {
			t.Errorf("device %s", p)
		}
	}
}

// TestNoMedium: what waits to be opened, as a drive without a medium does, keeps
// no other volume from being read.
func TestNoMedium(t *testing.T) {
	b := newBench(t, "")
	waits := filepath.Join(b.dir, "drive")
	if err := unix.Mkfifo(waits, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Volumes.Devices = func() ([]string, error) { return []string{waits}, nil }
	b.volume(t, "iso9660", map[string]string{"user-data": "version: v1alpha1\n"})
	done := make(chan error, 1)
	go func() {
		_, _, err := b.platform(t, NoCloud).Configuration(t.Context())
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the volume is not read")
	}
}

// TestTwoVolumes: a stick with the name of the machine's data does not get to say
// what these are; the same data twice are no question, nor is a broken copy.
func TestTwoVolumes(t *testing.T) {
	one, other := map[string]string{"user-data": "version: v1alpha1\n", "network-config": "version: 2\n"}, map[string]string{"user-data": "version: v1alpha1\n"}
	for name, tt := range map[string]struct {
		second map[string]string
		want   string
	}{
		"the same":       {one, ""},
		"another":        {other, "are both called so, and hold different things"},
		"nothing of use": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "")
			b.volume(t, "iso9660", one)
			b.volume(t, "fat16", tt.second)
			document, _, err := b.platform(t, NoCloud).Configuration(t.Context())
			if tt.want == "" && (err != nil || string(document) != "version: v1alpha1\n") {
				t.Errorf("Configuration = %q, %v", document, err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || permanent(err)) {
				t.Errorf("Configuration = %q, %v, want %q, for now", document, err, tt.want)
			}
		})
	}
}
