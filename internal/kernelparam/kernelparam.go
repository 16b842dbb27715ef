// Package kernelparam applies what the configuration wants of a running kernel:
// parameters (machine.sysctls, machine.sysfs) and modules
// (machine.kernel.modules), which on a node are built in or not there.
//
// It owns the parameters that the configuration or the system's own list names,
// as long as they name them: then they get back the value that they had. It
// leaves all others alone. It is for machines: in a container the kernel is the
// host's. Its functions are safe for concurrent use, its controllers are run by
// one runtime.
package kernelparam

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/reconcile"
	"talos/internal/resources/runtime"
)

// Prefixes of ids: where a parameter is.
const (
	sysctlPrefix = "proc.sys."
	sysfsPrefix  = "sys."
)

// Options say what to apply besides the configuration.
type Options struct {
	Log *slog.Logger
	// Defaults are the system's own sysctls, by name; one that the kernel does not
	// have is no error. The configuration may override them; weakening the system
	// that way is logged as a warning.
	Defaults map[string]string
	// Root is where proc and sys are; "/" if empty.
	Root string
	// Modules lists the modules that are built in, as modules.builtin has them;
	// what is not in it may still be in /sys/module. Empty is no file.
	Modules string
}

// Controllers makes the package's controllers.
func Controllers(opts Options) []controller.Controller {
	if opts.Root == "" {
		opts.Root = "/"
	}
	s := &setter{log: opts.Log, root: opts.Root, before: map[resource.ID]string{}, refused: map[resource.ID]bool{}}
	wants := &reconcile.Controller{
		ID: "runtime.KernelParamConfigController", Log: opts.Log, In: []controller.Input{active.Input()},
		Out: []resource.Kind{reconcile.Kind[*runtime.KernelParamSpec]()},
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil {
				return err
			}
			for id, spec := range Wanted(opts.Defaults, machine(cfg), log) {
				if err := reconcile.Put(ctx, r, runtime.NewKernelParamSpec(id), spec); err != nil {
					return err
				}
			}
			return nil
		},
	}
	applies := &reconcile.Controller{
		ID: "runtime.KernelParamSpecController", Log: opts.Log, In: []controller.Input{reconcile.Input[*runtime.KernelParamSpec]()},
		Out:  []resource.Kind{reconcile.Kind[*runtime.KernelParamStatus]()},
		Step: s.step,
	}
	return []controller.Controller{wants, applies, modules(opts)}
}

func machine(cfg *config.Config) config.Machine {
	if cfg == nil || cfg.Machine == nil {
		return config.Machine{}
	}
	return *cfg.Machine
}

// Wanted puts together the parameters by their ids: the defaults, and over them
// what the configuration says. Defaults that stand for every network link are
// left to who sets them on each; changing one of them for a link is told too.
func Wanted(defaults map[string]string, m config.Machine, log *slog.Logger) map[resource.ID]runtime.KernelParamSpecSpec {
	out := map[resource.ID]runtime.KernelParamSpecSpec{}
	for name, value := range defaults {
		if !strings.Contains(name, "*") {
			out[sysctlPrefix+name] = runtime.KernelParamSpecSpec{Value: value, IgnoreErrors: true} // it may be no part of the kernel
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Sysctls)) {
		value := m.Sysctls[name]
		if was, ok := hardened(defaults, dotted(name)); ok && normal(was) != normal(value) {
			log.Warn("the configuration changes a parameter that the system hardens", "parameter", name, "from", was, "to", value)
		}
		out[sysctlPrefix+dotted(name)] = runtime.KernelParamSpecSpec{Value: value}
	}
	for name, value := range m.Sysfs {
		out[sysfsPrefix+dotted(name)] = runtime.KernelParamSpecSpec{Value: value}
	}
	return out
}

// hardened finds a parameter among the defaults, where an element "*" stands for
// any network link.
func hardened(defaults map[string]string, name string) (string, bool) {
	if value, ok := defaults[name]; ok {
		return value, true
	}
	elements := strings.Split(name, ".")
	for pattern, value := range defaults {
		p := strings.Split(pattern, ".")
		if slices.EqualFunc(p, elements, func(p, e string) bool { return p == "*" || p == e }) {
			return value, true
		}
	}
	return "", false
}

// dotted is a name in the usual form. As sysctl(8) has it, in a name whose first
// separator is a slash, slashes separate and dots are themselves, and the other
// way round: net/ipv4/conf/eth0.100/forwarding is net.ipv4.conf.eth0/100.forwarding.
func dotted(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	return swapped(name)
}

func swapped(name string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}

// file is where the kernel has a parameter. One whose name leads out of
// /proc/sys and /sys has none.
func file(root string, id resource.ID) (string, error) {
	name := "/" + swapped(id)
	inside := strings.HasPrefix(name, "/proc/sys/") || strings.HasPrefix(name, "/sys/")
	if path.Clean(name) != name || !inside {
		return "", fmt.Errorf("%q names no kernel parameter", id)
	}
	return filepath.Join(root, name), nil
}

// setter keeps parameters as they are wanted.
type setter struct {
	log  *slog.Logger
	root string
	// before are the values from before the first time, of those that are set now.
	before map[resource.ID]string
	// refused are those that the kernel does not have, of which a person was told.
	refused map[resource.ID]bool
}

func (s *setter) step(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	list, err := safe.ReaderListAll[*runtime.KernelParamSpec](ctx, r)
	if err != nil {
		return fmt.Errorf("list kernel parameters: %w", err)
	}
	wanted := map[resource.ID]runtime.KernelParamSpecSpec{}
	for item := range list.All() {
		wanted[item.Metadata().ID()] = *item.TypedSpec()
	}
	// First back, then forth: one may be the condition of another.
	problems := s.revert(wanted)
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		status, err := s.set(id, wanted[id])
		if err != nil {
			problems = append(problems, err)
		}
		if err := reconcile.Put(ctx, r, runtime.NewKernelParamStatus(id), status); err != nil {
			return err
		}
	}
	// Another step will try again; until then the statuses tell of those that worked.
	return errors.Join(problems...)
}

// revert gives those that nobody wants any more the value that they had.
func (s *setter) revert(wanted map[resource.ID]runtime.KernelParamSpecSpec) []error {
	var problems []error
	for _, id := range slices.Sorted(maps.Keys(s.before)) {
		if _, ok := wanted[id]; ok {
			continue
		}
		if err := write(s.root, id, s.before[id]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, fmt.Errorf("set back: %w", err))
			continue
		}
		delete(s.before, id)
	}
	return problems
}

// set makes one parameter what is wanted, if it is not.
func (s *setter) set(id resource.ID, want runtime.KernelParamSpecSpec) (runtime.KernelParamStatusSpec, error) {
	have, err := read(s.root, id)
	if errors.Is(err, fs.ErrNotExist) {
		if !s.refused[id] && !want.IgnoreErrors {
			s.refused[id] = true
			s.log.Warn("the kernel has no such parameter", "parameter", id)
		}
		return runtime.KernelParamStatusSpec{Unsupported: true}, nil
	}
	if err != nil {
		return runtime.KernelParamStatusSpec{}, err
	}
	delete(s.refused, id)
	if _, known := s.before[id]; !known {
		s.before[id] = have
	}
	status := runtime.KernelParamStatusSpec{Current: have, Default: s.before[id]}
	if normal(have) == normal(want.Value) {
		return status, nil
	}
	if err := write(s.root, id, want.Value); err != nil {
		if want.IgnoreErrors {
			return status, nil
		}
		return status, err
	}
	// What the kernel made of it: it may round, or show only what is chosen.
	if status.Current, err = read(s.root, id); err != nil {
		return status, err
	}
	return status, nil
}

// normal makes values comparable: the kernel separates some by tabs. Of a choice
// such as "none [mq-deadline]" it is what is chosen.
func normal(value string) string {
	fields := strings.Fields(value)
	for _, f := range fields {
		if len(f) > 2 && f[0] == '[' && f[len(f)-1] == ']' && len(fields) > 1 {
			return f[1 : len(f)-1]
		}
	}
	return strings.Join(fields, " ")
}

func read(root string, id resource.ID) (string, error) {
	name, err := file(root, id)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(name)
	return strings.TrimSpace(string(data)), err
}

func write(root string, id resource.ID, value string) error {
	name, err := file(root, id)
	if err != nil {
		return err
	}
	if err := put(name, value); err != nil {
		return fmt.Errorf("set %s to %q: %w", id, value, err)
	}
	return nil
}

// put writes to a file of the kernel's, which is there or not.
func put(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
