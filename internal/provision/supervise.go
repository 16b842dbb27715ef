package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"talos/internal/provision/process"
)

// memoryLimit keeps the supervisor small: it mostly waits.
const memoryLimit = 48 << 20

// Supervise is the supervisor of a cluster: it keeps the nodes running and
// serves them until ctx ends or it gets SIGTERM; the nodes run on. There is one
// per cluster at a time. Its main is `talosctl supervise-cluster NAME`, started
// detached; what it has to say goes to standard error.
func Supervise(ctx context.Context, name string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	wake := make(chan os.Signal, 1)
	signal.Notify(wake, syscall.SIGHUP)
	defer signal.Stop(wake)
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(50)

	c, err := Load(name)
	if err != nil {
		return err
	}
	lock, err := lockFile(c.dirs.lock(), false)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("cluster %s has a supervisor already", name)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	self, err := process.Find(os.Getpid())
	if err != nil {
		return err
	}
	s := &supervisor{
		cluster: c,
		log:     slog.New(slog.NewTextHandler(os.Stderr, nil)).With("cluster", name),
		state:   supervisorState{Process: self},
		wake:    map[string]chan struct{}{},
	}
	if err := s.run(ctx, wake); err != nil {
		s.update(func(state *supervisorState) { state.Error = err.Error() })
		return err
	}
	return nil
}

type supervisor struct {
	cluster *Cluster
	log     *slog.Logger
	wake    map[string]chan struct{} // by node: look again whether to start it

	mu    sync.Mutex // guards the field below
	state supervisorState
}

func (s *supervisor) run(ctx context.Context, wake <-chan os.Signal) error {
	// Nodes are runc's children, left to whoever collects orphans: that is this
	// process, so that it learns how they ended and leaves no zombies.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		s.log.Warn("become the one who collects orphans", "err", err)
	}
	c := s.cluster
	s.step("creating network %s on %s", c.CIDR, c.network().Bridge)
	if err := c.network().Ensure(); err != nil {
		return err
	}
	if err := c.backend().setUp(c); err != nil {
		return err
	}
	s.step("serving images, addresses and the Kubernetes endpoint on %s", c.Gateway)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.serve(ctx, &wg); err != nil {
		return err
	}
	s.step("starting %d nodes", len(c.Nodes))
	for _, n := range c.Nodes {
		s.wake[n.Name] = make(chan struct{}, 1)
	}
	for _, n := range c.Nodes {
		wg.Go(func() { s.keep(ctx, n) })
	}
	if c.backend().adopt(c) {
		wg.Go(func() { s.bootstrap(ctx) })
	}
	s.update(func(state *supervisorState) { state.Ready = true })
	s.log.Info("ready", "pid", os.Getpid(), "nodes", len(c.Nodes))
	for {
		select {
		case <-ctx.Done():
			s.log.Info("ending, nodes run on")
			return nil
		case <-wake:
			for _, w := range s.wake {
				select {
				case w <- struct{}{}:
				default:
				}
			}
		}
	}
}

func (s *supervisor) step(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.log.Info(text)
	s.update(func(state *supervisorState) { state.Step = text })
}

func (s *supervisor) update(change func(*supervisorState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
	if err := s.cluster.dirs.writeSupervisor(s.state); err != nil {
		s.log.Error("write own state", "err", err)
	}
}

func (s *supervisor) setTrouble(name, text string) {
	s.update(func(state *supervisorState) {
		trouble := map[string]string{}
		maps.Copy(trouble, state.Trouble)
		if trouble[name] = text; text == "" {
			delete(trouble, name)
		}
		state.Trouble = trouble
	})
}

func (s *supervisor) setNode(name string, n nodeState) {
	s.update(func(state *supervisorState) {
		nodes := map[string]nodeState{}
		maps.Copy(nodes, state.Nodes)
		nodes[name] = n
		state.Nodes = nodes
	})
}
