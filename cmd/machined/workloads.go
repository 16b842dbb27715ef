package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/configstore/active"
	"talos/internal/linux/reap"
	"talos/internal/resources/config"
	"talos/internal/sandbox"
	"talos/internal/service"
)

// workloads decides, once, whether Kubernetes's containerd runs in namespaces
// of its own. The first configuration says so; until then it runs beside
// machined, with nothing in it: what it is to run waits for settle.
type workloads struct {
	st       state.State
	services *service.Supervisor
	sandbox  sandbox.Sandbox

	settling sync.Mutex // held while it is decided
	mu       sync.Mutex // guards the fields below
	settled  bool
	apart    bool
}

// start starts containerd where it belongs.
func (w *workloads) start(path string, argv []string, attr *os.ProcAttr) (*reap.Process, error) {
	w.mu.Lock()
	apart := w.apart
	w.mu.Unlock()
	if apart {
		return w.sandbox.Start(path, argv, attr)
	}
	return w.sandbox.Reaper.Start(path, argv, attr)
}

// settle waits for the configuration and, when it asks for namespaces, until
// containerd runs in them.
func (w *workloads) settle(ctx context.Context) error {
	_, err := w.st.WatchFor(ctx, config.NewMachineConfig(config.ActiveID).Metadata(), state.WithEventTypes(state.Created, state.Updated))
	if err != nil {
		return fmt.Errorf("watch the configuration: %w", err)
	}
	w.settling.Lock()
	defer w.settling.Unlock()
	if w.settled {
		return nil
	}
	cfg, err := active.Config(ctx, w.st)
	if err != nil {
		return err
	}
	if cfg != nil && cfg.Machine.SecurityProfile != nil && cfg.Machine.SecurityProfile.WorkloadIsolation {
		w.mu.Lock()
		w.apart = true
		w.mu.Unlock()
		if err := w.services.Restart(ctx, service.CRI.String()); err != nil {
			return err
		}
		if err := w.services.WaitReady(ctx, service.CRI.String()); err != nil {
			return err
		}
	}
	w.settled = true
	return nil
}
