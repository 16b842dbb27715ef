package config

import (
	"reflect"
	"strings"
)

// DocumentKey is a row of the table of documents: a key of a kind, or a kind as
// a whole, what the manifest calls it, and its lot.
type DocumentKey struct {
	Kind        string
	Says        string // what the kind is for
	Key         string // empty: the document as a whole
	To          string // the manifest's key for it, {name} standing for the document's name; empty: none
	Type        reflect.Type
	Disposition Disposition
	Effect      Effect
	Reason      string
}

// Documents is the table of documents, by kind, the keys of each in its order.
// The lot of a key that the manifest has too is that of the manifest's.
func Documents() []DocumentKey {
	var out []DocumentKey
	for _, name := range Kinds() {
		k := kinds()[name]
		if k.lot != Applied {
			out = append(out, DocumentKey{Kind: name, Says: k.says, Disposition: k.lot, Reason: k.reason})
			continue
		}
		for _, dk := range k.keys {
			row := DocumentKey{Kind: name, Says: k.says, Key: dk.name, To: readable(dk.to), Type: dk.typ(), Disposition: dk.lot, Reason: dk.reason}
			if dk.to != "" {
				info := lotOf(pattern(dk.to))
				row.Disposition, row.Effect, row.Reason = info.Disposition, info.Effect, info.Reason
			}
			out = append(out, row)
		}
	}
	return out
}

// typ is the type of a document's key.
func (dk docKey) typ() reflect.Type {
	if dk.as != nil {
		return dk.as
	}
	return typeAt(pattern(dk.to))
}

// lotOf finds the row of a key, or of the nearest that holds it.
func lotOf(k string) KeyInfo {
	for {
		k = strings.TrimSuffix(strings.TrimSuffix(k, "[]"), "{}")
		if row, ok := rows()[k]; ok {
			return row
		}
		i := strings.LastIndex(k, ".")
		if i < 0 {
			return KeyInfo{}
		}
		k = k[:i]
	}
}

// pattern is a place in the manifest as the table of keys names it.
func pattern(to string) string {
	var b strings.Builder
	for i, part := range strings.Split(to, ".") {
		name, _, listed := strings.Cut(part, "[")
		switch {
		case name == "{name}":
			b.WriteString("{}")
			continue
		case i > 0:
			b.WriteString(".")
		}
		b.WriteString(name)
		if listed {
			b.WriteString("[]")
		}
	}
	return b.String()
}

// readable is a place in the manifest for people.
func readable(to string) string {
	return strings.NewReplacer("[+]", "[]", "[#]", "[]").Replace(to)
}

// typeAt is the type of what a key of the manifest, or a part of it, holds;
// nothing when there is no such key.
func typeAt(pattern string) reflect.Type {
	t := reflect.TypeFor[Config]()
	for part := range strings.SplitSeq(pattern, ".") {
		name := strings.TrimRight(part, "[]{}")
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Struct:
			index, ok := fields(t)[name]
			if !ok {
				return nil
			}
			t = t.FieldByIndex(index).Type
		case reflect.Map:
			t = t.Elem()
		default:
			return nil
		}
		for range strings.Count(part, "[]") + strings.Count(part, "{}") {
			for t.Kind() == reflect.Pointer {
				t = t.Elem()
			}
			t = t.Elem()
		}
	}
	return t
}
