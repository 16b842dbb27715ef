package node

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/client"
	"talos/client/talosconfig"
	"talos/cmd/talosctl/internal/cli"
	"talos/cmd/talosctl/internal/kubeconfig"
)

func kubeconfigCommand(a *cli.App) *cobra.Command {
	var force, merge bool
	var contextName string
	cmd := &cobra.Command{
		Use:   "kubeconfig [PATH]",
		Short: "Fetch the cluster's admin kubeconfig and merge it",
		Long: `Fetch the cluster's admin kubeconfig and merge it into PATH, by default the first
file of $KUBECONFIG, else ~/.kube/config. Its context becomes the current one.

Entries of another cluster that have the same names are kept: the new ones get
the suffix -1, -2 …; with --force they are overwritten. With --merge=false the
file is written as it is, to PATH or ./kubeconfig; - means standard output.`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "overwrite what has the same name")
	cmd.Flags().BoolVarP(&merge, "merge", "m", true, "merge instead of writing the file alone")
	cmd.Flags().StringVar(&contextName, "force-context-name", "", "name of the context in the file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path := ""
		if len(args) > 0 {
			path = args[0]
		}
		data, err := fetchKubeconfig(cmd.Context(), a)
		if err != nil {
			return err
		}
		if merge && path != "-" {
			return MergeKubeconfig(a, data, path, contextName, force)
		}
		return writeKubeconfig(a, data, path, force)
	}
	return cmd
}

func fetchKubeconfig(ctx context.Context, a *cli.App) ([]byte, error) {
	c, err := a.Connect(ctx, cli.Cluster)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := cli.OneNode(c); err != nil {
		return nil, err
	}
	defer a.Slow("fetching the kubeconfig …")()
	return Kubeconfig(ctx, c)
}

// Kubeconfig fetches the admin kubeconfig from the client's node.
func Kubeconfig(ctx context.Context, c *client.Client) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, cli.CallTimeout)
	defer cancel()
	if nodes := c.Nodes(); len(nodes) > 0 {
		ctx = client.WithNode(ctx, nodes[0])
	}
	stream, err := c.Machine.Kubeconfig(ctx, &emptypb.Empty{})
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	if err := c.Copy(&archive, stream); err != nil {
		return nil, err
	}
	return untar(&archive, "kubeconfig")
}

// untar answers the content of one file of a gzipped tar.
func untar(r io.Reader, name string) ([]byte, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("unpack the node's answer: %w", err)
	}
	archive := tar.NewReader(zip)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the node's answer holds no file %s", name)
		}
		if err != nil {
			return nil, fmt.Errorf("unpack the node's answer: %w", err)
		}
		if filepath.Base(header.Name) == name {
			return io.ReadAll(archive)
		}
	}
}

// MergeKubeconfig merges data into the file at path, by default the user's.
func MergeKubeconfig(a *cli.App, data []byte, path, contextName string, force bool) error {
	if path == "" {
		var err error
		if path, err = kubeconfig.DefaultPath(a.Getenv); err != nil {
			return err
		}
	} else if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "kubeconfig")
	}
	in, err := kubeconfig.Parse(data)
	if err != nil {
		return err
	}
	if contextName != "" && len(in.Contexts) == 1 {
		in.Contexts[0].Name, in.CurrentContext = contextName, contextName
	}
	have, err := kubeconfig.Load(path)
	if err != nil {
		return err
	}
	for from, to := range have.Merge(in, force) {
		if from != to {
			a.Note("%s has a context %q of another cluster: stored as %q", path, from, to)
		}
	}
	if err := have.Save(path); err != nil {
		return err
	}
	a.Note("merged the kubeconfig into %s, current context %q", path, have.CurrentContext)
	return nil
}

func writeKubeconfig(a *cli.App, data []byte, path string, force bool) error {
	if path == "-" {
		_, err := a.Out.Write(data)
		return err
	}
	if path == "" {
		path = "kubeconfig"
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "kubeconfig")
	}
	if _, err := os.Stat(path); !force && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already: --force overwrites it", path)
	}
	if err := talosconfig.WritePrivate(path, data); err != nil {
		return err
	}
	a.Note("wrote %s", path)
	return nil
}
