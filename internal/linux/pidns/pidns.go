// Package pidns starts programs in the namespaces of another process and knows
// what process ids of a PID namespace below ours are called here.
//
// It keeps no state; which namespaces there are is the caller's.
package pidns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Within calls fn on a thread that is in the mount namespace of a process, and
// whose children are born into its PID namespace. The thread ends afterwards:
// nothing else ever runs on it.
func Within(init int, fn func() error) error {
	var spaces []*os.File
	for _, name := range []string{"mnt", "pid"} {
		file, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", init, name))
		if err != nil {
			return fmt.Errorf("namespaces of process %d: %w", init, err)
		}
		defer file.Close()
		spaces = append(spaces, file)
	}
	result := make(chan error, 1)
	go onThread(func() {
		err := enter(spaces[0], spaces[1])
		if err == nil {
			err = fn()
		}
		result <- err
	})
	return <-result
}

// onThread calls fn on a thread that ends with the calling goroutine. The main
// thread never ends, and what /proc/self shows is its: it is held here until
// another has done it.
func onThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		fn()
		return // locked: the Go runtime ends the thread
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		fn()
	}()
	<-done
	runtime.UnlockOSThread()
}

// enter changes the namespaces of the calling thread.
func enter(mnt, pid *os.File) error {
	// setns(2) refuses a mount namespace to who shares root and folder with others.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(int(mnt.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	if err := unix.Setns(int(pid.Fd()), unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("enter PID namespace: %w", err)
	}
	return nil
}

// process is what /proc/<pid>/status says of one.
type process struct {
	parent int
	ids    []int // in our namespace first, then in those below it
}

// Outer maps the ids that processes have in the PID namespace of init to those
// that they have in ours. It has those that were there during the call.
func Outer(init int) (map[int]int, error) {
	space, err := namespace(init)
	if err != nil {
		return nil, fmt.Errorf("PID namespace of process %d: %w", init, err)
	}
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	all := make(map[int]process, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			text, err := os.ReadFile(name + "/status")
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // it has ended
			}
			if err != nil {
				return nil, err
			}
			all[pid] = parse(string(text))
		}
	}
	inside := map[int]int{}
	for pid, p := range all {
		if len(p.ids) < 2 {
			continue
		}
		// One further down shares its namespace with nobody above: its first
		// ancestor in the next but one namespace tells.
		at := pid
		for hops := 0; len(all[at].ids) > 2 && hops < len(all); hops++ {
			at = all[at].parent
		}
		if found, err := namespace(at); err == nil && found == space {
			inside[p.ids[1]] = pid
		}
	}
	return inside, nil
}

func namespace(pid int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)) }

// parse reads /proc/<pid>/status.
func parse(status string) process {
	var p process
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "PPid":
			p.parent, _ = strconv.Atoi(strings.TrimSpace(value)) // the kernel writes numbers
		case "NSpid":
			for _, field := range strings.Fields(value) {
				if id, err := strconv.Atoi(field); err == nil {
					p.ids = append(p.ids, id)
				}
			}
		}
	}
	return p
}
