package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"talos/internal/media"
	"talos/internal/secureboot"
	"talos/internal/version"
)

// releaseFlags are those of all that is made of kernel, initramfs and root.
func releaseFlags(f *flag.FlagSet) (*media.Release, *string) {
	r := new(media.Release)
	f.StringVar(&r.Tag, "tag", version.Tag, "version of the operating system")
	f.StringVar(&r.Kernel, "kernel", "_out/kernel", "folder of vmlinuz and version")
	f.StringVar(&r.Initramfs, "initramfs", "_out/initramfs.zst", "initramfs of an installed machine")
	f.StringVar(&r.Root, "root", "_out/rootfs.img", "root with its hash tree")
	f.StringVar(&r.Loader, "loader", "/usr/lib/systemd/boot/efi", "folder of systemd's stub and boot loader")
	f.StringVar(&r.Platform, "platform", "metal", "where the machine is: "+strings.Join(media.Platforms, " or "))
	f.Func("arg", "one more argument for the kernel (repeatable)", func(s string) error {
		r.Args = append(r.Args, s)
		return nil
	})
	return r, f.String("secureboot", "", "folder of keys, as talosctl gen secureboot makes it, to sign with")
}

// makeOne parses the flags and makes one output of a release.
func makeOne(f *flag.FlagSet, args []string, stdout io.Writer, name string, write func(*media.Release, string) (bool, error)) error {
	r, keys := releaseFlags(f)
	out := f.String("o", "_out/"+name, "file to write")
	if err := parse(f, args); err != nil {
		return err
	}
	if !slices.Contains(media.Platforms, r.Platform) {
		return fmt.Errorf("-platform %q: want %s", r.Platform, strings.Join(media.Platforms, " or "))
	}
	if *keys != "" {
		var err error
		if r.Keys, err = secureboot.Load(*keys); err != nil {
			return err
		}
	}
	return report(stdout, *out, func() (bool, error) { return write(r, *out) })
}

func initramfs(f *flag.FlagSet, args []string, stdout io.Writer) error {
	program := f.String("init", "_out/bin/init", "program that the kernel starts")
	out := f.String("o", "_out/initramfs.zst", "file to write")
	if err := parse(f, args); err != nil {
		return err
	}
	return report(stdout, *out, func() (bool, error) { return media.WriteInitramfs(*program, *out) })
}

func uki(f *flag.FlagSet, args []string, stdout io.Writer) error {
	return makeOne(f, args, stdout, "talos-amd64.efi", (*media.Release).WriteUKI)
}

func initramfsFull(f *flag.FlagSet, args []string, stdout io.Writer) error {
	cmdline := f.String("cmdline", "_out/cmdline", "file to write the kernel's command line to")
	return makeOne(f, args, stdout, "initramfs-full.zst", func(r *media.Release, name string) (bool, error) {
		return r.WriteFullInitramfs(name, *cmdline)
	})
}

func iso(ctx context.Context, f *flag.FlagSet, args []string, stdout io.Writer) error {
	return makeOne(f, args, stdout, "talos-amd64.iso", func(r *media.Release, name string) (bool, error) {
		return r.WriteISO(ctx, name)
	})
}

func disk(ctx context.Context, f *flag.FlagSet, args []string, stdout io.Writer) error {
	var size int64
	f.Func("size", "size of the disk, with K, M, G or T for powers of 1024 (default: qcow2 10G, raw as small as can be, to be grown)", func(s string) (err error) {
		size, err = parseSize(s)
		return err
	})
	return makeOne(f, args, stdout, "talos-amd64.raw", func(r *media.Release, name string) (bool, error) {
		return r.WriteDisk(ctx, name, size)
	})
}

func parseSize(s string) (int64, error) {
	shift := 0
	for i, suffix := range []string{"K", "M", "G", "T"} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			s, shift = digits, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("%q: want a number above 0, perhaps with K, M, G or T", s)
	}
	return n << shift, nil
}
