package config

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds what aliases may blow a document up to, maxDepth how deep it
// nests; textPerNode bytes of text count as one more node.
const (
	maxNodes    = 100_000
	maxDepth    = 100
	textPerNode = 256
)

// maxProblems is how many problems are reported at once.
const maxProblems = 200

// decoder walks a type and a YAML tree together. It never stops at a problem.
type decoder struct {
	file     string
	budget   int
	depth    int
	at       map[string]*yaml.Node // by key, for the rules that look at several keys
	said     map[string]string     // by key, what a document beside the manifest calls it
	origin   map[*yaml.Node]string // the same by value, while documents are translated
	problems Problems
	warnings []Warning
}

// key is where the decoder is: as the document has it, and as the table of
// keys has it (every index is [], every name in a map is {}).
type key struct {
	path, pattern string
	said          string // what a document beside the manifest calls it, if one says it
}

// shown is the key as problems have it.
func (k key) shown() string {
	if k.said != "" {
		return k.said
	}
	return k.path
}

func (k key) field(name string) key {
	if k.path == "" {
		return key{path: name, pattern: name}
	}
	return k.below("."+name, "."+name)
}

func (k key) index(i int) key { return k.below("["+strconv.Itoa(i)+"]", "[]") }

func (k key) entry(name string) key {
	if strings.ContainsAny(name, ".[]\"/ ") {
		return k.below("["+strconv.Quote(name)+"]", "{}")
	}
	return k.below("."+name, "{}")
}

func (k key) below(path, pattern string) key {
	out := key{path: k.path + path, pattern: k.pattern + pattern}
	if k.said != "" {
		out.said = k.said + path
	}
	return out
}

// as is the key under the name that a document has for its value.
func (d *decoder) as(k key, value *yaml.Node) key {
	if said := d.origin[value]; said != "" {
		k.said = said
	}
	return k
}

func (d *decoder) position(n *yaml.Node) Position {
	if n == nil {
		return Position{File: d.file}
	}
	return Position{File: d.file, Line: n.Line, Column: n.Column}
}

func (d *decoder) problem(n *yaml.Node, k key, got, want string) {
	if len(d.problems) >= maxProblems {
		return
	}
	d.problems = append(d.problems, Problem{Position: d.position(n), Key: k.shown(), Got: got, Want: want})
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, budget: maxNodes, at: map[string]*yaml.Node{}, said: map[string]string{}, origin: map[*yaml.Node]string{}}
}

// enter follows aliases and counts; it returns nil when there is nothing to decode.
func (d *decoder) enter(n *yaml.Node, k key) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.budget <= 0 {
		return nil
	}
	d.budget -= weight(n)
	if d.budget <= 0 || d.depth >= maxDepth {
		d.budget = 0
		d.problem(n, k, "a document that is too large or nests too deep", "")
		return nil
	}
	if isNull(n) {
		return nil
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

var (
	base64Type   = reflect.TypeFor[Base64]()
	durationType = reflect.TypeFor[Duration]()
	modeType     = reflect.TypeFor[FileMode]()
)

func (d *decoder) decode(n *yaml.Node, v reflect.Value, k key) {
	k = d.as(k, n)
	if n = d.enter(n, k); n == nil {
		return
	}
	d.depth++
	defer func() { d.depth-- }()
	d.at[k.path] = n
	if k.said != "" {
		d.said[k.path] = k.said
	}
	switch v.Type() {
	case base64Type, durationType, modeType:
		d.scalar(n, v, k)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.decode(n, p.Elem(), k)
		v.Set(p)
	case reflect.Struct:
		d.mapping(n, k, fieldNames(v.Type()), func(name *yaml.Node, value *yaml.Node) {
			d.decode(value, v.FieldByIndex(fields(v.Type())[name.Value]), k.field(name.Value))
		})
	case reflect.Slice:
		d.list(n, v, k)
	case reflect.Map:
		d.entries(n, v, k)
	case reflect.Interface:
		if x := d.free(n, k); x != nil {
			v.Set(reflect.ValueOf(x))
		}
	default:
		d.scalar(n, v, k)
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, k key) {
	if n.Kind != yaml.SequenceNode {
		d.problem(n, k, kindOf(n), "a list")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.decode(item, out.Index(i), k.index(i))
	}
	v.Set(out)
}

func (d *decoder) entries(n *yaml.Node, v reflect.Value, k key) {
	out := reflect.MakeMap(v.Type())
	d.mapping(n, k, nil, func(name, value *yaml.Node) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, item, k.entry(name.Value))
		out.SetMapIndex(reflect.ValueOf(name.Value), item)
	})
	v.Set(out)
}

// mapping calls visit for every pair. Where names is not nil, only those are allowed.
func (d *decoder) mapping(n *yaml.Node, k key, names []string, visit func(name, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.problem(n, k, kindOf(n), "a mapping")
		return
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		for name.Kind == yaml.AliasNode {
			name = name.Alias
		}
		if name.Kind != yaml.ScalarNode || name.Tag == "!!merge" {
			d.problem(n.Content[i], k, "a "+strings.TrimPrefix(name.Tag, "!!")+" as key", "a name")
			continue
		}
		if first := seen[name.Value]; first != nil {
			d.problem(name, k.field(name.Value), fmt.Sprintf("the key again, first given on line %d", first.Line), "it once")
			continue
		}
		seen[name.Value] = name
		if names != nil && !contains(names, name.Value) {
			d.problem(name, k.field(name.Value), "an unknown key", suggest(name.Value, names))
			continue
		}
		if names != nil {
			d.tell(name, value, d.as(k.field(name.Value), value))
		}
		visit(name, value)
	}
}

// free decodes what has no fixed form, into what JSON knows too.
func (d *decoder) free(n *yaml.Node, k key) any {
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		d.mapping(n, k, nil, func(name, value *yaml.Node) {
			var item any
			d.decode(value, reflect.ValueOf(&item).Elem(), k.entry(name.Value))
			out[name.Value] = item
		})
		return out
	case yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i := range n.Content {
			d.decode(n.Content[i], reflect.ValueOf(&out[i]).Elem(), k.index(i))
		}
		return out
	}
	if n.Tag == "!!timestamp" || n.Tag == "!!binary" {
		return n.Value
	}
	var out any
	if err := n.Decode(&out); err != nil {
		d.problem(n, k, show(n.Value), "a value of its tag "+n.Tag)
	}
	return out
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, k key) {
	if n.Kind != yaml.ScalarNode {
		d.problem(n, k, kindOf(n), wantOf(v.Type()))
		return
	}
	if !setScalar(n, v) {
		d.problem(n, k, d.shown(n, k), wantOf(v.Type()))
		return
	}
	if check := checks[k.pattern]; check != nil {
		if want := check.want(n.Value); want != "" {
			d.problem(n, k, d.shown(n, k), want)
		}
	}
}

// shown is a value as problems may repeat it.
func (d *decoder) shown(n *yaml.Node, k key) string {
	if secret(k.pattern) {
		return "a secret of another form"
	}
	return show(n.Value)
}

func setScalar(n *yaml.Node, v reflect.Value) bool {
	switch v.Type() {
	case base64Type:
		raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		v.SetBytes(raw)
		return err == nil
	case durationType:
		t, err := time.ParseDuration(n.Value)
		v.SetInt(int64(t))
		return err == nil
	case modeType:
		m, err := strconv.ParseUint(n.Value, 0, 32)
		v.SetUint(m)
		return err == nil && m <= 0o7777
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.Value)
		return true
	case reflect.Bool:
		b, ok := boolean(n)
		v.SetBool(b)
		return ok
	case reflect.Int:
		i, err := strconv.ParseInt(n.Value, 0, 64)
		v.SetInt(i)
		return err == nil && n.Tag == "!!int"
	}
	return false
}

// boolean reads true and false, and the yes, no, on and off of YAML 1.1.
func boolean(n *yaml.Node) (value, ok bool) {
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return false, false
	}
	switch strings.ToLower(n.Value) {
	case "true", "yes", "on":
		return true, true
	case "false", "no", "off":
		return false, true
	}
	return false, false
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

func wantOf(t reflect.Type) string {
	switch t {
	case base64Type:
		return "base64"
	case durationType:
		return "a duration such as 1h30m"
	case modeType:
		return "a file mode such as 0o644"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	default:
		return "a text"
	}
}
