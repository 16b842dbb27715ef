package config

import (
	"reflect"
	"slices"
	"strings"
	"sync"
)

var fieldCache sync.Map // reflect.Type → map[string][]int

// fields are the keys that a type has, with where each lies.
func fields(t reflect.Type) map[string][]int {
	if m, ok := fieldCache.Load(t); ok {
		return m.(map[string][]int)
	}
	m := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		if name := keyName(f); name != "" {
			m[name] = f.Index
		}
	}
	fieldCache.Store(t, m)
	return m
}

func keyName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

// fieldNames are the keys that a type has, in the order of the type.
func fieldNames(t reflect.Type) []string {
	names := []string{}
	for _, f := range reflect.VisibleFields(t) {
		if name := keyName(f); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// leaf says whether a type is a value of its own: a scalar, a list of scalars,
// a map of scalars, anything free-form. The table of keys lists leaves.
func leaf(t reflect.Type) bool {
	switch t {
	case base64Type, durationType, modeType:
		return true
	}
	switch t.Kind() {
	case reflect.Pointer:
		return leaf(t.Elem())
	case reflect.Slice, reflect.Map:
		return t.Elem().Kind() == reflect.Interface || leaf(t.Elem())
	case reflect.Struct:
		return t.NumField() == 0
	default:
		return true
	}
}

// patterns lists the leaves of a type as the table of keys names them.
func patterns(t reflect.Type, at string) []string {
	if leaf(t) {
		return []string{at}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return patterns(t.Elem(), at)
	case reflect.Slice:
		return patterns(t.Elem(), at+"[]")
	case reflect.Map:
		return patterns(t.Elem(), at+"{}")
	}
	var out []string
	for _, f := range reflect.VisibleFields(t) {
		k := key{path: at, pattern: at}.field(keyName(f))
		out = append(out, patterns(f.Type, k.pattern)...)
	}
	return out
}

// Keys lists every key of the manifest that holds a value, in order: [] stands
// for each item of a list, {} for each entry of a map.
func Keys() []string { return patterns(reflect.TypeFor[Config](), "") }

// Changed lists the keys, as Keys names them, whose values differ.
func Changed(a, b *Config) []string {
	var out []string
	changed(reflect.ValueOf(a), reflect.ValueOf(b), reflect.TypeFor[*Config](), "", &out)
	slices.Sort(out)
	return slices.Compact(out)
}

func changed(a, b reflect.Value, t reflect.Type, at string, out *[]string) {
	if leaf(t) {
		if !same(a, b) {
			*out = append(*out, at)
		}
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		changed(elem(a, t.Elem()), elem(b, t.Elem()), t.Elem(), at, out)
	case reflect.Slice:
		for i := range max(a.Len(), b.Len()) {
			changed(item(a, i, t.Elem()), item(b, i, t.Elem()), t.Elem(), at+"[]", out)
		}
	case reflect.Map:
		for _, m := range []reflect.Value{a, b} {
			for _, k := range m.MapKeys() {
				changed(entry(a, k, t.Elem()), entry(b, k, t.Elem()), t.Elem(), at+"{}", out)
			}
		}
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			k := key{path: at, pattern: at}.field(keyName(f))
			changed(a.FieldByIndex(f.Index), b.FieldByIndex(f.Index), f.Type, k.pattern, out)
		}
	}
}

// same compares leaves; nothing and empty are alike.
func same(a, b reflect.Value) bool {
	if k := a.Kind(); (k == reflect.Slice || k == reflect.Map) && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

func elem(v reflect.Value, t reflect.Type) reflect.Value {
	if v.IsNil() {
		return reflect.Zero(t)
	}
	return v.Elem()
}

func item(v reflect.Value, i int, t reflect.Type) reflect.Value {
	if i >= v.Len() {
		return reflect.Zero(t)
	}
	return v.Index(i)
}

func entry(v, k reflect.Value, t reflect.Type) reflect.Value {
	if e := v.MapIndex(k); e.IsValid() {
		return e
	}
	return reflect.Zero(t)
}

func contains(names []string, name string) bool { return slices.Contains(names, name) }

// suggest says what was probably meant.
func suggest(got string, names []string) string {
	best, distance := "", 3
	for _, n := range names {
		if strings.EqualFold(n, got) {
			return n
		}
		if d := edits(strings.ToLower(n), strings.ToLower(got)); d < distance && d < len(n) {
			best, distance = n, d
		}
	}
	if best != "" {
		return "perhaps " + best
	}
	if len(names) == 0 {
		return "no key"
	}
	sorted := slices.Sorted(slices.Values(names))
	if len(sorted) > 12 {
		return "one of the keys of the reference"
	}
	return "one of " + strings.Join(sorted, ", ")
}

// edits counts the letters to insert, delete or change between a and b.
func edits(a, b string) int {
	if len(a) > maxShown || len(b) > maxShown {
		return maxShown
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := left
			if a[i] != b[j] {
				cost++
			}
			left = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
