package invm

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the way down is made of.
const (
	limit    = 5 * time.Second  // sequence.MinDeadline, which the guest asks for: reboot(2) is called then
	forced   = 15 * time.Second // after which package power presses a key of SysRq, and the next one
	overdue  = 10 * time.Second // how long after the limit the watchdog is fed no more, see sequence.Overdue
	hangTime = time.Minute      // how long it waits then
	patience = 4 * time.Second  // how long it waits where the guest says so
	early    = 10 * time.Second // by which what is seen of the guest may come late
	slow     = 45 * time.Second // for the emulation, on a machine that does other things
)

// A freezer serves disks that can stop answering, as one does whose cable or
// controller is broken: a process that can be stopped.
type freezer struct {
	socket string
	server *os.Process
}

// newFreezer serves files, each by its name.
func newFreezer(t *testing.T, files ...string) *freezer {
	t.Helper()
	dir, err := os.MkdirTemp("", "invm") // names of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{socket: filepath.Join(dir, "nbd")}
	args := []string{"--nbd-server", "addr.type=unix,addr.path=" + f.socket}
	for _, file := range files {
		name := filepath.Base(file)
		args = append(args, "--blockdev", "driver=file,node-name="+name+",filename="+file, "--export", "type=nbd,id="+name+",node-name="+name+",name="+name+",writable=on")
	}
	cmd := exec.Command(look(t, "qemu-storage-daemon"), args...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.server = cmd.Process
	t.Cleanup(func() {
		// It may have ended by itself.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(f.socket); err == nil {
			return f
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// disk is where QEMU finds a file that is served.
func (f *freezer) disk(file string) string {
	return "nbd+unix:///" + filepath.Base(file) + "?socket=" + f.socket
}

func (f *freezer) signal(t *testing.T, sig unix.Signal) {
	t.Helper()
	if err := f.server.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// goesDown has a guest go down while its disk is frozen, and where so asked for
// its root too. It returns what happened to the machine from then on, and how
// long it took.
func goesDown(t *testing.T, argument string, all bool) (m *vm, events []event, took time.Duration) {
	t.Helper()
	system, disk := root(t, []string{"/usr/sbin/mkfs.xfs"}, nil), empty(t)
	served := []string{disk}
	if all {
		served = append(served, system)
	}
	f := newFreezer(t, served...)
	if all {
		system = f.disk(system)
	}
	m = start(t, 4*time.Minute, system, argument,
		"-device", "virtio-scsi-pci", "-drive", "if=none,id=disk,format=raw,file="+f.disk(disk), "-device", "scsi-hd,drive=disk")
	t.Cleanup(func() { _ = f.server.Signal(unix.SIGCONT) }) // else QEMU would wait for it
	m.says(t, "guest: waits for the disk to freeze")
	f.signal(t, unix.SIGSTOP)
	if _, err := m.stdin.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	m.says(t, "guest: goes down")
	began := time.Now()
	events = m.until(t, "SHUTDOWN", 2*time.Minute)
	took = events[len(events)-1].time().Sub(began)
	f.signal(t, unix.SIGCONT)
	m.wait(t)
	t.Logf("down after %v", took.Round(10*time.Millisecond))
	return m, events, took
}

// hung says whether a step of the way down was given up.
func (m *vm) hung(step string) bool {
	return regexp.MustCompile(`optional step did not succeed.* step="?` + step + `"? err="context deadline exceeded`).MatchString(m.console.String())
}

func (m *vm) said(text string) bool { return strings.Contains(m.console.String(), text) }

func happened(events []event, name string) bool {
	return slices.ContainsFunc(events, func(e event) bool { return e.Event == name })
}

// TestFrozenDisk: the disk does not answer, nothing that was written is on it, a
// process hangs in the kernel, and so does reboot(2), which flushes the disk.
// The machine goes down in time nevertheless: SysRq asks nobody. Turned off, it
// starts again, since that asks the disk too.
func TestFrozenDisk(t *testing.T) {
	t.Parallel() // all of these mostly wait
	for argument, want := range map[string]struct {
		key string
		in  time.Duration
	}{"reboot": {"Resetting", limit + forced}, "off": {"Power Off", limit + 2*forced}} {
		t.Run(argument, func(t *testing.T) {
			t.Parallel()
			m, events, took := goesDown(t, argument, false)
			if took < want.in-early || took > want.in+slow {
				t.Errorf("it took %v, want %v", took, want.in)
			}
			for _, step := range []string{"note action", "kill what is left", "sync"} {
				if !m.hung(step) {
					t.Errorf("the step %q has not hung", step)
				}
			}
			if !m.said("sysrq: "+want.key) || !m.said("sysrq: Resetting") || m.said("reboot: Restarting system") || m.said("reboot: Power down") {
				t.Error("it was not SysRq that ended the kernel")
			}
			if got := events[len(events)-1].Data.Reason; got != "guest-reset" || happened(events, "WATCHDOG") {
				t.Errorf("events = %v, want guest-reset", events)
			}
		})
	}
}

// TestUnmounted: on the way down all that is on the disk is unmounted, STATE too,
// so that nothing has to be replayed at the next start.
func TestUnmounted(t *testing.T) {
	t.Parallel()
	disk := empty(t)
	m := start(t, 2*time.Minute, root(t, []string{"/usr/sbin/mkfs.xfs"}, nil), "clean",
		"-device", "virtio-scsi-pci", "-drive", "if=none,id=disk,format=raw,file="+disk, "-device", "scsi-hd,drive=disk")
	m.until(t, "SHUTDOWN", 2*time.Minute)
	m.wait(t)
	if m.said("did not succeed") {
		t.Error("something on the way down did not succeed")
	}
	out, err := exec.Command(look(t, "xfs_logprint"), "-t", disk).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "<CLEAN>") {
		t.Errorf("the log of the file system is not clean: %v: %s", err, out)
	}
}

// TestFrozenRoot: the guest's own program is on the disk that does not answer,
// and what of it is not in memory can't be run. One way or another it is down.
func TestFrozenRoot(t *testing.T) {
	t.Parallel()
	_, events, took := goesDown(t, "reboot", true)
	if took > limit+overdue+hangTime+slow {
		t.Errorf("it took %v, want at most %v", took, limit+overdue+hangTime+slow)
	}
	if got := events[len(events)-1].Data.Reason; got != "guest-reset" {
		t.Errorf("events = %v, want guest-reset", events)
	}
}

// TestWatchdog: reboot(2) hangs and there is no SysRq, so the watchdog resets
// the machine: it is not fed any more once the machine should long have been
// down, and the kernel has not stopped it.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	m, events, took := goesDown(t, "stuck", false)
	if !happened(events, "WATCHDOG") || m.said("sysrq:") {
		t.Errorf("it was not the watchdog that reset the machine: %v", events)
	}
	if took < limit+overdue || took > limit+overdue+patience+slow {
		t.Errorf("it took %v, want %v after the machine is overdue at %v", took, patience, limit+overdue)
	}
}
