package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Patch is a change to a configuration: parts of a manifest and of documents
// that are merged in, or the operations of a JSON patch (RFC 6902).
type Patch struct {
	merge      []*yaml.Node
	operations []operation
}

// directive marks what a merge takes away or replaces instead of adding.
const directive = "$patch"

// LoadPatch reads a patch: a list of operations is a JSON patch, mappings are
// parts of the manifest and of documents. Both may be YAML or JSON.
func LoadPatch(text []byte) (Patch, error) {
	docs, err := stream(text)
	if err != nil {
		return Patch{}, fmt.Errorf("parse patch: %w", err)
	}
	if len(docs) == 0 {
		return Patch{}, errors.New("parse patch: nothing in it, want a part of the manifest or a list of operations")
	}
	if docs[0].Kind == yaml.SequenceNode && len(docs) == 1 {
		var ops []operation
		d := yaml.NewDecoder(bytes.NewReader(text))
		d.KnownFields(true)
		if err := d.Decode(&ops); err != nil {
			return Patch{}, fmt.Errorf("parse JSON patch: %w", err)
		}
		return Patch{operations: ops}, checkOperations(ops)
	}
	p, budget := Patch{}, maxNodes
	for _, doc := range docs {
		if doc.Kind != yaml.MappingNode {
			return Patch{}, fmt.Errorf("parse patch: line %d: got %s, want a part of the manifest, a document, or one list of operations", doc.Line, kindOf(doc))
		}
		if doc = expand(doc, &budget, 0); doc == nil {
			return Patch{}, errors.New("parse patch: it is too large or nests too deep")
		}
		if err := checkPart(doc); err != nil {
			return Patch{}, fmt.Errorf("parse patch: %w", err)
		}
		p.merge = append(p.merge, doc)
	}
	return p, nil
}

// stream reads the documents of a text; empty ones are left out.
func stream(text []byte) ([]*yaml.Node, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("got %d bytes, want at most %d", len(text), MaxSize)
	}
	var docs []*yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		if len(doc.Content) > 0 && !isNull(doc.Content[0]) {
			root := doc.Content[0]
			root.HeadComment = strings.Trim(doc.HeadComment+"\n"+root.HeadComment, "\n")
			root.FootComment = strings.Trim(root.FootComment+"\n"+doc.FootComment, "\n")
			docs = append(docs, root)
		}
	}
}

// checkPart looks for directives that there are not, and for keys given twice.
func checkPart(n *yaml.Node) error {
	if v := find(n, directive); v != nil && v.Value != "delete" && v.Value != "replace" {
		return fmt.Errorf("line %d: %s: got %s, want delete or replace", v.Line, directive, show(v.Value))
	}
	seen := map[string]bool{}
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		name := n.Content[i]
		if name.Kind != yaml.ScalarNode || seen[name.Value] {
			return fmt.Errorf("line %d: got %s as a key, want each name once", name.Line, show(name.Value))
		}
		seen[name.Value] = true
	}
	for _, c := range n.Content {
		if err := checkPart(c); err != nil {
			return err
		}
	}
	return nil
}

// ApplyPatches changes a configuration by patches, one after the other.
// Comments stay. The result is to be read with Load: patches may break it.
func ApplyPatches(doc []byte, patches []Patch) ([]byte, error) {
	docs, err := stream(doc)
	if err != nil {
		return nil, fmt.Errorf("parse document to patch: %w", err)
	}
	budget := 2 * maxNodes
	for i, d := range docs {
		if d.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("parse document to patch: line %d: not a mapping", d.Line)
		}
		if !aliased(d) {
			continue // anchors that nobody refers to stay, and comments with them
		}
		if docs[i] = expand(d, &budget, 0); docs[i] == nil {
			return nil, errors.New("parse document to patch: it is too large or nests too deep")
		}
	}
	if len(docs) == 0 {
		return nil, errors.New("parse document to patch: nothing in it")
	}
	for i, p := range patches {
		for _, part := range p.merge {
			docs = mergeDocument(docs, part)
		}
		if len(p.operations) == 0 {
			continue
		}
		if len(docs) != 1 {
			return nil, fmt.Errorf("patch %d: a JSON patch changes a configuration of one manifest, and this one has %d documents: give a part of the manifest or of a document instead", i+1, len(docs))
		}
		if err := applyOperations(docs[0], p.operations); err != nil {
			return nil, fmt.Errorf("patch %d: %w", i+1, err)
		}
	}
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(4)
	for _, d := range docs {
		if err := enc.Encode(d); err != nil {
			return nil, fmt.Errorf("encode patched document: %w", err)
		}
	}
	return buf.Bytes(), nil
}

func aliased(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, aliased)
}

// mergeDocument merges a part into the document that it is for, or adds it.
func mergeDocument(docs []*yaml.Node, part *yaml.Node) []*yaml.Node {
	i := slices.IndexFunc(docs, func(d *yaml.Node) bool { return samePart(d, part) })
	switch {
	case deletes(part):
		if i >= 0 {
			docs = slices.Delete(docs, i, i+1)
		}
	case i < 0 && find(part, "kind") == nil:
		docs = slices.Insert(docs, 0, without(part)) // documents without a manifest
	case i < 0:
		docs = append(docs, without(part))
	case replaces(part):
		docs[i] = without(part)
	default:
		at := ""
		if kind := find(part, "kind"); kind != nil {
			at = alias(kind.Value)
		}
		merge(docs[i], part, at)
	}
	return docs
}

// samePart says whether two parts are of the manifest, or of one document.
func samePart(a, b *yaml.Node) bool {
	return alias(lookup(a, "kind")) == alias(lookup(b, "kind")) && lookup(a, "name") == lookup(b, "name")
}

// replaced are the keys, of the manifest and of documents, whose value a patch
// replaces as a whole.
var replaced = map[string]bool{
	"cluster.network.podSubnets": true, "cluster.network.serviceSubnets": true, "cluster.apiServer.auditPolicy": true,
	"cluster.apiServer.authenticationConfig": true, "cluster.apiServer.encryptionConfig": true,
	"machine.kubelet.credentialProviderConfig": true, "machine.baseRuntimeSpecOverrides": true,

	"KubeNetworkConfig.podSubnets": true, "KubeNetworkConfig.serviceSubnets": true, "KubeAuditPolicyConfig.configuration": true,
	"KubeAuthenticationConfig.configuration": true, "KubeCredentialProviderConfig.configuration": true, "KubeStaticPodConfig.pod": true,
	"KubeEtcdEncryptionConfig.config": true, "CRIBaseRuntimeSpecConfig.overrides": true,
	"NetworkRuleConfig.ingress": true, "NetworkRuleConfig.portSelector.ports": true,
	"BGPInstanceConfig.advertise": true, "BGPInstanceConfig.importRoutes": true, "BGPInstanceConfig.neighbors": true,
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
	"ExtensionServiceConfig.configFiles":     {"mountPath"},
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
		case replaced[k] || replaces(value) || old.Kind != value.Kind || value.Kind == yaml.ScalarNode:
			*old = *without(value)
		case value.Kind == yaml.MappingNode:
			merge(old, value, k)
		default:
			mergeList(old, value, k)
		}
	}
}

func mergeList(base, patch *yaml.Node, at string) {
	if slices.ContainsFunc(patch.Content, onlyReplaces) {
		base.Content = nil
	}
	for _, item := range patch.Content {
		if onlyReplaces(item) {
			continue
		}
		if deletes(item) {
			base.Content = slices.DeleteFunc(base.Content, func(n *yaml.Node) bool { return selected(n, item) })
			continue
		}
		same := twin(base, item, identities[at])
		switch {
		case same == nil:
			base.Content = append(base.Content, without(item))
		case replaces(item):
			*same = *without(item)
		default:
			merge(same, item, at+"[]")
		}
	}
}

// onlyReplaces is the item of a list that says that the others replace it all.
func onlyReplaces(item *yaml.Node) bool { return replaces(item) && len(item.Content) == 2 }

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

func replaces(n *yaml.Node) bool {
	v := find(n, directive)
	return v != nil && v.Value == "replace"
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
		} else if !deletes(c) && !onlyReplaces(c) {
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
