package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Patch is a change to a document: a part of a manifest that is merged in, or
// the operations of a JSON patch (RFC 6902).
type Patch struct {
	merge      *yaml.Node
	operations []operation
}

// directive marks what a merge takes away instead of adding.
const directive = "$patch"

// LoadPatch reads a patch: a list of operations is a JSON patch, a mapping a
// part of the manifest. Both may be YAML or JSON.
func LoadPatch(text []byte) (Patch, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return Patch{}, fmt.Errorf("parse patch: %w", err)
	}
	if dec.Decode(&more) == nil {
		return Patch{}, errors.New("parse patch: several documents, want one patch")
	}
	root := doc.Content[0]
	switch root.Kind {
	case yaml.SequenceNode:
		var ops []operation
		d := yaml.NewDecoder(bytes.NewReader(text))
		d.KnownFields(true)
		if err := d.Decode(&ops); err != nil {
			return Patch{}, fmt.Errorf("parse JSON patch: %w", err)
		}
		return Patch{operations: ops}, checkOperations(ops)
	case yaml.MappingNode:
		if kind := lookup(root, "kind"); kind != "" {
			return Patch{}, fmt.Errorf("parse patch: got a document of kind %s, want a part of the manifest", kind)
		}
		return Patch{merge: root}, nil
	default:
		return Patch{}, errors.New("parse patch: got a single value, want a part of the manifest or a list of operations")
	}
}

// ApplyPatches changes a manifest by patches, one after the other. Comments
// stay. The result is to be read with Load: patches may break it.
func ApplyPatches(doc []byte, patches []Patch) ([]byte, error) {
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	var root, more yaml.Node
	if err := dec.Decode(&root); err != nil {
		return nil, fmt.Errorf("parse document to patch: %w", err)
	}
	if dec.Decode(&more) == nil {
		return nil, errors.New("parse document to patch: several documents, want one manifest")
	}
	if root.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("parse document to patch: not a mapping")
	}
	for i, p := range patches {
		if p.merge != nil {
			merge(root.Content[0], p.merge, "")
			continue
		}
		if err := applyOperations(root.Content[0], p.operations); err != nil {
			return nil, fmt.Errorf("patch %d: %w", i+1, err)
		}
	}
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(4)
	if err := enc.Encode(&root); err != nil {
		return nil, fmt.Errorf("encode patched document: %w", err)
	}
	return buf.Bytes(), nil
}

// replaced are the keys whose value a patch replaces as a whole.
var replaced = map[string]bool{
	"cluster.network.podSubnets": true, "cluster.network.serviceSubnets": true, "cluster.apiServer.auditPolicy": true,
	"machine.kubelet.credentialProviderConfig": true, "machine.baseRuntimeSpecOverrides": true,
}

// identities are the lists whose items are merged with the item of the same
// identity; items of other lists are appended.
var identities = map[string][]string{
	"machine.network.interfaces":             {"interface", "deviceSelector"},
	"machine.network.interfaces[].vlans":     {"vlanId"},
	"cluster.apiServer.admissionControl":     {"name"},
	"cluster.inlineManifests":                {"name"},
	"machine.logging.destinations":           {"endpoint"},
	"cluster.apiServer.extraVolumes":         {"mountPath"},
	"cluster.scheduler.extraVolumes":         {"mountPath"},
	"cluster.controllerManager.extraVolumes": {"mountPath"},
}

// merge changes the mapping base by patch; nothing in patch stays nothing.
func merge(base, patch *yaml.Node, at string) {
	for i := 0; i+1 < len(patch.Content); i += 2 {
		name, value := patch.Content[i], patch.Content[i+1]
		k := key{path: at, pattern: at}.field(name.Value).pattern
		old := find(base, name.Value)
		switch {
		case name.Value == directive || isNull(value):
		case deletes(value):
			remove(base, name.Value)
		case old == nil:
			base.Content = append(base.Content, name, without(value))
		case replaced[k] || old.Kind != value.Kind || value.Kind == yaml.ScalarNode:
			*old = *without(value)
		case value.Kind == yaml.MappingNode:
			merge(old, value, k)
		default:
			mergeList(old, value, k)
		}
	}
}

func mergeList(base, patch *yaml.Node, at string) {
	for _, item := range patch.Content {
		if deletes(item) {
			base.Content = slices.DeleteFunc(base.Content, func(n *yaml.Node) bool { return selected(n, item) })
			continue
		}
		if same := twin(base, item, identities[at]); same != nil {
			merge(same, item, at+"[]")
			continue
		}
		base.Content = append(base.Content, without(item))
	}
}

// twin finds the item of a list that has the identity of another.
func twin(list, item *yaml.Node, by []string) *yaml.Node {
	for _, name := range by {
		want := find(item, name)
		if want == nil {
			continue
		}
		for _, n := range list.Content {
			if have := find(n, name); have != nil && equal(have, want) {
				return n
			}
		}
		return nil
	}
	return nil
}

// selected says whether the first key of a deleting item, its directive apart,
// has the same value in n.
func selected(n, item *yaml.Node) bool {
	for i := 0; i+1 < len(item.Content); i += 2 {
		if item.Content[i].Value == directive {
			continue
		}
		have := find(n, item.Content[i].Value)
		return have != nil && equal(have, item.Content[i+1])
	}
	return false
}

func deletes(n *yaml.Node) bool {
	v := find(n, directive)
	return v != nil && v.Value == "delete"
}

// without takes what only directs the merge out of what is added.
func without(n *yaml.Node) *yaml.Node {
	out := *n
	out.Content = nil
	for i := 0; i < len(n.Content); i++ {
		c := n.Content[i]
		if n.Kind == yaml.MappingNode {
			if c.Value != directive && !deletes(n.Content[i+1]) {
				out.Content = append(out.Content, c, without(n.Content[i+1]))
			}
			i++
		} else if !deletes(c) {
			out.Content = append(out.Content, without(c))
		}
	}
	return &out
}

func find(mapping *yaml.Node, name string) *yaml.Node {
	if mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			return mapping.Content[i+1]
		}
	}
	return nil
}

func remove(mapping *yaml.Node, name string) bool {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			mapping.Content = slices.Delete(mapping.Content, i, i+2)
			return true
		}
	}
	return false
}

// equal compares what two nodes say, whatever their style; keys in any order.
func equal(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || len(a.Content) != len(b.Content) {
		return false
	}
	switch a.Kind {
	case yaml.ScalarNode:
		return a.Value == b.Value && (a.Tag == b.Tag || strings.HasPrefix(a.Tag, "!!") != strings.HasPrefix(b.Tag, "!!"))
	case yaml.MappingNode:
		for i := 0; i+1 < len(a.Content); i += 2 {
			if other := find(b, a.Content[i].Value); other == nil || !equal(a.Content[i+1], other) {
				return false
			}
		}
		return true
	}
	for i := range a.Content {
		if !equal(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}
