// Package qemu runs machines as virtual machines of QEMU: with UEFI firmware
// and variables of their own, real disks, a serial console, and where asked for
// a TPM. It makes their files, starts them detached, finds them again, presses
// their buttons, and clears away what they left.
//
// A virtual machine stays one process over reboots, so that what firmware, TPM
// and watchdog remember is kept; only turning it off ends the process. QEMU
// itself writes down what happens to the machine (see Events), so nobody has to
// be there when it ends. Nothing here is kept in memory. Calls for one machine
// must not overlap, except those that only look; those for different machines may.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/loop"
	"talos/internal/provision/process"
)

// Program is what runs the machines.
const Program = "qemu-system-x86_64"

// startPatience is how long QEMU may take until its control socket answers.
const startPatience = 20 * time.Second

// VM is one virtual machine: a description, from which everything follows.
type VM struct {
	Name     string // for process lists
	UUID     string // of the SMBIOS system, RFC 9562 form
	Serial   string // of the SMBIOS system
	Dir      string // of the machine's own: firmware variables, TPM, control socket, records
	Log      string // file that the serial console is appended to
	CPUs     int    // 1 when 0
	Memory   int64  // bytes
	Accel    Accel
	Firmware Firmware
	Disks    []Disk // the first is what the firmware starts from
	CD       string // ISO image in the drive; started from where no disk can be
	Kernel   *Kernel
	Links    []Link
	TPM      bool      // a TPM 2.0, by swtpm
	Screen   bool      // a graphics card, for Screenshot
	Clock    time.Time // what the clock says at power-on; the host's when zero
}

// Kernel is a kernel that the firmware is handed, in place of what it finds. Any
// user of the host sees the command line in the list of processes.
type Kernel struct {
	Image   string
	Initrd  string
	Cmdline string
}

// Link is a network interface.
type Link struct {
	MAC string
	// Tap is the link of the host that it is plugged into. With none it is in a
	// network of its own that reaches nobody; Forwards lead into it.
	Tap      string
	Forwards []Forward
}

// Forward leads from a TCP port of the host's loopback to one of the machine.
type Forward struct{ Host, Guest uint16 }

func (v VM) run() string     { return filepath.Join(v.Dir, "run") }
func (v VM) record() string  { return filepath.Join(v.run(), "process.json") }
func (v VM) events() string  { return filepath.Join(v.run(), "events.json") }
func (v VM) stderr() string  { return filepath.Join(v.run(), "qemu.log") }
func (v VM) vars() string    { return filepath.Join(v.Dir, "efivars.fd") }
func (v VM) tpmDir() string  { return filepath.Join(v.Dir, "tpm") }
func (v VM) control() string { return filepath.Join(v.run(), controlSocket) }

// Sockets are named relative to run(), where QEMU runs: full paths may be longer
// than the kernel takes.
const (
	controlSocket = "control"
	tpmSocket     = "tpm"
)

// Prepare makes what is missing of the machine's files: firmware variables,
// disks. Disks that are too small are grown.
func (v VM) Prepare() error {
	for _, dir := range []string{v.Dir, v.run(), v.tpmDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if _, err := os.Stat(v.vars()); errors.Is(err, fs.ErrNotExist) {
		if err := CopyImage(v.vars(), v.Firmware.Vars); err != nil {
			return err
		}
	}
	for _, d := range v.Disks {
		if err := d.ensure(); err != nil {
			return err
		}
	}
	return nil
}

// Start turns the machine on and returns its process, once it can be controlled.
func (v VM) Start(ctx context.Context) (process.ID, error) {
	if p, running := v.Running(); running {
		return process.ID{}, fmt.Errorf("start virtual machine %s: it runs, as process %d", v.Name, p.PID)
	}
	if err := v.Prepare(); err != nil {
		return process.ID{}, err
	}
	if err := v.Clear(ctx); err != nil {
		return process.ID{}, err
	}
	if v.TPM {
		if err := v.startTPM(ctx); err != nil {
			return process.ID{}, err
		}
	}
	p, err := v.spawn()
	if err == nil {
		err = v.waitControl(ctx, p)
	}
	if err != nil {
		return process.ID{}, errors.Join(fmt.Errorf("start virtual machine %s: %w", v.Name, err), v.Kill(context.WithoutCancel(ctx)))
	}
	return p, nil
}

// spawn starts QEMU. Its standard input and output are a control connection that
// nobody is at: it says hello and from then on only gets events, into a file.
func (v VM) spawn() (process.ID, error) {
	args, err := v.args()
	if err != nil {
		return process.ID{}, err
	}
	hello, err := os.CreateTemp(v.run(), "hello")
	if err != nil {
		return process.ID{}, err
	}
	defer hello.Close()
	defer os.Remove(hello.Name())
	if _, err := hello.WriteString(`{"execute":"qmp_capabilities"}` + "\n"); err != nil {
		return process.ID{}, err
	}
	if _, err := hello.Seek(0, io.SeekStart); err != nil {
		return process.ID{}, err
	}
	if err := v.ClearPower(); err != nil {
		return process.ID{}, err
	}
	events, err := os.OpenFile(v.events(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return process.ID{}, err
	}
	defer events.Close()
	stderr, err := os.OpenFile(v.stderr(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return process.ID{}, err
	}
	defer stderr.Close()
	return spawn(v.record(), v.run(), Program, args, hello, events, stderr)
}

// spawn starts a program detached, in dir, and records its process.
func spawn(record, dir, program string, args []string, stdin, stdout, stderr *os.File) (process.ID, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return process.ID{}, err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return process.ID{}, err
	}
	defer cmd.Process.Release() // whoever waits for it does so by its record
	p, err := process.Find(cmd.Process.Pid)
	if err != nil {
		return process.ID{}, fmt.Errorf("%s ended at once: %s", program, lastLine(stderr.Name()))
	}
	return p, p.Record(record)
}

// waitControl returns when QEMU answers, or with what it says when it ends.
func (v VM) waitControl(ctx context.Context, p process.ID) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		m, err := v.dial(ctx)
		if err == nil {
			m.close()
			return nil
		}
		if !p.Alive() {
			p.Reap()
			return fmt.Errorf("%s ended: %s", Program, lastLine(v.stderr()))
		}
		if !loop.Sleep(ctx, 5*time.Millisecond) {
			return fmt.Errorf("%s does not answer: %w", Program, err)
		}
	}
}

// lastLine is what a program had to say last.
func lastLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], Program+": ")
}

// Running returns the machine's process, or false.
func (v VM) Running() (process.ID, bool) { return process.Recorded(v.record()) }

// Wait returns when the machine is off.
func (v VM) Wait(ctx context.Context) error {
	p, running := v.Running()
	if !running {
		return nil
	}
	h, err := p.Open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.Wait(ctx); err != nil {
		return err
	}
	p.Reap()
	return nil
}

// End cuts the machine's power.
func (v VM) End(ctx context.Context) error { return end(ctx, v.record()) }

// end kills a recorded process and waits for it to be gone.
func end(ctx context.Context, record string) error {
	p, running := process.Recorded(record)
	if !running {
		p.Reap() // it may have ended by itself
		return nil
	}
	h, err := p.Open()
	if errors.Is(err, os.ErrProcessDone) {
		p.Reap()
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.Signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	if err := h.Wait(ctx); err != nil {
		return fmt.Errorf("wait for process %d to end: %w", p.PID, err)
	}
	p.Reap()
	return nil
}

// Clear removes what an ended machine left behind; what it remembers stays.
func (v VM) Clear(ctx context.Context) error {
	if err := end(ctx, v.tpmRecord()); err != nil {
		return err
	}
	for _, f := range []string{v.record(), v.tpmRecord(), v.control(), filepath.Join(v.run(), tpmSocket)} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Kill cuts the machine's power, and clears away what it leaves behind.
func (v VM) Kill(ctx context.Context) error {
	if err := v.End(ctx); err != nil {
		return err
	}
	return v.Clear(ctx)
}
