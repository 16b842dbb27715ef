package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process identifies a process beyond the life of its id: a record of one never
// matches another that got the same id later, not even after the host restarted.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot
	Boot  string `json:"boot"`  // the kernel's boot id
}

// Find identifies the process that has an id now.
func Find(pid int) (Process, error) {
	start, state, err := stat(pid)
	if err != nil {
		return Process{}, err
	}
	if state == 'Z' || state == 'X' {
		return Process{}, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	return Process{PID: pid, Start: start, Boot: bootID()}, nil
}

// Alive reports whether the process still runs. One that ended and waits for
// its parent does not.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	now, err := Find(p.PID)
	return err == nil && now == p
}

// Open returns a descriptor of the process, which can be signalled and waited
// for without ever reaching another; os.ErrProcessDone when it is gone.
func (p Process) Open() (*Handle, error) {
	if p.PID <= 0 {
		return nil, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	h := &Handle{os.NewFile(uintptr(fd), "pidfd"), fd}
	if !p.Alive() { // looked at after opening: the descriptor is of this or of no process
		h.Close()
		return nil, os.ErrProcessDone
	}
	return h, nil
}

// Handle is an open process.
type Handle struct {
	file *os.File
	fd   int
}

// Close releases the handle; the process is left alone.
func (h *Handle) Close() { h.file.Close() }

// Signal sends a signal; nil when the process has ended already.
func (h *Handle) Signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(h.fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// Wait returns when the process has ended, or with ctx's error.
func (h *Handle) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { h.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := h.file.SyscallConn()
	if err != nil {
		return err
	}
	err = conn.Read(func(fd uintptr) bool { // readable when the process has ended
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n == 1
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Reap collects an ended process that is a child of the caller and returns the
// signal that ended it; 0 for every other.
func (p Process) Reap() syscall.Signal {
	var status unix.WaitStatus
	if got, err := unix.Wait4(p.PID, &status, unix.WNOHANG, nil); err != nil || got != p.PID || !status.Signaled() {
		return 0
	}
	return status.Signal()
}

// stat reads a process's start time and state.
func stat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	// The name, in parentheses, may contain anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("process %d: unexpected form of stat", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // start time alone identifies well enough within one boot
	}
	return strings.TrimSpace(string(data))
}
