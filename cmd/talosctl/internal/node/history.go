package node

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/configuration"
	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

// ConfigurationCommands makes the commands that hang below config.
func ConfigurationCommands(a *cli.App) []*cobra.Command {
	return []*cobra.Command{historyCommand(a), confirmCommand(a), rollbackCommand(a)}
}

func historyCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the configurations that nodes have had",
		Long: `List the configurations that nodes have had, the newest first, and what became of
each: active (in force), staged (from the next boot on), trying (in force, goes
back unless confirmed), confirmed (was in force), reverted (was taken back),
discarded (replaced before it was in force or confirmed), damaged.`,
		Args: cobra.NoArgs,
	}
	format := cli.OutputFlag(cmd)
	l := lister[*configuration.ConfigurationHistory, *configuration.ConfigurationHistoryResponse]{
		scope: cli.Node,
		head:  []string{"NODE", "NUMBER", "STATE", "TIME", "BY", "MODE", "CHANGED", "NOTE"},
		call: func(ctx context.Context, c *client.Client) (*configuration.ConfigurationHistoryResponse, error) {
			return c.Configurations.History(ctx, &configuration.ConfigurationHistoryRequest{})
		},
		rows: func(node string, h *configuration.ConfigurationHistory, row func(...string)) {
			if h.GetProblem() != "" {
				a.Note("%s: a stored configuration was not usable: %s", node, h.GetProblem())
			}
			for _, e := range h.GetEntries() {
				row(node, strconv.FormatUint(e.GetNumber(), 10), e.GetState(), e.GetTime().AsTime().UTC().Format(time.RFC3339),
					e.GetBy(), e.GetMode(), summary(e.GetChanged()), note(e, h))
			}
		},
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return l.run(cmd.Context(), a, *format) }
	return cmd
}

// shown is how many changed keys a table has room for.
const shown = 2

func summary(keys []string) string {
	text := strings.Join(keys[:min(shown, len(keys))], ", ")
	if more := len(keys) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// note says what is to be known of a configuration; of one that waits for
// confirmation, until when.
func note(e *configuration.ConfigurationEntry, h *configuration.ConfigurationHistory) string {
	p := h.GetPending()
	if p == nil || p.GetNumber() != e.GetNumber() {
		return e.GetNote()
	}
	text := fmt.Sprintf("back to %d unless confirmed within %s of the boot", p.GetFallback(), p.GetTimeout().AsDuration())
	if p.GetInForce() {
		text = fmt.Sprintf("back to %d in %s unless confirmed", p.GetFallback(), p.GetRemaining().AsDuration().Round(time.Second))
	}
	if e.GetNote() != "" {
		text = e.GetNote() + "; " + text
	}
	return text
}

// number reads the number of a configuration; none is 0.
func number(args []string) (uint64, error) {
	if len(args) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || n == 0 {
		return 0, cli.Usage("%q is no number of a configuration: `config history` lists them", args[0])
	}
	return n, nil
}

func confirmCommand(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:   "confirm [NUMBER]",
		Short: "Keep the configuration that nodes would go back from",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := number(args)
			if err != nil {
				return err
			}
			answers, failed := cli.Ask(cmd.Context(), a, cli.Node, func(ctx context.Context, c *client.Client) (*configuration.ConfigurationConfirmResponse, error) {
				return c.Configurations.Confirm(ctx, &configuration.ConfigurationConfirmRequest{Number: n})
			})
			for _, answer := range answers {
				a.Note("%s: configuration %d confirmed", answer.Node, answer.Message.GetNumber())
			}
			return failed
		},
	}
}

func rollbackCommand(a *cli.App) *cobra.Command {
	ch := &change{a: a}
	cmd := &cobra.Command{
		Use:   "rollback [NUMBER]",
		Short: "Go back to an earlier configuration of nodes",
		Long: `Go back to an earlier configuration of nodes: it is applied again, as a new one.
Without a number it is what the node would go back to by itself, or else the last
good one before the present one.

` + modesText,
		Args: cobra.MaximumNArgs(1),
	}
	ch.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		mode, err := ch.parse()
		if err != nil {
			return err
		}
		n, err := number(args)
		if err != nil {
			return err
		}
		r := &configuration.ConfigurationRollbackRequest{Number: n, Mode: mode, DryRun: ch.dry, Force: ch.force, ConfirmTimeout: ch.confirmTimeout()}
		if mode == modeTry {
			r.TryModeTimeout = durationpb.New(ch.timeout)
		}
		return cli.OneByOne(cmd.Context(), a, ch.confirm > 0, func(ctx context.Context, c *client.Client, node string) error {
			return ch.finish(ctx, node, mode, func() (*machine.ApplyConfigurationResponse, error) {
				return call(ctx, a, func(ctx context.Context) (*machine.ApplyConfigurationResponse, error) {
					return c.Configurations.Rollback(ctx, r)
				})
			})
		})
	}
	return cmd
}
