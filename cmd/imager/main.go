// Command imager packs what components/build and the Go build left into what a
// node runs: the SquashFS root and the OCI layout of container images. What goes
// into them is decided in internal/image. An output that is up to date is left
// alone.
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
  imager rootfs [flags]   write the SquashFS root of a node
  imager images [flags]   write the OCI image layout of a cluster's images
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
	components := f.String("components", "_out/components", "folder of built components")
	switch args[0] {
	case "rootfs":
		bin := f.String("bin", "_out/bin", "folder of machined and noded")
		tag := f.String("tag", version.Tag, "version of the operating system")
		out := f.String("o", "_out/rootfs.squashfs", "file to write")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		return report(stdout, *out, func() (bool, error) {
			return image.WriteSquashFS(ctx, image.RootFS(image.Components(*components), *bin, *tag), *out)
		})
	case "images":
		kubernetes := f.String("kubernetes", "kubernetes", "Kubernetes components, separated by commas; the test image comes from the first")
		out := f.String("o", "_out/images", "folder to write")
		if err := f.Parse(args[1:]); err != nil {
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
	fmt.Fprint(stderr, usage)
	return fmt.Errorf("%s: not something to make", args[0])
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
