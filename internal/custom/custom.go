// Package custom applies what the configuration adds to the node that nothing
// else here needs: files (machine.files) and environment variables
// (machine.env).
//
// Files are written once per boot, below the writable places only. The
// variables become the Environment resource; whoever starts a program that
// should see them reads it there.
package custom

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/layout"
	"talos/internal/linux/atomicfile"
	"talos/internal/reconcile"
	"talos/internal/resources/runtime"
)

// EnvironmentID is the id of the one Environment.
const EnvironmentID = resource.ID("machined")

// writable are where files may be put: EPHEMERAL and its binds elsewhere.
var writable = []string{layout.EphemeralDir, "/opt", "/etc/cni"}

// Controllers makes the package's controllers. changed is called when the
// variables changed, to restart what should see them.
func Controllers(log *slog.Logger, changed func(ctx context.Context) error) []controller.Controller {
	input := []controller.Input{active.Input()}
	f := &fileWriter{log: log, root: "/"}
	return []controller.Controller{
		&reconcile.Controller{ID: "files.MachineFileController", In: input, Log: log, Step: f.write},
		&reconcile.Controller{
			ID: "runtime.EnvironmentController", In: input, Log: log,
			Out: []resource.Kind{reconcile.Kind[*runtime.Environment]()},
			Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
				return publishEnv(ctx, r, changed)
			},
		},
	}
}

// machine reads the configuration; nil when there is none yet.
func machine(ctx context.Context, r controller.Reader) (*config.Machine, error) {
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil {
		return nil, err
	}
	return cfg.Machine, nil
}

// Variables lists the configured variables in st as NAME=value, sorted.
func Variables(ctx context.Context, st state.State) ([]string, error) {
	res, err := safe.StateGetByID[*runtime.Environment](ctx, st, EnvironmentID)
	if state.IsNotFoundError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return res.TypedSpec().Variables, nil
}

func publishEnv(ctx context.Context, r controller.Runtime, changed func(context.Context) error) error {
	m, err := machine(ctx, r)
	if err != nil || m == nil {
		return err
	}
	var want []string
	for _, name := range slices.Sorted(maps.Keys(m.Env)) {
		want = append(want, name+"="+m.Env[name])
	}
	var had []string
	err = safe.WriterModify(ctx, r, runtime.NewEnvironment(EnvironmentID), func(res *runtime.Environment) error {
		had = res.TypedSpec().Variables
		res.TypedSpec().Variables = want
		return nil
	})
	if err != nil || slices.Equal(had, want) {
		return err
	}
	// For what machined does itself, such as pulling images.
	for _, variable := range had {
		name, _, _ := strings.Cut(variable, "=")
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("unset %s: %w", name, err)
		}
	}
	for name, value := range m.Env {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return changed(ctx)
}

// fileWriter writes the files of the first configuration it sees; a change of
// them takes effect with a reboot, as the table of keys says.
type fileWriter struct {
	log  *slog.Logger
	root string // "/", or where a test keeps its node
	done bool
}

func (f *fileWriter) write(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	if f.done {
		return nil
	}
	m, err := machine(ctx, r)
	if err != nil || m == nil {
		return err
	}
	f.done = true
	for _, file := range m.Files {
		if err := put(f.root, file); err != nil {
			// One bad file must not keep the others, or the node, from working.
			f.log.Error("machine.files", "path", file.Path, "op", file.Op, "err", err)
		}
	}
	return nil
}

// put makes one file what is wanted. Doing so again changes nothing.
func put(root string, f config.MachineFile) error {
	path := filepath.Clean(f.Path)
	if !slices.ContainsFunc(writable, func(dir string) bool { return strings.HasPrefix(path, dir+"/") }) {
		return fmt.Errorf("%s: files can be put below %s only", path, strings.Join(writable, ", "))
	}
	path = filepath.Join(root, path)
	have, err := os.ReadFile(path)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	content := f.Content
	switch f.Op {
	case "create":
		if exists && string(have) != f.Content {
			return fmt.Errorf("create %s: %w", path, fs.ErrExist)
		}
	case "overwrite":
		if !exists {
			return fmt.Errorf("overwrite %s: %w", path, fs.ErrNotExist)
		}
	case "append":
		if !exists {
			return fmt.Errorf("append to %s: %w", path, fs.ErrNotExist)
		}
		content = string(have)
		if !strings.Contains(content, f.Content) { // EPHEMERAL outlives a boot: it may be there
			content += f.Content
		}
	default:
		return fmt.Errorf("%s: unknown op %q", path, f.Op)
	}
	return replace(path, content, fs.FileMode(f.Permissions))
}

// replace writes a file whole; permissions 0 mean 0644.
func replace(path, content string, mode fs.FileMode) error {
	if mode == 0 {
		mode = 0o644
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return atomicfile.Save(path, []byte(content), mode)
}
