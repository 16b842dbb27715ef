// Package media makes what machines boot from: initramfs, unified kernel image,
// ISO and disk image, out of a kernel, the program init and the root image.
//
// Equal inputs give equal bytes, up to signatures, which hold the time. The
// package decides what lies where on a medium; what is in the root is
// internal/image's business, how partitions are laid out and a slot is written
// internal/install's. File systems are made by Debian's programs, in files: no
// privilege, no mount. Its values are not safe for concurrent use.
package media

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/image"
	"talos/internal/secureboot"
	"talos/internal/uki"
	"talos/internal/verity"
)

// Release is what all media of a version are made from.
type Release struct {
	Tag       string // version of the operating system
	Kernel    string // folder of vmlinuz and version
	Initramfs string // archive of init alone, as WriteInitramfs makes it
	Root      string // root image; its parameter is beside it, ending in .root
	Loader    string // folder of systemd's stub and boot loader

	Platform string   // value of talos.platform=
	Args     []string // more arguments for the kernel
	Keys     *secureboot.Keys
}

// Platforms that machines can be on.
var Platforms = []string{"metal", "nocloud"}

// Arguments of every kernel besides platform and root. Those from slab_nomerge on
// are what hardening asks of the command line (kernel/ says why); lines on the
// console stay; and the watchdog goes on while the kernel goes down, which most
// drivers would stop as soon as reboot(2) begins, before it can hang.
const Arguments = "console=tty0 console=ttyS0 consoleblank=0 printk.devkmsg=on panic=10 watchdog.stop_on_reboot=0 " +
	"slab_nomerge pti=on init_on_alloc=1 proc_mem.force_override=never"

// Names of the files in the folders of a Release.
const (
	StubFile   = "linuxx64.efi.stub"
	LoaderFile = "systemd-bootx64.efi"
	kernelFile = "vmlinuz"
	uname      = "version"
)

func (r *Release) rootParam() string {
	return strings.TrimSuffix(r.Root, filepath.Ext(r.Root)) + ".root"
}

// Param is what the kernel is told about the root.
func (r *Release) Param() (verity.Param, error) {
	line, err := os.ReadFile(r.rootParam())
	if err != nil {
		return verity.Param{}, err
	}
	p, err := verity.Parse(strings.TrimSpace(string(line)))
	if err != nil {
		return verity.Param{}, fmt.Errorf("%s: %w", r.rootParam(), err)
	}
	return p, nil
}

// CommandLine is the kernel's, with the root's hash last.
func (r *Release) CommandLine() (string, error) {
	p, err := r.Param()
	if err != nil {
		return "", err
	}
	line := []string{"talos.platform=" + r.Platform, Arguments}
	for _, a := range r.Args {
		if err := checkArgument(a); err != nil {
			return "", err
		}
		line = append(line, a)
	}
	return strings.Join(append(line, verity.Argument+"="+p.String()), " "), nil
}

// checkArgument refuses what would be more than one argument, or one that is
// given in another way.
func checkArgument(a string) error {
	name, _, _ := strings.Cut(a, "=")
	switch {
	case a == "" || strings.IndexFunc(a, func(c rune) bool { return c <= ' ' || c > '~' }) >= 0:
		return fmt.Errorf("kernel argument %q: want one word in ASCII", a)
	case name == verity.Argument || name == "talos.platform":
		return fmt.Errorf("kernel argument %q: %s is set already", a, name)
	}
	return nil
}

// UKI is the unified kernel image with that initramfs, signed if there are keys.
func (r *Release) UKI(initramfs []byte) ([]byte, error) {
	cmdline, err := r.CommandLine()
	if err != nil {
		return nil, err
	}
	stub, err := os.ReadFile(filepath.Join(r.Loader, StubFile))
	if err != nil {
		return nil, err
	}
	kernel, err := os.ReadFile(filepath.Join(r.Kernel, kernelFile))
	if err != nil {
		return nil, err
	}
	release, err := os.ReadFile(filepath.Join(r.Kernel, uname))
	if err != nil {
		return nil, err
	}
	out, err := uki.Build(stub,
		uki.Section{Name: uki.OSRelease, Data: []byte(image.OSRelease(r.Tag))},
		uki.Section{Name: uki.CommandLine, Data: []byte(cmdline)},
		uki.Section{Name: uki.KernelRelease, Data: []byte(strings.TrimSpace(string(release)))},
		uki.Section{Name: uki.Kernel, Data: kernel},
		uki.Section{Name: uki.Initrd, Data: initramfs},
	)
	if err != nil {
		return nil, err
	}
	return r.sign(out)
}

func (r *Release) sign(program []byte) ([]byte, error) {
	if r.Keys == nil {
		return program, nil
	}
	return secureboot.Sign(program, r.Keys.DB)
}

// BootLoader is systemd's, signed if there are keys.
func (r *Release) BootLoader() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(r.Loader, LoaderFile))
	if err != nil {
		return nil, err
	}
	return r.sign(b)
}

// DiskUKI is the unified kernel image of an installed machine, which finds its
// root on the disk.
func (r *Release) DiskUKI() ([]byte, error) {
	initramfs, err := os.ReadFile(r.Initramfs)
	if err != nil {
		return nil, err
	}
	return r.UKI(initramfs)
}

// WriteUKI writes DiskUKI to a file.
func (r *Release) WriteUKI(name string) (written bool, err error) {
	return r.write("uki", name, func(temp string) error {
		b, err := r.DiskUKI()
		if err != nil {
			return err
		}
		return os.WriteFile(temp, b, 0o644)
	})
}
