//go:build e2e

package machine

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"talos/config"
	"talos/internal/provision/qemu"
)

// TestDisks: whatever a disk is attached by, the API tells what it is; those of
// the configuration are partitioned, formatted and mounted, and still are after
// a restart; a reset leaves of the system's disk what it was to leave.
func TestDisks(t *testing.T) {
	l := enter(t, "swtpm")
	if l == nil {
		return
	}
	l.lease("box")
	l.tellTime()
	b := l.machine(func(v *qemu.VM) {
		v.TPM = true
		for i, driver := range qemu.Drivers {
			d := qemu.Disk{Path: filepath.Join(l.dir, driver+".raw"), Size: 1 << 30, Driver: driver, Serial: "is-" + driver}
			if i == 0 {
				d.Size, d.From = disk, l.image("talos-amd64.raw")
			}
			v.Disks = append(v.Disks, d)
		}
	})
	b.on()
	first := b.fingerprint()
	stranger, owner := b.stranger(first), l.cluster()
	var serials []string
	for _, driver := range qemu.Drivers {
		serials = append(serials, "is-"+driver)
	}
	disks := stranger.sees(serials, "get", "disks") // they come in any order
	// What is behind the machine's SCSI disks is virtio.
	for driver, transport := range map[string]string{"virtio": "virtio", "scsi": "virtio", "nvme": "nvme", "sata": "sata", "usb": "usb"} {
		if line := row(disks, "is-"+driver); !slices.Contains(strings.Fields(line), transport) {
			t.Errorf("the disk by %s is %q, want transport %s in\n%s", driver, line, transport, disks)
		}
	}
	configuration := l.file("machine.yaml", owner.configuration(func(c *config.Config) {
		c.Machine.Watchdog = &config.Watchdog{Timeout: config.Duration(2 * time.Minute)}
		c.Machine.Disks = []config.ExtraDisk{
			{Device: "/dev/nvme0n1", Partitions: []config.DiskPartition{{Size: "400MB", Mountpoint: "/var/mnt/a"}, {Mountpoint: "/var/mnt/b"}}},
			{Device: "/dev/disk/by-id/ata-QEMU_HARDDISK_is-sata", Partitions: []config.DiskPartition{{Mountpoint: "/var/mnt/c"}}},
		}
	}))
	stranger.applies(configuration)
	mounted := []string{"/dev/nvme0n1p1 /var/mnt/a xfs", "/dev/nvme0n1p2 /var/mnt/b xfs", " /var/mnt/c xfs"}
	owner.sees(mounted, "read", "/proc/mounts")
	if got := owner.call("read", "/sys/class/tpm/tpm0/tpm_version_major"); strings.TrimSpace(got) != "2" {
		t.Errorf("the TPM's version is %q, want 2", got)
	}

	owner.sees([]string{"/dev/watchdog0", "2m0s"}, "get", "watchdogtimerstatus")
	owner.sees([]string{"secureBoot: false", "bootedWithUKI: true", "moduleSignatureEnforced: true"}, "get", "securitystate", "-o", "yaml")

	reset := func(labels string) {
		t.Helper()
		b.forget()
		owner.call("reset", "--confirm", "test", "--graceful=false", "--reboot", "--wait=false", "--system-labels-to-wipe", labels)
		b.shows("Linux version")
		b.forget()
	}
	reset("STATE")
	b.shows("maintenance mode")
	second := b.fingerprint()
	if second == first {
		t.Error("after STATE was wiped the machine has the key from before")
	}
	b.stranger(second).applies(configuration)
	owner.sees(mounted, "read", "/proc/mounts")
	owner.boots(2) // EPHEMERAL was to be kept
	if testing.Short() {
		return
	}
	reset("EPHEMERAL")
	owner.sees(mounted, "read", "/proc/mounts")
	owner.boots(1) // what was in EPHEMERAL is gone
	reset("STATE,EPHEMERAL,META")
	b.shows("maintenance mode")
	third := b.fingerprint()
	if third == first || third == second {
		t.Error("after all was wiped the machine has a key from before")
	}
	b.stranger(third).applies(configuration)
	owner.sees(mounted, "read", "/proc/mounts")
	owner.boots(1)
}

// TestUnreadableDisk: a machine that was started from elsewhere, and whose only
// disk can't be read, may be installed on it. It says so, takes no configuration
// from strangers, and starts anew once the disk answers; a disk that is taken out
// counts no more.
func TestUnreadableDisk(t *testing.T) {
	l := enter(t)
	if l == nil {
		return
	}
	l.lease("box")
	b := l.machine(func(v *qemu.VM) {
		v.Disks = []qemu.Disk{{Path: filepath.Join(l.dir, "disk.raw"), Size: disk, From: l.image("talos-amd64.raw"), Serial: "is-sick", Unreadable: true}}
		v.Kernel = &qemu.Kernel{Image: l.image("vmlinuz"), Initrd: l.image("initramfs-full.zst"), Cmdline: strings.TrimSpace(string(l.read(l.image("cmdline"))))}
	})
	b.on()
	b.shows("not as it should be: disks: it is not known whether this machine has a configuration", "is-sick")
	if contains(b.console(), "waits for its first configuration") == nil {
		t.Error("the console asks for a configuration, which the machine does not take")
	}
	stranger, owner := b.stranger(b.fingerprint()), l.cluster()
	stranger.sees([]string{"it is not known whether", "is-sick", "talos.disks.unknown=ignore"}, "get", "diagnostics", "-o", "yaml")
	configuration := l.file("machine.yaml", owner.configuration())
	if text, err := stranger.try("apply-config", "-f", configuration); err == nil || contains(err.Error()+text, "it is not known whether this machine has a configuration, so it takes none", "is-sick") != nil {
		t.Errorf("apply-config while the disk can't be read: %s, %v", text, err)
	}
	b.forget()
	if err := b.Mend(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	b.shows("a disk that has only now answered", "Linux version", "volume mounted", "maintenance mode")
}

// TestSoakUserDisks: a reset wipes the disks that it names, alone or with the
// system's, and no other; what can't be meant is refused before anything happens.
func TestSoakUserDisks(t *testing.T) {
	l := enter(t)
	if l == nil {
		return
	}
	l.lease("box")
	l.tellTime()
	b := l.machine(func(v *qemu.VM) {
		v.Disks = []qemu.Disk{
			{Path: filepath.Join(l.dir, "system.raw"), Size: disk, From: l.image("talos-amd64.raw")},
			{Path: filepath.Join(l.dir, "nvme.raw"), Size: 1 << 30, Driver: "nvme", Serial: "is-nvme"},
			{Path: filepath.Join(l.dir, "sata.raw"), Size: 1 << 30, Driver: "sata", Serial: "is-sata"},
		}
	})
	b.on()
	owner := l.cluster()
	configuration := l.file("machine.yaml", owner.configuration(func(c *config.Config) {
		for _, device := range []string{"/dev/nvme0n1", "/dev/sda"} {
			c.Machine.Disks = append(c.Machine.Disks, config.ExtraDisk{Device: device, Partitions: []config.DiskPartition{{Mountpoint: "/var/mnt/" + filepath.Base(device)}}})
		}
	}))
	b.stranger(b.fingerprint()).applies(configuration)
	mounted := []string{"/dev/nvme0n1p1 /var/mnt/nvme0n1 xfs", "/dev/sda1 /var/mnt/sda xfs"}
	owner.sees(mounted, "read", "/proc/mounts")
	nvme, sata := owner.id("nvme0n1p1"), owner.id("sda1")
	b.forget()

	reset := []string{"reset", "--confirm", "test", "--graceful=false", "--reboot", "--wait=false"}
	for device, why := range map[string]string{
		"/dev/vda": "that is the system disk", "/dev/nvme0n1p1": "that is a partition of /dev/nvme0n1", "/dev/nvme7n1": "those that could be wiped are /dev/nvme0n1, /dev/sda",
	} {
		text, err := owner.try(append(reset, "--user-disks-to-wipe", "/dev/nvme0n1,"+device)...)
		if err == nil {
			t.Errorf("a reset that wipes %s is begun: %s", device, text)
		} else if err := contains(text, why); err != nil {
			t.Error(err)
		}
	}
	if err := contains(b.console(), "going down"); err == nil {
		t.Error("the machine goes down for what was refused")
	}

	owner.call(append(reset, "--wipe-mode", "user-disks", "--user-disks-to-wipe", "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_is-nvme")...)
	b.shows("Linux version")
	owner.sees(mounted, "read", "/proc/mounts")
	if now := owner.id("nvme0n1p1"); now == nvme {
		t.Errorf("after the disk by nvme was wiped its file system is the one from before, %s", now)
	}
	if now := owner.id("sda1"); now != sata {
		t.Errorf("the file system by sata, whose disk was not to be wiped, is %s, was %s", now, sata)
	}
	owner.boots(2) // EPHEMERAL was to be kept

	b.forget()
	nvme = owner.id("nvme0n1p1")
	owner.call(append(reset, "--user-disks-to-wipe", "/dev/sda")...)
	b.shows("Linux version", "maintenance mode")
	b.stranger(b.fingerprint()).applies(configuration)
	owner.sees(mounted, "read", "/proc/mounts")
	if now := owner.id("sda1"); now == sata {
		t.Errorf("after all and the disk by sata were wiped its file system is the one from before, %s", now)
	}
	if now := owner.id("nvme0n1p1"); now != nvme {
		t.Errorf("the file system by nvme, whose disk was not to be wiped, is %s, was %s", now, nvme)
	}
}

// boots waits until there are logs of n boots.
func (c caller) boots(n int) {
	c.lab.Helper()
	c.lab.eventually(soon, func() error {
		text, err := c.try("get", "boots")
		if err != nil {
			return err
		}
		if got := strings.Count(text, "BootRecord"); got != n {
			return fmt.Errorf("there are logs of %d boots, want %d:\n%s", got, n, text)
		}
		return nil
	})
}

var fileSystemID = regexp.MustCompile(`\n  uuid: ([0-9a-f-]{36})\n`)

// id waits until a partition is seen to have a file system, and returns its id.
func (c caller) id(partition string) (id string) {
	c.lab.Helper()
	c.lab.eventually(soon, func() error {
		text, err := c.try("get", "discoveredvolumes", partition, "-o", "yaml")
		if err != nil {
			return err
		}
		found := fileSystemID.FindStringSubmatch(text)
		if found == nil {
			return fmt.Errorf("partition %s has no file system with an id:\n%s", partition, text)
		}
		id = found[1]
		return nil
	})
	return id
}

// row is the line of a table that has a word in it.
func row(table, word string) string {
	for line := range strings.Lines(table) {
		if slices.Contains(strings.Fields(line), word) {
			return line
		}
	}
	return ""
}
