package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"talos/api/common"
	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
	"talos/internal/etcd/backup"
)

const (
	// recoverTimeout bounds an upload and what etcd's tool makes of it.
	recoverTimeout = 30 * time.Minute
	uploadChunk    = 256 << 10
)

func bootstrapCommand(a *cli.App) *cobra.Command {
	var from string
	var unchecked bool
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Start the cluster's etcd, once, on one control plane node",
		Long: `Start the cluster's etcd, once, on one control plane node; the others join it by
themselves. Where a cluster exists already, this is refused.

With --recover-from, etcd starts with the contents of a snapshot, after all
control plane nodes have lost their data. Nothing is changed if the snapshot is
damaged.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&from, "recover-from", "", "start with the contents of this snapshot")
	cmd.Flags().BoolVar(&unchecked, "recover-skip-hash-check", false, "take a snapshot without a checksum, a copy of a member's database file")
	waiting := cli.WaitFlags(cmd, true, 10*time.Minute, "etcd is healthy")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if unchecked && from == "" {
			return cli.Usage("--recover-skip-hash-check goes with --recover-from")
		}
		if from != "" {
			if err := recoverEtcd(cmd.Context(), a, from, unchecked); err != nil || !waiting.On {
				return err
			}
			return AwaitService(cmd.Context(), a, *waiting, "etcd")
		}
		_, err := cli.AskOne(cmd.Context(), a, cli.Node, func(ctx context.Context, c *client.Client) (*machine.BootstrapResponse, error) {
			return c.Machine.Bootstrap(ctx, &machine.BootstrapRequest{})
		})
		if err != nil {
			return err
		}
		a.Note("etcd is starting: `%s health` follows the cluster", a.Name)
		if !waiting.On {
			return nil
		}
		return AwaitService(cmd.Context(), a, *waiting, "etcd")
	}
	return cmd
}

// recoverEtcd sends a snapshot that is whole to one node and starts etcd with it.
func recoverEtcd(ctx context.Context, a *cli.App, path string, unchecked bool) error {
	if err := backup.VerifyFile(path, unchecked); err != nil {
		return fmt.Errorf("nothing was sent: %w", err)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	c, err := a.Connect(ctx, cli.Node)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := cli.OneNode(c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	answers := client.EachNode(ctx, c, func(ctx context.Context, node string) (struct{}, error) {
		a.Note("%s: sending %s", node, path)
		if err := upload(ctx, c, file); err != nil {
			return struct{}{}, err
		}
		a.Note("%s: restoring", node)
		_, err := c.Machine.Bootstrap(ctx, &machine.BootstrapRequest{RecoverEtcd: true, RecoverSkipHashCheck: unchecked})
		return struct{}{}, err
	})
	if _, err = cli.Sift(a, answers); err == nil {
		a.Note("etcd is starting with the contents of %s: `%s health` follows the cluster", path, a.Name)
	}
	return err
}

func upload(ctx context.Context, c *client.Client, from io.Reader) error {
	stream, err := c.Machine.EtcdRecover(ctx)
	if err != nil {
		return err
	}
	for {
		chunk := make([]byte, uploadChunk) // a message that was sent must not change
		n, err := from.Read(chunk)
		if n > 0 && stream.Send(&common.Data{Bytes: chunk[:n]}) != nil {
			break // why, is the answer
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

func etcdSnapshotCommand(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot FILE",
		Short: "Save the contents of etcd to a file here",
		Long: `Save the contents of etcd, as a node's member has them, to a file here. It appears
only when it is whole and its checksum is right.

It holds everything that Kubernetes stores; Secrets are in it as the API server
encrypts them. To start from it, see "bootstrap --recover-from".`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return snapshot(cmd.Context(), a, args[0])
		},
	}
}

func snapshot(ctx context.Context, a *cli.App, path string) error {
	c, err := a.Connect(ctx, cli.Node)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := cli.OneNode(c); err != nil {
		return err
	}
	defer a.Slow("saving …")()
	answers := client.EachNode(ctx, c, func(ctx context.Context, _ string) (int64, error) {
		ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
		defer cancel()
		stream, err := c.Machine.EtcdSnapshot(ctx, &machine.EtcdSnapshotRequest{})
		if err != nil {
			return 0, err
		}
		from, to := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			to.CloseWithError(c.Copy(to, stream))
		}()
		size, err := backup.Save(path, from)
		from.CloseWithError(errors.New("not needed any more"))
		cancel()
		<-done
		return size, err
	})
	good, err := cli.Sift(a, answers)
	for _, answer := range good {
		a.Note("%s: %s of %s, its checksum is right", path, size(uint64(answer.Message)), answer.Node)
	}
	return err
}
