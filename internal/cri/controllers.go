package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/containers"
	"talos/internal/linux/atomicfile"
	"talos/internal/reconcile"
	"talos/internal/resources/cri"
)

// RegistriesID is the id of the one RegistryConfig.
const RegistriesID = resource.ID("registries")

// ControllerOptions are what the controllers need of the rest.
type ControllerOptions struct {
	Log *slog.Logger
	// Restart restarts the CRI containerd; pods go on running. It is called
	// when credentials change, which containerd reads only at its start.
	Restart func(ctx context.Context) error
	// Dir is containers.HostsDir, AuthFile containers.AuthFile; tests bend them.
	Dir, AuthFile string
}

// Controllers makes the package's controllers.
func Controllers(o ControllerOptions) []controller.Controller {
	if o.Dir == "" {
		o.Dir, o.AuthFile = containers.HostsDir, containers.AuthFile
	}
	return []controller.Controller{
		&reconcile.Controller{
			ID:   "cri.RegistriesConfigController",
			In:   []controller.Input{active.Input()},
			Out:  []resource.Kind{reconcile.Kind[*cri.RegistryConfig]()},
			Log:  o.Log,
			Step: publishRegistries,
		},
		&reconcile.Controller{
			ID:   "cri.RegistriesFileController",
			In:   []controller.Input{reconcile.Input[*cri.RegistryConfig]()},
			Log:  o.Log,
			Step: o.writeRegistries,
		},
	}
}

// publishRegistries turns the configuration into a RegistryConfig.
func publishRegistries(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil {
		return err
	}
	return reconcile.Put(ctx, r, cri.NewRegistryConfig(RegistriesID), FromConfig(cfg.Machine.Registries))
}

// writeRegistries makes the files what the RegistryConfig says.
func (o ControllerOptions) writeRegistries(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	res, err := safe.ReaderGetByID[*cri.RegistryConfig](ctx, r, RegistriesID)
	if state.IsNotFoundError(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := writeTree(o.Dir, Files(*res.TypedSpec())); err != nil {
		return fmt.Errorf("write registry settings: %w", err)
	}
	auths, err := json.Marshal(credentialsOf(*res.TypedSpec()))
	if err != nil {
		return err
	}
	before, err := os.ReadFile(o.AuthFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(before) == string(auths) || before == nil && string(auths) == "{}" {
		return nil
	}
	if err := writeFile(o.AuthFile, auths); err != nil {
		return err
	}
	return o.Restart(ctx)
}

// writeTree writes files below dir and removes folders that have none of them.
func writeTree(dir string, files map[string]string) error {
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if err := writeFile(filepath.Join(dir, path), []byte(files[path])); err != nil {
			return err
		}
	}
	wanted := map[string]bool{}
	for path := range files {
		wanted[filepath.Dir(path)] = true
	}
	folders, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, d := range folders {
		// An empty folder would hide _default: it goes whole.
		if !wanted[d.Name()] {
			if err := os.RemoveAll(filepath.Join(dir, d.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeFile replaces a file whole, and only if it differs; it may be secret.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Update(path, content, 0o600)
}

// WriteSystemConfig writes the configuration of the OS's own containerd.
func WriteSystemConfig() error {
	return writeFile(SystemConfigFile, []byte(SystemConfig()))
}

// WriteConfig writes the configuration of the CRI containerd, by what the node
// can do and the registries in st.
func WriteConfig(ctx context.Context, st state.State, log *slog.Logger, restrictOOM bool) error {
	snapshotter, why := ChooseSnapshotter(Root)
	if why != nil {
		log.Warn("overlayfs does not work here, images will take more room", "dir", Root, "err", why)
	}
	o := Options{SandboxImage: config.PauseImage(), Snapshotter: snapshotter, RestrictOOM: restrictOOM}
	res, err := safe.StateGetByID[*cri.RegistryConfig](ctx, st, RegistriesID)
	if err == nil {
		o.Auths = authsOf(*res.TypedSpec())
	} else if !state.IsNotFoundError(err) {
		return err
	}
	return writeFile(ConfigFile, []byte(Config(o)))
}
