package service

import (
	"context"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"talos/internal/containers"
)

// Instance names a containerd of this node.
type Instance = containers.Instance

// The two containerds.
const (
	System = containers.System
	CRI    = containers.CRI
)

// Container is a Runner: a container in namespace "system" of a containerd.
// It survives a restart of that containerd.
type Container struct {
	Instance Instance
	// Spec is asked before every start.
	Spec func(ctx context.Context) (ContainerSpec, error)
	// Grace is the time between SIGTERM and SIGKILL, 10 s when zero.
	Grace time.Duration
}

// ContainerSpec says how a container runs. It always has the host's network,
// a read-only root, and no way to gain privileges.
type ContainerSpec struct {
	ID string
	// Image is a reference, pulled if it is not there; "" is the node's own
	// image, bound at layout.RootBindDir.
	Image string
	// Args replace the image's command; empty keeps it. Env is added to the
	// image's.
	Args, Env []string
	UID, GID  uint32
	// Capabilities are all that it gets, such as "CAP_NET_ADMIN" or "NET_ADMIN".
	Capabilities []string
	Mounts       []specs.Mount
	HostPID      bool
	// Privileged takes away seccomp and masked paths and shows the host's
	// devices and cgroups: for the kubelet only.
	Privileged  bool
	OOMScoreAdj int
	// Cgroup is its path below the node's own root, "/system/<id>" when empty.
	Cgroup string
	// NoFile is the limit of open files, 0 leaves it as it is.
	NoFile uint64
	// Memory, in bytes, and Pids, processes and threads, are limits of the
	// cgroup; 0 is none.
	Memory, Pids int64
}
