package cluster

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"talos/cmd/talosctl/internal/cli"
	"talos/internal/provision"
	"talos/internal/provision/qemu"
)

// vmFlags gives cmd the flags that are about virtual machines.
func vmFlags(cmd *cobra.Command, o *provision.Options) {
	f, v, a := cmd.Flags(), &o.VM, &o.Assets
	choice(cmd, &v.Boot, "boot", provision.Boots, "virtual machines: start from the iso image and install, from a copy of the disk-image, or from the kernel and initramfs each time (default: iso)")
	choice(cmd, &v.Delivery, "config-delivery", provision.Deliveries, "virtual machines: how they get their configuration: apply in maintenance mode (default with iso and disk-image), over http (default with kernel), on a nocloud volume, or none: you apply it")
	sizeVar(f, &v.Disk, "disk", "virtual machines: size of each node's disk (default: 10GiB)")
	choice(cmd, &v.DiskDriver, "disk-driver", qemu.Drivers, "virtual machines: how disks are attached: "+strings.Join(qemu.Drivers, ", ")+" (default: "+qemu.Drivers[0]+")")
	f.IntVar(&v.ExtraDisks, "extra-disks", 0, "virtual machines: number of further, empty disks per node")
	sizeVar(f, &v.ExtraDisksSize, "extra-disks-size", "virtual machines: size of each further disk (default: as --disk)")
	f.BoolVar(&v.TPM, "with-tpm", false, "virtual machines: a TPM 2.0 in each")
	f.BoolVar(&v.SecureBoot, "secureboot", false, "virtual machines: firmware that enforces Secure Boot once it has keys")
	f.BoolVar(&v.Screen, "screen", false, "virtual machines: a graphics card in each")
	f.StringVar(&v.KernelArgs, "extra-kernel-args", "", "virtual machines: more of the kernel command line, with --boot kernel")
	f.Var((*timeFlag)(&v.Clock), "clock", "virtual machines: what the clock says at each power-on, such as 1970-01-01T00:00:00Z (default: this machine's)")
	f.StringVar(&a.ISO, "iso", "", "ISO image (default: beside this program)")
	f.StringVar(&a.Disk, "disk-image", "", "raw disk image (default: beside this program)")
	f.StringVar(&a.Kernel, "kernel", "", "kernel (default: beside this program)")
	f.StringVar(&a.Initramfs, "initramfs", "", "initramfs with the root in it (default: beside this program)")
}

// choice is a flag whose value is one of some; provision checks it.
func choice(cmd *cobra.Command, into *string, name string, of []string, usage string) {
	cmd.Flags().StringVar(into, name, "", usage)
	// The flag exists, so this can't go wrong.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(of, cobra.ShellCompDirectiveNoFileComp))
}

// size is a flag's amount of bytes.
type size int64

func sizeVar(f *pflag.FlagSet, into *int64, name, usage string) { f.Var((*size)(into), name, usage) }

// Type is what the help calls such values.
func (*size) Type() string { return "size" }

// String is "" for none, so that the help shows no default.
func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*s), 10) + "B"
}

// units of size; a number without one is MiB.
var units = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"", 1 << 20},
}

// Set parses text.
func (s *size) Set(text string) error {
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || n < 0 || n*u.bytes > 1<<50 {
			break
		}
		*s = size(n * u.bytes)
		return nil
	}
	return errors.New("want an amount such as 2GiB")
}

// timeFlag is a flag's time.
type timeFlag time.Time

// Type is what the help calls such values.
func (*timeFlag) Type() string { return "time" }

// String is "" for none, so that the help shows no default.
func (t *timeFlag) String() string {
	if at := time.Time(*t); !at.IsZero() {
		return at.Format(time.RFC3339)
	}
	return ""
}

// Set parses text.
func (t *timeFlag) Set(text string) error {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return errors.New("want a time such as 1970-01-01T00:00:00Z")
	}
	*t = timeFlag(at)
	return nil
}

// vmRows tells in a table what a cluster's virtual machines are.
func vmRows(t *cli.Table, c *provision.Cluster) {
	t.Row("PROVISIONER", provisioner(c))
	if v := c.VM; v != nil {
		t.Row("PROCESSORS", map[qemu.Accel]string{qemu.KVM: "KVM", qemu.Emulated: "emulated"}[v.Accelerator])
		t.Row("BOOT", v.Boot+", configured by "+v.Delivery)
		t.Row("DISKS", v.DiskDriver)
		t.Row("TPM", yesNo(v.TPM))
		t.Row("SECUREBOOT", yesNo(v.SecureBoot))
	}
}

func provisioner(c *provision.Cluster) string {
	if c.VM != nil {
		return provision.VirtualMachines
	}
	return provision.Containers
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// disksOf are the sizes of a node's disks.
func disksOf(n provision.Node) string {
	var out []string
	for _, bytes := range n.Disks {
		out = append(out, mebi(bytes))
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}

func vmDoc(v *provision.VM) cli.Doc {
	return cli.Doc{
		{Key: "accelerator", Value: string(v.Accelerator)}, {Key: "boot", Value: v.Boot}, {Key: "configDelivery", Value: v.Delivery},
		{Key: "diskDriver", Value: v.DiskDriver}, {Key: "tpm", Value: v.TPM}, {Key: "secureBoot", Value: v.SecureBoot},
		{Key: "screen", Value: v.Screen}, {Key: "kernelArgs", Value: v.KernelArgs},
	}
}
