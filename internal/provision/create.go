package provision

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"talos/config"
	"talos/internal/provision/host"
)

// Create makes a cluster and, when asked to, waits until it is healthy. A
// cluster that exists already and is what was asked for is started where it
// does not run; one that is something else is ErrExists. progress is told what
// is being done, one short line each; it may be nil.
//
// A creation that fails leaves what it made, to be looked at; Destroy or the
// next Create of the same name clears it away.
func Create(ctx context.Context, o Options, progress func(step string)) (*Cluster, error) {
	if o.KubernetesVersion = version(o.KubernetesVersion); o.KubernetesVersion == "" {
		o.KubernetesVersion = config.DefaultKubernetesVersion
	}
	kind, err := o.backend()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(o.check(), kind.complete(&o)); err != nil {
		return nil, err
	}
	if err := needRoot("create a cluster"); err != nil {
		return nil, err
	}
	d, err := newDirs(o.Name)
	if err != nil {
		return nil, err
	}
	release, err := d.operate()
	if err != nil {
		return nil, err
	}
	defer release()
	c, err := Load(o.Name)
	switch {
	case err == nil:
		if err := c.matches(o); err != nil {
			return nil, err
		}
		report(progress, "cluster %s exists", o.Name)
	case errors.Is(err, ErrNotFound):
		if c, err = create(ctx, d, o, progress); err != nil {
			return nil, fmt.Errorf("create cluster %s: %w", o.Name, err)
		}
	default:
		return nil, err
	}
	if err := c.startNodes(ctx, c.Nodes, progress); err != nil {
		return c, err
	}
	if !o.Wait || !kind.adopt(c) {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	return c, c.WaitHealthy(ctx, progress)
}

// matches compares an existing cluster with what is asked for.
func (c *Cluster) matches(o Options) error {
	controlPlanes := len(c.controlPlanes())
	workers := len(c.Nodes) - controlPlanes
	switch {
	case controlPlanes != o.ControlPlanes || workers != o.Workers:
		return fmt.Errorf("%w: %s has %d control plane nodes and %d workers; destroy it first, or choose another name", ErrExists, c.Name, controlPlanes, workers)
	case or(c.Provisioner, Containers) != or(o.Provisioner, Containers):
		return fmt.Errorf("%w: the nodes of %s are of the provisioner %s; destroy it first, or choose another name", ErrExists, c.Name, or(c.Provisioner, Containers))
	case c.VM != nil && !c.VM.same(o.VM):
		return fmt.Errorf("%w: the virtual machines of %s are others; destroy it first, or choose another name", ErrExists, c.Name)
	case c.KubernetesVersion != o.KubernetesVersion:
		return fmt.Errorf("%w: %s has Kubernetes %s; destroy it first, or choose another name", ErrExists, c.Name, c.KubernetesVersion)
	case o.CIDR.IsValid() && o.CIDR != c.CIDR:
		return fmt.Errorf("%w: %s has the network %s; destroy it first, or choose another name", ErrExists, c.Name, c.CIDR)
	}
	return nil
}

// create writes everything of a new cluster; its description last, so that
// what has one is whole.
func create(ctx context.Context, d dirs, o Options, progress func(string)) (*Cluster, error) {
	kind, err := o.backend()
	if err != nil {
		return nil, err
	}
	assets, err := kind.preflight(o)
	if err != nil {
		return nil, err
	}
	if err := assets.checkImages(o.KubernetesVersion); err != nil {
		return nil, err
	}
	if err := checkMemory(o.needs()); err != nil {
		return nil, err
	}
	if _, err := os.Stat(d.root); err == nil {
		report(progress, "clearing away what an interrupted creation left")
		if err := d.destroy(ctx); err != nil {
			return nil, err
		}
	}
	report(progress, "creating state in %s", d.root)
	for _, dir := range []string{d.root, d.nodes(), filepath.Dir(d.log("x"))} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	c := &Cluster{
		Name: o.Name, Provisioner: or(o.Provisioner, Containers), KubernetesVersion: o.KubernetesVersion,
		Assets: assets, Created: time.Now().UTC().Truncate(time.Second), dirs: d,
	}
	if c.Provisioner == VirtualMachines {
		c.VM = &VM{VMOptions: o.VM}
	}
	if c.CIDR, err = d.claim(o.CIDR); err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.root))
	}
	c.Gateway = gateway(c.CIDR)
	c.Endpoint = "https://" + netip.AddrPortFrom(c.Gateway, kubePort).String()
	if c.Nodes, err = o.nodes(c.CIDR); err == nil {
		kind.outfit(c, c.Nodes)
		err = c.fill(ctx, o, progress)
	}
	if err != nil { // nothing runs yet: leave nothing
		return nil, errors.Join(err, d.destroy(ctx))
	}
	return c, nil
}

// fill writes the files.
func (c *Cluster) fill(ctx context.Context, o Options, progress func(string)) error {
	settled := make(chan error, 1)
	go func() { settled <- c.backend().settle(ctx, c, progress) }()
	err := c.generate(o)
	if err := errors.Join(err, <-settled); err != nil {
		return err
	}
	return c.save()
}

// claim takes a network for the cluster, and records the host's settings. Its
// own network is never in its way.
func (d dirs) claim(want netip.Prefix) (netip.Prefix, error) {
	var chosen netip.Prefix
	err := host.Hold(d.id, func(others map[string]host.Claim) (host.Claim, error) {
		var taken []netip.Prefix
		for _, other := range others {
			if p, err := netip.ParsePrefix(other.CIDR); err == nil {
				taken = append(taken, p)
			}
		}
		all, err := List() // those that are stopped have nothing on the host
		if err != nil {
			return host.Claim{}, err
		}
		for _, c := range all {
			if c.dirs.root != d.root {
				taken = append(taken, c.CIDR)
			}
		}
		if chosen = want; !d.network().Exists() {
			chosen, err = host.Choose(want, taken)
		}
		return host.Claim{Dir: d.root, CIDR: chosen.String()}, err
	})
	return chosen, err
}

func needRoot(what string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s: needs root (try sudo)", what)
	}
	return nil
}

func checkMemory(need int64) error {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || fields[0] != "MemAvailable:" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return fmt.Errorf("read /proc/meminfo: %w", err)
		}
		if have := kib << 10; have < need {
			return fmt.Errorf("not enough memory: %d MiB are available, the nodes need about %d MiB", have>>20, need>>20)
		}
	}
	return nil
}

// checkOverlay refuses file systems that containers' layers cannot lie on.
func checkOverlay(dir string) error {
	var fsys unix.Statfs_t
	if err := unix.Statfs(dir, &fsys); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	switch fsys.Type {
	case unix.OVERLAYFS_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.V9FS_MAGIC, unix.FUSE_SUPER_MAGIC:
		return fmt.Errorf("%s is on a file system that container images cannot be unpacked on: set XDG_STATE_HOME to a folder on ext4, xfs, btrfs or tmpfs", dir)
	}
	return nil
}
