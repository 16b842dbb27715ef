package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/configuration"
	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

const (
	modeStaged = machine.ApplyConfigurationRequest_STAGED
	modeTry    = machine.ApplyConfigurationRequest_TRY
)

// change is how a configuration is to be changed, as flags say it.
type change struct {
	a                *cli.App
	format           *cli.Format
	mode             string
	dry, force, keep bool // keep: no confirmation by ourselves
	timeout, confirm time.Duration
	printer          *cli.Printer
}

// modesText is what each mode does.
const modesText = `Modes: auto reboots only if a changed key needs it, no-reboot refuses such keys,
reboot always reboots, staged waits for the next reboot, try goes back after
--timeout unless it is confirmed.

With --confirm-timeout the node goes back by itself, across reboots too, unless
the configuration is confirmed in that time. This program confirms it when the
node has answered new connections for a while with the new configuration in
force; with --no-confirm you do, with "config confirm". Of several nodes, which
are changed one after the other, the first that fails is then the last.`

// flags gives cmd the flags of a change.
func (ch *change) flags(cmd *cobra.Command) {
	ch.format = cli.OutputFlag(cmd)
	cmd.Flags().StringVarP(&ch.mode, "mode", "m", "auto", "auto, no-reboot, reboot, staged or try")
	cmd.Flags().BoolVar(&ch.dry, "dry-run", false, "only show what would change")
	cmd.Flags().DurationVar(&ch.timeout, "timeout", time.Minute, "after which mode try goes back")
	cmd.Flags().DurationVar(&ch.confirm, "confirm-timeout", 0, "go back unless confirmed in this time")
	cmd.Flags().BoolVar(&ch.keep, "no-confirm", false, "leave the confirmation to you")
	cmd.Flags().BoolVar(&ch.force, "force", false, "although it does not fit the machine, may cut you off, or another one waits for confirmation")
}

// parse checks the flags.
func (ch *change) parse() (machine.ApplyConfigurationRequest_Mode, error) {
	value, ok := machine.ApplyConfigurationRequest_Mode_value[strings.ToUpper(strings.ReplaceAll(ch.mode, "-", "_"))]
	mode := machine.ApplyConfigurationRequest_Mode(value)
	switch {
	case !ok:
		return mode, cli.Usage("--mode %q is none of auto, no-reboot, reboot, staged, try", ch.mode)
	case ch.keep && ch.confirm == 0:
		return mode, cli.Usage("--no-confirm goes with --confirm-timeout")
	case ch.confirm < 0 || ch.timeout <= 0:
		return mode, cli.Usage("a time to go back after is more than nothing")
	}
	ch.printer = cli.NewPrinter(ch.a.Out, *ch.format)
	return mode, nil
}

// request asks for a document in the way of the flags.
func (ch *change) request(mode machine.ApplyConfigurationRequest_Mode, data []byte, base uint64) *machine.ApplyConfigurationRequest {
	r := &machine.ApplyConfigurationRequest{Data: data, Mode: mode, DryRun: ch.dry, Base: base, Force: ch.force, ConfirmTimeout: ch.confirmTimeout()}
	if mode == modeTry {
		r.TryModeTimeout = durationpb.New(ch.timeout)
	}
	return r
}

func (ch *change) confirmTimeout() *durationpb.Duration {
	if ch.confirm == 0 {
		return nil
	}
	return durationpb.New(ch.confirm)
}

// call makes one short call.
func call[R any](ctx context.Context, a *cli.App, fn func(context.Context) (R, error)) (R, error) {
	defer a.Slow("waiting for an answer …")()
	ctx, cancel := context.WithTimeout(ctx, cli.CallTimeout)
	defer cancel()
	return fn(ctx)
}

// apply sends a document to one node and sees it through.
func (ch *change) apply(ctx context.Context, c *client.Client, node string, r *machine.ApplyConfigurationRequest) error {
	return ch.finish(ctx, node, r.GetMode(), func() (*machine.ApplyConfigurationResponse, error) {
		return call(ctx, ch.a, func(ctx context.Context) (*machine.ApplyConfigurationResponse, error) {
			return c.Machine.ApplyConfiguration(ctx, r)
		})
	})
}

// finish prints what a node made of a change and confirms it.
func (ch *change) finish(ctx context.Context, node string, mode machine.ApplyConfigurationRequest_Mode, send func() (*machine.ApplyConfigurationResponse, error)) error {
	reply, err := send()
	if err != nil {
		return err
	}
	for _, m := range reply.GetMessages() {
		if err := ch.print(node, m); err != nil {
			return err
		}
		if ch.dry || ch.confirm == 0 || m.GetNumber() == 0 {
			continue
		}
		if mode == modeStaged || ch.keep {
			ch.a.Note("%s: confirm it with `%s config confirm %d -n %s`", node, ch.a.Name, m.GetNumber(), node)
			continue
		}
		w := &confirmation{a: ch.a, node: node, number: m.GetNumber(), timeout: ch.confirm, reboots: m.GetMode() == machine.ApplyConfigurationRequest_REBOOT}
		if err := w.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (ch *change) print(node string, m *machine.ApplyConfiguration) error {
	for _, w := range m.GetWarnings() {
		ch.a.Note("%s: warning: %s", node, w)
	}
	if *ch.format != cli.TableFormat {
		return ch.printer.Print(cli.NodeDoc(node, m))
	}
	dry := ""
	details := strings.TrimSpace(m.GetModeDetails())
	if ch.dry {
		dry = "dry run, nothing changed: "
		if m.GetDiff() != "" { // it is below what is done, for clients that do not know it
			details = strings.TrimSpace(strings.TrimSuffix(details, strings.TrimSpace(m.GetDiff())))
			details += "\n" + strings.TrimSuffix(ch.a.Difference(m.GetDiff()), "\n")
		}
	}
	_, err := fmt.Fprintf(ch.a.Out, "%s: %s%s\n", node, dry, details)
	return err
}

// Times of a confirmation.
const (
	// settle is how long a node is to answer: what a configuration does to the
	// network is not done at the moment it is in force.
	settle = 5 * time.Second
	// seeBack is how long a node that did not answer gets to tell that it went back.
	seeBack = 15 * time.Second
	// bootTime is what a node gets for going down and up.
	bootTime = 10 * time.Minute
)

// confirmation sees one configuration through.
type confirmation struct {
	a       *cli.App
	node    string
	number  uint64
	timeout time.Duration
	reboots bool

	since time.Time // the node has answered, with the configuration in force
}

var errGoesBack = errors.New("the node goes back by itself")

// run waits until the node answers with the configuration in force, and confirms it.
func (w *confirmation) run(ctx context.Context) error {
	limit := w.timeout + seeBack
	if w.reboots {
		limit += bootTime
	}
	tell := func(state string) { w.a.Note("%s: %s", w.node, state) }
	err := cli.Waiting{On: true, Limit: limit}.Wait(ctx, fmt.Sprintf("%s to answer with configuration %d", w.node, w.number), tell, w.look)
	var timeout *cli.TimeoutError
	switch {
	case errors.As(err, &timeout):
		return fmt.Errorf("%w: %w", errGoesBack, err)
	case err != nil && ctx.Err() != nil:
		w.a.Note("%s: not confirmed, %v", w.node, errGoesBack)
	case err == nil:
		tell(fmt.Sprintf("configuration %d confirmed", w.number))
	}
	return err
}

// look asks over a new connection: one from before may live on where no new one
// comes through.
func (w *confirmation) look(ctx context.Context) (state string, done bool, err error) {
	c, err := w.a.Connect(ctx, cli.Node)
	if err != nil {
		return "", false, err
	}
	defer c.Close()
	if len(c.Nodes()) > 0 {
		ctx = client.WithNode(ctx, w.node)
	}
	reply, err := c.Configurations.History(ctx, &configuration.ConfigurationHistoryRequest{})
	if err != nil || len(reply.GetMessages()) == 0 {
		w.since = time.Time{}
		return "not answering", false, nil
	}
	h := reply.GetMessages()[0]
	i := slices.IndexFunc(h.GetEntries(), func(e *configuration.ConfigurationEntry) bool { return e.GetNumber() == w.number })
	if i < 0 {
		return "", false, fmt.Errorf("%s: configuration %d is not in its history", w.node, w.number)
	}
	switch e := h.GetEntries()[i]; e.GetState() {
	case "trying":
		return w.confirm(ctx, c)
	case "staged":
		return "going down", false, nil
	case "active":
		return "", true, nil // there was nothing to confirm, or somebody was faster
	default:
		return "", false, fmt.Errorf("%s: configuration %d was %s (%s), number %d is in force", w.node, w.number, e.GetState(), e.GetNote(), h.GetActive())
	}
}

func (w *confirmation) confirm(ctx context.Context, c *client.Client) (state string, done bool, err error) {
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if time.Since(w.since) < min(settle, w.timeout/4) {
		return "answers with the new configuration", false, nil
	}
	_, err = c.Configurations.Confirm(ctx, &configuration.ConfigurationConfirmRequest{Number: w.number})
	if client.KindOf(err) == client.Denied {
		return "", false, err
	}
	if err != nil {
		return "not answering", false, nil // what became of it shows next time
	}
	return "", true, nil
}
