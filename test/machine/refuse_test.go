//go:build e2e

package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"talos/config"
	"talos/internal/gpt"
	"talos/internal/install"
	"talos/internal/provision/qemu"
	"talos/internal/secureboot"
	"talos/internal/slot"
	"talos/internal/slot/mtools"
)

// TestChangedByte: a byte that has changed in the root partition is found
// before anything runs with it, and the machine starts again for another try.
func TestChangedByte(t *testing.T) {
	l := enter(t)
	if l == nil {
		return
	}
	path := filepath.Join(l.dir, "disk.raw")
	b := l.machine(func(v *qemu.VM) {
		v.Disks = []qemu.Disk{{Path: path, Size: disk, From: l.image("talos-amd64.raw")}}
	})
	if err := b.Prepare(); err != nil {
		t.Fatal(err)
	}
	root := l.partition(path, slot.A.RootLabel())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var one [1]byte
	at := root.Offset + 96 // the first compressed block of the SquashFS
	if _, err := f.ReadAt(one[:], at); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 1
	if _, err := f.WriteAt(one[:], at); err != nil {
		t.Fatal(err)
	}
	b.on()
	b.shows("verity")
	b.shows("Linux version", "Linux version")
	if err := contains(b.console(), "machined starts"); err == nil {
		t.Error("machined runs from a root that was changed")
	}
}

func (l *lab) partition(path, label string) gpt.Partition {
	l.Helper()
	d, err := gpt.OpenReadOnly(path)
	if err != nil {
		l.Fatal(err)
	}
	defer d.Close()
	table, err := gpt.Read(d)
	if err != nil {
		l.Fatal(err)
	}
	p, ok := table.Find(label)
	if !ok {
		l.Fatalf("%s has no partition %s", path, label)
	}
	return p
}

// TestSecureBoot: firmware takes the keys that were made for it, starts a disk
// that is signed by them, and no kernel image that another key has signed. In
// the long form the same goes for ISOs, and what such an ISO installs is signed.
func TestSecureBoot(t *testing.T) {
	l := enter(t, "mcopy")
	if l == nil {
		return
	}
	l.lease("box")
	firmware, err := qemu.FindFirmware(true)
	if err != nil {
		t.Fatal(err)
	}
	keys, path := l.keys("ours"), filepath.Join(l.dir, "disk.raw")
	b := l.machine(func(v *qemu.VM) {
		v.Firmware = firmware
		v.Disks = []qemu.Disk{{Path: path, Size: disk, From: l.signed("disk", "signed.raw", keys)}}
	})
	if err := b.Prepare(); err != nil {
		t.Fatal(err)
	}
	// A person does this in the loader's menu.
	esp := mtools.Image{Path: path, Offset: l.partition(path, install.EFILabel).Offset, Run: func(program string, args ...string) ([]byte, error) {
		return exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	}}
	replace := func(name string, by []byte) {
		t.Helper()
		if err := esp.Write(name, by); err != nil {
			t.Fatal(err)
		}
	}
	replace(slot.LoaderConfig, []byte("timeout 0\nsecure-boot-enroll force\n"))
	b.on()
	b.shows("Secure boot enabled", "maintenance mode")
	print := b.fingerprint()
	b.stranger(print).sees(nil, "version")
	b.off()

	// The same system by another key: the loader is ours still.
	theirs := l.keys("theirs")
	replace(slot.A.KernelPath(), l.read(l.signed("uki", "theirs.efi", theirs)))
	b.refuses(`Error loading \EFI\talos\A.efi: Access Denied`)
	if testing.Short() {
		return
	}

	b.Disks[0] = qemu.Disk{Path: filepath.Join(l.dir, "blank.raw"), Size: disk}
	b.CD = l.signed("iso", "theirs.iso", theirs)
	b.refuses("Access Denied")
	b.CD = l.image("talos-amd64.iso") // signed by nobody
	b.refuses("Access Denied")
	b.CD = l.signed("iso", "ours.iso", keys)
	b.installsSigned()
}

// refuses turns the machine on, whose firmware must find nothing to start, and off.
func (b *box) refuses(why string) {
	b.lab.Helper()
	b.on()
	b.shows(why, "No bootable option")
	if err := contains(b.console(), "Linux version"); err == nil {
		b.lab.Error("a kernel image that no key of ours has signed starts")
	}
	b.off()
}

// installsSigned turns a machine on, whose firmware has our keys, and installs
// it from the ISO; it checks that firmware and API see what is signed.
func (b *box) installsSigned() {
	l, owner := b.lab, b.lab.cluster()
	l.Helper()
	l.tellTime()
	b.on()
	b.shows("Secure boot enabled", "maintenance mode")
	b.stranger(b.fingerprint()).applies(l.file("machine.yaml", owner.configuration(func(c *config.Config) {
		c.Machine.Install = &config.Install{Disk: "/dev/vda"}
	})))
	b.shows("install on /dev/vda", "Secure boot enabled")
	owner.sees([]string{"vda"}, "get", "systemdisk")
	if got := owner.bootEntry("BootCurrent"); got != "Talos" {
		l.Errorf("the firmware has started the machine by its entry %q", got)
	}
	if err := contains(owner.call("get", "securitystate", "-o", "yaml"), "secureBoot: true", "bootedWithUKI: true"); err != nil {
		l.Error(err)
	}
	text := owner.call("verify")
	if err := contains(text, "on: the firmware starts only what is signed", "kernel image signature", "boot loader signature"); err != nil {
		l.Error(err)
	}
	_, checks, _ := strings.Cut(text, "\n")
	for line := range strings.Lines(checks) {
		if err := contains(line, " ok "); err != nil {
			l.Error(err)
		}
	}
}

// keys makes a folder of keys.
func (l *lab) keys(name string) string {
	l.Helper()
	files, err := secureboot.Generate(name, nil, time.Now())
	if err != nil {
		l.Fatal(err)
	}
	for _, f := range files {
		l.file("keys-"+name+"/"+f.Name, f.Data)
	}
	return filepath.Join(l.dir, "keys-"+name)
}

// signed has imager make something of what `make image` has left.
func (l *lab) signed(what, name, keys string) string {
	l.Helper()
	path := filepath.Join(l.dir, name)
	l.run(l.image("bin/imager"), what, "-secureboot", keys, "-o", path,
		"-kernel", l.image("kernel"), "-initramfs", l.image("initramfs.zst"), "-root", l.image("rootfs.img"))
	return path
}
