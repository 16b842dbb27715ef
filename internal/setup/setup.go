// Package setup makes a machine that was told what to be one that starts from
// its own disk.
//
// A machine that came from an ISO or the network has its configuration in
// memory. Once there is one that names a disk, setup shows the plan, writes the
// disk with package install, the configuration and the node's identity with it,
// and has the machine start again. Whatever is in the way is told, and tried
// again when the configuration or the disks change. A machine that has come from
// its disk has only further disks to mount, and one whose configuration names no
// disk runs from memory.
//
// A Setup is safe for concurrent use; Run is called once.
package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/install"
	"talos/internal/layout"
	"talos/internal/meta"
	configres "talos/internal/resources/config"
	"talos/internal/resources/runtime"
	"talos/internal/volume"
)

// again is after how long a disk is looked for again that was not there.
const again = 10 * time.Second

// diagnosticID names what is in the way.
const diagnosticID = "installation"

// Options are what a Setup works on.
type Options struct {
	State state.State
	Log   *slog.Logger
	// Installed says that the machine has come from its disk.
	Installed bool
	Medium    string // folder of what is installed
	StateDir  string // folder of what becomes STATE
	Meta      func() meta.Values
	Args      []string   // for the kernel's command line, beside the configuration's
	Exec      volume.Run // runs a program to its end
	// Trouble, if set, is why an installed machine can't run anything.
	Trouble func() error
	// Extra mounts the disks of machine.disks.
	Extra func(ctx context.Context, disks []config.ExtraDisk) error
	// Begin and Restart tell the machine that its disk is being written, and
	// that it starts from it.
	Begin   func()
	Restart func(ctx context.Context) error
}

// Setup installs one machine.
type Setup struct {
	Options
	ready chan struct{} // closed when Kubernetes may run
	doing atomic.Pointer[[]string]
	list  func(ctx context.Context) ([]disk.Disk, error)
	put   func(ctx context.Context, cfg *config.Config) error // install, but in tests

	written bool // the disk is installed; of Run alone
}

// New makes the setup of this machine.
func New(o Options) *Setup {
	s := &Setup{Options: o, ready: make(chan struct{}), list: func(ctx context.Context) ([]disk.Disk, error) { return disk.List(ctx, "/") }}
	s.put = s.install
	return s
}

// Wait blocks until the machine is set up.
func (s *Setup) Wait(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done says whether the machine is set up.
func (s *Setup) Done() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// Plan says what a configuration would do to the machine's disks, "" for
// nothing, or why it can't.
func (s *Setup) Plan(ctx context.Context, cfg *config.Config) (string, error) {
	if s.Installed || !wanted(cfg) {
		return "", nil
	}
	p, err := s.plan(ctx, cfg)
	if err != nil {
		return "", err
	}
	if err := absent(install.CheckArguments(s.Medium, s.args(cfg))); err != nil {
		return "", err
	}
	return p.String(), nil
}

// absent says what a folder that is not there means.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nothing to install is at hand, since the machine was not started from an installation medium: %w", err)
	}
	return err
}

// args are for the installed kernel's command line.
func (s *Setup) args(cfg *config.Config) []string {
	return slices.Concat(s.Args, cfg.Machine.Install.ExtraKernelArgs)
}

// wanted says whether a configuration names a disk.
func wanted(cfg *config.Config) bool {
	i := cfg.Machine.Install
	return i != nil && (i.Disk != "" || i.DiskSelector != nil)
}

func (s *Setup) plan(ctx context.Context, cfg *config.Config) (install.Plan, error) {
	disks, err := s.list(ctx)
	if err != nil {
		return install.Plan{}, err
	}
	return install.MakePlan(install.Survey(ctx, disks, install.BootPartition(install.EFIVars)), install.FromConfig(cfg.Machine.Install))
}

// Run waits for a configuration and sets the machine up.
func (s *Setup) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := make(chan state.Event)
	if err := s.State.Watch(ctx, configres.NewMachineConfig(configres.ActiveID).Metadata(), changes); err != nil {
		return fmt.Errorf("watch the configuration: %w", err)
	}
	var retry <-chan time.Time
	for {
		select {
		case e := <-changes:
			if e.Error != nil {
				return fmt.Errorf("watch the configuration: %w", e.Error)
			}
		case <-retry:
		case <-ctx.Done():
			return nil
		}
		cfg, err := active.Config(ctx, s.State)
		if err != nil {
			return err
		}
		if cfg == nil {
			retry = nil
			continue
		}
		trouble := s.step(ctx, cfg)
		if err := s.tell(ctx, trouble); err != nil {
			return err
		}
		if trouble == nil {
			return nil
		}
		s.Log.Error("the machine is not set up", "err", trouble, "again", again)
		retry = time.After(again)
	}
}

// step does what the machine needs next with a configuration.
func (s *Setup) step(ctx context.Context, cfg *config.Config) error {
	if !s.Installed && wanted(cfg) {
		if !s.written {
			if err := s.put(ctx, cfg); err != nil {
				return err
			}
			s.written = true
		}
		return s.Restart(ctx) // again, if something else is under way just now
	}
	if !s.Installed {
		s.Log.Warn("the configuration names no disk: the machine runs from memory, and forgets everything when it goes down")
	}
	if s.Trouble != nil {
		if err := s.Trouble(); err != nil {
			return err
		}
	}
	if extra := cfg.Machine.Disks; len(extra) > 0 {
		if err := s.Extra(ctx, extra); err != nil {
			return err
		}
	}
	close(s.ready)
	return nil
}

func (s *Setup) install(ctx context.Context, cfg *config.Config) error {
	p, err := s.plan(ctx, cfg)
	if err != nil {
		return err
	}
	source, err := install.OpenSource(s.Medium)
	if err != nil {
		return absent(err)
	}
	defer source.Close()
	s.Begin()
	shown := strings.Split(strings.TrimSpace(p.String()), "\n")
	for _, line := range shown {
		s.Log.Info("plan", "step", strings.TrimSpace(line))
	}
	o := install.Options{
		Meta: s.Meta(), Args: s.args(cfg), Run: s.Exec,
		Progress: func(step string) {
			s.Log.Info("installation", "step", step, "disk", p.Disk.Path)
			now := append(slices.Clone(shown), step)
			s.doing.Store(&now)
		},
	}
	err = s.write(func(files map[string][]byte) error {
		o.State = files
		err := install.Execute(ctx, p, source, o)
		p.Wipe = true // should it be done again, what is on the disk is ours
		return err
	})
	if err != nil {
		return err
	}
	s.register(p.Disk.Path)
	return nil
}

// write has the files of STATE written until the configuration among them is the
// one that is in force: somebody may apply another while the disk is written, and
// be told that it is stored.
func (s *Setup) write(execute func(files map[string][]byte) error) error {
	const attempts = 3
	name := filepath.Base(layout.ConfigFile)
	for range attempts {
		files, err := read(s.StateDir)
		if err != nil {
			return err
		}
		if err := execute(files); err != nil {
			return err
		}
		now, err := os.ReadFile(filepath.Join(s.StateDir, name))
		if err != nil {
			return err
		}
		if bytes.Equal(now, files[name]) {
			return nil
		}
		s.Log.Warn("the configuration has changed while the disk was written: once more")
	}
	return fmt.Errorf("the configuration has changed %d times while the disk was written", attempts)
}

// register tells the firmware of the disk, which helps where another medium
// comes first; most find it by themselves.
func (s *Setup) register(path string) {
	d, err := gpt.OpenReadOnly(path)
	if err == nil {
		err = install.RegisterBoot(install.EFIVars, d)
		d.Close()
	}
	if err != nil {
		s.Log.Warn("the firmware was not told of the disk", "err", err)
	}
}

// tell publishes what is in the way, or that nothing is.
func (s *Setup) tell(ctx context.Context, trouble error) error {
	d := runtime.NewDiagnostic(diagnosticID)
	if trouble == nil {
		err := s.State.Destroy(ctx, d.Metadata())
		if state.IsNotFoundError(err) {
			return nil
		}
		return err
	}
	return safe.StateModify(ctx, s.State, d, func(d *runtime.Diagnostic) error {
		d.TypedSpec().Message = "the machine is not set up"
		d.TypedSpec().Details = strings.Split(strings.TrimSpace(trouble.Error()), "\n")
		return nil
	})
}

// maxFile bounds what becomes part of STATE; a configuration is smaller.
const maxFile = 64 << 20

// Activity is what is being installed, for the console.
func (s *Setup) Activity() []string {
	if now := s.doing.Load(); now != nil {
		return *now
	}
	return nil
}

// read reads the files below a folder, by path.
func read(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info.Size() > maxFile {
			return fmt.Errorf("%s has %d bytes, more than STATE takes", path, info.Size())
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[name] = data
		return err
	})
	return files, err
}
