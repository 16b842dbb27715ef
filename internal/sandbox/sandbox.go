package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/layout"
	"talos/internal/linux/atomicfile"
	"talos/internal/linux/caps"
	"talos/internal/linux/cgroup"
	"talos/internal/linux/pidns"
	"talos/internal/linux/reap"
)

const (
	program = "/usr/bin/sandboxd"
	group   = "/podruntime/sandboxd"
	// oomScore: without it everything in it is gone.
	oomScore = -999
	// patience with sandboxd's start.
	patience = 20 * time.Second
)

// Sandbox is the namespaces of workloads. It is safe for concurrent use.
type Sandbox struct {
	Reaper  *reap.Reaper
	Cgroups *cgroup.Tree // nil: no groups

	mu   sync.Mutex // guards init; held while sandboxd starts
	init *reap.Process
}

// Start starts a program in the namespaces, like reap.Reaper.Start. Namespaces
// that are gone, or were never there, are made first.
func (s *Sandbox) Start(path string, argv []string, attr *os.ProcAttr) (*reap.Process, error) {
	init, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("make namespaces for workloads: %w", err)
	}
	var child *reap.Process
	err = pidns.Within(init, func() (err error) {
		child, err = s.Reaper.Start(path, argv, attr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("in the namespaces of sandboxd, process %d: %w", init, err)
	}
	return child, nil
}

// open returns the process id of sandboxd, starting it where it does not run.
func (s *Sandbox) open() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.init != nil {
		select {
		case <-s.init.Done():
		default:
			return s.init.PID, nil
		}
	}
	child, err := s.startInit()
	if err != nil {
		return 0, err
	}
	if err := errors.Join(s.place(child.PID), note(child.PID)); err != nil {
		return 0, errors.Join(err, child.Signal(unix.SIGKILL))
	}
	s.init = child
	return child.PID, nil
}

// startInit starts sandboxd and waits until it is ready.
func (s *Sandbox) startInit() (*reap.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	child, err := s.Reaper.Start(program, []string{program}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, null, writer},
		Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS},
	})
	writer.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	err = reader.SetReadDeadline(time.Now().Add(patience))
	var said []byte
	if err == nil {
		said, err = io.ReadAll(io.LimitReader(reader, 4096))
	}
	if err == nil && string(said) != ready {
		err = fmt.Errorf("it said %q", said)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", program, err), child.Signal(unix.SIGKILL))
	}
	return child, nil
}

// place puts sandboxd into its group and sets its score where the node may.
func (s *Sandbox) place(pid int) error {
	if s.Cgroups != nil {
		if err := s.Cgroups.Make(group); err != nil {
			return err
		}
		if err := s.Cgroups.Enter(group, pid); err != nil {
			return err
		}
	}
	if err := caps.SetOOMScore(pid, oomScore); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}

// note writes down which process sandboxd is, for Translate.
func note(pid int) error {
	return atomicfile.Update(layout.SandboxFile, []byte(strconv.Itoa(pid)+"\n"), 0o600)
}

// Translate returns what turns process ids that Kubernetes's containerd reports
// into those that we know; 0 is one that is gone. Without namespaces of its own
// they are the same.
func Translate() (func(int) int, error) {
	text, err := os.ReadFile(layout.SandboxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return func(pid int) int { return pid }, nil
	}
	if err != nil {
		return nil, err
	}
	init, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", layout.SandboxFile, err)
	}
	outer, err := pidns.Outer(init)
	if errors.Is(err, fs.ErrNotExist) { // it has ended, and with it everything inside
		return func(int) int { return 0 }, nil
	}
	return func(pid int) int { return outer[pid] }, err
}
