// Package provision makes and keeps whole clusters on one machine: every node
// an operating system container or a virtual machine (packages container and
// qemu) on a bridge of the cluster's own (package host), kept running by one
// detached supervisor, which also serves images, addresses, names, the time and
// the Kubernetes endpoint (packages registry, dhcp, resolver, ntp, and
// internal/balance).
//
// All state is files in one folder per cluster; see dirs in state.go. Nothing
// depends on a process that lives: nodes outlast their supervisor, a new one
// takes them over, and Destroy undoes everything from the files and from names
// that follow from the folder. Calls that change a cluster exclude each other
// by a lock, so everything here may be called from any number of processes.
package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"talos/internal/layout"
	"talos/internal/provision/container"
	"talos/internal/provision/host"
)

// ErrNotFound says that there is no cluster of a name, ErrExists that there is
// one which is not what was asked for.
var (
	ErrNotFound = errors.New("no such cluster")
	ErrExists   = errors.New("cluster exists")
)

// Kinds of nodes.
const (
	ControlPlane = "controlplane"
	Worker       = "worker"
)

// RegistryPort is where the supervisor serves images, on the gateway's address.
const RegistryPort = 5000

// Limits of what makes sense: below, a node would be ended for lack of memory.
const (
	minControlPlaneMemory = 1 << 30
	minWorkerMemory       = 384 << 20
	maxNodes              = 100
)

// Options say what cluster to create.
type Options struct {
	Name              string
	Provisioner       string // Containers when empty, or VirtualMachines
	ControlPlanes     int    // at least 1
	Workers           int    // with none, the control plane nodes take ordinary pods
	KubernetesVersion string // config.DefaultKubernetesVersion when empty

	// Patches of the nodes' configurations, each a YAML or JSON document: for all,
	// then those for the node's kind.
	ConfigPatches             [][]byte
	ControlPlaneConfigPatches [][]byte
	WorkerConfigPatches       [][]byte

	// Per node; 0 is no limit for containers, and a default for virtual machines.
	CPUs         float64
	Memory       int64   // bytes
	WorkerCPUs   float64 // of workers, where they differ; 0: as above
	WorkerMemory int64
	VM           VMOptions // of virtual machines

	CIDR netip.Prefix // of the nodes' network; zero: the first free 10.5.N.0/24

	Assets  Assets        // found beside the program when zero
	Wait    bool          // until the cluster is healthy
	Timeout time.Duration // of waiting; DefaultTimeout, or VMTimeout, when 0
}

// DefaultTimeout bounds waiting for a healthy cluster.
const DefaultTimeout = 10 * time.Minute

// Cluster is what was created, as it is kept in cluster.yaml.
type Cluster struct {
	Name              string       `yaml:"name"`
	Provisioner       string       `yaml:"provisioner"`
	KubernetesVersion string       `yaml:"kubernetesVersion"`
	CIDR              netip.Prefix `yaml:"cidr"`
	Gateway           netip.Addr   `yaml:"gateway"`
	Endpoint          string       `yaml:"endpoint"` // of Kubernetes
	Nodes             []Node       `yaml:"nodes"`
	Assets            Assets       `yaml:"assets"`
	Created           time.Time    `yaml:"created"`
	CoreDNS           bool         `yaml:"coreDNS"` // the configuration has it
	VM                *VM          `yaml:"vm,omitempty"`

	dirs dirs
}

// Node is one machine of a cluster.
type Node struct {
	Name    string     `yaml:"name"`
	Type    string     `yaml:"type"`
	Address netip.Addr `yaml:"address"`
	MAC     string     `yaml:"mac"`
	CPUs    float64    `yaml:"cpus,omitempty"`
	Memory  int64      `yaml:"memory,omitempty"`
	UUID    string     `yaml:"uuid,omitempty"`  // of a virtual machine
	Disks   []int64    `yaml:"disks,omitempty"` // bytes of each, of a virtual machine
}

// Names. A host name is at most 63 characters, with the node's kind and number behind.
var namePattern = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$`)

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("cluster name %q: want at most 40 lower-case letters, digits and dashes, starting with a letter, not ending with a dash", name)
	}
	return nil
}

// check finds what is wrong with options without looking at the machine.
func (o Options) check() error {
	if err := checkName(o.Name); err != nil {
		return err
	}
	switch {
	case o.ControlPlanes < 1:
		return fmt.Errorf("%d control plane nodes: want at least 1", o.ControlPlanes)
	case o.Workers < 0:
		return fmt.Errorf("%d workers: want 0 or more", o.Workers)
	case o.ControlPlanes+o.Workers > maxNodes:
		return fmt.Errorf("%d nodes: want at most %d", o.ControlPlanes+o.Workers, maxNodes)
	case o.CPUs < 0 || o.WorkerCPUs < 0:
		return fmt.Errorf("%g cpus: want a positive number", min(o.CPUs, o.WorkerCPUs))
	case o.Memory != 0 && o.Memory < minControlPlaneMemory:
		return fmt.Errorf("%d MiB of memory per node: a control plane node needs at least %d MiB", o.Memory>>20, int64(minControlPlaneMemory)>>20)
	case o.WorkerMemory != 0 && o.WorkerMemory < minWorkerMemory:
		return fmt.Errorf("%d MiB of memory per worker: want at least %d MiB", o.WorkerMemory>>20, int64(minWorkerMemory)>>20)
	}
	return nil
}

// needs is the memory that the cluster is going to take, about.
func (o Options) needs() int64 {
	controlPlane := or(o.Memory, minControlPlaneMemory)
	worker := or(o.WorkerMemory, or(o.Memory, minWorkerMemory))
	return int64(o.ControlPlanes)*controlPlane + int64(o.Workers)*worker
}

// nodes lays out the machines: addresses follow the gateway's in order.
func (o Options) nodes(prefix netip.Prefix) ([]Node, error) {
	var out []Node
	address := gateway(prefix)
	add := func(kind string, count int, cpus float64, memory int64) {
		for i := range count {
			address = address.Next()
			out = append(out, Node{
				Name: o.Name + "-" + kind + "-" + strconv.Itoa(i+1), Type: kind, Address: address,
				MAC: host.MAC(address).String(), CPUs: cpus, Memory: memory,
			})
		}
	}
	add(ControlPlane, o.ControlPlanes, o.CPUs, o.Memory)
	add(Worker, o.Workers, or(o.WorkerCPUs, o.CPUs), or(o.WorkerMemory, o.Memory))
	if !prefix.Contains(address.Next()) { // the last address is for broadcasts
		return nil, fmt.Errorf("network %s is too small for %d nodes", prefix, len(out))
	}
	return out, nil
}

// gateway is the first address of a network.
func gateway(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// Node finds a node by its name, or by what follows the cluster's in it.
func (c *Cluster) Node(name string) (Node, error) {
	var names []string
	for _, n := range c.Nodes {
		if n.Name == name || n.Name == c.Name+"-"+name || n.Address.String() == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return Node{}, fmt.Errorf("cluster %s has no node %q: want one of %s", c.Name, name, strings.Join(names, ", "))
}

// pick finds nodes by name; no names are all nodes.
func (c *Cluster) pick(names []string) ([]Node, error) {
	if len(names) == 0 {
		return c.Nodes, nil
	}
	var out []Node
	for _, name := range names {
		n, err := c.Node(name)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func (c *Cluster) controlPlanes() []Node {
	var out []Node
	for _, n := range c.Nodes {
		if n.Type == ControlPlane {
			out = append(out, n)
		}
	}
	return out
}

// Dir is the folder of the cluster's state.
func (c *Cluster) Dir() string { return c.dirs.root }

// Talosconfig and Kubeconfig are the files with admin access, LogFile that of a
// node's console, SupervisorLog the supervisor's own.
func (c *Cluster) Talosconfig() string        { return c.dirs.talosconfig() }
func (c *Cluster) Kubeconfig() string         { return c.dirs.kubeconfig() }
func (c *Cluster) LogFile(node string) string { return c.dirs.log(node) }
func (c *Cluster) SupervisorLog() string      { return c.dirs.log("supervisor") }

func (c *Cluster) network() host.Network {
	n := c.dirs.network()
	n.Prefix, n.Gateway = c.CIDR, c.Gateway
	if n.Port = layout.TrustPort; len(c.Nodes) > 1 { // nobody to ask for certificates otherwise
		for _, cp := range c.controlPlanes() {
			n.Nodes = append(n.Nodes, cp.Address)
		}
		n.Backends = n.Nodes
	}
	for _, node := range c.Nodes {
		if cut := c.cut(node); cut != "" {
			n.Cuts = append(n.Cuts, host.Cut{Port: c.port(node.Name), FromIt: cut != CutTo, ToIt: cut != CutFrom})
		}
	}
	return n
}

// port is the host's end of a node's link.
func (c *Cluster) port(node string) string { return c.dirs.port(node) }

// dirs names everything of a cluster on the host. All of it follows from the
// folder, so that it can be found when nothing else is left.
type dirs struct {
	root string
	id   string // eight hexadecimal digits
}

func newDirs(name string) (dirs, error) {
	base, err := stateHome()
	if err != nil {
		return dirs{}, err
	}
	root := filepath.Join(base, name)
	return dirs{root: root, id: digest(root)}, nil
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// stateHome is the folder of all clusters.
func stateHome() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) { // as the XDG specification has it
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the folder for clusters: %w", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "talos", "clusters"), nil
}

func (d dirs) file(name string) string { return filepath.Join(d.root, name) }
func (d dirs) cluster() string         { return d.file("cluster.yaml") }
func (d dirs) secrets() string         { return d.file("secrets.yaml") }
func (d dirs) talosconfig() string     { return d.file("talosconfig") }
func (d dirs) kubeconfig() string      { return d.file("kubeconfig") }
func (d dirs) rootfs() string          { return d.file("rootfs") } // where the image is mounted
func (d dirs) image() string           { return d.file("rootfs.squashfs") }
func (d dirs) imageDigest() string     { return d.file("rootfs.sha256") } // of the image, as it was given
func (d dirs) iso() string             { return d.file("boot.iso") }      // and what else virtual machines start from
func (d dirs) disk() string            { return d.file("disk.raw") }
func (d dirs) kernel() string          { return d.file("vmlinuz") }
func (d dirs) initramfs() string       { return d.file("initramfs") }
func (d dirs) registryCA() string      { return d.file("registry-ca.crt") }
func (d dirs) registryCert() string    { return d.file("registry.crt") }
func (d dirs) registryKey() string     { return d.file("registry.key") }
func (d dirs) halt() string            { return d.file("halt") }         // there: nodes that end stay off
func (d dirs) bootstrapped() string    { return d.file("bootstrapped") } // there: etcd was started, once and for all
func (d dirs) lock() string            { return d.file("supervisor.lock") }
func (d dirs) supervisor() string      { return d.file("supervisor.json") }
func (d dirs) nodes() string           { return d.file("nodes") }
func (d dirs) log(name string) string  { return filepath.Join(d.root, "logs", name+".log") }
func (d dirs) cgroup() string          { return "/talos/" + d.id }
func (d dirs) port(node string) string { return "tv" + d.id + digest(node)[:4] }
func (d dirs) node(name string) string { return filepath.Join(d.nodes(), name) }
func (d dirs) nodeHalt(name string) string { // there: this node stays off
	return filepath.Join(d.node(name), "halt")
}
func (d dirs) nodeCut(name string) string { // how this node's network is cut
	return filepath.Join(d.node(name), "cut")
}
func (d dirs) operation() string {
	return filepath.Join(filepath.Dir(d.root), "."+filepath.Base(d.root)+".lock")
}

func (d dirs) network() host.Network {
	return host.Network{Bridge: "talos" + d.id, Table: "talos-" + d.id}
}

func (d dirs) container(node string) container.Node {
	return container.Node{
		ID:       "talos-" + d.id + "-" + node,
		Dir:      d.node(node),
		Hostname: node,
		Rootfs:   d.rootfs(),
		Args:     []string{"/sbin/init"},
		Cgroup:   d.cgroup() + "/" + node,
		Log:      d.log(node),
	}
}

// apiAddress is where a node's API listens.
func (n Node) apiAddress() string {
	return netip.AddrPortFrom(n.Address, layout.APIPort).String()
}

// report passes progress on; nil is nobody.
func report(progress func(string), format string, args ...any) {
	if progress != nil {
		progress(fmt.Sprintf(format, args...))
	}
}

// version is a Kubernetes version without v.
func version(v string) string { return strings.TrimPrefix(v, "v") }
