// Guest is PID 1 of the virtual machines of package invm. Its argument says
// what it does:
//
//	tests   run the programs that /tests/list.json names, then turn the machine off
//	reboot  mount a disk; when told that it is frozen, restart the machine
//	off     the same, but turn it off
//	stuck   restart it, but with nothing to fall back on when reboot(2) hangs
//	clean   mount a disk, and restart the machine
//
// The last four are put together as machined puts them together. Not part of any
// image.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/linux/mount"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "sync" { // see occupy
		unix.Sync()
		return
	}
	if os.Getpid() != 1 || len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "guest: runs as PID 1 of a virtual machine that is tried, and only there")
		os.Exit(1)
	}
	run := map[string]func() error{"tests": tests, "reboot": reboot, "off": off, "stuck": stuck, "clean": clean}[os.Args[1]]
	err := prepare()
	if err == nil && run == nil {
		err = fmt.Errorf("what is %q", os.Args[1])
	}
	if err == nil {
		err = run()
	}
	say("end: %v", err)
	say("power off: %v", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
	time.Sleep(time.Hour) // a first process that ended would be a panic
}

func say(format string, args ...any) { fmt.Printf("guest: "+format+"\n", args...) }

// prepare mounts what programs expect. The root is read-only.
func prepare() error {
	points := []mount.Point{
		{Source: "proc", Target: "/proc", Type: "proc"},
		{Source: "sysfs", Target: "/sys", Type: "sysfs"},
		{Source: "devtmpfs", Target: "/dev", Type: "devtmpfs"},
		{Source: "tmpfs", Target: "/run", Type: "tmpfs"},
		{Source: "tmpfs", Target: "/tmp", Type: "tmpfs", Data: "mode=1777"},
		{Source: "tmpfs", Target: "/system", Type: "tmpfs"},
		{Source: "cgroup2", Target: "/sys/fs/cgroup", Type: "cgroup2"},
		{Source: "tmpfs", Target: "/dev/shm", Type: "tmpfs", Data: "mode=1777"},
	}
	var errs []error
	for _, p := range points {
		if err := os.MkdirAll(p.Target, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, p.Mount())
	}
	errs = append(errs, os.Setenv("PATH", "/usr/bin"), os.Setenv("HOME", "/tmp"))
	return errors.Join(errs...)
}
