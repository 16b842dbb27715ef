// Package node holds the commands that ask nodes: what runs there, what they
// say, what they shall do.
//
// One file per group of commands. Tables have the node's name in the first
// column; -o json and yaml print one document per node.
package node

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

// Commands makes the commands of this package.
func Commands(a *cli.App) []*cobra.Command {
	return append([]*cobra.Command{
		a.InsecureFlags(versionCommand(a)),
		a.InsecureFlags(memoryCommand(a)), containersCommand(a), processesCommand(a),
		a.InsecureFlags(servicesCommand(a)),
		a.InsecureFlags(logsCommand(a)), a.InsecureFlags(dmesgCommand(a)), a.InsecureFlags(eventsCommand(a)), readCommand(a),
		a.InsecureFlags(getCommand(a)),
		a.InsecureFlags(applyCommand(a)), patchCommand(a), editCommand(a), bootstrapCommand(a), healthCommand(a), verifyCommand(a), kubeconfigCommand(a),
		rebootCommand(a), shutdownCommand(a), resetCommand(a),
		etcdCommand(a), forgetCommand(a),
	}, formerCommands()...)
}

// message is one node's answer that can be printed as it is.
type message interface {
	client.Message
	proto.Message
}

// lister is a command that asks every node for one answer and lists it.
type lister[M message, R client.Reply[M]] struct {
	scope cli.Scope
	call  func(context.Context, *client.Client) (R, error)
	head  []string
	rows  func(node string, m M, row func(...string))
}

// run prints what the nodes that answered said, and fails if one did not.
func (l lister[M, R]) run(ctx context.Context, a *cli.App, format cli.Format) error {
	answers, failed := cli.Ask(ctx, a, l.scope, l.call)
	if len(answers) == 0 && failed != nil {
		return failed
	}
	if err := l.print(a, format, answers); err != nil {
		return err
	}
	return failed
}

func (l lister[M, R]) print(a *cli.App, format cli.Format, answers []client.Answer[M]) error {
	if format != cli.TableFormat {
		printer := cli.NewPrinter(a.Out, format)
		for _, answer := range answers {
			if err := printer.Print(cli.NodeDoc(answer.Node, answer.Message)); err != nil {
				return err
			}
		}
		return nil
	}
	table := cli.NewTable(a.Out, l.head...)
	for _, answer := range answers {
		l.rows(answer.Node, answer.Message, table.Row)
	}
	return table.Flush()
}
