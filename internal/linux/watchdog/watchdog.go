// Package watchdog holds the hardware timer that resets the machine unless it
// is fed (Documentation/watchdog/watchdog-api.rst).
//
// The timer runs from Open on, also while nobody has it open: the initramfs
// opens it and hands it over to machined, which decides when it is fed. A
// Watchdog is not safe for concurrent use.
package watchdog

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Device is the machine's first watchdog.
const Device = "/dev/watchdog0"

// Inherited is the environment variable in which a process finds the number of
// a descriptor that it was handed.
const Inherited = "TALOS_WATCHDOG_FD"

// The requests, from include/uapi/linux/watchdog.h.
const (
	setTimeout = 0xc0045706 // WDIOC_SETTIMEOUT
	getTimeout = 0x80045707 // WDIOC_GETTIMEOUT
	bootStatus = 0x80045702 // WDIOC_GETBOOTSTATUS
	keepAlive  = 0x80045705 // WDIOC_KEEPALIVE

	cardReset = 0x20 // WDIOF_CARDRESET
)

// Watchdog is an armed timer.
type Watchdog struct {
	file    *os.File
	timeout time.Duration
	// set and get are the driver's timeout, in seconds.
	set func(seconds int) error
	get func() (seconds int, err error)
}

// Open arms the timer. The driver may know only some durations, or one; Timeout
// is what it took. Without an error the timer runs, and must be fed.
func Open(path string, timeout time.Duration) (*Watchdog, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	w := of(file)
	_ = w.SetTimeout(timeout) // it keeps its own: it runs from the moment it is open
	return w, nil
}

// of is the timer behind an open file.
func of(file *os.File) *Watchdog {
	fd := int(file.Fd())
	return &Watchdog{
		file: file,
		set:  func(seconds int) error { return unix.IoctlSetPointerInt(fd, setTimeout, seconds) },
		get:  func() (int, error) { return unix.IoctlGetInt(fd, getTimeout) },
	}
}

// Inherit takes over the timer of the process that ran before this one, or
// returns nil where there was none.
func Inherit() (*Watchdog, error) {
	text := os.Getenv(Inherited)
	if text == "" {
		return nil, nil
	}
	if err := os.Unsetenv(Inherited); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("watchdog's descriptor in %s: %w", Inherited, err)
	}
	unix.CloseOnExec(fd)
	return of(os.NewFile(uintptr(fd), Device)), nil
}

// Bequeath leaves the timer to the program that this process executes, and
// returns the variable for its environment. What it leaves is a descriptor that
// nothing closes, whatever becomes of the Watchdog: collected as garbage, it would
// take the number along.
func (w *Watchdog) Bequeath() (string, error) {
	fd, err := unix.Dup(int(w.file.Fd())) // stays open over execve(2)
	if err != nil {
		return "", &os.PathError{Op: "keep open", Path: w.file.Name(), Err: err}
	}
	return fmt.Sprintf("%s=%d", Inherited, fd), nil
}

// SetTimeout sets how long after the last feeding the machine is reset. Where that
// is more than the driver can, it is the half, and so on. With an error the driver
// keeps its own time.
func (w *Watchdog) SetTimeout(timeout time.Duration) error {
	var err error
	for t := timeout; t >= time.Second; t /= 2 {
		if err = w.set(int(t / time.Second)); !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	got, getErr := w.get()
	if getErr != nil {
		w.timeout = 0
		return &os.PathError{Op: "get timeout", Path: w.file.Name(), Err: errors.Join(err, getErr)}
	}
	w.timeout = time.Duration(got) * time.Second
	if err != nil {
		return &os.PathError{Op: "set timeout", Path: w.file.Name(), Err: err}
	}
	return nil
}

// Timeout is what the timer is set to; 0 where the driver does not tell.
func (w *Watchdog) Timeout() time.Duration { return w.timeout }

// Expired says whether the machine was reset by this timer the last time, where
// the hardware remembers.
func (w *Watchdog) Expired() bool {
	flags, err := unix.IoctlGetInt(int(w.file.Fd()), bootStatus)
	return err == nil && flags&cardReset != 0
}

// Feed starts the timer anew.
func (w *Watchdog) Feed() error {
	if err := unix.IoctlSetPointerInt(int(w.file.Fd()), keepAlive, 0); err != nil {
		return &os.PathError{Op: "feed", Path: w.file.Name(), Err: err}
	}
	return nil
}
