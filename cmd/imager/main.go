// Command imager packs what components/build, kernel/build and the Go build left
// into what a node runs: the SquashFS root and the OCI layout of container images
// (internal/image), and what machines boot from (internal/media). An output that
// is up to date is left alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"talos/internal/image"
	"talos/internal/version"
)

const usage = `usage:
  imager rootfs [flags]           write the SquashFS root of a node, and its hash tree
  imager images [flags]           write the OCI image layout of a cluster's images
  imager initramfs [flags]        write the initramfs of an installed machine
  imager uki [flags]              write the unified kernel image of an installed machine
  imager initramfs-full [flags]   write the initramfs that brings the root along
  imager iso [flags]              write the ISO
  imager disk [flags]             write the image of an installed disk, raw or qcow2
  imager bill [flags]             write the bill of materials of all that, SPDX in JSON
  imager sums [flags] FILE...     write the list of their checksums, and sign it
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp): // already printed
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "imager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return flag.ErrHelp
	}
	f := flag.NewFlagSet("imager "+args[0], flag.ContinueOnError)
	f.SetOutput(stderr)
	commands := map[string]func() error{
		"rootfs":         func() error { return rootfs(ctx, f, args[1:], stdout) },
		"images":         func() error { return images(f, args[1:], stdout) },
		"initramfs":      func() error { return initramfs(f, args[1:], stdout) },
		"uki":            func() error { return uki(f, args[1:], stdout) },
		"initramfs-full": func() error { return initramfsFull(f, args[1:], stdout) },
		"iso":            func() error { return iso(ctx, f, args[1:], stdout) },
		"disk":           func() error { return disk(ctx, f, args[1:], stdout) },
		"bill":           func() error { return bill(ctx, f, args[1:], stdout) },
		"sums":           func() error { return sums(f, args[1:], stdout) },
	}
	command, ok := commands[args[0]]
	if !ok {
		fmt.Fprint(stderr, usage)
		return fmt.Errorf("%s: not something to make", args[0])
	}
	return command()
}

// parse takes flags and nothing else.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q: want only flags", f.Arg(0))
	}
	return nil
}

// rootInput is what a root is made of.
type rootInput struct{ components, kernel, bin, tag string }

func rootFlags(f *flag.FlagSet) *rootInput {
	in := new(rootInput)
	f.StringVar(&in.components, "components", "_out/components", "folder of built components")
	f.StringVar(&in.kernel, "kernel-files", "_out/kernel-files", "folder of what goes with the kernel: firmware, a list of what is built in")
	f.StringVar(&in.bin, "bin", "_out/bin", "folder of machined and noded")
	f.StringVar(&in.tag, "tag", version.Tag, "version of the operating system")
	return in
}

func (in *rootInput) tree(ctx context.Context) *image.Tree {
	return image.RootFS(ctx, image.Components(in.components), image.KernelFiles(in.kernel), in.bin, in.tag)
}

func rootfs(ctx context.Context, f *flag.FlagSet, args []string, stdout io.Writer) error {
	in := rootFlags(f)
	out := f.String("o", "_out/rootfs.squashfs", "file to write; the one with the hash tree lies beside it and ends in .img")
	if err := parse(f, args); err != nil {
		return err
	}
	if err := report(stdout, *out, func() (bool, error) { return image.WriteSquashFS(ctx, in.tree(ctx), *out) }); err != nil {
		return err
	}
	base := strings.TrimSuffix(*out, filepath.Ext(*out))
	return report(stdout, base+".img", func() (bool, error) {
		return image.WriteRootImage(*out, base+".img", base+".root")
	})
}

func images(f *flag.FlagSet, args []string, stdout io.Writer) error {
	components := f.String("components", "_out/components", "folder of built components")
	kubernetes := f.String("kubernetes", "kubernetes", "Kubernetes components, separated by commas; the test image comes from the first")
	out := f.String("o", "_out/images", "folder to write")
	if err := parse(f, args); err != nil {
		return err
	}
	return report(stdout, *out, func() (bool, error) {
		images, err := image.Images(image.Components(*components), strings.Split(*kubernetes, ",")...)
		if err != nil {
			return false, err
		}
		return image.WriteLayout(images, *out)
	})
}

// report runs one step and prints what it did, how large and how long.
func report(w io.Writer, out string, write func() (bool, error)) error {
	start := time.Now()
	written, err := write()
	if err != nil {
		return err
	}
	did := "written"
	if !written {
		did = "up to date"
	}
	size, err := diskUsage(out)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "imager: %s: %s, %.1f MB, %.1f s\n", out, did, float64(size)/1e6, time.Since(start).Seconds())
	return nil
}

func diskUsage(root string) (total int64, err error) {
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
