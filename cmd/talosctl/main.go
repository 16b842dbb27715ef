// Talosctl is the command line for machines that run Talos and for the
// clusters they form. Called osctl it answers as it did under its older name:
// `ps` lists containers.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"talos/cmd/talosctl/internal/cli"
	"talos/cmd/talosctl/internal/cluster"
	"talos/cmd/talosctl/internal/local"
	"talos/cmd/talosctl/internal/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run answers the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	a := &cli.App{Name: nameOf(args[0]), In: in, Out: out, Err: errs, Getenv: os.Getenv}
	root := a.Root()
	root.AddCommand(local.Commands(a, node.ConfigurationCommands(a)...)...)
	root.AddCommand(node.Commands(a)...)
	root.AddCommand(cluster.Commands(a)...)
	return a.Run(ctx, root, args[1:])
}

// nameOf is osctl under that name, and talosctl under any other.
func nameOf(path string) string {
	if strings.HasPrefix(filepath.Base(path), "osctl") {
		return "osctl"
	}
	return "talosctl"
}
