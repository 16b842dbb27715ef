package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// Schema is a JSON Schema of configurations, for editors: of the manifest, and
// of the documents beside it. describe gives the text on a field of a type.
func Schema(describe func(owner reflect.Type, field string) string) ([]byte, error) {
	b := schemaBuilder{describe: describe}
	manifest := b.of(reflect.TypeFor[Config](), "")
	manifest["required"] = []string{"version", "machine", "cluster"}
	defs := node{"manifest": manifest, "document": b.document()}
	for _, name := range Kinds() {
		defs[name] = b.kind(name)
	}
	return json.MarshalIndent(node{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Machine configuration",
		"if":      node{"type": "object", "required": []string{"kind"}},
		"then":    node{"$ref": "#/$defs/document"},
		"else":    node{"$ref": "#/$defs/manifest"},
		"$defs":   defs,
	}, "", " ")
}

type node = map[string]any

type schemaBuilder struct {
	describe func(reflect.Type, string) string
}

// of is the schema of a type's values at a key.
func (b schemaBuilder) of(t reflect.Type, at string) node {
	switch t {
	case base64Type:
		return node{"type": "string", "contentEncoding": "base64"}
	case durationType:
		return node{"type": "string", "pattern": `^-?(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`}
	case modeType:
		return node{"type": []string{"integer", "string"}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return b.of(t.Elem(), at)
	case reflect.Struct:
		return b.fields(t, at)
	case reflect.Slice:
		return node{"type": "array", "items": b.of(t.Elem(), at+"[]")}
	case reflect.Map:
		out := node{"type": "object"}
		if t.Elem().Kind() == reflect.String {
			out["additionalProperties"] = node{"type": []string{"string", "number", "boolean"}}
		} else if t.Elem().Kind() != reflect.Interface {
			out["additionalProperties"] = b.of(t.Elem(), at+"{}")
		}
		return out
	case reflect.Interface:
		return node{}
	case reflect.Bool:
		return node{"type": "boolean"}
	case reflect.Int:
		return bounded(node{"type": "integer"}, at)
	}
	return bounded(node{"type": "string"}, at)
}

// bounded adds what the checks know of a value.
func bounded(out node, at string) node {
	switch c := checks[at].(type) {
	case choice:
		out["enum"] = []string(c)
	case span:
		out["minimum"], out["maximum"] = c.low, c.high
	}
	return out
}

func (b schemaBuilder) fields(t reflect.Type, at string) node {
	properties := node{}
	for _, f := range reflect.VisibleFields(t) {
		name := keyName(f)
		k := key{path: at, pattern: at}.field(name).pattern
		s := b.of(f.Type, k)
		described(s, b.text(t, f), rows()[k])
		properties[name] = s
	}
	return node{"type": "object", "properties": properties, "additionalProperties": false}
}

// text is what is said of a field, else of what it holds.
func (b schemaBuilder) text(owner reflect.Type, f reflect.StructField) string {
	if said := b.describe(owner, f.Name); said != "" {
		return said
	}
	t := f.Type
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	return b.describe(t, "")
}

// described adds the text on a key, and what becomes of it where that is not
// what it asks for.
func described(s node, said string, lot KeyInfo) {
	switch lot.Disposition {
	case Warned:
		said = strings.TrimSpace(said + " (no effect: " + lot.Reason + ")")
	case OnMachines:
		said = strings.TrimSpace(said + " (on machines only: " + lot.Reason + ")")
	case Refused:
		said = strings.TrimSpace(said + " (refused: " + lot.Reason + ")")
	}
	if said != "" {
		s["description"] = said
	}
}

// document chooses the kind's schema.
func (b schemaBuilder) document() node {
	var names []string
	var choose []node
	for _, name := range append(Kinds(), "UnattendedInstall", "KubeSpanEndpoints") {
		names = append(names, name)
		choose = append(choose, node{
			"if": node{"properties": node{"kind": node{"const": name}}}, "then": node{"$ref": "#/$defs/" + alias(name)},
		})
	}
	slices.Sort(names)
	return node{
		"type": "object", "required": []string{"apiVersion", "kind"}, "allOf": choose,
		"properties": node{"apiVersion": node{"const": Version}, "kind": node{"enum": names}},
	}
}

func (b schemaBuilder) kind(name string) node {
	k := kinds()[name]
	switch k.lot {
	case Refused:
		return node{"description": "refused: " + k.reason, "not": node{}}
	case Warned:
		return node{"type": "object", "description": "no effect: " + k.reason}
	}
	out := node{"type": "object", "description": k.says, "additionalProperties": false, "properties": node{"apiVersion": node{}, "kind": node{}}}
	if k.named != "" {
		out["required"] = []string{"name"}
		out["properties"].(node)["name"] = node{"type": "string", "description": k.named}
	}
	for _, row := range Documents() {
		if row.Kind != name {
			continue
		}
		at := ""
		if row.To != "" {
			at = pattern(row.To)
		}
		s := b.of(row.Type, at)
		if row.Key == "extraArgs" {
			one := []string{"string", "number", "boolean"}
			s = node{"type": "object", "additionalProperties": node{"type": append(one, "array"), "maxItems": 1}}
			if row.Type.Kind() == reflect.Slice {
				s = b.of(row.Type, at)
			}
		}
		described(s, row.To, KeyInfo{Disposition: row.Disposition, Reason: row.Reason})
		insert(out, strings.Split(row.Key, "."), s)
	}
	return out
}

// insert puts the schema of a key where its parts lead.
func insert(at node, parts []string, s node) {
	name, listed := strings.CutSuffix(parts[0], "[]")
	properties := at["properties"].(node)
	below, last := properties[name], len(parts) == 1
	switch {
	case last && listed:
		properties[name] = node{"type": "array", "items": s}
		return
	case last:
		properties[name] = s
		return
	case below == nil:
		below = node{"type": "object", "additionalProperties": false, "properties": node{}}
		if listed {
			below = node{"type": "array", "items": below}
		}
		properties[name] = below
	}
	if listed {
		below = below.(node)["items"]
	}
	insert(below.(node), parts[1:], s)
}
