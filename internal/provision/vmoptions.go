package provision

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"talos/internal/provision/qemu"
)

// What virtual machines start from.
const (
	BootISO    = "iso"        // the ISO image, until the system is installed on the disk
	BootDisk   = "disk-image" // a copy of the disk image
	BootKernel = "kernel"     // kernel and initramfs, handed to the firmware at every start, as over a network
)

// How virtual machines get their configuration.
const (
	DeliverApply   = "apply"   // the supervisor applies it over the API, in maintenance mode
	DeliverNoCloud = "nocloud" // on a volume cidata; images must be of that platform
	DeliverHTTP    = "http"    // the kernel command line says where the supervisor has it
	DeliverNone    = "none"    // not at all: they wait in maintenance mode for whoever applies one
)

// Boots and Deliveries are those that there are.
var (
	Boots      = []string{BootISO, BootDisk, BootKernel}
	Deliveries = []string{DeliverApply, DeliverNoCloud, DeliverHTTP, DeliverNone}
)

// delivered is how the configuration comes where nobody says how.
var delivered = map[string]string{BootISO: DeliverApply, BootDisk: DeliverApply, BootKernel: DeliverHTTP}

// Sizes of virtual machines where nobody says any, and limits of them.
const (
	defaultCPUs               = 2
	defaultControlPlaneMemory = 2 << 30
	defaultWorkerMemory       = 1 << 30
	defaultDisk               = 10 << 30
	minDisk                   = 3 << 30 // the system's partitions, and the least for data
	maxExtraDisks             = 16

	// VMTimeout bounds waiting for a healthy cluster of virtual machines, which
	// may be emulated.
	VMTimeout = 20 * time.Minute
)

// VMOptions are what only virtual machines have.
type VMOptions struct {
	Boot           string    `yaml:"boot"`            // one of Boots
	Delivery       string    `yaml:"delivery"`        // one of Deliveries; what suits Boot when empty
	Disk           int64     `yaml:"disk"`            // bytes
	DiskDriver     string    `yaml:"diskDriver"`      // one of qemu.Drivers
	ExtraDisks     int       `yaml:"extraDisks"`      // empty ones, per node
	ExtraDisksSize int64     `yaml:"extraDisksSize"`  // bytes of each; as Disk when 0
	TPM            bool      `yaml:"tpm"`             // a TPM 2.0 in each
	SecureBoot     bool      `yaml:"secureBoot"`      // firmware that can enforce it
	Screen         bool      `yaml:"screen"`          // a graphics card in each
	KernelArgs     string    `yaml:"kernelArgs"`      // more of the kernel command line; with BootKernel only
	Clock          time.Time `yaml:"clock,omitempty"` // at every power-on; the host's when zero
}

// complete fills in what is left open.
func (v *VMOptions) complete() {
	v.Boot = or(v.Boot, BootISO)
	v.Delivery = or(v.Delivery, delivered[v.Boot])
	v.DiskDriver = or(v.DiskDriver, qemu.Drivers[0])
	v.Disk = or(v.Disk, defaultDisk)
	v.ExtraDisksSize = or(v.ExtraDisksSize, v.Disk)
}

// same compares options that were completed.
func (v VMOptions) same(other VMOptions) bool {
	sameClock := v.Clock.Equal(other.Clock)
	v.Clock, other.Clock = time.Time{}, time.Time{}
	return sameClock && v == other
}

// or is v, or otherwise where v is zero.
func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func (v VMOptions) check() error {
	switch {
	case !slices.Contains(Boots, v.Boot):
		return fmt.Errorf("boot from %q: want one of %s", v.Boot, strings.Join(Boots, ", "))
	case !slices.Contains(Deliveries, v.Delivery):
		return fmt.Errorf("deliver the configuration by %q: want one of %s", v.Delivery, strings.Join(Deliveries, ", "))
	case v.Delivery == DeliverHTTP && v.Boot != BootKernel:
		return fmt.Errorf("deliver the configuration by %s: the kernel command line of an image is sealed: want it with --boot %s, or another way", DeliverHTTP, BootKernel)
	case v.KernelArgs != "" && v.Boot != BootKernel:
		return fmt.Errorf("extend the kernel command line: that of an image is sealed: want it with --boot %s", BootKernel)
	case v.Disk < minDisk:
		return fmt.Errorf("disks of %d MiB: want at least %d MiB", v.Disk>>20, int64(minDisk)>>20)
	case v.ExtraDisks < 0 || v.ExtraDisks > maxExtraDisks:
		return fmt.Errorf("%d extra disks: want 0 to %d", v.ExtraDisks, maxExtraDisks)
	case v.ExtraDisksSize < 1<<20:
		return errors.New("extra disks: want at least 1 MiB")
	}
	return qemu.CheckDriver(v.DiskDriver)
}
