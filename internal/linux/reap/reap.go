// Package reap owns wait4(2) of the process: it collects every child that
// ends, its own and the orphans that PID 1 inherits, and hands the statuses of
// those that were started through it to whoever started them.
//
// A process that runs a Reaper must start no child in another way: os/exec
// would find its child already collected. A Reaper is safe for concurrent use.
package reap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Reaper collects children.
type Reaper struct {
	stop func()
	done chan struct{}

	mu    sync.Mutex // guards the fields below; held while a child is made, so that it is known before it can be collected
	known map[int]*Process
	// orphans counts children that nobody had started here.
	orphans uint64
}

// New starts a reaper. It also becomes the parent of orphaned descendants
// where it is not PID 1 (prctl(2), PR_SET_CHILD_SUBREAPER).
func New() (*Reaper, error) {
	if os.Getpid() != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, os.NewSyscallError("prctl PR_SET_CHILD_SUBREAPER", err)
		}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	quit := make(chan struct{})
	r := &Reaper{done: make(chan struct{}), known: map[int]*Process{}}
	r.stop = sync.OnceFunc(func() {
		signal.Stop(signals)
		close(quit)
		<-r.done
	})
	go r.loop(signals, quit)
	return r, nil
}

// Close stops collecting. For tests: PID 1 never stops.
func (r *Reaper) Close() { r.stop() }

// Orphans is how many children were collected that nobody had started here.
func (r *Reaper) Orphans() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.orphans
}

func (r *Reaper) loop(signals <-chan os.Signal, quit <-chan struct{}) {
	defer close(r.done)
	// A signal may be lost while the channel is full; the clock makes up for it.
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		r.collect()
		select {
		case <-signals:
		case <-ticker.C:
		case <-quit:
			return
		}
	}
}

// collect takes the status of every child that has ended.
func (r *Reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 { // ECHILD, or nobody has ended
			return
		}
		p := r.known[pid]
		if p == nil {
			r.orphans++
			continue
		}
		delete(r.known, pid)
		p.status = status
		close(p.done)
	}
}

// Process is a child that was started through the reaper.
type Process struct {
	PID    int
	reaper *Reaper
	done   chan struct{}
	status unix.WaitStatus // valid once done is closed
}

// Start starts a program, like os.StartProcess.
func (r *Reaper) Start(path string, argv []string, attr *os.ProcAttr) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	child, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return nil, err
	}
	p := &Process{PID: child.Pid, reaper: r, done: make(chan struct{})}
	r.known[p.PID] = p
	// The reaper waits for it; only the handle is given up here.
	return p, child.Release()
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Status says how it ended, after Done.
func (p *Process) Status() unix.WaitStatus { return p.status }

// Err is nil if the program ended well, after Done.
func (p *Process) Err() error {
	switch {
	case p.status.Signaled():
		return fmt.Errorf("killed by signal %d (%v)", int(p.status.Signal()), p.status.Signal())
	case p.status.ExitStatus() != 0:
		return fmt.Errorf("exited with code %d", p.status.ExitStatus())
	}
	return nil
}

// Signal sends a signal to the program; once it has ended it does nothing.
// The number can't be another program's: the reaper does not free it meanwhile.
func (p *Process) Signal(sig syscall.Signal) error {
	p.reaper.mu.Lock()
	defer p.reaper.mu.Unlock()
	select {
	case <-p.done:
		return nil
	default:
		return os.NewSyscallError("kill", unix.Kill(p.PID, sig))
	}
}

// killTime is how long a program may take to end of SIGKILL.
const killTime = 2 * time.Second

// Run runs a short program to its end and returns what it printed; the end of
// ctx kills it. The error carries the end of its output. A program that not even
// SIGKILL ends, as one that waits for a disk that does not answer, is left behind.
func (r *Reaper) Run(ctx context.Context, path string, args ...string) ([]byte, error) {
	in, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	p, err := r.Start(path, append([]string{path}, args...), &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{in, writer, writer},
	})
	writer.Close()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		// The pipe ends with its last writer, or with reader.Close; what was read until then is the output.
		_, _ = io.Copy(&out, io.LimitReader(reader, 1<<20))
	}()
	select {
	case <-p.Done():
	case <-ctx.Done():
		if err := p.Signal(unix.SIGKILL); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		select {
		case <-p.Done():
		case <-time.After(killTime):
			reader.Close()
			<-read
			return out.Bytes(), fmt.Errorf("%s: %w, and it goes on after SIGKILL", path, ctx.Err())
		}
	}
	select {
	case <-read:
	case <-time.After(time.Second): // a grandchild keeps the pipe open
		reader.Close()
		<-read
	}
	if ctx.Err() != nil {
		return out.Bytes(), fmt.Errorf("%s: %w", path, ctx.Err())
	}
	if err := p.Err(); err != nil {
		text := bytes.TrimSpace(out.Bytes())
		return out.Bytes(), fmt.Errorf("%s: %w: %s", path, err, text[max(0, len(text)-512):])
	}
	return out.Bytes(), nil
}
