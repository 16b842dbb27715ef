package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parse reads a stream: the manifest, and the documents with a kind beside it.
// It gives nothing when the text is no YAML, or too much of it.
func (d *decoder) parse(data []byte) (manifest *yaml.Node, documents []*yaml.Node) {
	if len(data) > MaxSize {
		d.problem(nil, key{}, fmt.Sprintf("%d bytes", len(data)), fmt.Sprintf("at most %d", MaxSize))
		return nil, nil
	}
	if bulky(data, maxBulk) {
		d.problem(nil, key{}, "more keys and items than any configuration has", "fewer keys and items; long texts as block scalars (|), and then each other key and item in a line of its own")
		return nil, nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return manifest, documents
		}
		if err != nil {
			d.syntax(err)
			return nil, nil
		}
		if len(doc.Content) == 0 || isNull(doc.Content[0]) {
			continue
		}
		switch root := doc.Content[0]; {
		case find(root, "kind") != nil:
			documents = append(documents, root)
		case manifest != nil:
			d.problem(root, key{}, "a second manifest", "one manifest, and documents with a kind beside it")
		default:
			manifest = root
		}
	}
}

// translator turns documents with a kind into what the manifest says by its own
// keys. What a document says is put into the manifest's tree, where it keeps
// its line, and the name that the document has for it.
type translator struct {
	d       *decoder
	root    *yaml.Node                // the manifest
	owner   map[*yaml.Node]*yaml.Node // who began a list: a document, or nothing for the manifest
	items   map[string]*yaml.Node     // items of lists, by the place in the document that they come from
	clashes map[*yaml.Node]bool       // what was reported to be said twice
	links   []*dhcpLink
	headers *externalHeaders
	network *yaml.Node // the document KubeNetworkConfig
	refused []string   // documents of refused kinds, with their lines

	doc   *yaml.Node // the document being translated
	kind  string
	name  string
	label string // kind and name, as problems call the document
}

// translate merges documents into the manifest.
func (d *decoder) translate(manifest *yaml.Node, documents []*yaml.Node) *yaml.Node {
	if len(documents) == 0 {
		return manifest
	}
	budget := maxNodes
	root := expand(manifest, &budget, 0)
	if root == nil {
		d.problem(manifest, key{}, "a document that is too large or nests too deep", "")
		return nil
	}
	t := &translator{
		d: d, root: root, owner: map[*yaml.Node]*yaml.Node{}, items: map[string]*yaml.Node{}, clashes: map[*yaml.Node]bool{},
	}
	var first *yaml.Node
	seen := map[string]*yaml.Node{}
	for _, doc := range documents {
		if doc = expand(doc, &budget, 0); doc == nil {
			d.problem(nil, key{}, "documents that are too large or nest too deep", "")
			return nil
		}
		before := len(t.refused)
		t.document(doc, seen)
		if first == nil && len(t.refused) > before {
			first = doc
		}
	}
	t.dhcp()
	t.noCNI()
	if first != nil {
		d.problem(first, key{}, "documents of kinds that are refused: "+strings.Join(t.refused, "; "), "them left out")
	}
	return root
}

func (t *translator) document(doc *yaml.Node, seen map[string]*yaml.Node) {
	kindNode, nameNode := find(doc, "kind"), find(doc, "name")
	t.doc, t.kind, t.name, t.label = doc, alias(kindNode.Value), "", kindNode.Value
	if nameNode != nil && nameNode.Kind == yaml.ScalarNode {
		t.name = nameNode.Value
		t.label += "[" + t.name + "]"
	}
	said := key{path: t.label, pattern: t.kind}
	k, known := kinds()[t.kind]
	if !known {
		t.refused = append(t.refused, fmt.Sprintf("%s on line %d (%s)", t.label, doc.Line, suggestKind(kindNode.Value)))
		return
	}
	if v := find(doc, "apiVersion"); v == nil || v.Value != Version {
		t.d.problem(orNode(v, doc), said.field("apiVersion"), got(v), Version)
	}
	if first := seen[t.kind+"/"+t.name]; first != nil {
		t.d.problem(doc, said, fmt.Sprintf("the document again, first given on line %d", first.Line), "it once")
		return
	}
	seen[t.kind+"/"+t.name] = doc
	if k.named != "" && t.name == "" {
		t.d.problem(doc, said.field("name"), "nothing", k.named)
	}
	if k.lot == Refused {
		t.refused = append(t.refused, fmt.Sprintf("%s on line %d (%s)", t.label, doc.Line, k.reason))
		return
	}
	if k.lot == Warned {
		t.d.warnings = append(t.d.warnings, Warning{Position: t.d.position(doc), Key: t.label, Text: "has no effect: " + k.reason})
		return
	}
	t.walk(doc, "", said, "")
	if k.begin != nil {
		k.begin(t, doc)
	}
}

// suggestKind says what an unknown kind probably is.
func suggestKind(got string) string {
	want := suggest(got, Kinds())
	if strings.HasPrefix(want, "perhaps ") || slices.Contains(Kinds(), want) {
		return "an unknown kind, " + "perhaps " + strings.TrimPrefix(want, "perhaps ")
	}
	return "an unknown kind"
}

// walk goes through a mapping of a document. index tells the items of lists apart.
func (t *translator) walk(n *yaml.Node, prefix string, said key, index string) {
	k := kinds()[t.kind]
	names := k.names(prefix)
	if prefix == "" {
		names = append(names, "apiVersion", "kind")
		if k.named != "" && !slices.Contains(names, "name") {
			names = append(names, "name")
		}
	}
	t.d.mapping(n, said, names, func(name, value *yaml.Node) {
		if !isNull(value) {
			t.value(prefix+name.Value, value, said.field(name.Value), index+"."+name.Value)
		}
	})
}

// value handles what a document says of one of its keys.
func (t *translator) value(name string, value *yaml.Node, said key, index string) {
	k := kinds()[t.kind]
	if dk, ok := k.key(name); ok {
		t.said(value, said)
		if dk.how != nil {
			dk.how(t, dk, value, said, index)
		} else {
			t.place(dk.to, value, said, index)
		}
		return
	}
	switch {
	case len(k.names(name+".")) > 0:
		t.walk(value, name+".", said, index)
	case len(k.names(name+"[]."))+len(k.names(name+"[]")) > 0:
		if value.Kind != yaml.SequenceNode {
			t.d.problem(value, said, kindOf(value), "a list")
			return
		}
		for i, item := range value.Content {
			at := said.index(i)
			if _, ok := k.key(name + "[]"); ok {
				t.value(name+"[]", item, at, at.path)
			} else {
				t.walk(item, name+"[].", at, at.path)
			}
		}
	}
}

// said remembers what the document calls a value.
func (t *translator) said(value *yaml.Node, k key) {
	if t.d.origin[value] == "" {
		t.d.origin[value] = k.path
	}
}

// place puts a value at a key of the manifest. Of the parts of the key, {name}
// is the document's name; in brackets, + appends to a list, # is an item of its
// own for each item in the document, and field=x is the item with that value.
func (t *translator) place(to string, value *yaml.Node, said key, index string) {
	at, path := t.root, ""
	parts := strings.Split(to, ".")
	for i, part := range parts {
		name, selector, listed := strings.Cut(strings.TrimSuffix(part, "]"), "[")
		if name == "{name}" {
			name = t.name
		}
		path += "." + name
		switch {
		case at.Kind != yaml.MappingNode:
			return // the manifest has something else there, which is reported where it is decoded
		case listed:
			at = t.item(at, name, selector, path[1:], value, said, index)
			if at == nil {
				return
			}
		case i == len(parts)-1:
			t.put(at, name, path[1:], value, said)
		default:
			at = t.child(at, name, yaml.MappingNode)
		}
	}
}

// put sets a key that nobody has set.
func (t *translator) put(at *yaml.Node, name, path string, value *yaml.Node, said key) {
	old := find(at, name)
	switch {
	case old == nil:
		at.Content = append(at.Content, keyNode(name, value), value)
	case isNull(old):
		remove(at, name)
		at.Content = append(at.Content, keyNode(name, value), value)
	default:
		t.clash(old, path, value, said)
	}
}

func (t *translator) clash(old *yaml.Node, path string, value *yaml.Node, said key) {
	if t.clashes[old] {
		return
	}
	t.clashes[old] = true
	first := t.d.origin[old]
	if first == "" {
		first = path
	}
	t.d.problem(value, said, fmt.Sprintf("what %s on line %d says too", first, old.Line), "one of the two")
}

// child is what a key holds; it is made where it is missing.
func (t *translator) child(at *yaml.Node, name string, kind yaml.Kind) *yaml.Node {
	old := find(at, name)
	if old != nil && !isNull(old) {
		return old
	}
	if old != nil {
		remove(at, name)
	}
	n := &yaml.Node{Kind: kind, Tag: "!!map", Line: t.doc.Line, Column: t.doc.Column}
	if kind == yaml.SequenceNode {
		n.Tag, t.owner[n] = "!!seq", t.doc
	}
	t.d.origin[n] = t.label
	at.Content = append(at.Content, keyNode(name, t.doc), n)
	return n
}

// item finds or makes an item of a list; nothing when the value is the item, or
// there is nothing more to do.
func (t *translator) item(at *yaml.Node, name, selector, path string, value *yaml.Node, said key, index string) *yaml.Node {
	list := t.child(at, name, yaml.SequenceNode)
	if list.Kind != yaml.SequenceNode {
		return nil
	}
	field, _, identified := strings.Cut(selector, "=")
	if identified {
		return t.identified(list, field)
	}
	if t.owner[list] != t.doc && !shared[path] {
		t.clash(list, path, value, said)
		return nil
	}
	if selector == "+" {
		list.Content = append(list.Content, value)
		return nil
	}
	at0 := strings.LastIndex(index, "]")
	where := t.label + "/" + path + "/" + index[:at0+1]
	if t.items[where] == nil {
		n := t.mapping()
		t.items[where] = n
		list.Content = append(list.Content, n)
	}
	return t.items[where]
}

// identified is the item whose field is the document's name.
func (t *translator) identified(list *yaml.Node, field string) *yaml.Node {
	for _, n := range list.Content {
		if v := find(n, field); v != nil && v.Value == t.name {
			return n
		}
	}
	n, name := t.mapping(), find(t.doc, "name")
	if name == nil {
		name = text(t.name, t.doc)
	}
	t.said(name, key{path: t.label + ".name"})
	n.Content = append(n.Content, keyNode(field, name), name)
	list.Content = append(list.Content, n)
	return n
}

// shared are the lists that documents add to, whoever else does.
var shared = map[string]bool{"machine.pods": true, "cluster.extraManifests": true}

func (t *translator) mapping() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: t.doc.Line, Column: t.doc.Column}
	t.d.origin[n] = t.label
	return n
}

func keyNode(name string, at *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name, Line: at.Line, Column: at.Column}
}

// text is a value of ours, where a document asked for it.
func text(value string, at *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Line: at.Line, Column: at.Column}
}

func flag(value bool, at *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(value), Line: at.Line, Column: at.Column}
}

func orNode(a, b *yaml.Node) *yaml.Node {
	if a == nil {
		return b
	}
	return a
}

func got(n *yaml.Node) string {
	if n == nil {
		return "nothing"
	}
	return show(n.Value)
}

// expand copies a tree, with aliases replaced by what they stand for; nothing
// when that is more than the budget or too deep.
func expand(n *yaml.Node, budget *int, depth int) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
		depth++
	}
	if *budget -= weight(n); *budget <= 0 || depth > 2*maxDepth {
		return nil
	}
	out := *n
	out.Content, out.Anchor = make([]*yaml.Node, len(n.Content)), ""
	for i, c := range n.Content {
		if out.Content[i] = expand(c, budget, depth+1); out.Content[i] == nil {
			return nil
		}
	}
	return &out
}

// weight is what a node takes of a budget: one, and more for long text, so that
// aliases cannot blow up a document by text either.
func weight(n *yaml.Node) int {
	return 1 + (len(n.Value)+len(n.HeadComment)+len(n.LineComment)+len(n.FootComment))/textPerNode
}

// typed decodes a value that has no place in the manifest, for its type's sake.
func (t *translator) typed(dk docKey, value *yaml.Node, said key) (reflect.Value, bool) {
	v := reflect.New(dk.as).Elem()
	before := len(t.d.problems)
	t.d.decode(value, v, said)
	return v, len(t.d.problems) == before
}
