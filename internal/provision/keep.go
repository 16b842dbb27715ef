package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"talos/internal/provision/process"
)

const (
	restartPause    = 500 * time.Millisecond // before the first restart that was not asked for; doubles
	restartPauseMax = 30 * time.Second
	steadyAfter     = time.Minute // a node that ran that long starts counting anew
	maxLog          = 64 << 20    // of a node's console; more is cut off
)

// action is what to do about a node that does not run.
type action int

const (
	startNow action = iota
	startLater
	leaveOff
)

// decide reads from a node's end what to do. power is what the node wrote
// down, sig what ended it when that is known: reboot(2) in a PID namespace ends
// init with SIGHUP for a restart and SIGINT for power off.
func decide(power string, sig syscall.Signal, halted bool) action {
	switch {
	case halted || power == "poweroff":
		return leaveOff
	case power == "reboot":
		return startNow
	case sig == syscall.SIGINT:
		return leaveOff
	case sig == syscall.SIGHUP:
		return startNow
	default:
		return startLater
	}
}

// keep keeps one node running until ctx ends; the node runs on.
func (s *supervisor) keep(ctx context.Context, n Node) {
	r := s.cluster.runner(n)
	log := s.log.With("node", n.Name)
	restarts, problem := 0, ""
	next := s.first(n)
	for ctx.Err() == nil {
		switch next {
		case leaveOff:
			s.setNode(n.Name, nodeState{State: StateOff})
			s.tidy(ctx, n)
			select {
			case <-ctx.Done():
				return
			case <-s.wake[n.Name]:
			}
			if next = s.first(n); next == startNow {
				restarts = 0
			}
			continue
		case startLater:
			restarts++
			pause := min(restartPause<<min(restarts-1, 10), restartPauseMax)
			log.Warn("node ended unasked", "restarts", restarts, "pause", pause)
			s.setNode(n.Name, nodeState{State: StateRestarting, Restarts: restarts, Error: problem})
			select {
			case <-ctx.Done():
				return
			case <-s.wake[n.Name]:
			case <-time.After(pause):
			}
			if s.halted(n) {
				next = leaveOff
				continue
			}
		}
		began := time.Now()
		sig, err := s.attend(ctx, n, restarts)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steadyAfter {
			restarts = 0
		}
		if problem = ""; err != nil {
			problem = err.Error()
			log.Error("run node", "err", err)
		}
		next = decide(r.Power(), sig, s.halted(n))
		log.Info("node ended", "asked", r.Power(), "signal", sig, "next", next)
	}
}

// first decides about a node that may run, or have ended while nobody looked.
func (s *supervisor) first(n Node) action {
	r := s.cluster.runner(n)
	if _, running := r.Running(); running {
		return startNow // that is: take over
	}
	if decide(r.Power(), 0, s.halted(n)) == leaveOff {
		return leaveOff
	}
	return startNow
}

// halted: the cluster, or this node of it, is to stay off.
func (s *supervisor) halted(n Node) bool {
	_, err1 := os.Stat(s.cluster.dirs.halt())
	_, err2 := os.Stat(s.cluster.dirs.nodeHalt(n.Name))
	return err1 == nil || err2 == nil
}

// attend starts a node, or takes over the one that runs, and returns when it ended.
func (s *supervisor) attend(ctx context.Context, n Node, restarts int) (syscall.Signal, error) {
	p, running := s.cluster.runner(n).Running()
	if !running {
		var err error
		if p, err = s.startNode(ctx, n); err != nil {
			return 0, fmt.Errorf("start node %s: %w", n.Name, err)
		}
	}
	s.log.Info("node runs", "node", n.Name, "pid", p.PID, "taken over", running)
	s.setNode(n.Name, nodeState{State: StateRunning, Restarts: restarts})
	h, err := p.Open()
	if errors.Is(err, os.ErrProcessDone) {
		return p.Reap(), nil
	}
	if err != nil {
		return 0, err
	}
	defer h.Close()
	if err := h.Wait(ctx); err != nil {
		return 0, err
	}
	return p.Reap(), nil
}

func (s *supervisor) startNode(ctx context.Context, n Node) (process.ID, error) {
	r := s.cluster.runner(n)
	if err := r.ClearPower(); err != nil {
		return process.ID{}, err
	}
	if err := trimLog(s.cluster.LogFile(n.Name)); err != nil {
		return process.ID{}, err
	}
	return r.Start(ctx)
}

// tidy takes an ended node's things off the host.
func (s *supervisor) tidy(ctx context.Context, n Node) {
	if err := s.cluster.runner(n).Clear(ctx); err != nil {
		s.log.Warn("clear after node", "node", n.Name, "err", err)
	}
}

// trimLog starts a console log anew that has grown too long, and keeps the old one.
func trimLog(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() < maxLog {
		return nil // none yet
	}
	return os.Rename(path, path+".1")
}
