package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"talos/client"
	"talos/cmd/talosctl/internal/cli"
	"talos/cmd/talosctl/internal/jsonpath"
)

func getCommand(a *cli.App) *cobra.Command {
	var g getter
	cmd := &cobra.Command{
		Use: "get TYPE [ID]", Aliases: []string{"g"},
		Short: "Show the resources of a type, by its name or alias (`get rd` lists the types)",
		Args:  cobra.RangeArgs(1, 2),
	}
	g.a = a
	format := cli.OutputFlag(cmd)
	cmd.Flags().StringVar(&g.namespace, "namespace", "", "namespace (default: that of the type)")
	cmd.Flags().BoolVarP(&g.watch, "watch", "w", false, "go on with changes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		g.format, g.kind = *format, args[0]
		if len(args) > 1 {
			g.id = args[1]
		}
		return g.run(cmd.Context())
	}
	return cmd
}

// getter carries out one get command.
type getter struct {
	a             *cli.App
	format        cli.Format
	namespace, id string
	kind          string
	watch         bool
}

func (g *getter) run(ctx context.Context) error {
	c, err := g.a.Connect(ctx, cli.Node)
	if err != nil {
		return err
	}
	defer c.Close()
	if g.watch {
		return g.follow(ctx, c)
	}
	defer g.a.Slow("waiting for an answer …")()
	ctx, cancel := context.WithTimeout(ctx, cli.CallTimeout)
	defer cancel()
	out := &resourceWriter{g: g}
	answers, failed := cli.Sift(g.a, client.EachNode(ctx, c, func(ctx context.Context, _ string) (found, error) {
		def, err := resolve(ctx, c.Resources, g.kind)
		if err != nil {
			return found{}, err
		}
		list, err := g.fetch(ctx, c.Resources, def)
		return found{def, list}, err
	}))
	for _, answer := range answers {
		for _, r := range answer.Message.list {
			if err := out.add(answer.Node, answer.Message.def, cosi.EventType_CREATED, r); err != nil {
				return err
			}
		}
	}
	if failed != nil && len(answers) == 0 {
		return failed
	}
	if err := out.flush(answersDefinition(answers)); err != nil {
		return err
	}
	return failed
}

// found is what one node has of a type.
type found struct {
	def  *definition
	list []*cosi.Resource
}

func answersDefinition(answers []client.Answer[found]) *definition {
	if len(answers) == 0 {
		return nil
	}
	return answers[0].Message.def
}

// space is the namespace to look in.
func (g *getter) space(def *definition) string {
	if g.namespace != "" {
		return g.namespace
	}
	return def.spec.GetDefaultNamespace()
}

func (g *getter) fetch(ctx context.Context, st cosi.StateClient, def *definition) ([]*cosi.Resource, error) {
	if g.id == "" {
		return list(ctx, st, g.space(def), def.spec.GetResourceType())
	}
	reply, err := st.Get(ctx, &cosi.GetRequest{
		Namespace: g.space(def), Type: def.spec.GetResourceType(), Id: g.id, Options: &cosi.GetOptions{},
	})
	if err != nil {
		return nil, err
	}
	return []*cosi.Resource{reply.GetResource()}, nil
}

// list answers all resources of a type.
func list(ctx context.Context, st cosi.StateClient, namespace, kind string) ([]*cosi.Resource, error) {
	stream, err := st.List(ctx, &cosi.ListRequest{Namespace: namespace, Type: kind, Options: &cosi.ListOptions{}})
	if err != nil {
		return nil, err
	}
	var all []*cosi.Resource
	for {
		reply, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, reply.GetResource())
	}
}

// follow prints what there is and then every change, until it is interrupted.
func (g *getter) follow(ctx context.Context, c *client.Client) error {
	out := &resourceWriter{g: g}
	return cli.Follow(ctx, g.a, c, func(ctx context.Context, node string) error {
		def, err := resolve(ctx, c.Resources, g.kind)
		if err != nil {
			return err
		}
		return g.followNode(ctx, c.Resources, def, func(kind cosi.EventType, r *cosi.Resource) error {
			return out.show(node, def, kind, r)
		})
	})
}

func (g *getter) followNode(ctx context.Context, st cosi.StateClient, def *definition, show func(cosi.EventType, *cosi.Resource) error) error {
	request := &cosi.WatchRequest{
		Namespace: g.space(def), Type: def.spec.GetResourceType(), ApiVersion: 1, Options: &cosi.WatchOptions{},
	}
	if g.id != "" {
		request.Id = &g.id // begins with what there is by itself
	} else {
		request.Options.BootstrapContents = true
	}
	stream, err := st.Watch(ctx, request)
	if err != nil {
		return err
	}
	for {
		reply, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, event := range reply.GetEvent() {
			if event.GetEventType() == cosi.EventType_ERRORED {
				return errors.New("watch: " + event.GetError())
			}
			if event.GetEventType() == cosi.EventType_BOOTSTRAPPED || event.GetEventType() == cosi.EventType_NOOP || event.GetResource() == nil {
				continue
			}
			// A watch of one id that does not exist begins with a resource that is torn down.
			if event.GetResource().GetMetadata().GetVersion() == "undefined" {
				continue
			}
			if err := show(event.GetEventType(), event.GetResource()); err != nil {
				return err
			}
		}
	}
}

// decodeSpec reads the YAML of a resource's spec.
func decodeSpec(r *cosi.Resource, to any) error {
	if err := yaml.Unmarshal([]byte(r.GetSpec().GetYamlSpec()), to); err != nil {
		md := r.GetMetadata()
		return fmt.Errorf("decode %s %s: %w", md.GetType(), md.GetId(), err)
	}
	return nil
}

// definition is a resource type as the node describes it.
type definition struct {
	spec  *cosi.ResourceDefinitionSpec
	paths []*jsonpath.Path // of the print columns
}

func (d *definition) columns() []string {
	var names []string
	for _, c := range d.spec.GetPrintColumns() {
		names = append(names, strings.ToUpper(c.GetName()))
	}
	return names
}

// metadataDoc is a resource's metadata as users know it.
func metadataDoc(md *cosi.Metadata) cli.Doc {
	doc := cli.Doc{
		{Key: "namespace", Value: md.GetNamespace()}, {Key: "type", Value: md.GetType()}, {Key: "id", Value: md.GetId()},
		{Key: "version", Value: versionNumber(md.GetVersion())}, {Key: "owner", Value: md.GetOwner()}, {Key: "phase", Value: md.GetPhase()},
		{Key: "created", Value: md.GetCreated().AsTime().Format(time.RFC3339)}, {Key: "updated", Value: md.GetUpdated().AsTime().Format(time.RFC3339)},
	}
	for _, m := range []struct {
		key    string
		values map[string]string
	}{{"labels", md.GetLabels()}, {"annotations", md.GetAnnotations()}} {
		if len(m.values) > 0 {
			doc = append(doc, cli.Field{Key: m.key, Value: m.values})
		}
	}
	if f := md.GetFinalizers(); len(f) > 0 {
		doc = append(doc, cli.Field{Key: "finalizers", Value: f})
	}
	return doc
}
