package controlplane

import (
	"maps"
	"slices"
	"strings"

	"talos/internal/resources/k8s"
)

// args are the flags of a program: name without dashes to values. A flag with
// several values is given several times.
type args map[string][]string

func (a args) set(name string, values ...string) { a[name] = values }

// list gives the flags in alphabetical order, as --name=value.
func (a args) list() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(a)) {
		for _, v := range a[name] {
			out = append(out, "--"+name+"="+v)
		}
	}
	return out
}

// policy says which of a program's flags a user can't replace, because the
// node would stop working, and which the user's values are added to.
type policy struct {
	protected []string
	additive  []string
}

// merge lets the user's flags win, within the policy.
func (a args) merge(user map[string]k8s.ArgValues, p policy) {
	for name, v := range user {
		name = strings.TrimLeft(name, "-")
		switch {
		case slices.Contains(p.protected, name):
		case slices.Contains(p.additive, name) && len(a[name]) > 0:
			a[name] = []string{union(a[name], v.Values)}
		default:
			a[name] = v.Values
		}
	}
}

// union joins comma lists, each element once, ours first.
func union(lists ...[]string) string {
	var out []string
	for _, list := range lists {
		for _, v := range list {
			for _, e := range strings.Split(v, ",") {
				if e = strings.TrimSpace(e); e != "" && !slices.Contains(out, e) {
					out = append(out, e)
				}
			}
		}
	}
	return strings.Join(out, ",")
}

func has(user map[string]k8s.ArgValues, names ...string) bool {
	for name := range user {
		for _, n := range names {
			if name == n || strings.HasSuffix(n, "*") && strings.HasPrefix(name, strings.TrimSuffix(n, "*")) {
				return true
			}
		}
	}
	return false
}
