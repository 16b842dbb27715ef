//go:build e2e

package machine

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"talos/config"
	"talos/internal/provision/qemu"
)

// TestSoakInstall: whatever a blank disk is attached by, a machine installs itself
// on it from the ISO, and the firmware starts the machine from there by the
// entry that it was given.
func TestSoakInstall(t *testing.T) {
	l := enter(t)
	if l == nil {
		return
	}
	l.lease("box")
	l.tellTime()
	for _, driver := range qemu.Drivers {
		began := time.Now()
		owner, device := l.cluster(), qemu.Device(driver)
		b := l.machine(func(v *qemu.VM) {
			v.Dir = filepath.Join(l.dir, "box-"+driver)
			v.CD = l.image("talos-amd64.iso")
			v.Disks = []qemu.Disk{{Path: filepath.Join(l.dir, driver+".raw"), Size: disk, Driver: driver, Serial: "is-" + driver}}
		})
		b.on()
		b.stranger(b.fingerprint()).applies(l.file(driver+".yaml", owner.configuration(func(c *config.Config) {
			c.Machine.Install = &config.Install{Disk: device}
		})))
		b.shows("install on "+device, "serial is-"+driver, "Linux version")
		owner.sees([]string{filepath.Base(device)}, "get", "systemdisk")
		owner.sees([]string{"configured", "the configuration was found at the start"}, "get", "acquireconfigstatus")
		owner.sees([]string{device, " /var xfs "}, "read", "/proc/mounts")
		if got := owner.bootEntry("BootCurrent"); got != "Talos" {
			t.Errorf("%s: the firmware has started the machine by its entry %q", driver, got)
		}
		if n := strings.Count(b.console(), "Linux version"); n != 2 {
			t.Errorf("%s: the machine has started %d times, want twice", driver, n)
		}
		b.off()
		t.Logf("%s: %v", driver, time.Since(began).Round(time.Second))
	}
}

// TestSoakStick: the ISO also starts from a stick that it was copied to byte by
// byte.
func TestSoakStick(t *testing.T) {
	l := enter(t)
	if l == nil {
		return
	}
	l.lease("box")
	l.tellTime()
	b := l.machine(func(v *qemu.VM) {
		v.Disks = []qemu.Disk{{Path: filepath.Join(l.dir, "stick.raw"), From: l.image("talos-amd64.iso"), Size: 1 << 30, Driver: "usb"}}
	})
	b.on()
	b.shows("maintenance mode")
	b.stranger(b.fingerprint()).sees([]string{"Tag:"}, "version")
}
