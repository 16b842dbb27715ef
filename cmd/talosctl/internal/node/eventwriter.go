package node

import (
	"encoding/json"
	"sync"

	"talos/api/machine"
	"talos/cmd/talosctl/internal/cli"
)

// eventWriter prints the events of several nodes as they come. It is safe for
// concurrent use.
type eventWriter struct {
	format cli.Format

	mu      sync.Mutex // guards the fields below
	table   *cli.Table
	printer *cli.Printer
}

func newEventWriter(a *cli.App, format cli.Format) *eventWriter {
	w := &eventWriter{format: format}
	if format == cli.TableFormat {
		w.table = cli.NewTable(a.Out, "NODE", "ID", "EVENT", "ACTOR", "DETAILS")
	} else {
		w.printer = cli.NewPrinter(a.Out, format)
	}
	return w
}

func (w *eventWriter) write(node string, event *machine.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.printer != nil {
		return w.printer.Print(cli.NodeDoc(node, event))
	}
	kind, details := string(event.GetData().MessageName().Name()), ""
	if payload, err := event.GetData().UnmarshalNew(); err == nil {
		text, err := json.Marshal(cli.MessageDoc(payload))
		if err != nil {
			return err
		}
		details = string(text)
	}
	w.table.Row(node, event.GetId(), kind, event.GetActorId(), details)
	return w.table.Flush()
}
