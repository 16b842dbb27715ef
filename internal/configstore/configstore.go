// Package configstore keeps the machine configuration: it finds it at boot,
// checks what is applied, stores it so that a power cut leaves the old one or
// the new one whole, keeps the previous one, and makes the one in force a
// resource.
//
// What the keys mean is package config's; what they lead to, the controllers'.
// A Store is safe for concurrent use: one application at a time.
package configstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/api/machine"
	"talos/config"
	"talos/internal/layout"
	"talos/internal/linux/atomicfile"
	"talos/internal/resources/cluster"
	configres "talos/internal/resources/config"
)

// previousSuffix names the configuration that was in force before.
const previousSuffix = ".previous"

// Result is what became of an application.
type Result struct {
	Mode     machine.ApplyConfigurationRequest_Mode // how it takes effect
	Details  string                                 // the same, for a person
	Warnings []string
	Diff     string // with secrets redacted
}

// Store holds the configuration of one node.
type Store struct {
	st     state.State
	log    *slog.Logger
	file   string                          // on STATE
	seed   string                          // what the platform hands in, read when there is no file
	reboot func(ctx context.Context) error // starts the machine again, or at least starts doing so

	mu     sync.Mutex     // one application at a time; guards the fields below
	active *config.Config // in force; nil before the first
	revert *time.Timer    // of a configuration that is being tried
}

// New makes the store of a node. reboot restarts it.
func New(st state.State, log *slog.Logger, reboot func(ctx context.Context) error) *Store {
	return &Store{st: st, log: log, file: layout.ConfigFile, seed: layout.PlatformConfigFile, reboot: reboot}
}

// Load finds the configuration at boot: the one on STATE, else the one from
// the platform, which is stored. found is false when there is none. One that
// can't be used is an error; if the previous one can be, that is in force.
func (s *Store) Load(ctx context.Context) (found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, source := range []string{s.file, s.file + previousSuffix, s.seed} {
		data, readErr := os.ReadFile(source)
		if errors.Is(readErr, fs.ErrNotExist) {
			continue
		}
		if readErr != nil {
			err = errors.Join(err, readErr)
			continue
		}
		cfg, warnings, loadErr := config.Load(source, data)
		if loadErr != nil {
			err = errors.Join(err, fmt.Errorf("configuration %s: %w", source, loadErr))
			continue
		}
		for _, w := range warnings {
			s.log.Warn("configuration", "warning", w.String())
		}
		if source != s.file {
			if writeErr := write(s.file, data); writeErr != nil {
				return false, fmt.Errorf("store configuration: %w", writeErr)
			}
		}
		s.log.Info("configuration loaded", "source", source, "type", cfg.Machine.Type)
		return true, errors.Join(err, s.publish(ctx, cfg, data))
	}
	return false, err
}

// Apply checks a document and, unless dryRun, makes it the configuration. A
// document or a mode that is refused changes nothing. tryFor is for mode try
// alone, at most an hour, by default a minute.
func (s *Store) Apply(ctx context.Context, document []byte, mode machine.ApplyConfigurationRequest_Mode, dryRun bool, tryFor time.Duration) (Result, error) {
	cfg, warnings, err := config.Load("configuration", document)
	if err != nil {
		return Result{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	plan, err := s.plan(cfg, mode)
	if err != nil {
		return Result{}, err
	}
	for _, w := range warnings {
		plan.Warnings = append(plan.Warnings, w.String())
	}
	if dryRun {
		return plan, nil
	}
	if plan.Mode == machine.ApplyConfigurationRequest_TRY {
		return plan, s.try(ctx, cfg, document, tryFor)
	}
	s.stopTrying()
	if err := s.save(document); err != nil {
		return Result{}, fmt.Errorf("store configuration: %w", err)
	}
	s.log.Info("configuration stored", "mode", plan.Mode.String())
	switch plan.Mode {
	case machine.ApplyConfigurationRequest_STAGED:
		return plan, nil
	case machine.ApplyConfigurationRequest_REBOOT:
		return plan, s.reboot(ctx) // in force when the node is back, not for a moment before
	default:
		return plan, s.publish(ctx, cfg, document)
	}
}

// plan decides how a configuration takes effect.
func (s *Store) plan(cfg *config.Config, mode machine.ApplyConfigurationRequest_Mode) (Result, error) {
	result := Result{Mode: mode}
	var need []string
	if s.active == nil {
		result.Diff = config.Diff(&config.Config{}, cfg)
	} else {
		if is, want := s.active.Machine.Type, cfg.Machine.Type; is != want {
			return result, fmt.Errorf("machine.type: got %q, but this node is a %s: a node keeps its type until it is reset", want, is)
		}
		need = config.NeedReboot(config.Changed(s.active, cfg))
		result.Diff = config.Diff(s.active, cfg)
	}
	switch mode {
	case machine.ApplyConfigurationRequest_STAGED:
		result.Details = "stored; takes effect at the next reboot"
	case machine.ApplyConfigurationRequest_NO_REBOOT, machine.ApplyConfigurationRequest_TRY:
		if len(need) > 0 {
			return result, fmt.Errorf("mode %s: these keys need a reboot to take effect: %s; use mode auto or staged",
				strings.ToLower(mode.String()), strings.Join(need, ", "))
		}
		result.Details = "applied without a reboot"
	case machine.ApplyConfigurationRequest_REBOOT:
		result.Details = "stored; the node reboots"
	default: // AUTO
		result.Mode, result.Details = machine.ApplyConfigurationRequest_NO_REBOOT, "applied without a reboot"
		if len(need) > 0 {
			result.Mode = machine.ApplyConfigurationRequest_REBOOT
			result.Details = "stored; the node reboots for " + strings.Join(need, ", ")
		}
	}
	return result, nil
}

// try puts a configuration in force without storing it, and goes back.
func (s *Store) try(ctx context.Context, cfg *config.Config, document []byte, limit time.Duration) error {
	if s.active == nil {
		return errors.New("mode try: there is no configuration to go back to; use mode auto")
	}
	if limit <= 0 {
		limit = time.Minute
	}
	limit = min(limit, time.Hour)
	s.stopTrying()
	if err := s.publish(ctx, cfg, document); err != nil {
		return err
	}
	s.revert = time.AfterFunc(limit, func() {
		if _, err := s.Load(context.Background()); err != nil {
			s.log.Error("going back to the stored configuration", "err", err)
			return
		}
		s.log.Info("tried configuration was not confirmed: the stored one is in force again")
	})
	return nil
}

func (s *Store) stopTrying() {
	if s.revert != nil {
		s.revert.Stop()
		s.revert = nil
	}
}

// save writes the document, keeping the one before it. What is there already
// is not written again, or the previous one would be lost.
func (s *Store) save(document []byte) error {
	old, err := os.ReadFile(s.file)
	if err == nil && bytes.Equal(old, document) {
		return nil
	}
	if err == nil {
		err = write(s.file+previousSuffix, old)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return write(s.file, document)
}

// publish makes the configuration the one that controllers see.
func (s *Store) publish(ctx context.Context, cfg *config.Config, document []byte) error {
	if err := upsert(ctx, s.st, configres.NewMachineConfig(configres.ActiveID), func(res *configres.MachineConfig) {
		res.TypedSpec().Document = document
	}); err != nil {
		return fmt.Errorf("publish configuration: %w", err)
	}
	if err := upsert(ctx, s.st, configres.NewMachineType(), func(res *configres.MachineType) {
		res.TypedSpec().Type = cluster.ParseMachineType(cfg.Machine.Type)
	}); err != nil {
		return fmt.Errorf("publish machine type: %w", err)
	}
	s.active = cfg
	return nil
}

// Active is the configuration in force, nil when there is none.
func (s *Store) Active() *config.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// WaitConfigured blocks until there is a configuration.
func (s *Store) WaitConfigured(ctx context.Context) error {
	_, err := s.st.WatchFor(ctx, configres.NewMachineConfig(configres.ActiveID).Metadata(), state.WithEventTypes(state.Created, state.Updated))
	return err
}

// upsert creates or changes a resource that this package owns.
func upsert[R interface {
	resource.Resource
	comparable
}](ctx context.Context, st state.State, fresh R, change func(R)) error {
	change(fresh)
	err := st.Create(ctx, fresh)
	if err == nil || !state.IsConflictError(err) {
		return err
	}
	_, err = safe.StateUpdateWithConflicts(ctx, st, fresh.Metadata(), func(res R) error {
		change(res)
		return nil
	})
	return err
}

// write replaces a file so that at any moment it is the old one or the new
// one, whole, and the new one once write has returned.
func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Save(path, data, 0o600)
}
