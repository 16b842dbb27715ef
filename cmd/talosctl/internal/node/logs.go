package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

// copyStreams opens a stream of bytes on every node and writes all of them to
// standard output. With several nodes each line starts with its node's name.
func copyStreams(ctx context.Context, a *cli.App, open func(context.Context, *client.Client) (client.DataStream, error)) error {
	c, err := a.Connect(ctx, cli.Node)
	if err != nil {
		return err
	}
	defer c.Close()
	out := &lineWriter{w: a.Out}
	return cli.Follow(ctx, a, c, func(ctx context.Context, node string) error {
		stream, err := open(ctx, c)
		if err != nil {
			return err
		}
		if len(c.Nodes()) < 2 {
			return c.Copy(a.Out, stream)
		}
		w := out.prefixed(node + ": ")
		defer w.end()
		return c.Copy(w, stream)
	})
}

// lineWriter lets several streams share a writer line by line.
type lineWriter struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (l *lineWriter) prefixed(prefix string) *prefixWriter {
	return &prefixWriter{out: l, prefix: prefix}
}

type prefixWriter struct {
	out    *lineWriter
	prefix string
	rest   []byte // of a line that has not ended
}

func (p *prefixWriter) Write(data []byte) (int, error) {
	p.rest = append(p.rest, data...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return len(data), nil
		}
		p.rest = rest
		if err := p.line(line); err != nil {
			return 0, err
		}
	}
}

func (p *prefixWriter) line(text []byte) error {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	_, err := fmt.Fprintf(p.out.w, "%s%s\n", p.prefix, text)
	return err
}

// end writes what came after the last line break; nobody hears of an error.
func (p *prefixWriter) end() {
	if len(p.rest) > 0 {
		_ = p.line(p.rest)
	}
}

func logsCommand(a *cli.App) *cobra.Command {
	var follow, kubernetes bool
	var tail, boot int32
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Print the log of a service, or with -k of a Kubernetes container",
		Long: `Print the log of a service, or with -k of a Kubernetes container by the id
that ` + "`containers -k`" + ` shows.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: logNames(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			namespace, driver := namespaceFor(kubernetes)
			if tail < -1 {
				return cli.Usage("--tail %d: want the number of lines, or -1 for all", tail)
			}
			if boot > 0 {
				return cli.Usage(boots)
			}
			request := &machine.LogsRequest{Namespace: namespace, Driver: driver, Id: args[0], Follow: follow, TailLines: tail, Boot: boot}
			return copyStreams(cmd.Context(), a, func(ctx context.Context, c *client.Client) (client.DataStream, error) {
				return c.Machine.Logs(ctx, request)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on")
	cmd.Flags().Int32Var(&tail, "tail", -1, "only this many lines of the end (-1: all)")
	cmd.Flags().BoolVarP(&kubernetes, "kubernetes", "k", false, "of a Kubernetes container")
	cmd.Flags().Int32Var(&boot, "boot", 0, "of an earlier boot: -1 is the one before this")
	return cmd
}

// boots says how boots are counted.
const boots = "--boot takes 0 for this boot, -1 for the one before, and so on"

// logNames completes the ids of logs.
func logNames(a *cli.App) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		answers, err := cli.Ask(cmd.Context(), a, cli.Node, func(ctx context.Context, c *client.Client) (*machine.LogsContainersResponse, error) {
			return c.Machine.LogsContainers(ctx, &emptypb.Empty{})
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var ids []string
		for _, answer := range answers {
			ids = append(ids, answer.Message.GetIds()...)
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

func dmesgCommand(a *cli.App) *cobra.Command {
	var follow, tail bool
	var boot int32
	cmd := &cobra.Command{
		Use:   "dmesg",
		Short: "Print the kernel's log",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tail && !follow {
				return cli.Usage("--tail skips what is there already, so it needs --follow")
			}
			if boot > 0 {
				return cli.Usage(boots)
			}
			return copyStreams(cmd.Context(), a, func(ctx context.Context, c *client.Client) (client.DataStream, error) {
				return c.Machine.Dmesg(ctx, &machine.DmesgRequest{Follow: follow, Tail: tail, Boot: boot})
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new messages")
	cmd.Flags().BoolVar(&tail, "tail", false, "only new messages (with --follow)")
	cmd.Flags().Int32Var(&boot, "boot", 0, "of an earlier boot: -1 is the one before this")
	return cmd
}

func readCommand(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use: "read PATH", Aliases: []string{"cat"},
		Short: "Print a file of the node",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.HasPrefix(args[0], "/") {
				return cli.Usage("path %q does not start with /", args[0])
			}
			return copyStreams(cmd.Context(), a, func(ctx context.Context, c *client.Client) (client.DataStream, error) {
				return c.Machine.Read(ctx, &machine.ReadRequest{Path: args[0]})
			})
		},
	}
}
