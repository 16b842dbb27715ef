package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/linux/caps"
	"talos/internal/linux/cgroup"
	"talos/internal/linux/reap"
)

const usualGrace = 10 * time.Second

// Process is a Runner: a program that is a child of machined.
type Process struct {
	Path string
	Args []string // without the program's name
	Env  []string
	// MoreEnv, if set, is asked before every start for more variables.
	MoreEnv func(ctx context.Context) ([]string, error)
	// OOMScoreAdj is set where the node may; a score too low for it is left out.
	OOMScoreAdj int
	// Cgroup is the group it lives in, made when missing; "" is machined's own.
	Cgroup string
	// Grace is the time between SIGTERM and SIGKILL, 10 s when zero.
	Grace time.Duration
	// Prepare, if set, is called before every start.
	Prepare func(ctx context.Context) error

	Reaper *reap.Reaper
	// StartChild, if set, starts the program instead of the Reaper's Start, such
	// as in other namespaces; the Reaper collects it all the same.
	StartChild func(path string, argv []string, attr *os.ProcAttr) (*reap.Process, error)
	Cgroups    *cgroup.Tree // nil: no groups
}

// Run implements Runner.
func (p Process) Run(ctx context.Context, out io.Writer, started func(pid int)) error {
	if p.Prepare != nil {
		if err := p.Prepare(ctx); err != nil {
			return err
		}
	}
	if p.MoreEnv != nil {
		more, err := p.MoreEnv(ctx)
		if err != nil {
			return err
		}
		p.Env = append(slices.Clone(p.Env), more...)
	}
	child, output, err := p.start()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Path, err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		// It ends with the last writer or with the deadline set below.
		_, _ = io.Copy(out, output)
	}()
	defer func() {
		// A child of the program may hold the pipe open; what it says is lost.
		_ = output.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		<-copied
		output.Close()
	}()
	if err := p.place(child.PID); err != nil {
		// Where it lives is not worth more than that it lives.
		fmt.Fprintf(out, "machined: %v\n", err)
	}
	started(child.PID)
	select {
	case <-child.Done():
		return child.Err()
	case <-ctx.Done():
		return p.end(child)
	}
}

// start makes the child, with a pipe for all that it prints.
func (p Process) start() (*reap.Process, *os.File, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer writer.Close()
	start := p.StartChild
	if start == nil {
		start = p.Reaper.Start
	}
	child, err := start(p.Path, append([]string{p.Path}, p.Args...), &os.ProcAttr{
		Dir: "/", Env: p.Env, Files: []*os.File{null, writer, writer}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		reader.Close()
		return nil, nil, err
	}
	return child, reader, nil
}

// place puts the child into its group and sets its score.
func (p Process) place(pid int) error {
	var errs []error
	if p.Cgroups != nil && p.Cgroup != "" {
		err := p.Cgroups.Make(p.Cgroup)
		if err == nil {
			err = p.Cgroups.Enter(p.Cgroup, pid)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("cgroup %s for process %d: %w", p.Cgroup, pid, err))
		}
	}
	err := caps.SetOOMScore(pid, p.OOMScoreAdj)
	if err != nil && !errors.Is(err, os.ErrPermission) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		errs = append(errs, fmt.Errorf("OOM score of process %d: %w", pid, err))
	}
	return errors.Join(errs...)
}

// end asks the child to end, then makes it.
func (p Process) end(child *reap.Process) error {
	grace := p.Grace
	if grace <= 0 {
		grace = usualGrace
	}
	if err := child.Signal(unix.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-child.Done():
		return nil
	case <-timer.C:
	}
	if err := child.Signal(unix.SIGKILL); err != nil {
		return err
	}
	<-child.Done()
	return fmt.Errorf("did not end within %v, killed", grace)
}
