package node

import (
	"slices"
	"strconv"
	"sync"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"go.yaml.in/yaml/v3"

	"talos/cmd/talosctl/internal/cli"
)

// resourceWriter prints resources of one type, possibly of several nodes at
// the same time. It is safe for concurrent use.
type resourceWriter struct {
	g *getter

	mu      sync.Mutex // guards the fields below
	table   *cli.Table
	printer *cli.Printer
}

// eventMarks are what the first column of a watch shows.
var eventMarks = map[cosi.EventType]string{cosi.EventType_CREATED: "+", cosi.EventType_UPDATED: "", cosi.EventType_DESTROYED: "-"}

// eventNames are the same for JSON and YAML.
var eventNames = map[cosi.EventType]string{cosi.EventType_CREATED: "created", cosi.EventType_UPDATED: "updated", cosi.EventType_DESTROYED: "destroyed"}

// show prints one event of a watch at once.
func (w *resourceWriter) show(node string, def *definition, event cosi.EventType, r *cosi.Resource) error {
	if err := w.add(node, def, event, r); err != nil {
		return err
	}
	return w.flush(def)
}

func (w *resourceWriter) add(node string, def *definition, event cosi.EventType, r *cosi.Resource) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.g.format != cli.TableFormat {
		return w.printLocked(node, event, r)
	}
	w.headLocked(def)
	md := r.GetMetadata()
	cells := []string{node, md.GetNamespace(), def.spec.GetDisplayType(), md.GetId(), md.GetVersion()}
	if w.g.watch {
		cells = slices.Insert(cells, 1, eventMarks[event])
	}
	var spec any
	if err := decodeSpec(r, &spec); err != nil {
		return err
	}
	for _, path := range def.paths {
		cells = append(cells, path.Eval(spec))
	}
	w.table.Row(cells...)
	return nil
}

// headLocked starts the table with the first resource.
func (w *resourceWriter) headLocked(def *definition) {
	if w.table != nil || def == nil {
		return
	}
	head := []string{"NODE", "NAMESPACE", "TYPE", "ID", "VERSION"}
	if w.g.watch {
		head = slices.Insert(head, 1, "*")
	}
	w.table = cli.NewTable(w.g.a.Out, append(head, def.columns()...)...)
}

func (w *resourceWriter) printLocked(node string, event cosi.EventType, r *cosi.Resource) error {
	if w.printer == nil {
		w.printer = cli.NewPrinter(w.g.a.Out, w.g.format)
	}
	doc := cli.Doc{{Key: "node", Value: node}}
	if w.g.watch {
		doc = append(doc, cli.Field{Key: "event", Value: eventNames[event]})
	}
	spec, err := w.spec(r)
	if err != nil {
		return err
	}
	return w.printer.Print(append(doc, cli.Field{Key: "metadata", Value: metadataDoc(r.GetMetadata())}, cli.Field{Key: "spec", Value: spec}))
}

// spec keeps the order of keys for YAML; JSON gets plain values.
func (w *resourceWriter) spec(r *cosi.Resource) (any, error) {
	if w.g.format == cli.JSONFormat {
		var plain any
		err := decodeSpec(r, &plain)
		return plain, err
	}
	var node yaml.Node
	if err := decodeSpec(r, &node); err != nil {
		return nil, err
	}
	if len(node.Content) == 0 {
		return nil, nil
	}
	return node.Content[0], nil
}

func (w *resourceWriter) flush(def *definition) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.g.format != cli.TableFormat {
		return nil
	}
	w.headLocked(def)
	if w.table == nil {
		return nil
	}
	return w.table.Flush()
}

// versionNumber is a number where the version is one.
func versionNumber(version string) any {
	if n, err := strconv.Atoi(version); err == nil {
		return n
	}
	return version
}
