// Package metal is what a node has that is a machine of its own and no
// container: a kernel to be hardened, devices, a system disk, a watchdog.
//
// It puts packages together that each know one of these, and keeps what the
// rest of machined asks of them. Installation is package setup's. A Machine is
// prepared by the boot, one step at a time; afterwards it may be read by
// anybody.
package metal

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"talos/internal/bootlog"
	"talos/internal/cmdline"
	"talos/internal/hardening"
	"talos/internal/linux/watchdog"
	"talos/internal/meta"
	"talos/internal/udevd"
	"talos/internal/udevd/linkname"
	"talos/internal/volume"
)

const procSys = "/proc/sys"

// Machine is this machine.
type Machine struct {
	Log *slog.Logger
	// Timer is nil where the machine has no watchdog.
	Timer *watchdog.Watchdog
	// Heart feeds it, once the machine has booted.
	Heart *Heart
	// Udev is there from Devices on.
	Udev *udevd.Daemon
	// LetGo has machined itself use nothing on EPHEMERAL any more, before that is
	// wiped; nil until it does.
	LetGo func()
	storage
	start func(name string, run func(context.Context) error)
}

// New takes over the machine from the initramfs. run runs a program to its end,
// start keeps something running for as long as the machine is up.
func New(log *slog.Logger, run volume.Run, start func(name string, run func(context.Context) error)) *Machine {
	m := &Machine{Log: log, Timer: Watchdog(log), Heart: NewHeart(log, nil), storage: storage{run: run, meta: meta.New()}, start: start}
	if m.Timer != nil {
		m.Heart = NewHeart(log, m.Timer)
	}
	return m
}

// Harden refuses a kernel that was started without what hardening needs, and
// sets its parameters.
func (m *Machine) Harden(context.Context) error {
	line, err := cmdline.Read()
	if err != nil {
		return err
	}
	if err := hardening.CheckCmdline(line); err != nil {
		return err
	}
	if err := hardening.Apply(procSys); err != nil {
		return err
	}
	if err := hardening.Defaults(procSys); err != nil {
		m.Log.Warn("the kernel keeps some of its own parameters", "err", err)
	}
	return nil
}

// settleTime is how long what is plugged in may take to be known, less than the
// boot gives the step.
const settleTime = 45 * time.Second

// Devices starts the keeper of /dev, and waits until everything that is plugged
// in has its nodes and links. One broken disk must not keep the machine down: the
// boot goes on without those that take too long.
func (m *Machine) Devices(ctx context.Context) error {
	line, err := cmdline.Read()
	if err != nil {
		return err
	}
	accounts, err := udevd.ReadAccounts("/etc")
	if err != nil {
		return err
	}
	m.Udev = udevd.New(udevd.Options{Log: m.Log, KernelNames: linkname.Kernel(line), Accounts: accounts})
	m.start("udevd", m.Udev.Run)
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := m.Udev.Settle(ctx); err != nil {
		m.Log.Error("not every device is known yet", "err", err)
	}
	return nil
}

// BootID is the kernel's random id of this boot.
func (m *Machine) BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		m.Log.Warn("read the boot's id", "err", err)
	}
	return strings.TrimSpace(string(id))
}

// Evidence is what is left of the end of the last boot.
func (m *Machine) Evidence() bootlog.Evidence {
	e := bootlog.Evidence{Pstore: "/sys/fs/pstore"}
	if m.Timer != nil {
		e.Watchdog = m.Timer.Expired()
	}
	return e
}
