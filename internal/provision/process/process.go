// Package process identifies processes beyond the life of their ids, keeps
// records of them in files, and waits for those that are nobody's children.
//
// It owns no process. A record never matches another process that got the same
// id later. All of it is safe for concurrent use.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/linux/atomicfile"
)

// ID identifies a process beyond the life of its id: a record of one never
// matches another that got the same id later, not even after the host restarted.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot
	Boot  string `json:"boot"`  // the kernel's boot id
}

// Find identifies the process that has an id now.
func Find(pid int) (ID, error) {
	start, ended, err := stat(pid)
	if err != nil {
		return ID{}, err
	}
	if ended {
		return ID{}, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	return ID{PID: pid, Start: start, Boot: bootID()}, nil
}

// Recorded returns the process that is recorded in a file, and whether it
// still runs; false when there is no record.
func Recorded(path string) (ID, bool) {
	var p ID
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &p) != nil {
		return ID{}, false
	}
	return p, p.Alive()
}

// Record writes the process down in a file.
func (p ID) Record(path string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return atomicfile.Save(path, data, 0o600)
}

// Alive reports whether the process still runs. One that ended and waits for
// its parent does not.
func (p ID) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	now, err := Find(p.PID)
	return err == nil && now == p
}

// Open returns a descriptor of the process, which can be signalled and waited
// for without ever reaching another; os.ErrProcessDone when it is gone.
func (p ID) Open() (*Handle, error) {
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
func (p ID) Reap() syscall.Signal {
	var status unix.WaitStatus
	if p.PID <= 0 { // would be any child
		return 0
	}
	if got, err := unix.Wait4(p.PID, &status, unix.WNOHANG, nil); err != nil || got != p.PID || !status.Signaled() {
		return 0
	}
	return status.Signal()
}

// Usage is what a process, or a group of them, uses now.
type Usage struct {
	Memory int64         // bytes, without what the page cache can give back
	CPU    time.Duration // since its start
}

// Usage reads what one process uses; zero for what cannot be read.
func (p ID) Usage() Usage {
	const ticks = 100 // per second, whatever the kernel's own clock does
	var u Usage
	if !p.Alive() {
		return u
	}
	if f, err := statFields(p.PID); err == nil {
		user, _ := strconv.ParseUint(f[11], 10, 63)
		system, _ := strconv.ParseUint(f[12], 10, 63)
		u.CPU = time.Duration(user+system) * (time.Second / ticks)
	}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID)); err == nil {
		if f := strings.Fields(string(data)); len(f) > 1 {
			resident, _ := strconv.ParseInt(f[1], 10, 63)
			u.Memory = resident * int64(os.Getpagesize())
		}
	}
	return u
}

// stat reads a process's start time, and whether it has ended. A first thread
// that is a zombie beside others is that of a process which goes on, or is
// about to end and can't be collected yet.
func stat(pid int) (start uint64, ended bool, err error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, false, err
	}
	state, threads := fields[0], fields[17] // proc_pid_stat(5), from the third field on
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, state == "X" || state == "Z" && (threads == "1" || threads == "0"), err
}

// statFields are the fields of a process's stat from the third on, its state.
func statFields(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	// The name, in parentheses, may contain anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("process %d: unexpected form of stat", pid)
	}
	return fields, nil
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // start time alone identifies well enough within one boot
	}
	return strings.TrimSpace(string(data))
}
