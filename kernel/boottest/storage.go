package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"talos/internal/cmdline"
)

func storageChecks() []check {
	return []check{
		{"file systems", holds("/proc/filesystems", "squashfs", "overlay", "xfs", "ext4", "ext2", "vfat", "iso9660", "tmpfs", "fuse", "nfs4", "ceph",
			"proc", "sysfs", "cgroup2", "bpf", "pstore", "mqueue", "hugetlbfs", "autofs", "tracefs")},
		{"device mapper", deviceMapper},
		{"squashfs", squashfs},
		{"overlay", overlay},
		{"extended attributes on tmpfs", func() error { return unix.Setxattr("/tmp", "user.x", []byte("y"), 0) }},
		{"raid", holds("/proc/mdstat", "[raid0]", "[raid1]", "[raid10]", "[raid6]", "[raid5]", "[raid4]")},
		{"disks", func() error { return patiently(disks) }},
		{"ciphers", ciphers},
	}
}

// deviceMapper asks for the targets that are built in.
func deviceMapper() error {
	dm, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dm.Close()
	const listVersions = 0xc138fd0d // DM_LIST_VERSIONS
	buf := make([]byte, 16<<10)
	put := func(at int, v uint32) { *(*uint32)(unsafe.Pointer(&buf[at])) = v }
	put(0, 4)                 // version[0]
	put(12, uint32(len(buf))) // data_size
	put(16, 312)              // data_start: behind struct dm_ioctl
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dm.Fd(), listVersions, uintptr(unsafe.Pointer(&buf[0]))); errno != 0 {
		return fmt.Errorf("list targets: %w", errno)
	}
	var errs []error
	for _, target := range []string{"verity", "crypt", "linear", "snapshot", "thin", "thin-pool", "multipath", "raid", "integrity"} {
		if !bytes.Contains(buf[312:], []byte("\x00"+target+"\x00")) {
			errs = append(errs, fmt.Errorf("no target %s", target))
		}
	}
	return errors.Join(errs...)
}

// squashfs mounts the image that came with this program, through a loop device.
func squashfs() error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("free loop device: %w", err)
	}
	image, err := os.Open("/image.squashfs")
	if err != nil {
		return err
	}
	defer image.Close()
	name := fmt.Sprint("/dev/loop", n)
	loop, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer loop.Close()
	config := unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY}}
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	if err := os.Mkdir("/image", 0o755); err != nil {
		return err
	}
	if err := unix.Mount(name, "/image", "squashfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s: %w", name, err)
	}
	return holds("/image/file", "content")()
}

// overlay writes over the mounted image.
func overlay() error {
	for _, dir := range []string{"/tmp/upper", "/tmp/work", "/merged"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount("overlay", "/merged", "overlay", "lowerdir=/image,upperdir=/tmp/upper,workdir=/tmp/work"); err != nil {
		return err
	}
	if err := os.WriteFile("/merged/file", []byte("changed\n"), 0o644); err != nil {
		return err
	}
	return errors.Join(holds("/tmp/upper/file", "changed")(), holds("/image/file", "content")())
}

// patiently asks again: sticks are looked at a second after they are found
// (usb_storage.delay_use).
func patiently(ask func() error) error {
	err := ask()
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); err = ask() {
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// disks looks for one behind each driver. "want.disks" of the command line are
// the drivers, which are the names of folders below /sys/bus.
func disks() error {
	links, err := filepath.Glob("/sys/block/*")
	if err != nil {
		return err
	}
	var drivers []string
	for _, link := range links {
		path, err := filepath.EvalSymlinks(link)
		if err != nil {
			return err
		}
		for ; path != "/sys/devices"; path = filepath.Dir(path) {
			if driver, err := os.Readlink(path + "/driver"); err == nil {
				drivers = append(drivers, filepath.Base(driver))
			}
		}
	}
	return wanted("want.disks", drivers)
}

// wanted compares drivers with the argument that names those that must be there.
func wanted(argument string, have []string) error {
	line, err := cmdline.Read()
	if err != nil {
		return err
	}
	want, ok := line.Last(argument)
	if !ok {
		return errors.New("no argument " + argument)
	}
	missing := slices.DeleteFunc(strings.Split(want, ","), func(driver string) bool { return slices.Contains(have, driver) })
	if len(missing) > 0 {
		return fmt.Errorf("nothing by %v, only by %v", missing, slices.Compact(slices.Sorted(slices.Values(have))))
	}
	return nil
}

// ciphers are those of LUKS2 and IPsec; the kernel lists what is built in.
func ciphers() error {
	data, err := os.ReadFile("/proc/crypto")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range []string{"aes", "xts(aes)", "sha256", "sha512", "chacha20"} {
		if !bytes.Contains(data, []byte(": "+name+"\n")) {
			errs = append(errs, fmt.Errorf("no %s", name))
		}
	}
	return errors.Join(errs...)
}
