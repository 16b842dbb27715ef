package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/cluster"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
	"talos/internal/health"
)

func healthCommand(a *cli.App) *cobra.Command {
	var timeout time.Duration
	var server bool
	info := &cluster.ClusterInfo{}
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Wait until the cluster is healthy, and tell each check",
		Args:  cobra.NoArgs,
	}
	format := cli.OutputFlag(cmd)
	f := cmd.Flags()
	f.BoolVar(&server, "server", true, "let a control plane node check; false: check from here, through the endpoints")
	f.DurationVar(&timeout, "wait-timeout", 20*time.Minute, "how long to wait")
	f.StringSliceVar(&info.ControlPlaneNodes, "control-plane-nodes", nil, "the control plane nodes there should be (default: those the cluster knows)")
	f.StringSliceVar(&info.WorkerNodes, "worker-nodes", nil, "the workers there should be (default: those the cluster knows)")
	f.StringVar(&info.ForceEndpoint, "k8s-endpoint", "", "Kubernetes endpoint to use instead of the cluster's")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if timeout <= 0 {
			return cli.Usage("--wait-timeout %v is not positive", timeout)
		}
		c, err := a.Connect(cmd.Context(), cli.Cluster)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := cli.OneNode(c); err != nil {
			return err
		}
		if server {
			return Health(cmd.Context(), a, c, *format, timeout, info)
		}
		checks := &checkWriter{a: a, format: *format, printer: cli.NewPrinter(a.Out, *format)}
		if err := checkFromHere(cmd.Context(), c, checks, timeout, info); err != nil {
			return errors.Join(checks.end(false), lateCheck(err, timeout))
		}
		return checks.end(true)
	}
	return cmd
}

// Health follows the server's checks and prints the end of each.
func Health(ctx context.Context, a *cli.App, c *client.Client, format cli.Format, timeout time.Duration, info *cluster.ClusterInfo) error {
	// The server ends it; the margin lets its own words arrive.
	ctx, cancel := context.WithTimeout(ctx, timeout+5*time.Second)
	defer cancel()
	if nodes := c.Nodes(); len(nodes) > 0 {
		ctx = client.WithNode(ctx, nodes[0])
	}
	stream, err := c.Cluster.HealthCheck(ctx, &cluster.HealthCheckRequest{WaitTimeout: durationpb.New(timeout), ClusterInfo: info})
	if err != nil {
		return err
	}
	checks := &checkWriter{a: a, format: format, printer: cli.NewPrinter(a.Out, format)}
	for {
		progress, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return checks.end(true)
		}
		if err != nil {
			return errors.Join(checks.end(false), healthError(err, checks, timeout))
		}
		if md := progress.GetMetadata(); md.GetError() != "" {
			return errors.Join(checks.end(false), errors.New(md.GetError()))
		}
		if err := checks.progress(progress.GetMessage()); err != nil {
			return err
		}
	}
}

// healthError tells of the check that was under way, and when time was up what it
// waited for.
func healthError(err error, w *checkWriter, timeout time.Duration) error {
	switch {
	case w.check == "":
		return err
	case client.KindOf(err) == client.Timeout:
		return &cli.TimeoutError{What: strings.TrimPrefix(w.check, "waiting for "), Limit: timeout, Last: w.state}
	}
	return fmt.Errorf("%s: %w", w.check, err)
}

func lateCheck(err error, timeout time.Duration) error {
	if late := (*health.Error)(nil); errors.As(err, &late) {
		return &cli.TimeoutError{What: late.Check, Limit: timeout, Last: late.Err.Error()}
	}
	return err
}

// checkWriter turns the messages of the server into one line per check. A
// message is "waiting for X: state"; the last state of a check counts.
type checkWriter struct {
	a       *cli.App
	format  cli.Format
	printer *cli.Printer
	check   string // the one under way: waiting for X
	state   string
	done    bool
}

func (w *checkWriter) progress(message string) error {
	check, state, _ := strings.Cut(strings.TrimSpace(message), ": ")
	if check != w.check {
		if err := w.finish("OK"); err != nil {
			return err
		}
		w.check, w.done = check, false
	}
	w.state = state
	if over(state) {
		return w.finish(state)
	}
	if state == "" || state == "..." || state == "…" {
		w.a.Status("%s …", check)
	} else {
		w.a.Status("%s: %s", check, state)
	}
	return nil
}

// over reports whether a check's state is its last.
func over(state string) bool {
	return state == "OK" || strings.HasPrefix(state, "SKIP")
}

// finish prints the check under way with its last state.
func (w *checkWriter) finish(state string) error {
	if w.check == "" || w.done {
		return nil
	}
	w.done = true
	w.a.ClearStatus()
	if w.format != cli.TableFormat {
		return w.printer.Print(cli.Doc{{Key: "check", Value: w.check}, {Key: "state", Value: state}})
	}
	_, err := fmt.Fprintf(w.a.Out, "%s: %s\n", w.check, state)
	return err
}

// end prints the last check: when all is well as OK, else with why it is not.
func (w *checkWriter) end(healthy bool) error {
	if healthy {
		return w.finish("OK")
	}
	if w.state == "" || w.state == "..." || w.state == "…" {
		w.state = "not yet"
	}
	return w.finish(w.state)
}
