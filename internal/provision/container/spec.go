package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"talos/internal/layout"
)

// cpuPeriod is the scheduler's period in microseconds that a limit is counted in.
const cpuPeriod = 100_000

// spec describes a node to runc: privileged, in namespaces of its own.
// netns is a path to its network namespace; caps are the capabilities it gets.
func (n Node) spec(netns string, caps []string, noFile uint64) *specs.Spec {
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: n.Hostname,
		Root:     &specs.Root{Path: n.Rootfs, Readonly: true},
		Process: &specs.Process{
			Args: n.Args,
			Env:  []string{"PLATFORM=container", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux"},
			Cwd:  "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: caps, Effective: caps, Permitted: caps,
			},
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: noFile, Soft: noFile}},
		},
		Mounts: n.mounts(),
		Linux: &specs.Linux{
			CgroupsPath: n.Cgroup,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.CgroupNamespace},
				{Type: specs.NetworkNamespace, Path: netns},
			},
			// machined shares its mounts with its own children; none gets out to the host.
			RootfsPropagation: "rprivate",
			Devices: []specs.LinuxDevice{
				{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11, FileMode: new(os.FileMode(0o600))},
				{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200, FileMode: new(os.FileMode(0o666))},
			},
			Resources: n.resources(),
		},
	}
}

func (n Node) mounts() []specs.Mount {
	tmpfs := func(path, mode string, more ...string) specs.Mount {
		return specs.Mount{Destination: path, Type: "tmpfs", Source: "tmpfs", Options: append([]string{"nosuid", "nodev", "mode=" + mode}, more...)}
	}
	bind := func(source, target string, options ...string) specs.Mount {
		return specs.Mount{Destination: target, Type: "bind", Source: source, Options: append([]string{"rbind", "nodev", "nosuid"}, options...)}
	}
	kernel := []string{"nosuid", "noexec", "nodev"}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: kernel},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: kernel},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append([]string{"relatime"}, kernel...)},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: kernel},
		tmpfs("/run", "755"),
		tmpfs("/tmp", "1777"),
		tmpfs("/system", "755"),
		bind(n.StateDir(), layout.StateDir, "noexec"),
		bind(n.MetaDir(), layout.MetaDir, "noexec"),
		bind(n.PlatformDir(), layout.PlatformDir, "ro", "noexec"),
		// Container images hold programs with setuid and device files.
		{Destination: layout.EphemeralDir, Type: "bind", Source: n.EphemeralDir(), Options: []string{"rbind"}},
	}
}

func (n Node) resources() *specs.LinuxResources {
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	if n.CPUs > 0 {
		r.CPU = &specs.LinuxCPU{Period: new(uint64(cpuPeriod)), Quota: new(int64(n.CPUs * cpuPeriod))}
	}
	if n.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: new(n.Memory)}
	}
	return r
}

// withheld are the capabilities that reach through every namespace to the host:
// its clock and its kernel modules.
var withheld = map[int]bool{unix.CAP_SYS_TIME: true, unix.CAP_SYS_MODULE: true}

// capabilities lists by name those of the bounding set of this process, from
// the contents of /proc/self/status.
func capabilities(status string) ([]string, error) {
	for line := range strings.Lines(status) {
		value, ok := strings.CutPrefix(line, "CapBnd:")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read bounding set %q: %w", value, err)
		}
		var names []string
		for i, name := range capabilityNames {
			if set&(1<<i) != 0 && !withheld[i] {
				names = append(names, "CAP_"+name)
			}
		}
		return names, nil
	}
	return nil, fmt.Errorf("no bounding set in the status of this process")
}

// capabilityNames by number: include/uapi/linux/capability.h.
var capabilityNames = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
	SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE
	AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
	CHECKPOINT_RESTORE`)
