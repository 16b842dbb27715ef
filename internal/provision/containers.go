package provision

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"talos/internal/layout"
	"talos/internal/linux/atomicfile"
	"talos/internal/provision/container"
	"talos/internal/provision/host"
	"talos/internal/provision/process"
)

// containers is the backend whose nodes are operating system containers.
type containers struct{}

func (containers) complete(o *Options) error {
	if o.VM != (VMOptions{}) {
		return fmt.Errorf("disks, firmware, and what to boot from, are for virtual machines only: want --provisioner %s with such flags", VirtualMachines)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	return nil
}

func (containers) preflight(o Options) (Assets, error) {
	return o.Assets.find(assetRunc, assetRootfs, assetImages)
}

func (containers) outfit(*Cluster, []Node) {}

func (containers) settle(_ context.Context, c *Cluster, _ func(string)) error {
	if err := checkOverlay(c.dirs.root); err != nil {
		return err
	}
	if err := container.CopyFile(c.dirs.image(), c.Assets.Rootfs); err != nil {
		return err
	}
	return noteDigest(c.Assets.Rootfs, c.dirs.imageDigest())
}

// noteDigest writes down which image the nodes are made from, for them to
// compare with what they run.
func noteDigest(image, note string) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	return os.WriteFile(note, fmt.Appendf(nil, "%x\n", sum.Sum(nil)), 0o644)
}

func (containers) install(*Cluster) string { return "" }

func (containers) setUp(c *Cluster) error {
	return container.MountImage(c.dirs.image(), c.dirs.rootfs())
}

func (containers) configured(*Cluster, Node) error { return nil }
func (containers) adopt(*Cluster) bool             { return true }
func (containers) services(*supervisor) []service  { return nil }
func (containers) pace() time.Duration             { return 50 * time.Millisecond }

func (containers) runner(c *Cluster, n Node) runner {
	k := c.dirs.container(n.Name)
	k.CPUs, k.Memory = n.CPUs, n.Memory
	return containerMachine{Node: k, digest: c.dirs.imageDigest(), runc: c.Assets.Runc, mac: n.MAC, network: c.network(), port: c.port(n.Name)}
}

// containerMachine is a container with its place in the cluster's network.
type containerMachine struct {
	container.Node
	digest  string // file with the image's
	runc    string
	mac     string
	network host.Network
	port    string
}

// Configure puts name and configuration where the container platform has them.
func (m containerMachine) Configure(name string, config []byte) error {
	if err := m.Prepare(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.PlatformDir(), "hostname"), []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	return atomicfile.Save(filepath.Join(m.PlatformDir(), filepath.Base(layout.PlatformConfigFile)), config, 0o600)
}

func (m containerMachine) Start(ctx context.Context) (process.ID, error) {
	if err := m.Prepare(); err != nil {
		return process.ID{}, err
	}
	if err := container.CopyFile(filepath.Join(m.PlatformDir(), filepath.Base(layout.RootDigestFile)), m.digest); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return process.ID{}, err // a cluster of an earlier version has none
	}
	mac, err := net.ParseMAC(m.mac)
	if err != nil {
		return process.ID{}, err
	}
	ns, err := m.network.Attach(m.port, mac)
	if err != nil {
		return process.ID{}, err
	}
	defer ns.Close() // the node holds it from now on
	return m.Node.Start(ctx, m.runc, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()))
}

func (m containerMachine) Clear(ctx context.Context) error {
	return errors.Join(m.Node.Clear(ctx), host.RemoveLink(m.port))
}
