package metal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/internal/install"
	"talos/internal/reconcile"
	"talos/internal/resources/runtime"
	"talos/internal/secureboot"
)

// stubVariable is what the program at the head of our kernel images leaves with
// the firmware, under systemd's id.
const stubVariable = "StubInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// Security makes the controller that tells how firmware and kernel guard what
// they start. It can't change before the next start. root is usually "/".
func Security(log *slog.Logger, root string) controller.Controller {
	c := &reconcile.Controller{ID: "runtime.SecurityStateController", Log: log, Shared: []resource.Type{runtime.SecurityStateType}}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		state, err := securityState(root)
		if err != nil {
			return fmt.Errorf("see how the machine was started: %w", err)
		}
		return reconcile.Output(ctx, r, c.Name(), runtime.NewSecurityState, map[resource.ID]runtime.SecurityStateSpec{runtime.SecurityStateID: state}, nil)
	}
	return c
}

// securityState reads it. Our kernel has neither SELinux nor FIPS.
func securityState(root string) (runtime.SecurityStateSpec, error) {
	var s runtime.SecurityStateSpec
	value, err := os.ReadFile(filepath.Join(root, install.EFIVars, secureboot.StateVariable))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	const attributes = 4 // bytes before the value
	s.SecureBoot = len(value) == attributes+1 && value[attributes] == 1
	if s.BootedWithUKI, err = exists(filepath.Join(root, install.EFIVars, stubVariable)); err != nil {
		return s, err
	}
	modules, err := exists(filepath.Join(root, "proc/modules"))
	s.ModuleSignatureEnforced = !modules
	return s, err
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
