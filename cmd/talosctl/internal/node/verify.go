package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"talos/api/integrity"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

// verifyTimeout is more than nodes give themselves.
const verifyTimeout = 20 * time.Minute

func verifyCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that nodes run what they were started with",
		Long: `Check that nodes run what they were started with.

A machine reads its whole root and computes the hash tree anew, so that a byte
that has changed on the disk is found before anybody reads it. Hash, version and
kernel are compared with the boot entry and the kernel image that the machine is
started from, and under Secure Boot that and the boot loader with the keys that
the firmware trusts. A check that can't be made on a node, as most can't in a
container, is "not applicable", with the reason.

The exit code is 1 when a check fails.`,
		Example: "  talosctl verify\n  talosctl -n 10.5.0.2,10.5.0.3 verify -o json",
		Args:    cobra.NoArgs,
	}
	format := cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), verifyTimeout)
		defer cancel()
		c, err := a.Connect(ctx, cli.Node)
		if err != nil {
			return err
		}
		defer c.Close()
		found := &checksOfNodes{a: a, of: map[string][]*integrity.Check{}}
		err = cli.Follow(ctx, a, c, func(ctx context.Context, node string) error { return found.collect(ctx, c, node) })
		a.ClearStatus()
		nodes := c.Nodes()
		if len(nodes) == 0 {
			nodes = c.Endpoints()[:1]
		}
		return found.print(*format, nodes, err)
	}
	return cmd
}

// checksOfNodes are what the nodes have found. It is safe for concurrent use.
type checksOfNodes struct {
	a  *cli.App
	mu sync.Mutex // guards of
	of map[string][]*integrity.Check
}

// collect follows the checks of one node.
func (n *checksOfNodes) collect(ctx context.Context, c *client.Client, node string) error {
	stream, err := c.Integrity.Verify(ctx, &integrity.VerifyRequest{})
	if err != nil {
		return err
	}
	for none := true; ; none = false {
		check, err := stream.Recv()
		if errors.Is(err, io.EOF) && none {
			return fmt.Errorf("%s has made no check", node)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if md := check.GetMetadata(); md.GetError() != "" {
			return errors.New(md.GetError())
		}
		if check.GetResult() != integrity.Check_RUNNING {
			n.mu.Lock()
			n.of[node] = append(n.of[node], check)
			n.mu.Unlock()
		} else if total := check.GetBytesTotal(); total > 0 {
			n.a.Status("%s: %s: %d %% of %s read", node, check.GetName(), check.GetBytesDone()*100/total, size(total))
		}
	}
}

// print shows the checks node by node, and fails if one of them or a node did.
func (n *checksOfNodes) print(format cli.Format, nodes []string, failure error) error {
	all, failed := 0, 0
	var docs []any
	table := cli.NewTable(n.a.Out, "NODE", "CHECK", "RESULT", "DETAIL")
	for _, node := range nodes {
		for _, c := range n.of[node] {
			all++
			result, good := resultText(c.GetResult())
			if !good {
				failed++
			}
			table.Row(node, c.GetName(), result, c.GetDetail())
			docs = append(docs, cli.Doc{
				{Key: "node", Value: node}, {Key: "check", Value: c.GetName()}, {Key: "result", Value: result}, {Key: "detail", Value: c.GetDetail()},
			})
		}
		delete(n.of, node) // which may be named twice
	}
	var err error
	switch {
	case format != cli.TableFormat:
		err = n.a.PrintDocs(format, docs...)
	case all > 0:
		err = table.Flush()
	}
	if err != nil || failed == 0 {
		return errors.Join(err, failure)
	}
	if silent := (*cli.Silent)(nil); failure != nil && !errors.As(failure, &silent) {
		n.a.Report(failure)
	}
	return fmt.Errorf("%d of %d checks failed", failed, all)
}

// resultText is a result in words, and whether it is no reason to fail. One that
// this client does not know is.
func resultText(r integrity.Check_Result) (text string, good bool) {
	switch r {
	case integrity.Check_OK:
		return "ok", true
	case integrity.Check_NOT_APPLICABLE:
		return "not applicable", true
	case integrity.Check_FAILED:
		return "failed", false
	}
	return fmt.Sprintf("unknown (%d)", int32(r)), false
}
