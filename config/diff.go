package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Change is one key that two configurations have different values of.
type Change struct {
	Key      string // such as machine.network.interfaces[eth0].mtu; items by what identifies them, else counted
	From, To string // as YAML on one line, or several for text of several lines; empty: not there; secrets redacted
}

// Changes lists what leads from one configuration to another, by key. It
// compares what the configurations say: whether a manifest or a document
// beside it says it is all the same. Secrets are never shown, only that they
// changed.
func Changes(from, to *Config) []Change {
	m := newMarks()
	a, b := flatten(redactWith(from, m.name)), flatten(redactWith(to, m.name))
	var out []Change
	for k, v := range a {
		if b[k] != v {
			out = append(out, Change{Key: k, From: m.strip(v), To: m.strip(b[k])})
		}
	}
	for k, v := range b {
		if _, ok := a[k]; !ok {
			out = append(out, Change{Key: k, To: m.strip(v)})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// Diff shows the changes, one key after the other: a minus before what goes, a
// plus before what comes. Of text of several lines, the lines that differ are
// shown. Equal configurations give nothing.
func Diff(from, to *Config) string {
	var b strings.Builder
	for _, c := range Changes(from, to) {
		if strings.Contains(c.From+c.To, "\n") {
			fmt.Fprintf(&b, " %s:\n", c.Key)
			for _, l := range shorten(diffLines(lines(c.From), lines(c.To))) {
				b.WriteString(l[:1] + "    " + l[1:] + "\n")
			}
			continue
		}
		if c.From != "" {
			fmt.Fprintf(&b, "-%s: %s\n", c.Key, c.From)
		}
		if c.To != "" {
			fmt.Fprintf(&b, "+%s: %s\n", c.Key, c.To)
		}
	}
	return b.String()
}

// flatten gives the values of a configuration by key.
func flatten(c *Config) map[string]string {
	out := map[string]string{}
	flattenValue(reflect.ValueOf(c), key{}, out)
	return out
}

func flattenValue(v reflect.Value, k key, out map[string]string) {
	switch {
	case v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface:
		if !v.IsNil() {
			flattenValue(v.Elem(), k, out)
		}
	case v.Kind() == reflect.Map:
		for _, name := range slices.Sorted(maps.Keys(names(v))) {
			flattenValue(v.MapIndex(reflect.ValueOf(name)), k.entry(name), out)
		}
	case v.Kind() == reflect.Struct && v.NumField() > 0:
		for _, f := range reflect.VisibleFields(v.Type()) {
			flattenValue(v.FieldByIndex(f.Index), k.field(keyName(f)), out)
		}
	case v.Kind() == reflect.Slice && !leaf(v.Type()):
		for i := range v.Len() {
			flattenValue(v.Index(i), k.item(v.Index(i), i), out)
		}
	case !unset(v):
		out[k.path] = inline(v.Interface())
	}
}

// unset says whether a value is as if it were not there.
func unset(v reflect.Value) bool {
	return v.Kind() == reflect.Slice && v.Len() == 0 || v.IsZero() && v.Kind() != reflect.Bool
}

func names(m reflect.Value) map[string]bool {
	out := map[string]bool{}
	for _, k := range m.MapKeys() {
		out[k.String()] = true
	}
	return out
}

// item is an item of a list, by what identifies it.
func (k key) item(v reflect.Value, i int) key {
	at := k.index(i)
	for _, name := range identities[k.pattern] {
		if v.Kind() != reflect.Struct {
			break
		}
		if f := v.FieldByIndex(fields(v.Type())[name]); (f.Kind() == reflect.String || f.Kind() == reflect.Int) && !f.IsZero() {
			at.path = fmt.Sprintf("%s[%v]", k.path, f.Interface())
		}
	}
	return at
}

// longest is how much of a value without line breaks is shown.
const longest = 120

// inline is a value on one line; text of several lines stays as it is.
func inline(v any) string {
	if s, ok := v.(string); ok && strings.Contains(s, "\n") {
		return s
	}
	var n yaml.Node
	if err := n.Encode(v); err != nil {
		return "(cannot be shown)"
	}
	flow(&n)
	text, err := yaml.Marshal(&n)
	if err != nil {
		return "(cannot be shown)"
	}
	s := strings.TrimSpace(strings.ReplaceAll(string(text), "\n", " "))
	if r := []rune(s); len(r) > longest {
		s = fmt.Sprintf("%s…%s (%d characters)", string(r[:longest/2]), string(r[len(r)-longest/4:]), len(r))
	}
	return s
}

// flow makes a value be written on one line.
func flow(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle
	} else if n.Style == yaml.LiteralStyle || n.Style == yaml.FoldedStyle {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		flow(c)
	}
}
