package service

import (
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"talos/internal/layout"
)

// shimGroup makes all containers of one containerd namespace share a shim: it
// is an annotation that the runc shim knows.
const shimGroup = "io.containerd.runc.v2.group"

// limits are what this node may give to a container.
type limits struct {
	caps      []string // that machined has itself
	resources bool     // it may raise limits and lower scores (CAP_SYS_RESOURCE)
	oomScore  int      // machined's own
	noFile    uint64   // machined's own hard limit
}

// ociSpec translates a ContainerSpec. It looks at nothing else: same input,
// same result.
func ociSpec(c ContainerSpec, l limits) *specs.Spec {
	granted := grantedCaps(c, l)
	spec := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: layout.RootBindDir, Readonly: true},
		Process: &specs.Process{
			Args:            c.Args,
			Env:             withPath(c.Env),
			Cwd:             "/",
			User:            specs.User{UID: c.UID, GID: c.GID, AdditionalGids: []uint32{c.GID}},
			NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: granted, Effective: granted, Permitted: granted,
			},
			OOMScoreAdj: oomScore(c, l),
			Rlimits:     rlimits(c, l),
		},
		Mounts:      mounts(c),
		Annotations: map[string]string{shimGroup: "talos"},
		Linux: &specs.Linux{
			CgroupsPath: cgroupPath(c),
			Namespaces:  namespaces(c),
			Resources:   resources(c),
		},
	}
	if c.UID != 0 { // without these a program of another user would start with none
		spec.Process.Capabilities.Inheritable = granted
		spec.Process.Capabilities.Ambient = granted
	}
	spec.Linux.RootfsPropagation = propagation(spec.Mounts)
	if !c.Privileged {
		spec.Linux.MaskedPaths = slices.Clone(maskedPaths)
		spec.Linux.ReadonlyPaths = slices.Clone(readonlyPaths)
		spec.Linux.Seccomp = seccomp.DefaultProfile(spec)
	}
	return spec
}

var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// grantedCaps are those asked for that the node has: nobody can give more.
func grantedCaps(c ContainerSpec, l limits) []string {
	if c.Privileged {
		return slices.Clone(l.caps)
	}
	granted := []string{}
	for _, name := range c.Capabilities {
		if name = strings.ToUpper(name); !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if slices.Contains(l.caps, name) {
			granted = append(granted, name)
		}
	}
	return granted
}

func withPath(env []string) []string {
	if slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		return env
	}
	return append([]string{"PATH=" + searchPath}, env...)
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func oomScore(c ContainerSpec, l limits) *int {
	score := c.OOMScoreAdj
	if !l.resources {
		score = max(score, l.oomScore)
	}
	return &score
}

func rlimits(c ContainerSpec, l limits) []specs.POSIXRlimit {
	n := c.NoFile
	if n == 0 {
		return nil
	}
	if !l.resources {
		n = min(n, l.noFile)
	}
	return []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: n, Hard: n}}
}

// resources: no devices but the usual ones, and what the cgroup bounds.
func resources(c ContainerSpec) *specs.LinuxResources {
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: c.Privileged, Access: "rwm"}}}
	if c.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &c.Memory}
	}
	if c.Pids > 0 {
		r.Pids = &specs.LinuxPids{Limit: &c.Pids}
	}
	return r
}

func cgroupPath(c ContainerSpec) string {
	if c.Cgroup == "" {
		return "/system/" + c.ID
	}
	return c.Cgroup
}

// namespaces: the host's network and name always, its processes on demand.
func namespaces(c ContainerSpec) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.IPCNamespace}}
	if !c.HostPID {
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	return ns
}

// mounts are the usual ones, then the container's own; one of its own at a
// usual place takes that place.
func mounts(c ContainerSpec) []specs.Mount {
	usual := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=64m"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	if c.Privileged {
		usual = []specs.Mount{
			usual[0],
			{Destination: "/dev", Type: "bind", Source: "/dev", Options: []string{"rbind", "rslave", "rw"}},
			{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "rslave", "rw"}},
		}
	}
	if c.Image == "" { // the image is read-only: its empty folders take no mount points
		for _, dir := range []string{"/system", "/run"} {
			usual = append(usual, specs.Mount{Destination: dir, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=755", "size=64k"}})
		}
	}
	usual = slices.DeleteFunc(usual, func(m specs.Mount) bool {
		return slices.ContainsFunc(c.Mounts, func(own specs.Mount) bool { return own.Destination == m.Destination })
	})
	return append(usual, c.Mounts...)
}

// propagation is the weakest that lets every mount's own propagation work.
func propagation(all []specs.Mount) string {
	result := "rprivate"
	for _, m := range all {
		for _, o := range m.Options {
			switch o {
			case "shared", "rshared":
				return "rshared"
			case "slave", "rslave":
				result = "rslave"
			}
		}
	}
	return result
}
