package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

func servicesCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "service [ID [start|stop|restart|status]]", Aliases: []string{"services"},
		Short: "List the services, show one, or start, stop or restart it",
		Args:  cobra.MaximumNArgs(2),
	}
	format := cli.OutputFlag(cmd)
	waiting := cli.WaitFlags(cmd, true, 5*time.Minute, "a started service is healthy")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		switch {
		case len(args) == 0:
			return listServices(ctx, a, *format)
		case len(args) == 1 || args[1] == "status":
			return showService(ctx, a, *format, args[0])
		}
		return controlService(ctx, a, *waiting, args[0], args[1])
	}
	return cmd
}

func serviceList(ctx context.Context, c *client.Client) (*machine.ServiceListResponse, error) {
	return c.Machine.ServiceList(ctx, &emptypb.Empty{})
}

func listServices(ctx context.Context, a *cli.App, format cli.Format) error {
	return lister[*machine.ServiceList, *machine.ServiceListResponse]{
		call: serviceList,
		head: []string{"NODE", "SERVICE", "STATE", "HEALTH", "LAST CHANGE", "LAST EVENT"},
		rows: func(node string, m *machine.ServiceList, row func(...string)) {
			for _, s := range m.GetServices() {
				last, text := lastEvent(s)
				row(node, s.GetId(), s.GetState(), healthOf(s.GetHealth()), last, text)
			}
		},
	}.run(ctx, a, format)
}

func lastEvent(s *machine.ServiceInfo) (ago, text string) {
	events := s.GetEvents().GetEvents()
	if len(events) == 0 {
		return "", ""
	}
	last := events[len(events)-1]
	return since(last.GetTs().AsTime()), last.GetMsg()
}

// since tells how long ago something was.
func since(t time.Time) string {
	return max(0, time.Since(t)).Round(time.Second).String() + " ago"
}

func healthOf(h *machine.ServiceHealth) string {
	switch {
	case h == nil || h.GetUnknown():
		return "?"
	case h.GetHealthy():
		return "OK"
	}
	return "Fail"
}

func showService(ctx context.Context, a *cli.App, format cli.Format, id string) error {
	answers, failed := cli.Ask(ctx, a, cli.Node, serviceList)
	printer, found := cli.NewPrinter(a.Out, format), false
	for _, answer := range answers {
		for _, s := range answer.Message.GetServices() {
			if s.GetId() != id {
				continue
			}
			found = true
			if format != cli.TableFormat {
				if err := printer.Print(cli.NodeDoc(answer.Node, s)); err != nil {
					return err
				}
				continue
			}
			if err := printService(a, answer.Node, s); err != nil {
				return err
			}
		}
	}
	if failed != nil {
		return failed
	}
	if !found {
		return fmt.Errorf("no service %q; there are: %s", id, strings.Join(serviceNames(answers), ", "))
	}
	return nil
}

func serviceNames(answers []client.Answer[*machine.ServiceList]) []string {
	var names []string
	for _, answer := range answers {
		for _, s := range answer.Message.GetServices() {
			names = append(names, s.GetId())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func printService(a *cli.App, node string, s *machine.ServiceInfo) error {
	t := cli.NewTable(a.Out, "NODE", node)
	t.Row("ID", s.GetId())
	t.Row("STATE", s.GetState())
	t.Row("HEALTH", healthOf(s.GetHealth()))
	if text := s.GetHealth().GetLastMessage(); text != "" {
		t.Row("LAST HEALTH MESSAGE", text)
	}
	label := "EVENTS"
	for _, e := range slices.Backward(s.GetEvents().GetEvents()) {
		t.Row(label, fmt.Sprintf("[%s]: %s (%s)", e.GetState(), e.GetMsg(), since(e.GetTs().AsTime())))
		label = ""
	}
	return t.Flush()
}

func controlService(ctx context.Context, a *cli.App, waiting cli.Waiting, id, action string) error {
	var err error
	switch action {
	case "start":
		_, err = cli.Ask(ctx, a, cli.Node, func(ctx context.Context, c *client.Client) (*machine.ServiceStartResponse, error) {
			return c.Machine.ServiceStart(ctx, &machine.ServiceStartRequest{Id: id})
		})
	case "stop":
		_, err = cli.Ask(ctx, a, cli.Node, func(ctx context.Context, c *client.Client) (*machine.ServiceStopResponse, error) {
			return c.Machine.ServiceStop(ctx, &machine.ServiceStopRequest{Id: id})
		})
	case "restart":
		_, err = cli.Ask(ctx, a, cli.Node, func(ctx context.Context, c *client.Client) (*machine.ServiceRestartResponse, error) {
			return c.Machine.ServiceRestart(ctx, &machine.ServiceRestartRequest{Id: id})
		})
	default:
		return cli.Usage("%q is none of start, stop, restart, status", action)
	}
	if err != nil {
		return err
	}
	a.Note("service %s: %s done", id, action)
	if action == "stop" || !waiting.On {
		return nil
	}
	return AwaitService(ctx, a, waiting, id)
}

// AwaitService waits until a service is healthy on all target nodes.
func AwaitService(ctx context.Context, a *cli.App, waiting cli.Waiting, id string) error {
	c, err := a.Connect(ctx, cli.Node)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = cli.Sift(a, client.EachNode(ctx, c, func(ctx context.Context, node string) (struct{}, error) {
		tell := func(state string) { a.Note("%s: %s is %s", node, id, state) }
		return struct{}{}, waiting.Wait(ctx, id+" on "+node+" to be healthy", tell, func(ctx context.Context) (string, bool, error) {
			reply, err := serviceList(ctx, c)
			if err != nil {
				return "not answering: " + err.Error(), false, nil
			}
			state, healthy := serviceState(reply, id)
			return state, healthy, nil
		})
	}))
	return err
}

// serviceState is how a service is, in words, and whether that is well.
func serviceState(reply *machine.ServiceListResponse, id string) (string, bool) {
	for _, m := range reply.GetMessages() {
		for _, s := range m.GetServices() {
			if s.GetId() != id {
				continue
			}
			state := s.GetState()
			_, text := lastEvent(s)
			if state == "Running" || text == "" {
				text = s.GetHealth().GetLastMessage()
			}
			if text != "" {
				state += ": " + text
			}
			return state, s.GetState() == "Skipped" || s.GetState() == "Running" && s.GetHealth().GetHealthy()
		}
	}
	return "not known yet", false
}
