package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"talos/api/machine"
	"talos/internal/layout"
	"talos/internal/loop"
	"talos/internal/provision/container"
	"talos/internal/provision/host"
	"talos/internal/provision/process"
)

const (
	kubePort = layout.KubePort

	supervisorCommand  = "supervise-cluster" // of this program; see Supervise
	supervisorPatience = 30 * time.Second    // for it to come up
	stopPatience       = 60 * time.Second    // for nodes to shut down by themselves
	killPatience       = 20 * time.Second    // for what was killed to be gone
	shutdownCall       = 5 * time.Second
)

// Start starts a cluster's supervisor where none runs, and its nodes that are
// off. Nodes that run are left alone: the supervisor takes them over.
func Start(ctx context.Context, name string, progress func(step string)) error {
	return operate(name, "start", func(d dirs) error {
		c, err := Load(name)
		if err != nil {
			return err
		}
		return c.startNodes(ctx, c.Nodes, progress)
	})
}

// Stop shuts a cluster's nodes down, ends its supervisor, and takes back what
// they changed on the host. All state stays.
func Stop(ctx context.Context, name string, progress func(step string)) error {
	return operate(name, "stop", func(d dirs) error {
		c, err := Load(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(d.halt(), nil, 0o600); err != nil {
			return err
		}
		report(progress, "shutting down the nodes of %s", name)
		c.shutdown(ctx, c.Nodes)
		report(progress, "stopping the supervisor")
		return d.dismantle(ctx)
	})
}

// Destroy ends everything of a cluster and removes it, whatever state it is in.
// ErrNotFound when there is nothing of the name.
func Destroy(ctx context.Context, name string, progress func(step string)) error {
	if err := checkName(name); err != nil {
		return err
	}
	return operate(name, "destroy", func(d dirs) error {
		if _, err := os.Stat(d.root); errors.Is(err, fs.ErrNotExist) {
			return ErrNotFound
		}
		report(progress, "destroying cluster %s", name)
		return d.destroy(ctx)
	})
}

func operate(name, what string, fn func(dirs) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := needRoot(what + " a cluster"); err != nil {
		return err
	}
	d, err := newDirs(name)
	if err != nil {
		return err
	}
	release, err := d.operate()
	if err != nil {
		return err
	}
	defer release()
	if err := fn(d); err != nil {
		return fmt.Errorf("%s cluster %s: %w", what, name, err)
	}
	return nil
}

// start brings the supervisor up, or wakes the one that runs, for it to start
// nodes that are off.
func (c *Cluster) start(ctx context.Context, nodes []Node, progress func(string)) error {
	if err := os.Remove(c.dirs.halt()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, n := range nodes {
		r := c.runner(n)
		if _, running := r.Running(); running {
			continue
		}
		if err := r.ClearPower(); err != nil {
			return err
		}
	}
	if s := c.dirs.readSupervisor(); s.Ready && s.Process.Alive() {
		return send(s.Process, syscall.SIGHUP)
	}
	if err := c.dirs.endSupervisor(ctx); err != nil { // one that never became ready
		return fmt.Errorf("end the earlier supervisor: %w", err)
	}
	if _, err := c.dirs.claim(c.CIDR); err != nil {
		return err
	}
	report(progress, "starting the supervisor")
	p, err := c.spawn()
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	return c.waitSupervisor(ctx, p, progress)
}

// spawn starts this program once more, detached, as supervisor.
func (c *Cluster) spawn() (process.ID, error) {
	exe, err := os.Executable()
	if err != nil {
		return process.ID{}, err
	}
	log, err := os.OpenFile(c.SupervisorLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return process.ID{}, err
	}
	defer log.Close()
	home, err := stateHome()
	if err != nil {
		return process.ID{}, err
	}
	cmd := exec.Command(exe, supervisorCommand, c.Name)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Dir(filepath.Dir(home)))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return process.ID{}, err
	}
	p, err := process.Find(cmd.Process.Pid)
	go cmd.Wait() // so that it leaves no zombie behind when it ends before this program does
	return p, err
}

// waitSupervisor shows what the supervisor does until it is ready.
func (c *Cluster) waitSupervisor(ctx context.Context, p process.ID, progress func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, supervisorPatience)
	defer cancel()
	for step := ""; ; {
		alive := p.Alive()
		s := c.dirs.readSupervisor()
		switch {
		case s.Ready && s.Process.Alive(): // it, or one that was faster
			return nil
		case s.Process == p && s.Error != "":
			return fmt.Errorf("start supervisor: %s", s.Error)
		case !alive:
			return fmt.Errorf("start supervisor: it ended, see %s", c.SupervisorLog())
		}
		if s.Process == p && s.Step != step && s.Step != "" {
			step = s.Step
			report(progress, "%s", step)
		}
		if !loop.Sleep(ctx, 10*time.Millisecond) {
			return fmt.Errorf("start supervisor: not ready after %v, see %s", supervisorPatience, c.SupervisorLog())
		}
	}
}

func send(p process.ID, sig syscall.Signal) error {
	h, err := p.Open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	return h.Signal(sig)
}

// shutdown asks nodes to power off and waits for them, workers first. What does
// not end in time is killed afterwards.
func (c *Cluster) shutdown(ctx context.Context, nodes []Node) {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	for _, kind := range []string{Worker, ControlPlane} {
		var g errgroup.Group
		for _, n := range nodes {
			if n.Type != kind {
				continue
			}
			g.Go(func() error {
				r := c.runner(n)
				p, running := r.Running()
				if !running {
					return nil
				}
				h, err := p.Open()
				if err != nil {
					return nil // gone
				}
				defer h.Close()
				if c.askShutdown(ctx, n) != nil && pressPower(ctx, r) != nil {
					return nil // to be killed
				}
				return h.Wait(ctx)
			})
		}
		g.Wait() // a node that is late is killed
	}
}

func (c *Cluster) askShutdown(ctx context.Context, n Node) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownCall)
	defer cancel()
	api, err := c.api(ctx, n)
	if err != nil {
		return err
	}
	defer api.Close()
	_, err = api.Machine.Shutdown(ctx, &machine.ShutdownRequest{Force: true, ForceQuorumLoss: c.Name})
	return err
}

// destroy undoes everything that follows from the folder, and removes it last:
// as long as it is there, it can be called again.
func (d dirs) destroy(ctx context.Context) error {
	if err := os.WriteFile(d.halt(), nil, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.dismantle(ctx); err != nil {
		return err
	}
	return os.RemoveAll(d.root)
}

// dismantle ends the supervisor and the nodes, and removes what they have on
// the host.
func (d dirs) dismantle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	if err := d.endSupervisor(ctx); err != nil {
		return fmt.Errorf("end supervisor: %w", err)
	}
	names, err := d.nodeNames()
	if err != nil {
		return err
	}
	var g errgroup.Group
	for _, name := range names {
		g.Go(func() error {
			for _, r := range d.everyRunner(name) {
				if err := kill(ctx, r); err != nil {
					return fmt.Errorf("end node %s: %w", name, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := container.RemoveCgroup(ctx, d.cgroup()); err != nil {
		return err
	}
	container.RemoveEmptyCgroup(filepath.Dir(d.cgroup()))
	if err := errors.Join(d.network().Remove(), container.Unmount(d.rootfs())); err != nil {
		return err
	}
	return host.Release(d.id)
}

// endSupervisor ends the recorded supervisor; nodes run on.
func (d dirs) endSupervisor(ctx context.Context) error {
	s := d.readSupervisor()
	h, err := s.Process.Open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := h.Signal(sig); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = h.Wait(wait)
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}
