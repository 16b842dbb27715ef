//go:build e2e

package machine

import (
	"fmt"
	"path/filepath"
	"testing"

	"talos/internal/provision/qemu"
)

// disk is large enough for what is installed, and a little more.
const disk = 4 << 30

// TestNoCloud: a machine that is a copy of the disk image takes the
// configuration and its name from a volume, whatever that is made of, and needs
// the volume no more.
func TestNoCloud(t *testing.T) {
	l := enter(t, "xorriso")
	if l == nil {
		return
	}
	l.lease("")
	l.tellTime()
	owner := l.cluster()
	for kind, make := range map[string]func(path string, files map[string][]byte){"vfat": l.vfat, "iso9660": l.iso} {
		name := "named-by-" + kind
		volume := filepath.Join(l.dir, kind)
		make(volume, map[string][]byte{
			"user-data": owner.configuration(),
			"meta-data": fmt.Appendf(nil, "instance-id: i-1\nlocal-hostname: %s\n", name),
		})
		b := l.machine(func(v *qemu.VM) {
			v.Dir = filepath.Join(l.dir, "box-"+kind)
			v.Disks = []qemu.Disk{{Path: filepath.Join(l.dir, kind+".raw"), Size: disk, From: l.image("talos-nocloud-amd64.raw")}, {Path: volume, ReadOnly: true}}
		})
		b.on()
		owner.sees([]string{name}, "get", "hostname")
		owner.sees([]string{"configured", "the volume cidata, user-data"}, "get", "acquireconfigstatus")
		owner.sees([]string{"vda"}, "get", "systemdisk")
		if kind == "vfat" && !testing.Short() {
			b.off()
			b.Disks = b.Disks[:1]
			b.on()
			owner.sees([]string{"configured", "the configuration was found at the start"}, "get", "acquireconfigstatus")
		}
		b.off()
	}
}

func (l *lab) vfat(path string, files map[string][]byte) {
	l.Helper()
	if err := qemu.MakeVolume(path, "CIDATA", files); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) iso(path string, files map[string][]byte) {
	l.Helper()
	for name, data := range files {
		l.file("cidata/"+name, data)
	}
	l.run("xorriso", "-as", "mkisofs", "-quiet", "-V", "cidata", "-J", "-r", "-o", path, filepath.Join(l.dir, "cidata"))
}
