package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"talos/internal/loop"
)

// freezers are the two ways in which control groups stop their processes: file
// and values of version 1, which takes its time, and of version 2.
var freezers = []struct{ file, frozen, thawed, state, isFrozen string }{
	{"freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"},
	{"cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"},
}

// freezePatience is how long all processes of a node may take to stop.
const freezePatience = 10 * time.Second

// Freeze stops all processes of the node where they are; its network and what
// others have open with it stay. Thaw lets them go on.
func (n Node) Freeze(ctx context.Context) error {
	if _, running := n.Running(); !running {
		return fmt.Errorf("%s does not run", n.Hostname)
	}
	if err := setFrozen(n.Cgroup, true); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, freezePatience)
	defer cancel()
	for !n.Frozen(ctx) {
		if !loop.Sleep(ctx, 10*time.Millisecond) {
			return errors.Join(fmt.Errorf("freeze %s: its processes have not stopped in time", n.Hostname), setFrozen(n.Cgroup, false))
		}
	}
	return nil
}

// Thaw lets a frozen node go on; for others it does nothing.
func (n Node) Thaw(context.Context) error { return setFrozen(n.Cgroup, false) }

// Frozen reports whether all processes of the node are stopped.
func (n Node) Frozen(context.Context) bool {
	roots, err := hierarchies()
	if err != nil {
		return false
	}
	for _, root := range roots {
		for _, f := range freezers {
			data, err := os.ReadFile(filepath.Join(root, n.Cgroup, f.state))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(data)) {
				if strings.TrimSpace(line) == f.isFrozen {
					return true
				}
			}
		}
	}
	return false
}

func setFrozen(group string, frozen bool) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	found := false
	for _, root := range roots {
		for _, f := range freezers {
			value := f.thawed
			if frozen {
				value = f.frozen
			}
			err := os.WriteFile(filepath.Join(root, group, f.file), []byte(value), 0)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // not of this version, or no group
				continue
			}
			if err != nil {
				return err
			}
			found = true
		}
	}
	if frozen && !found {
		return fmt.Errorf("control group %s has no freezer", group)
	}
	return nil
}
