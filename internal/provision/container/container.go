// Package container runs nodes as operating system containers: it makes the
// bundle, has runc start it detached, finds it again, stops it, and clears away
// what runc and the node left on the host (mounts, control groups).
//
// A started node is nobody's child that matters: it writes its console straight
// into its log file and runs on when the one who started it ends. Nothing here
// is kept in memory; what runs is recorded in the node's folder. Calls for one
// node must not overlap, those for different nodes may.
package container

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"talos/internal/layout"
	"talos/internal/provision/process"
)

// Node is one container.
type Node struct {
	ID       string // for runc; unique on the host
	Dir      string // on the host, for all that is the node's
	Hostname string
	Rootfs   string // folder where the image is mounted
	Args     []string
	Cgroup   string // path below the root of every hierarchy
	Log      string // file that the console is appended to
	CPUs     float64
	Memory   int64 // bytes
}

// StateDir, MetaDir, EphemeralDir and PlatformDir are the node's persistent
// folders on the host.
func (n Node) StateDir() string     { return filepath.Join(n.Dir, "state") }
func (n Node) MetaDir() string      { return filepath.Join(n.Dir, "meta") }
func (n Node) EphemeralDir() string { return filepath.Join(n.Dir, "ephemeral") }
func (n Node) PlatformDir() string  { return filepath.Join(n.Dir, "platform") }

func (n Node) bundle() string  { return filepath.Join(n.Dir, "run") }
func (n Node) record() string  { return filepath.Join(n.Dir, "run", "process.json") }
func (n Node) runcDir() string { return filepath.Join(n.Dir, "run", "runc") }
func (n Node) power() string {
	return filepath.Join(n.MetaDir(), filepath.Base(layout.PowerFile))
}

// Prepare makes the node's folders.
func (n Node) Prepare() error {
	for dir, mode := range map[string]fs.FileMode{
		n.Dir: 0o700, n.StateDir(): 0o700, n.MetaDir(): 0o700, n.EphemeralDir(): 0o755, n.PlatformDir(): 0o700, n.bundle(): 0o700,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil { // whatever the umask is
			return err
		}
	}
	return nil
}

// Running returns the node's init, or false.
func (n Node) Running() (process.ID, bool) {
	return process.Recorded(n.record())
}

// Power is what the node asked for when it ended: "reboot", "poweroff", or ""
// when it asked nothing.
func (n Node) Power() string {
	data, err := os.ReadFile(n.power())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// ClearPower forgets what the node asked for.
func (n Node) ClearPower() error {
	if err := os.Remove(n.power()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Start starts the node in a network namespace and returns its init.
func (n Node) Start(ctx context.Context, runc string, netns string) (process.ID, error) {
	if err := n.Clear(ctx); err != nil {
		return process.ID{}, err
	}
	if err := n.writeBundle(netns); err != nil {
		return process.ID{}, err
	}
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return process.ID{}, err
	}
	defer log.Close()
	pidFile, runcLog := filepath.Join(n.bundle(), "pid"), filepath.Join(n.bundle(), "runc.log")
	cmd := exec.CommandContext(ctx, runc, "--root", n.runcDir(), "--log", runcLog, "--log-format", "json",
		"run", "--detach", "--no-new-keyring", "--bundle", n.bundle(), "--pid-file", pidFile, n.ID)
	cmd.Stdout, cmd.Stderr = log, log // the node's own from now on
	if err := cmd.Run(); err != nil {
		return process.ID{}, fmt.Errorf("start container %s with %s: %w%s", n.ID, runc, err, lastError(runcLog))
	}
	return n.remember(pidFile)
}

// remember records the process that runc started.
func (n Node) remember(pidFile string) (process.ID, error) {
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return process.ID{}, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return process.ID{}, fmt.Errorf("read %s: %w", pidFile, err)
	}
	p, err := process.Find(pid)
	if err != nil {
		return process.ID{}, fmt.Errorf("container %s ended at once, see %s: %w", n.ID, n.Log, err)
	}
	return p, p.Record(n.record())
}

func (n Node) writeBundle(netns string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	caps, err := capabilities(string(status))
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	data, err := json.MarshalIndent(n.spec(netns, caps, limit.Max), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.bundle(), "config.json"), data, 0o600)
}

// Kill ends the node at once, and clears away what it leaves behind.
func (n Node) Kill(ctx context.Context) error {
	if err := n.End(ctx); err != nil {
		return err
	}
	return n.Clear(ctx)
}

// End ends the node at once: its init, with which the kernel ends all of its
// PID namespace.
func (n Node) End(ctx context.Context) error {
	p, ok := n.Running()
	if !ok {
		return nil
	}
	h, err := p.Open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.Signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	if err := n.Thaw(ctx); err != nil { // what is frozen does not end
		return err
	}
	if err := h.Wait(ctx); err != nil {
		return fmt.Errorf("wait for process %d to end: %w", p.PID, err)
	}
	p.Reap()
	return nil
}

// Erase empties the node's persistent folders that are named by their
// partition, STATE or EPHEMERAL. The node must not run.
func (n Node) Erase(partitions ...string) error {
	if _, running := n.Running(); running {
		return fmt.Errorf("erase the disk of %s: it runs", n.Hostname)
	}
	for _, p := range partitions {
		dir, ok := map[string]string{"STATE": n.StateDir(), "EPHEMERAL": n.EphemeralDir()}[p]
		if !ok {
			return fmt.Errorf("erase partition %q: want STATE or EPHEMERAL", p)
		}
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("erase %s of %s: %w", p, n.Hostname, err)
			}
		}
	}
	return nil
}

// Clear removes what an ended node left behind, and ends what runs in its
// control group, such as a container whose start was interrupted.
func (n Node) Clear(ctx context.Context) error {
	if err := RemoveCgroup(ctx, n.Cgroup); err != nil {
		return err
	}
	if err := os.RemoveAll(n.runcDir()); err != nil { // its state, which is of no use without the process
		return err
	}
	for _, f := range []string{n.record(), filepath.Join(n.bundle(), "pid"), filepath.Join(n.bundle(), "runc.log")} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// lastError digs the reason out of runc's log.
func lastError(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	reason := ""
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		var line struct{ Level, Msg string }
		if json.Unmarshal(s.Bytes(), &line) == nil && (line.Level == "error" || line.Level == "fatal") {
			reason = ": " + line.Msg
		}
	}
	return reason
}
