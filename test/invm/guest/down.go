package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/boot"
	"talos/internal/containers"
	"talos/internal/layout"
	"talos/internal/linux/kmsg"
	"talos/internal/linux/mount"
	"talos/internal/linux/watchdog"
	"talos/internal/metal"
	"talos/internal/power"
	"talos/internal/sequence"
	"talos/internal/service"
)

// disk is the one that freezes.
const disk = "/dev/sda"

// limit is what is asked of the way down: the least that may be.
const limit = sequence.MinDeadline

// reboot and off take the machine down as machined does.
func reboot() error { return goDown(sequence.Reboot, power.MachineDown, time.Minute) }
func off() error    { return goDown(sequence.Shutdown, power.MachineDown, time.Minute) }

// stuck has no SysRq: what is left is the watchdog.
func stuck() error { return goDown(sequence.Reboot, power.Down, 4*time.Second) }

// clean goes down as a machine does whose disk answers and that has the time.
func clean() error {
	data, err := persist()
	if err != nil {
		return err
	}
	if err := errors.Join(fill(data), data.Close()); err != nil {
		return err
	}
	kernel, err := kmsg.Open("guest: ")
	if err != nil {
		return err
	}
	controller := way(slog.New(slog.NewTextHandler(kernel, nil)), power.MachineDown)
	if _, err := controller.Begin(context.Background(), sequence.Request{Kind: sequence.Reboot}); err != nil {
		return err
	}
	select {}
}

// persist puts EPHEMERAL, STATE and META on the disk, and a file.
func persist() (*os.File, error) {
	if out, err := exec.Command("mkfs.xfs", "-q", "-f", disk).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.xfs: %w: %s", err, out)
	}
	if err := (mount.Point{Source: disk, Target: layout.EphemeralDir, Type: "xfs"}).Mount(); err != nil {
		return nil, err
	}
	for _, dir := range []string{layout.StateDir, layout.MetaDir} {
		at := filepath.Join(layout.EphemeralDir, filepath.Base(dir))
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Mkdir(at, 0o755)); err != nil {
			return nil, err
		}
		if err := (mount.Point{Source: at, Target: dir, Flags: unix.MS_BIND}).Mount(); err != nil {
			return nil, err
		}
	}
	return os.Create(filepath.Join(layout.EphemeralDir, "data"))
}

// way is the way down.
func way(log *slog.Logger, end func(power.Action) error) *sequence.Controller {
	return sequence.New(sequence.Options{
		Log: log, Services: nobody{}, Pods: nobody{}, NoteAction: func(a power.Action) error { return power.Note(layout.PowerFile, a) },
		KillAll: boot.KillAll, UnmountInner: boot.UnmountInner, Unmount: boot.Unmount(false, func() {}), Sync: boot.Sync, Down: end,
	})
}

// goDown puts EPHEMERAL and META on the disk, waits until it is frozen, and
// goes down. It returns only what went wrong before.
func goDown(kind sequence.Kind, end func(power.Action) error, patience time.Duration) error {
	data, err := persist()
	if err != nil {
		return err
	}
	if err := fill(data); err != nil {
		return err
	}
	kernel, err := kmsg.Open("guest: ")
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(kernel, nil))
	controller := way(log, end)
	timer := metal.Watchdog(log)
	if timer == nil {
		return errors.New("the machine has no watchdog")
	}
	go metal.NewHeart(log, impatient{timer, patience}).Beat(context.Background(), func(context.Context) error {
		if controller.Overdue() {
			return errors.New("the way down has no end")
		}
		return nil
	})

	if err := data.Sync(); err != nil {
		return err
	}
	say("waits for the disk to freeze")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	if err := occupy(data); err != nil {
		return err
	}
	say("goes down")
	if _, err := controller.Begin(context.Background(), sequence.Request{Kind: kind, Deadline: limit}); err != nil {
		return err
	}
	select {}
}

// occupy leaves data in memory that can't be written, and a process that waits
// for it to be, which no signal ends.
func occupy(data *os.File) error {
	if err := fill(data); err != nil { // what is there is in memory: nothing need be read
		return err
	}
	cmd := exec.Command("/proc/self/exe", "sync")
	if err := cmd.Start(); err != nil {
		return err
	}
	for range 200 {
		if hangs(cmd.Process.Pid) {
			say("process %d hangs in sync", cmd.Process.Pid)
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("sync does not hang: the disk is not frozen")
}

func fill(f *os.File) error {
	data := make([]byte, 4<<20)
	_, _ = rand.Read(data) // it always succeeds
	_, err := f.WriteAt(data, 0)
	return err
}

// hangs says whether a thread of a process is in state D, where no signal
// reaches it.
func hangs(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is a good one
	return slices.ContainsFunc(threads, func(name string) bool {
		stat, err := os.ReadFile(name)
		return err == nil && strings.Contains(string(stat), ") D ")
	})
}

// impatient is the machine's watchdog with a time of its own.
type impatient struct {
	*watchdog.Watchdog
	patience time.Duration
}

func (i impatient) SetTimeout(time.Duration) error { return i.Watchdog.SetTimeout(i.patience) }

// nobody is what runs on this node.
type nobody struct{}

func (nobody) Stop(context.Context, string) error       { return service.ErrUnknown }
func (nobody) StopAll(context.Context, ...string) error { return nil }
func (nobody) List(context.Context, containers.Instance, string) ([]containers.Container, error) {
	return nil, nil
}
func (nobody) Kill(context.Context, containers.Instance, string, string, syscall.Signal, bool) error {
	return nil
}
