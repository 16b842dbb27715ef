// Package jsonpath evaluates the part of Kubernetes' JSONPath that the print
// columns of resources use: fields, indexes, slices, wildcards and equality
// filters, with text around the braces.
//
// A Path is immutable and safe for concurrent use.
package jsonpath

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Path is a parsed template.
type Path struct {
	parts []part
}

type part struct {
	text  string
	steps []step // nil for text
}

// step goes from some values to those below them.
type step func([]any) []any

// Parse reads a template such as {.status.ready} or {.endpoints[*].host}.
func Parse(template string) (*Path, error) {
	p := &Path{}
	for rest := template; rest != ""; {
		text, after, ok := strings.Cut(rest, "{")
		if text != "" {
			p.parts = append(p.parts, part{text: text})
		}
		if !ok {
			break
		}
		expr, after, ok := cutClosing(after, '}')
		if !ok {
			return nil, fmt.Errorf("parse JSON path %q: no closing brace", template)
		}
		steps, err := parseSteps(strings.TrimSpace(expr))
		if err != nil {
			return nil, fmt.Errorf("parse JSON path %q: %w", template, err)
		}
		p.parts = append(p.parts, part{steps: steps})
		rest = after
	}
	return p, nil
}

// Eval answers the text for a value made by a YAML or JSON decoder: several
// results are separated by commas, maps and lists are JSON, nothing is "".
func (p *Path) Eval(value any) string {
	var out strings.Builder
	for _, part := range p.parts {
		if part.steps == nil {
			out.WriteString(part.text)
			continue
		}
		values := []any{value}
		for _, s := range part.steps {
			values = s(values)
		}
		texts := make([]string, 0, len(values))
		for _, v := range values {
			texts = append(texts, show(v))
		}
		out.WriteString(strings.Join(texts, ","))
	}
	return out.String()
}

func show(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case map[string]any, []any:
		text, err := json.Marshal(x)
		if err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v)
}

// cutClosing cuts s before the first end outside of quotes.
func cutClosing(s string, end byte) (before, after string, ok bool) {
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		switch {
		case quote != 0:
			if s[i] == quote {
				quote = 0
			}
		case s[i] == '\'' || s[i] == '"':
			quote = s[i]
		case s[i] == end:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func parseSteps(expr string) ([]step, error) {
	steps := []step{}
	for rest := strings.TrimPrefix(strings.TrimPrefix(expr, "$"), "@"); rest != ""; {
		switch {
		case rest[0] == '[':
			inner, after, ok := cutClosing(rest[1:], ']')
			if !ok {
				return nil, fmt.Errorf("no closing bracket in %q", rest)
			}
			s, err := bracket(strings.TrimSpace(inner))
			if err != nil {
				return nil, err
			}
			steps, rest = append(steps, s), after
		default:
			name, after := cutName(strings.TrimPrefix(rest, "."))
			if name == "" {
				return nil, fmt.Errorf("a name is missing before %q", after)
			}
			steps, rest = append(steps, field(name)), after
		}
	}
	return steps, nil
}

// cutName cuts a name before the next dot or bracket; a backslash takes the
// dot behind it as part of the name.
func cutName(s string) (name, rest string) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i+1 < len(s) {
				name += s[i+1 : i+2]
				i++
			}
		case '.', '[':
			return name, s[i:]
		default:
			name += s[i : i+1]
		}
	}
	return name, ""
}

func bracket(inner string) (step, error) {
	if text, ok := strings.CutPrefix(inner, "?("); ok {
		return filter(strings.TrimSuffix(text, ")"))
	}
	if inner == "*" {
		return each, nil
	}
	if text, ok := unquote(inner); ok {
		return field(text), nil
	}
	if from, to, ok := strings.Cut(inner, ":"); ok {
		return slice(from, to)
	}
	i, err := strconv.Atoi(inner)
	if err != nil {
		return nil, fmt.Errorf("%q is no index", inner)
	}
	return func(in []any) []any {
		return below(in, func(v any) []any {
			list, _ := v.([]any)
			at := i
			if at < 0 {
				at += len(list)
			}
			if at < 0 || at >= len(list) {
				return nil
			}
			return list[at : at+1]
		})
	}, nil
}

func slice(from, to string) (step, error) {
	start, end := 0, -1
	var err error
	if from != "" {
		if start, err = strconv.Atoi(from); err != nil || start < 0 {
			return nil, fmt.Errorf("%q is no start of a slice", from)
		}
	}
	if to != "" {
		if end, err = strconv.Atoi(to); err != nil || end < 0 {
			return nil, fmt.Errorf("%q is no end of a slice", to)
		}
	}
	return func(in []any) []any {
		return below(in, func(v any) []any {
			list, _ := v.([]any)
			stop := len(list)
			if end >= 0 {
				stop = min(end, stop)
			}
			return list[min(start, stop):stop]
		})
	}, nil
}

// filter reads @.path == "value" or !=, or @.path alone for existence.
func filter(text string) (step, error) {
	left, op, right := text, "", ""
	for _, try := range []string{"==", "!="} {
		if l, r, ok := strings.Cut(text, try); ok {
			left, op, right = l, try, strings.TrimSpace(r)
			break
		}
	}
	steps, err := parseSteps(strings.TrimSpace(left))
	if err != nil {
		return nil, err
	}
	if plain, ok := unquote(right); ok {
		right = plain
	}
	holds := func(v any) bool {
		values := []any{v}
		for _, s := range steps {
			values = s(values)
		}
		if op == "" {
			return len(values) > 0
		}
		return (len(values) == 1 && show(values[0]) == right) == (op == "==")
	}
	return func(in []any) []any {
		return below(each(in), func(v any) []any {
			if holds(v) {
				return []any{v}
			}
			return nil
		})
	}, nil
}

func unquote(s string) (string, bool) {
	if len(s) >= 2 && (s[0] == '\'' || s[0] == '"') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1], true
	}
	return s, false
}

func below(in []any, children func(any) []any) []any {
	var out []any
	for _, v := range in {
		out = append(out, children(v)...)
	}
	return out
}

func field(name string) step {
	return func(in []any) []any {
		return below(in, func(v any) []any {
			m, _ := v.(map[string]any)
			if child, ok := m[name]; ok {
				return []any{child}
			}
			return nil
		})
	}
}

// each goes to all items of lists and all values of maps.
func each(in []any) []any {
	return below(in, func(v any) []any {
		switch x := v.(type) {
		case []any:
			return x
		case map[string]any:
			var values []any
			for _, key := range sortedKeys(x) {
				values = append(values, x[key])
			}
			return values
		}
		return nil
	})
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
