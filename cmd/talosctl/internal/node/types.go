package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"google.golang.org/protobuf/proto"

	"talos/cmd/talosctl/internal/jsonpath"
)

// Where the store describes its types.
const (
	metaNamespace  = "meta"
	definitionType = "ResourceDefinitions.meta.cosi.dev"
)

// resolve finds the type that the user means among those the node has: by its
// full name, its name for people, or an alias; case does not matter.
func resolve(ctx context.Context, st cosi.StateClient, name string) (*definition, error) {
	resources, err := list(ctx, st, metaNamespace, definitionType)
	if err != nil {
		return nil, err
	}
	var all []*cosi.ResourceDefinitionSpec
	for _, r := range resources {
		spec := &cosi.ResourceDefinitionSpec{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), spec); err != nil {
			return nil, fmt.Errorf("decode definition %s: %w", r.GetMetadata().GetId(), err)
		}
		all = append(all, spec)
	}
	spec, err := match(all, name)
	if err != nil {
		return nil, err
	}
	return newDefinition(spec)
}

func newDefinition(spec *cosi.ResourceDefinitionSpec) (*definition, error) {
	def := &definition{spec: spec}
	for _, column := range spec.GetPrintColumns() {
		path, err := jsonpath.Parse(column.GetJsonPath())
		if err != nil {
			return nil, fmt.Errorf("type %s, column %s: %w", spec.GetResourceType(), column.GetName(), err)
		}
		def.paths = append(def.paths, path)
	}
	return def, nil
}

// match picks the one type of that name. A full name wins over an alias, an
// alias that the type declares over one that is derived from its name.
func match(all []*cosi.ResourceDefinitionSpec, name string) (*cosi.ResourceDefinitionSpec, error) {
	for _, names := range []func(*cosi.ResourceDefinitionSpec) []string{
		func(d *cosi.ResourceDefinitionSpec) []string { return []string{d.GetResourceType()} },
		func(d *cosi.ResourceDefinitionSpec) []string { return append(d.GetAliases(), d.GetDisplayType()) },
		func(d *cosi.ResourceDefinitionSpec) []string { return d.GetAllAliases() },
	} {
		var hits []*cosi.ResourceDefinitionSpec
		for _, d := range all {
			if slices.ContainsFunc(names(d), func(s string) bool { return strings.EqualFold(s, name) }) {
				hits = append(hits, d)
			}
		}
		if len(hits) == 1 {
			return hits[0], nil
		}
		if best := closest(hits, name); best != nil {
			return best, nil
		}
		if len(hits) > 1 {
			return nil, fmt.Errorf("resource type %q means several: %s", name, typeNames(hits))
		}
	}
	return nil, unknownType(all, name)
}

// closest picks the type that has name earliest among its aliases, if only one
// does: aliases that a type declares come before those made of its name.
func closest(hits []*cosi.ResourceDefinitionSpec, name string) *cosi.ResourceDefinitionSpec {
	place := func(d *cosi.ResourceDefinitionSpec) int {
		return slices.IndexFunc(d.GetAliases(), func(s string) bool { return strings.EqualFold(s, name) })
	}
	if len(hits) < 2 {
		return nil
	}
	sorted := slices.SortedStableFunc(slices.Values(hits), func(a, b *cosi.ResourceDefinitionSpec) int { return place(a) - place(b) })
	if place(sorted[0]) < 0 || place(sorted[0]) == place(sorted[1]) {
		return nil
	}
	return sorted[0]
}

func typeNames(list []*cosi.ResourceDefinitionSpec) string {
	var names []string
	for _, d := range list {
		names = append(names, d.GetResourceType())
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func unknownType(all []*cosi.ResourceDefinitionSpec, name string) error {
	var like []*cosi.ResourceDefinitionSpec
	for _, d := range all {
		kind, _, _ := strings.Cut(strings.ToLower(d.GetResourceType()), ".")
		if want := strings.ToLower(strings.TrimSuffix(name, "s")); want != "" && strings.Contains(kind, want) {
			like = append(like, d)
		}
	}
	if len(like) == 0 {
		return fmt.Errorf("no resource type %q on this node; `get rd` lists them", name)
	}
	return fmt.Errorf("no resource type %q on this node; similar: %s", name, typeNames(like))
}
