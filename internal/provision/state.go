package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"talos/internal/linux/atomicfile"
	"talos/internal/provision/process"
)

// Load reads a cluster; ErrNotFound when there is none of the name.
func Load(name string) (*Cluster, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	d, err := newDirs(name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(d.cluster())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cluster %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{dirs: d}
	if err := yaml.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("decode %s: %w", d.cluster(), err)
	}
	known := c.backend() != nil && (c.Provisioner == VirtualMachines) == (c.VM != nil)
	if c.Name != name || len(c.controlPlanes()) == 0 || !c.Gateway.IsValid() || !known {
		return nil, fmt.Errorf("decode %s: not the description of cluster %s", d.cluster(), name)
	}
	return c, nil
}

// List reads all clusters, by name. One that cannot be read, such as after a
// creation that was interrupted, is left out.
func List() ([]*Cluster, error) {
	base, err := stateHome()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []*Cluster
	for _, e := range entries {
		if c, err := Load(e.Name()); err == nil {
			out = append(out, c)
		}
	}
	return out, nil
}

func (c *Cluster) save() error {
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode cluster: %w", err)
	}
	return atomicfile.Save(c.dirs.cluster(), data, 0o600)
}

// nodeNames lists the nodes that have a folder.
func (d dirs) nodeNames() ([]string, error) {
	entries, err := os.ReadDir(d.nodes())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}

// supervisorState is what the supervisor says about itself.
type supervisorState struct {
	Process process.ID           `json:"process"`
	Ready   bool                 `json:"ready"`
	Step    string               `json:"step"` // what it does until it is ready
	Error   string               `json:"error,omitempty"`
	Nodes   map[string]nodeState `json:"nodes,omitempty"`
	// Bootstrap is why etcd could not be bootstrapped yet; see bootstrap.go.
	Bootstrap string `json:"bootstrap,omitempty"`
	// Trouble is why a node has no configuration yet, by node; see maintenance.go.
	Trouble map[string]string `json:"trouble,omitempty"`
}

// nodeState is what the supervisor knows of a node.
type nodeState struct {
	State    string `json:"state"`
	Restarts int    `json:"restarts"` // that it did not ask for, since it last ran for long
	Error    string `json:"error,omitempty"`
}

// States of a node.
const (
	StateRunning    = "running"
	StateOff        = "off"        // powered off, or stopped
	StateRestarting = "restarting" // ended unasked; is started again after a pause
	StateUnattended = "unattended" // runs, but the supervisor does not
	StateFrozen     = "frozen"     // all its processes are stopped; see Freeze
)

func (d dirs) readSupervisor() supervisorState {
	var s supervisorState
	data, err := os.ReadFile(d.supervisor())
	if err != nil || json.Unmarshal(data, &s) != nil {
		return supervisorState{}
	}
	return s
}

func (d dirs) writeSupervisor(s supervisorState) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Save(d.supervisor(), data, 0o600)
}

// lockFile takes a lock on a file that it makes, and makes sure that the file
// is the one in place: it may be removed by who holds the lock. Without wait,
// unix.EWOULDBLOCK says that another has it.
func lockFile(path string, wait bool) (*os.File, error) {
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Flock(int(f.Fd()), how)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		mine, err1 := f.Stat()
		current, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, current) {
			return f, nil
		}
		f.Close()
	}
}

// operate takes the lock under which a cluster is changed.
func (d dirs) operate() (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(d.root), 0o700); err != nil {
		return nil, err
	}
	f, err := lockFile(d.operation(), true)
	if err != nil {
		return nil, err
	}
	return func() {
		if _, err := os.Stat(d.root); errors.Is(err, fs.ErrNotExist) {
			os.Remove(d.operation()) // still locked; what remains is an empty file
		}
		f.Close()
	}, nil
}
