package provision

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"talos/internal/linux/atomicfile"
	"talos/internal/provision/host"
	"talos/internal/provision/process"
	"talos/internal/provision/qemu"
)

// VM is what was decided for a cluster of virtual machines.
type VM struct {
	VMOptions   `yaml:",inline"`
	Accelerator qemu.Accel    `yaml:"accelerator"`
	Firmware    qemu.Firmware `yaml:"firmware"`
	Cmdline     string        `yaml:"cmdline,omitempty"` // of the kernel, with BootKernel; each node's own is added
}

// virtual is the backend whose nodes are virtual machines.
type virtual struct{}

func (virtual) complete(o *Options) error {
	o.VM.complete()
	o.WorkerCPUs = or(o.WorkerCPUs, or(o.CPUs, defaultCPUs))
	o.CPUs = or(o.CPUs, defaultCPUs)
	o.WorkerMemory = or(o.WorkerMemory, or(o.Memory, defaultWorkerMemory))
	o.Memory = or(o.Memory, defaultControlPlaneMemory)
	o.Timeout = or(o.Timeout, VMTimeout)
	for _, n := range []float64{o.CPUs, o.WorkerCPUs} {
		if n != float64(int(n)) {
			return fmt.Errorf("%g cpus: a virtual machine has a whole number of them", n)
		}
	}
	return o.VM.check()
}

// bootAssets are the files that each way to start is from.
var bootAssets = map[string][]asset{BootISO: {assetISO}, BootDisk: {assetDisk}, BootKernel: {assetKernel, assetInitramfs, assetCmdline}}

// Images have their platform on their sealed command line, and only those of the
// platform nocloud look for a volume.
var noCloudAssets = map[string][]asset{BootISO: {assetNoCloudISO}, BootDisk: {assetNoCloudDisk}, BootKernel: bootAssets[BootKernel]}

func (virtual) preflight(o Options) (Assets, error) {
	missing := qemu.Preflight(qemu.Needs{TPM: o.VM.TPM, SecureBoot: o.VM.SecureBoot})
	wanted := bootAssets[o.VM.Boot]
	if o.VM.Delivery == DeliverNoCloud {
		wanted = noCloudAssets[o.VM.Boot]
	}
	assets, err := o.Assets.find(append([]asset{assetImages}, wanted...)...)
	return assets, errors.Join(missing, err)
}

func (virtual) settle(ctx context.Context, c *Cluster, progress func(string)) error {
	var err error
	if c.VM.Firmware, err = qemu.FindFirmware(c.VM.SecureBoot); err != nil {
		return err
	}
	accelerator, why := qemu.Choose(ctx, c.VM.Firmware)
	if c.VM.Accelerator = accelerator; accelerator == qemu.KVM {
		report(progress, "virtual machines run with KVM")
	} else {
		report(progress, "virtual machines are emulated, which is slow: %s", why)
	}
	copies := map[string]string{}
	switch c.VM.Boot {
	case BootISO:
		copies[c.dirs.iso()] = c.Assets.ISO
	case BootDisk:
		copies[c.dirs.disk()] = c.Assets.Disk
	case BootKernel:
		copies[c.dirs.kernel()], copies[c.dirs.initramfs()] = c.Assets.Kernel, c.Assets.Initramfs
		line, err := os.ReadFile(c.Assets.Cmdline)
		if err != nil {
			return err
		}
		c.VM.Cmdline = strings.TrimSpace(string(line))
	}
	for dst, src := range copies {
		if err := qemu.CopyImage(dst, src); err != nil {
			return err
		}
	}
	return nil
}

// install: what started from elsewhere is to be on the disk in the end.
func (virtual) install(c *Cluster) string {
	if c.VM.Boot == BootDisk {
		return ""
	}
	return qemu.Device(c.VM.DiskDriver)
}

func (virtual) setUp(*Cluster) error { return nil }

func (virtual) services(s *supervisor) []service {
	out := []service{{"ntp", s.ntp}}
	switch s.cluster.VM.Delivery {
	case DeliverHTTP:
		out = append(out, service{"configuration", s.configuration})
	case DeliverApply:
		out = append(out, service{"maintenance", s.maintenance})
	}
	return out
}

// configured: what waits in maintenance mode is left alone by all but the one
// who applies its configuration.
func (virtual) configured(c *Cluster, n Node) error {
	if c.VM.Delivery != DeliverApply || c.applied(n) > 0 {
		return nil
	}
	return errors.New(or(c.dirs.readSupervisor().Trouble[n.Name], "it has no configuration yet"))
}

// adopt: whoever applies the configurations does the rest, too.
func (virtual) adopt(c *Cluster) bool { return c.VM.Delivery != DeliverNone }

func (virtual) pace() time.Duration { return time.Second }

// nodes adds what virtual machines have to nodes.
func (virtual) outfit(c *Cluster, nodes []Node) {
	for i := range nodes {
		nodes[i].UUID = newUUID()
		nodes[i].Disks = []int64{c.VM.Disk}
		for range c.VM.ExtraDisks {
			nodes[i].Disks = append(nodes[i].Disks, c.VM.ExtraDisksSize)
		}
	}
}

// newUUID is a random one (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (virtual) runner(c *Cluster, n Node) runner {
	dir := c.dirs.node(n.Name)
	v := qemu.VM{
		Name: n.Name, UUID: n.UUID, Serial: n.Name, Dir: dir, Log: c.dirs.log(n.Name),
		CPUs: int(n.CPUs), Memory: n.Memory, Accel: c.VM.Accelerator, Firmware: c.VM.Firmware,
		Links: []qemu.Link{{MAC: n.MAC, Tap: c.port(n.Name)}},
		TPM:   c.VM.TPM, Screen: c.VM.Screen, Clock: c.VM.Clock,
	}
	for i, size := range n.Disks {
		v.Disks = append(v.Disks, qemu.Disk{Path: filepath.Join(dir, fmt.Sprintf("disk%d.raw", i)), Size: size, Driver: c.VM.DiskDriver})
	}
	m := virtualMachine{VM: v, network: c.dirs.network(), port: c.port(n.Name), config: c.dirs.configFile(n.Name)}
	switch c.VM.Boot {
	case BootISO:
		m.CD = c.dirs.iso()
	case BootDisk:
		m.Disks[0].From = c.dirs.disk()
	case BootKernel:
		m.Kernel = &qemu.Kernel{Image: c.dirs.kernel(), Initrd: c.dirs.initramfs(), Cmdline: c.cmdline(n)}
	}
	if c.VM.Delivery == DeliverNoCloud {
		m.volume = filepath.Join(dir, "cidata.img")
		m.Disks = append(m.Disks, qemu.Disk{Path: m.volume, ReadOnly: true})
	}
	return m
}

// cmdline is a node's kernel command line. It is no secret.
func (c *Cluster) cmdline(n Node) string {
	words := strings.Fields(c.VM.Cmdline)
	switch c.VM.Delivery {
	case DeliverHTTP:
		words = append(words, "talos.config="+c.configURL(n))
	case DeliverNoCloud:
		words = slices.DeleteFunc(words, func(w string) bool { return strings.HasPrefix(w, "talos.platform=") })
		words = append(words, "talos.platform=nocloud")
	}
	return strings.Join(append(words, strings.Fields(c.VM.KernelArgs)...), " ")
}

// virtualMachine is a virtual machine with its place in the cluster's network.
type virtualMachine struct {
	qemu.VM
	network host.Network
	port    string
	config  string // file
	volume  string // file that the configuration is on, too; may be empty
}

func (m virtualMachine) Configure(name string, config []byte) error {
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return err
	}
	if err := atomicfile.Save(m.config, config, 0o600); err != nil || m.volume == "" {
		return err
	}
	return qemu.MakeVolume(m.volume, "CIDATA", map[string][]byte{
		"user-data": config,
		"meta-data": fmt.Appendf(nil, "instance-id: %s\nlocal-hostname: %s\n", m.UUID, name),
	})
}

func (m virtualMachine) Start(ctx context.Context) (process.ID, error) {
	if err := m.network.AttachTap(m.port); err != nil {
		return process.ID{}, err
	}
	return m.VM.Start(ctx)
}

func (m virtualMachine) Clear(ctx context.Context) error {
	return errors.Join(m.VM.Clear(ctx), host.RemoveLink(m.port))
}

// Erase empties partitions; all together are the disk, in whose place a new one
// is put.
func (m virtualMachine) Erase(partitions ...string) error {
	for _, p := range Partitions {
		if !slices.Contains(partitions, p) {
			return m.VM.Erase(partitions...)
		}
	}
	return m.Replace()
}

// Press presses one of Buttons.
func (m virtualMachine) Press(ctx context.Context, button string) error {
	switch button {
	case ButtonReset:
		return m.PressReset(ctx)
	case ButtonNMI:
		return m.PressNMI(ctx)
	case ButtonCtrlAltDelete:
		return m.PressKeys(ctx, "ctrl", "alt", "delete")
	default:
		return m.PressPower(ctx)
	}
}

func (m virtualMachine) Usage() process.Usage {
	p, _ := m.Running()
	return p.Usage()
}
