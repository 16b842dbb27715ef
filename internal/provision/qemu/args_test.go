package qemu

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// plain is a machine without anything that is optional.
func plain() VM {
	return VM{
		Name: "a,b", UUID: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", Serial: "s1", Dir: "/d", Log: "/l,og", Memory: 1 << 30, Accel: Emulated,
		Firmware: Firmware{Code: "/code.fd", Vars: "/vars.fd"},
	}
}

// differ shows what a change adds to the command line, and what it takes away.
func differ(t *testing.T, change func(*VM)) (added, removed []string) {
	t.Helper()
	count := map[string]int{}
	base, changed := plain(), plain()
	change(&changed)
	before, err := base.args()
	if err != nil {
		t.Fatal(err)
	}
	after, err := changed.args()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range before {
		count[a]++
	}
	for _, a := range after {
		if count[a]--; count[a] < 0 {
			added = append(added, a)
		}
	}
	for _, a := range before {
		if count[a] > 0 {
			removed, count[a] = append(removed, a), 0
		}
	}
	return added, removed
}

func TestArgs(t *testing.T) {
	for name, tc := range map[string]struct {
		change         func(*VM)
		added, removed string
	}{
		"kvm":      {func(v *VM) { v.Accel = KVM }, "kvm host", "tcg,thread=multi max"},
		"size":     {func(v *VM) { v.CPUs, v.Memory = 4, 1536<<20 }, "4 1536M", "1 1024M"},
		"1970":     {func(v *VM) { v.Clock = time.Unix(0, 0) }, "base=1970-01-01T00:00:00", "base=utc"},
		"secure":   {func(v *VM) { v.Firmware.Secure = true }, "q35,smm=on -global driver=cfi.pflash01,property=secure,value=on", "q35,smm=off"},
		"screen":   {func(v *VM) { v.Screen = true }, "-device VGA", ""},
		"tpm":      {func(v *VM) { v.TPM = true }, "-chardev socket,id=tpm,path=tpm -tpmdev emulator,id=tpm,chardev=tpm -device tpm-crb,tpmdev=tpm", ""},
		"kernel":   {func(v *VM) { v.Kernel = &Kernel{Image: "/k", Initrd: "/i", Cmdline: "quiet"} }, "-kernel /k -append quiet -initrd /i", ""},
		"tap":      {func(v *VM) { v.Links = []Link{{MAC: "m", Tap: "tap0"}} }, "-netdev tap,id=net0,script=no,downscript=no,ifname=tap0 -device virtio-net-pci,romfile=,netdev=net0,mac=m", ""},
		"forwards": {func(v *VM) { v.Links = []Link{{MAC: "m", Forwards: []Forward{{1, 2}}}} }, "-netdev user,restrict=on,id=net0,hostfwd=tcp:127.0.0.1:1-:2 -device virtio-net-pci,romfile=,netdev=net0,mac=m", ""},
		"cd": {func(v *VM) { v.CD = "/iso" }, `-blockdev {"detect-zeroes":"unmap","discard":"unmap","driver":"raw","file":{"discard":"unmap","driver":"file","filename":"/iso","read-only":true},"node-name":"cd","read-only":true}` +
			" -device ide-cd,bus=ide.5,drive=cd,bootindex=1", ""},
		"disk": {func(v *VM) { v.Disks = []Disk{{Path: "/disk", Serial: "s"}} }, `-blockdev {"detect-zeroes":"unmap","discard":"unmap","driver":"raw","file":{"discard":"unmap","driver":"file","filename":"/disk","read-only":false},"node-name":"disk0","read-only":false}` +
			" -device virtio-blk-pci,id=device0,drive=disk0,serial=s,bootindex=1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			added, removed := differ(t, tc.change)
			if diff := cmp.Diff(tc.added, strings.Join(added, " ")); diff != "" {
				t.Errorf("added (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.removed, strings.Join(removed, " ")); diff != "" {
				t.Errorf("removed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestArgsRefused(t *testing.T) {
	v := plain()
	v.Disks = []Disk{{Path: "/disk", Unreadable: true}}
	if a, err := v.args(); err != nil || !strings.Contains(strings.Join(a, " "), `"file":{"driver":"blkdebug"`) {
		t.Errorf("args of a disk that can't be read = %q, %v", a, err)
	}
	v.Disks = []Disk{{Driver: "floppy"}}
	if _, err := v.args(); err == nil || !strings.Contains(err.Error(), "want one of virtio, scsi, nvme, sata, usb") {
		t.Errorf("args with a floppy = %v, want an error", err)
	}
	v.Disks = make([]Disk, 6)
	v.Disks[5].Driver = "sata"
	if _, err := v.args(); err == nil || !strings.Contains(err.Error(), "at most 5") {
		t.Errorf("args with a sixth sata disk = %v, want an error", err)
	}
}

func TestDevice(t *testing.T) {
	for driver, want := range map[string]string{"virtio": "/dev/vda", "nvme": "/dev/nvme0n1", "sata": "/dev/sda"} {
		if got := Device(driver); got != want {
			t.Errorf("Device(%s) = %s, want %s", driver, got, want)
		}
	}
}
