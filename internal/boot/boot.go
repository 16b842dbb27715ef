// Package boot makes a bare kernel, or a bare container, into a place where
// services can run: mounts, control groups, limits, folders. It is a list of
// phases as data, for package sequence to run.
//
// It owns the node's early mounts and what must be taken away again at the
// end. It starts no service. Its steps run once, in the order of the phases.
package boot

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/layout"
	"talos/internal/linux/caps"
	"talos/internal/linux/cgroup"
	"talos/internal/linux/mount"
	"talos/internal/power"
	"talos/internal/sequence"
	"talos/internal/wipe"
)

// Node is what the phases find out.
type Node struct {
	Log *slog.Logger
	// Container says that the node is a container: kernel, clock and devices
	// are the host's.
	Container bool
	// Machine is what a node has that is no container; nil in a container.
	Machine Machine
	// Cgroups are set by the phase "limits".
	Cgroups *cgroup.Tree
}

// Machine prepares what belongs to a machine of its own. Package metal does.
type Machine interface {
	// Harden refuses to go on without what hardening needs of the kernel, and
	// sets the kernel's parameters.
	Harden(ctx context.Context) error
	// Devices makes device nodes and links for what is plugged in.
	Devices(ctx context.Context) error
	// Disks mounts STATE and EPHEMERAL, where they are, and reads META.
	Disks(ctx context.Context) error
}

// InContainer says whether the environment tells machined so.
func InContainer() bool { return os.Getenv("PLATFORM") == "container" }

// Groups are the control groups of the node's own: services, the runtime of
// Kubernetes, and pods.
var Groups = []string{"/system", "/podruntime", "/kubepods"}

const noFile = 1 << 20

// Phases are the boot up to where services can start.
func (n *Node) Phases() []sequence.Phase {
	step := func(name string, run func() error) sequence.Step {
		return sequence.Step{Name: name, Run: func(context.Context) error { return run() }}
	}
	optional := func(name string, run func() error) sequence.Step {
		return sequence.Step{Name: name, Optional: true, Run: func(context.Context) error { return run() }}
	}
	const deadline = 10 * time.Second
	phases := []sequence.Phase{
		{Name: "kernel file systems", Deadline: deadline, Steps: []sequence.Step{step("mount", n.mountKernel)}},
		{Name: "temporary file systems", Deadline: deadline, Steps: []sequence.Step{step("mount", mountTemporary)}},
		{Name: "limits", Deadline: deadline, Steps: []sequence.Step{
			step("control groups", n.prepareCgroups),
			optional("open files", n.raiseLimits),
			optional("out of memory", n.protectSelf),
			optional("ctrl-alt-del", n.keepKeys),
			step("shared mounts", func() error { return mount.Share("/") }),
		}},
		{Name: "loopback", Deadline: deadline, Steps: []sequence.Step{step("up", loopbackUp)}},
		{Name: "root of services", Deadline: deadline, Steps: []sequence.Step{step("bind", bindRoot)}},
	}
	if n.Machine != nil {
		phases = append(phases,
			sequence.Phase{Name: "hardening", Deadline: deadline, Steps: []sequence.Step{{Name: "kernel", Run: n.Machine.Harden}}},
			sequence.Phase{Name: "devices", Deadline: time.Minute, Steps: []sequence.Step{{Name: "settle", Run: n.Machine.Devices}}},
			// Growing and replaying a large file system takes its time.
			sequence.Phase{Name: "disks", Deadline: 5 * time.Minute, Steps: []sequence.Step{{Name: "mount", Run: n.Machine.Disks}}})
	}
	return append(phases, []sequence.Phase{
		// A reset that was cut short is finished before anything reads there.
		{Name: "pending wipe", Deadline: 2 * time.Minute, Steps: []sequence.Step{{Name: "wipe", Optional: true, Run: n.finishWipe}}},
		{Name: "persistent folders", Deadline: deadline, Steps: []sequence.Step{
			step("state", n.prepareState),
			step("ephemeral", n.prepareEphemeral),
			step("folders", prepareFolders),
		}},
	}...)
}

// finishWipe empties what a reset has promised to.
func (n *Node) finishWipe(ctx context.Context) error {
	w := wipe.New()
	if pending, err := w.Pending(); err == nil && len(pending) > 0 {
		n.Log.Info("finishing the wipe of a reset", "what", pending)
	}
	return w.Run(ctx)
}

// efivars is where the firmware's variables are.
const efivars = "/sys/firmware/efi/efivars"

// mountKernel mounts what the kernel offers, where nobody has.
func (n *Node) mountKernel() error {
	points := []mount.Point{
		{Source: "proc", Target: "/proc", Type: "proc", Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{Source: "sysfs", Target: "/sys", Type: "sysfs", Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{Source: "devtmpfs", Target: "/dev", Type: "devtmpfs", Flags: unix.MS_NOSUID, Data: "mode=0755"},
		{Source: "devpts", Target: "/dev/pts", Type: "devpts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "ptmxmode=0666,mode=0620,gid=5"},
		{Source: "shm", Target: "/dev/shm", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV, Data: "mode=1777"},
	}
	if !n.Container {
		points = append(points,
			mount.Point{Source: "cgroup2", Target: cgroup.Root, Type: "cgroup2", Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV, Data: "nsdelegate,memory_recursiveprot"},
			mount.Point{Source: "securityfs", Target: "/sys/kernel/security", Type: "securityfs", Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
			mount.Point{Source: "pstore", Target: "/sys/fs/pstore", Type: "pstore", Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
			mount.Point{Source: "bpf", Target: "/sys/fs/bpf", Type: "bpf", Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV, Data: "mode=0700"},
		)
		if _, err := os.Stat(efivars); err == nil { // only where the firmware is UEFI
			points = append(points, mount.Point{Source: "efivarfs", Target: efivars, Type: "efivarfs", Flags: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV})
		}
	}
	return ensure(points)
}

func mountTemporary() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	return ensure([]mount.Point{
		{Source: "tmpfs", Target: "/run", Type: "tmpfs", Flags: flags, Data: "mode=0755"},
		{Source: "tmpfs", Target: "/tmp", Type: "tmpfs", Flags: flags, Data: "mode=1777,size=256m"},
		{Source: "tmpfs", Target: "/system", Type: "tmpfs", Flags: flags, Data: "mode=0755"},
	})
}

// ensure mounts in order what is not mounted yet.
func ensure(points []mount.Point) error {
	for _, p := range points {
		if err := p.Ensure(); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) prepareCgroups() error {
	tree, err := cgroup.Open(cgroup.Root)
	if err != nil {
		return err
	}
	n.Cgroups = tree
	n.Log.Info("control groups", "version", map[bool]int{false: 1, true: 2}[tree.V2])
	return tree.Prepare(Groups...)
}

func (n *Node) raiseLimits() error {
	got, err := caps.RaiseNoFile(noFile)
	if err == nil && got < noFile {
		n.Log.Info("limit of open files can't be raised further here", "limit", got)
	}
	return err
}

// protectSelf makes machined the last that the kernel kills for memory.
func (n *Node) protectSelf() error {
	err := caps.SetOOMScore(os.Getpid(), -1000)
	if errors.Is(err, os.ErrPermission) {
		n.Log.Info("OOM scores can't be lowered here")
		return nil
	}
	return err
}

// keepKeys has Ctrl-Alt-Del come as a signal; in a container it is not ours.
func (n *Node) keepKeys() error {
	if n.Container {
		return nil
	}
	return power.KeepControlAltDelete()
}

// bindRoot shows the image without what is mounted over it: the root of our
// daemons. It is private, lest later mounts below / appear in it too.
func bindRoot() error {
	root := mount.Point{Source: "/", Target: layout.RootBindDir, Flags: unix.MS_BIND | unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID}
	if mounted, err := mount.Mounted(root.Target); err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(root.Target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(root.Source, root.Target, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind", Path: root.Target, Err: err}
	}
	if err := unix.Mount("", root.Target, "", unix.MS_PRIVATE, ""); err != nil {
		return &os.PathError{Op: "make private", Path: root.Target, Err: err}
	}
	if err := unix.Mount("", root.Target, "", root.Flags|unix.MS_REMOUNT, ""); err != nil {
		return &os.PathError{Op: "remount read-only", Path: root.Target, Err: err}
	}
	return nil
}

// prepareState makes what every node has on STATE and META. Where they are not
// mounted they are folders on tmpfs, forgotten at the next start.
func (n *Node) prepareState() error {
	for _, dir := range []string{layout.StateDir, layout.MetaDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		mounted, err := mount.Mounted(dir)
		if err != nil {
			return err
		}
		if !mounted && !(n.Machine != nil && dir == layout.MetaDir) { // a machine has META's values in a partition
			n.Log.Warn("not persistent: nothing is mounted there", "dir", dir)
		}
	}
	// What the last run asked for has been done.
	if err := os.Remove(layout.PowerFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return machineID(filepath.Join(layout.StateDir, "machine-id"), filepath.Join(layout.EtcDir, "machine-id"))
}

// prepareEphemeral makes the folders of EPHEMERAL and binds those that belong
// elsewhere.
func (n *Node) prepareEphemeral() error {
	for _, d := range []folder{
		{"/var/lib", 0o755, 0}, {"/var/lib/containerd", 0o711, 0}, {layout.KubeletDir, 0o755, 0},
		{layout.EtcdDataDir, 0o700, layout.EtcdUID},
		{"/var/log", 0o755, 0}, {"/var/log/pods", 0o755, 0}, {"/var/log/containers", 0o755, 0},
		{"/var/tmp", os.ModeSticky | 0o777, 0},
		{"/var/system/opt/cni/bin", 0o755, 0}, {"/var/system/cni/net.d", 0o755, 0},
	} {
		if err := n.clear("/var", d.path); err != nil {
			return err
		}
		if err := d.make(); err != nil {
			return err
		}
	}
	if err := n.link("/run", "/var/run"); err != nil {
		return err
	}
	return ensure([]mount.Point{
		{Source: "/var/system/opt", Target: "/opt", Flags: unix.MS_BIND | unix.MS_NODEV},
		{Source: "/var/system/cni", Target: "/etc/cni", Flags: unix.MS_BIND | unix.MS_NODEV | unix.MS_NOSUID},
	})
}

// clear takes away what is in the way of a folder of ours below root and is no
// folder. A pod that was given the host's folders may have left a link there, to
// lead what is made now, with its owner and mode, to another place. Nothing runs
// yet that could put it back.
func (n *Node) clear(root, path string) error {
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	at := root
	for part := range strings.SplitSeq(rel, "/") {
		at = filepath.Join(at, part)
		info, err := os.Lstat(at)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info.IsDir() {
			continue
		}
		n.Log.Warn("taking away what is in the way of a folder", "path", at, "mode", info.Mode())
		if err := os.Remove(at); err != nil {
			return err
		}
	}
	return nil
}

// link makes a link, in place of one that leads elsewhere. A folder stays.
func (n *Node) link(target, path string) error {
	if to, err := os.Readlink(path); err == nil && to == target {
		return nil
	}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := n.clear(filepath.Dir(path), path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// prepareFolders makes the folders on tmpfs: those of sockets belong to the
// daemon that listens there.
func prepareFolders() error {
	run := func(socket string) string { return filepath.Dir(socket) }
	for _, d := range []folder{
		{layout.EtcDir, 0o755, 0}, {layout.LogDir, 0o700, 0}, {layout.OutputDir, 0o700, 0}, {layout.SecretsDir, 0o711, 0},
		{run(layout.StoreSocket), 0o755, 0}, {run(layout.MachineSocket), 0o755, 0}, {run(layout.SignerSocket), 0o755, 0},
		{run(layout.RouterSocket), 0o755, layout.RouterUID},
		{run(layout.NetworkSocket), 0o755, layout.NetworkUID},
		{run(layout.TimeSocket), 0o755, layout.TimeUID},
		{"/system/run/apid", 0o755, layout.APIUID}, {"/system/run/trustd", 0o755, layout.TrustUID},
		{"/system/kubernetes/manifests", 0o700, 0}, {"/run/lock", 0o755, 0},
	} {
		if err := d.make(); err != nil {
			return err
		}
	}
	if err := os.Chmod("/system/kubernetes", 0o755); err != nil {
		return err
	}
	return ensure([]mount.Point{
		{Source: "/system/kubernetes", Target: layout.KubernetesDir, Flags: unix.MS_BIND | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC},
	})
}

// folder is a folder with its owner (user and group alike).
type folder struct {
	path string
	mode os.FileMode
	uid  int
}

func (d folder) make() error {
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(d.path, d.mode); err != nil {
		return err
	}
	return os.Chown(d.path, d.uid, d.uid)
}
