// Package power ends the life of the kernel, or of the PID namespace that a
// node in a container has for one.
//
// It owns layout.PowerFile, by which the supervisor of a container learns what
// the node asked for even if it was not there to see it. It stops nothing
// before: that is package sequence's.
package power

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/linux/atomicfile"
)

// Action is how a machine goes down.
type Action string

// The actions, as they are written to the power file.
const (
	Reboot   Action = "reboot"
	PowerOff Action = "poweroff"
)

// Note writes the action to file, so that it is there after a loss of power.
func Note(file string, a Action) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return atomicfile.Save(file, []byte(a+"\n"), 0o600)
}

// Down is reboot(2): it does not return where it is allowed. In a PID namespace
// it kills init, with SIGHUP for a restart and SIGINT for power off.
func Down(a Action) error {
	command := unix.LINUX_REBOOT_CMD_RESTART
	if a == PowerOff {
		command = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	return os.NewSyscallError("reboot", unix.Reboot(command))
}

// forced is how long the kernel's orderly way down may take, and each way that
// is tried after it: a driver that does not let go of its device would keep the
// machine up for ever.
const forced = 15 * time.Second

// MachineDown is Down for a machine of its own: when reboot(2) hangs, the kernel
// is told to go down without asking anybody (Documentation/admin-guide/sysrq.rst).
// File systems were synced before.
func MachineDown(a Action) error {
	time.AfterFunc(forced, func() {
		for _, key := range keys(a) {
			// The last resort: what it returns helps nobody.
			_ = os.WriteFile("/proc/sysrq-trigger", []byte(key), 0)
			time.Sleep(forced)
		}
	})
	return Down(a)
}

// keys are those of SysRq that end the kernel. Turning off asks the drivers once
// more and may hang where reboot(2) does; a machine that starts again is better
// than one that can't be reached and stays on.
func keys(a Action) []string {
	if a == PowerOff {
		return []string{"o", "b"}
	}
	return []string{"b"}
}

// KeepControlAltDelete makes the kernel tell PID 1 of Ctrl-Alt-Del by a SIGINT
// instead of restarting at once. In a container it is not allowed.
func KeepControlAltDelete() error {
	return os.NewSyscallError("reboot", unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))
}
