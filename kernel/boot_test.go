package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The machine that boottest looks at has a disk and a card behind every driver
// that the emulator has devices for.
var (
	disks = []struct {
		driver  string
		devices []string // DRIVE stands for the id of the disk's drive
	}{
		{"virtio_blk", []string{"virtio-blk-pci,drive=DRIVE"}},
		{"virtio_scsi", []string{"virtio-scsi-pci,id=vs", "scsi-hd,bus=vs.0,drive=DRIVE"}},
		{"nvme", []string{"nvme,serial=n1,drive=DRIVE"}},
		{"ahci", []string{"ich9-ahci,id=sata", "ide-hd,bus=sata.0,drive=DRIVE"}},
		{"ata_piix", []string{"ide-hd,bus=ide.0,drive=DRIVE"}},
		{"megaraid_sas", []string{"megasas,id=mr", "scsi-hd,bus=mr.0,drive=DRIVE"}},
		{"vmw_pvscsi", []string{"pvscsi,id=pv", "scsi-hd,bus=pv.0,drive=DRIVE"}},
		{"usb-storage", []string{"qemu-xhci,id=usb", "usb-storage,bus=usb.0,drive=DRIVE"}},
		{"uas", []string{"usb-uas,id=ua,bus=usb.0", "scsi-hd,bus=ua.0,drive=DRIVE"}},
	}
	cards = []struct{ driver, device string }{
		{"virtio_net", "virtio-net-pci"}, {"e1000", "e1000"}, {"e1000e", "e1000e"}, {"vmxnet3", "vmxnet3"},
	}
)

// TestBoots starts the kernel in an emulated machine with boottest as /init, and
// reads what it says on the serial console.
func TestBoots(t *testing.T) {
	vmlinuz := filepath.Join(filepath.Dir(built(t)), "vmlinuz")
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatalf("%v, and REQUIRE_IMAGE=1", err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, machine(t, dir, vmlinuz)...)
	cmd.WaitDelay = 5 * time.Second
	start := time.Now()
	console, err := cmd.CombinedOutput()
	t.Logf("the machine ran for %v", time.Since(start).Round(time.Second))
	if err != nil {
		t.Errorf("%s: %v", qemu, errors.Join(err, ctx.Err()))
	}
	results := regexp.MustCompile(`(?m)^check: ([^:\r\n]+): (.*?)\r?$`).FindAllSubmatch(console, -1)
	for _, result := range results {
		if string(result[2]) != "ok" {
			t.Errorf("%s: %s", result[1], result[2])
		}
	}
	if n := len(results); n < 50 || string(results[n-1][1]) != "end" {
		t.Errorf("%d checks, and the last of them is not the end", n)
	}
	if t.Failed() {
		t.Logf("console:\n%s", console)
	}
}

// machine makes the files of a machine below dir and returns qemu's arguments.
func machine(t *testing.T, dir, vmlinuz string) []string {
	t.Helper()
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768", "-nodefaults", "-display", "none", "-no-reboot",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console", "-vga", "std",
		"-device", "virtio-rng-pci", "-device", "i6300esb",
		"-device", "virtio-serial-pci", "-chardev", "null,id=hvc", "-device", "virtconsole,chardev=hvc",
		"-kernel", vmlinuz, "-initrd", initramfs(t, dir),
	}
	var diskDrivers, cardDrivers []string
	for _, disk := range disks {
		file := filepath.Join(dir, disk.driver)
		if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-drive", "if=none,format=raw,id="+disk.driver+",file="+file)
		for _, device := range disk.devices {
			args = append(args, "-device", strings.ReplaceAll(device, "DRIVE", disk.driver))
		}
		diskDrivers = append(diskDrivers, disk.driver)
	}
	for _, card := range cards {
		args = append(args, "-device", card.device)
		cardDrivers = append(cardDrivers, card.driver)
	}
	return append(args, "-append", strings.Join([]string{"console=ttyS0 panic=-1 loglevel=4 slab_nomerge pti=on init_on_alloc=1 proc_mem.force_override=never",
		"want.disks=" + strings.Join(diskDrivers, ","), "want.cards=" + strings.Join(cardDrivers, ",")}, " "))
}

// initramfs packs boottest as /init and a SquashFS image for it to mount.
func initramfs(t *testing.T, dir string) string {
	t.Helper()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	init, image, tree := filepath.Join(dir, "init"), filepath.Join(dir, "image"), filepath.Join(dir, "tree")
	run("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", init, "./boottest")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "file"), bytes.Repeat([]byte("content\n"), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	run("mksquashfs", tree, image, "-comp", "zstd", "-noappend", "-quiet")
	var archive bytes.Buffer
	entry(&archive, "dev", 0o040755, nil)
	device(&archive, "dev/console", 5, 1)
	for name, file := range map[string]string{"init": init, "image.squashfs": image} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		entry(&archive, name, 0o100755, data)
	}
	entry(&archive, "TRAILER!!!", 0, nil)
	name := filepath.Join(dir, "initramfs")
	if err := os.WriteFile(name, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// entry writes one file of a cpio archive of the kind that kernels unpack ("newc").
func entry(w *bytes.Buffer, name string, mode uint32, data []byte) {
	header(w, name, mode, len(data), 0, 0)
	w.Write(data)
	pad(w)
}

func device(w *bytes.Buffer, name string, major, minor uint32) {
	header(w, name, 0o020600, 0, major, minor)
}

func header(w *bytes.Buffer, name string, mode uint32, size int, major, minor uint32) {
	w.WriteString("070701")
	// inode, mode, user, group, links, time, size, device of the file system, of the node, length of the name, sum
	for _, v := range []uint32{uint32(w.Len()), mode, 0, 0, 1, 0, uint32(size), 0, 0, major, minor, uint32(len(name) + 1), 0} {
		fmt.Fprintf(w, "%08x", v)
	}
	w.WriteString(name + "\x00")
	pad(w)
}

func pad(w *bytes.Buffer) { w.Write(make([]byte, -w.Len()&3)) }
