package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/opencontainers/runtime-spec/specs-go"

	"talos/internal/containers"
	"talos/internal/cri"
	"talos/internal/custom"
	"talos/internal/layout"
	"talos/internal/linux/reap"
	"talos/internal/resources/cluster"
	"talos/internal/resources/config"
	"talos/internal/service"
)

const containerdProgram = "/usr/bin/containerd"

// containerdService is the OS's own containerd, or the one for Kubernetes.
func (n *node) containerdService(st state.State, i service.Instance, config, group string, prepare func(context.Context) error) service.Definition {
	var start func(string, []string, *os.ProcAttr) (*reap.Process, error) // nil: beside machined
	if i == service.CRI {
		start = n.workloads.start
	}
	def := service.Definition{
		ID: i.String(),
		Runner: service.Process{
			Path: containerdProgram, Args: []string{"--config", config},
			Env:         []string{"PATH=/usr/bin:/usr/sbin", "TMPDIR=/tmp", "HOME=/root"},
			MoreEnv:     func(ctx context.Context) ([]string, error) { return custom.Variables(ctx, st) },
			OOMScoreAdj: -999, Cgroup: group, Prepare: prepare,
			Reaper: n.reaper, StartChild: start, Cgroups: n.boot.Cgroups,
		},
		Health: &service.Health{Check: func(ctx context.Context) error {
			conn, err := n.pods.Connection(i)
			if err != nil {
				return err
			}
			return containers.Ready(ctx, conn)
		}},
		Control: i == service.CRI,
	}
	if i == service.CRI {
		def.Wait, def.WaitText = n.installed, "the installation"
	}
	return def
}

// runtimes are the two containerds. Nothing has to be up for either.
func (n *node) runtimes(st state.State) []service.Definition {
	return []service.Definition{
		n.containerdService(st, service.System, cri.SystemConfigFile, "/system/containerd", func(context.Context) error {
			return cri.WriteSystemConfig()
		}),
		n.containerdService(st, service.CRI, cri.ConfigFile, "/podruntime/cri", func(ctx context.Context) error {
			free, err := mayRaise()
			if err != nil {
				return err
			}
			return cri.WriteConfig(ctx, st, n.log, !free)
		}),
	}
}

// daemon is one of the small programs in noded, in a container of its own: the
// image is its root, its own socket folder is all that it may write to.
type daemon struct {
	name   string
	uid    uint32
	caps   []string
	sees   []string // folders it may look into, read-only
	memory string   // soft limit of Go's heap
	noFile uint64   // limit of open files; 0 leaves that of containerd
	vital  bool     // no call reaches machined without it
	health func(ctx context.Context) error
	wait   func(ctx context.Context) error
	text   string
}

func (d daemon) service() service.Definition {
	def := service.Definition{
		ID: d.name, DependsOn: []string{service.System.String()},
		Wait: d.wait, WaitText: d.text,
		Runner: service.Container{
			Instance: service.System, Grace: 5 * time.Second,
			Spec: func(context.Context) (service.ContainerSpec, error) { return d.spec(), nil },
		},
		Control: true, Vital: d.vital,
	}
	if d.health != nil {
		def.Health = &service.Health{Check: d.health}
	}
	return def
}

func (d daemon) spec() service.ContainerSpec {
	own := "/system/run/" + d.name
	binds := []specs.Mount{bind(own, "rw"), bind(layout.EtcDir, "ro"), bind("/system/run/store", "ro")}
	for _, dir := range d.sees {
		binds = append(binds, bind(dir, "ro"))
	}
	return service.ContainerSpec{
		ID: d.name, Args: []string{"/usr/bin/" + d.name},
		Env: []string{"GOMEMLIMIT=" + d.memory, "GOTRACEBACK=single"},
		UID: d.uid, GID: d.uid, Capabilities: d.caps, Mounts: binds,
		OOMScoreAdj: -998, Cgroup: "/system/" + d.name,
		Memory: daemonMemory, Pids: daemonPids, NoFile: d.noFile,
	}
}

// Hard limits of a daemon, far above what it uses: strangers' requests must
// exhaust nothing but the daemon that reads them, which starts again. Two
// messages of the greatest size pass.
const (
	daemonMemory = 256 << 20
	daemonPids   = 256
	// apidFiles: 512 callers, 2,048 nodes, and some that are being opened.
	apidFiles = 8192
)

func bind(dir, mode string) specs.Mount {
	return specs.Mount{Destination: dir, Source: dir, Type: "bind", Options: []string{"rbind", "rprivate", "nosuid", "nodev", "noexec", mode}}
}

// daemons are the OS's own.
func daemons(st state.State) []daemon {
	return []daemon{
		{name: "networkd", uid: layout.NetworkUID, caps: []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"}, memory: "24MiB", health: answers(layout.NetworkSocket)},
		{name: "timed", uid: layout.TimeUID, caps: []string{"CAP_SYS_TIME"}, memory: "16MiB", health: answers(layout.TimeSocket)},
		{name: "routerd", uid: layout.RouterUID, memory: "16MiB", vital: true, health: answers(layout.RouterSocket),
			sees: []string{"/system/run/machined", "/system/run/networkd", "/system/run/timed"}},
		{name: "apid", uid: layout.APIUID, memory: "56MiB", noFile: apidFiles, vital: true, health: listens(layout.APIPort), sees: []string{"/system/run/routerd"}},
		{name: "trustd", uid: layout.TrustUID, memory: "16MiB", health: listens(layout.TrustPort), sees: []string{"/system/run/signer"},
			wait: func(ctx context.Context) error { return onControlPlane(ctx, st) }, text: "the machine's type"},
	}
}

// onControlPlane waits until the machine's type is known; on a worker there is
// nothing to do.
func onControlPlane(ctx context.Context, st state.State) error {
	res, err := st.WatchFor(ctx, config.NewMachineType().Metadata(), state.WithCondition(func(r resource.Resource) (bool, error) {
		return !resource.IsTombstone(r) && r.(*config.MachineType).TypedSpec().Type != cluster.TypeUnknown, nil
	}))
	if err != nil {
		return fmt.Errorf("watch the machine's type: %w", err)
	}
	if res.(*config.MachineType).TypedSpec().Type == cluster.TypeWorker {
		return fmt.Errorf("only control plane nodes have it: %w", service.ErrSkip)
	}
	return nil
}

// answers says whether somebody accepts connections on a unix socket.
func answers(socket string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// listens says whether somebody listens on a TCP port, without connecting: a
// connection without a TLS handshake would be logged as a refused caller.
func listens(port int) func(context.Context) error {
	return func(context.Context) error {
		found, err := listening(port)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("nobody listens on port %s", strconv.Itoa(port))
		}
		return nil
	}
}
