package kernelparam

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/reconcile"
	"talos/internal/resources/runtime"
)

// ModulesDiagnosticID is the id of the Diagnostic that names modules that are
// asked for and not there.
const ModulesDiagnosticID = resource.ID("kernel-modules")

// Module says what becomes of one that the configuration asks for.
type Module struct {
	Name    string
	Builtin bool
	Problem string // why it is not as asked for; empty if it is
}

var (
	moduleName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	paramName  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
)

// Builtin reads which modules a kernel has built in: from its list, if there is
// one, and those that show themselves below /sys/module. Names have _ for -.
func Builtin(root, list string) (map[string]bool, error) {
	out := map[string]bool{}
	dirs, err := os.ReadDir(filepath.Join(root, "sys/module"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	for _, d := range dirs {
		out[underscored(d.Name())] = true
	}
	if list == "" {
		return out, nil
	}
	f, err := os.Open(list)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return out, lines.Err()
		}
		if name, ok := strings.CutSuffix(path.Base(lines.Text()), ".ko"); ok {
			out[underscored(name)] = true
		}
	}
}

func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Check says which of the wanted modules are built in. There are no others: the
// kernel of a node can't load any.
func Check(wanted []config.KernelModule, builtin map[string]bool) []Module {
	var out []Module
	for _, w := range wanted {
		m := Module{Name: w.Name, Builtin: builtin[underscored(w.Name)]}
		switch {
		case !moduleName.MatchString(w.Name):
			m.Problem = "is no name of a module"
		case !m.Builtin:
			m.Problem = "is not built into the kernel, and modules can't be loaded"
		}
		out = append(out, m)
	}
	return out
}

// setParameter gives a parameter of a module that is built in a value, where it
// can be changed while the kernel runs.
func setParameter(root, module, parameter string) error {
	name, value, _ := strings.Cut(parameter, "=")
	if !paramName.MatchString(name) || strings.Contains(name, "..") {
		return fmt.Errorf("parameter %q is no name", name)
	}
	for _, form := range []string{underscored(module), module} {
		at := filepath.Join(root, "sys/module", form, "parameters", name)
		if have, err := os.ReadFile(at); err == nil && normal(string(have)) == normal(value) {
			return nil
		}
		err := put(at, value)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("parameter %s can't be changed now: put %s.%s into machine.install.extraKernelArgs", name, module, parameter)
		}
		return err
	}
	return fmt.Errorf("it has no parameter %s", name)
}

// assessment is what becomes of all that the configuration asks for.
type assessment struct {
	specs    map[resource.ID]runtime.KernelModuleSpecSpec
	statuses map[resource.ID]runtime.KernelModuleStatusSpec
	problems []string
}

// assess checks modules, and sets the parameters of those that are there.
func assess(root string, wanted []config.KernelModule, builtin map[string]bool) assessment {
	a := assessment{specs: map[resource.ID]runtime.KernelModuleSpecSpec{}, statuses: map[resource.ID]runtime.KernelModuleStatusSpec{}}
	for i, m := range Check(wanted, builtin) {
		if m.Name != "" {
			a.specs[m.Name] = runtime.KernelModuleSpecSpec{Name: m.Name, Parameters: wanted[i].Parameters}
		}
		if m.Problem != "" {
			a.problems = append(a.problems, fmt.Sprintf("%q %s", m.Name, m.Problem))
			continue
		}
		a.statuses[m.Name] = runtime.KernelModuleStatusSpec{Type: runtime.ModuleBuiltin, State: runtime.ModuleStateBuiltin}
		for _, p := range wanted[i].Parameters {
			if err := setParameter(root, m.Name, p); err != nil {
				a.problems = append(a.problems, fmt.Sprintf("%q: %v", m.Name, err))
			}
		}
	}
	return a
}

// modules tells which modules are there, and what is wrong with the others.
func modules(opts Options) controller.Controller {
	c := &reconcile.Controller{ID: "runtime.KernelModuleSpecController", Log: opts.Log, In: []controller.Input{active.Input()}}
	c.Shared = []resource.Type{runtime.KernelModuleSpecType, runtime.KernelModuleStatusType, runtime.DiagnosticType}
	var told []string
	c.Step = func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
		cfg, err := active.Config(ctx, r)
		if err != nil {
			return err
		}
		var wanted []config.KernelModule
		if k := machine(cfg).Kernel; k != nil {
			wanted = k.Modules
		}
		builtin, err := Builtin(opts.Root, opts.Modules)
		if err != nil {
			return err
		}
		a := assess(opts.Root, wanted, builtin)
		diagnostics := map[resource.ID]runtime.DiagnosticSpec{}
		if a.problems != nil {
			diagnostics[ModulesDiagnosticID] = runtime.DiagnosticSpec{Message: "machine.kernel.modules asks for what the kernel has not", Details: a.problems}
		}
		if !slices.Equal(a.problems, told) {
			told = a.problems
			for _, p := range a.problems {
				log.Error("machine.kernel.modules", "problem", p)
			}
		}
		return errors.Join(
			reconcile.Output(ctx, r, c.Name(), runtime.NewKernelModuleSpec, a.specs, nil),
			reconcile.Output(ctx, r, c.Name(), runtime.NewKernelModuleStatus, a.statuses, nil),
			reconcile.Output(ctx, r, c.Name(), runtime.NewDiagnostic, diagnostics, nil))
	}
	return c
}
