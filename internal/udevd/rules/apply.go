package rules

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"talos/internal/linux/sysfs"
	"talos/internal/linux/uevent"
)

// Subject is the device that rules are applied to, as it is when they begin.
type Subject struct {
	Event  uevent.Event
	Device sysfs.Device
	// Env are the device's properties: the kernel's and what is known of it.
	Env map[string]string
	// Name is the network link's name; of others, of the node below /dev.
	Name string
	// Links are names below /dev that it has already.
	Links []string
}

// Result is what the rules say.
type Result struct {
	Name     string // of a network link; empty if no rule names it
	Links    []string
	Priority int // of its claim to the links
	Owner    string
	Group    string
	Mode     string
	Env      map[string]string
	Attrs    []Attr
	Problems []string // of rules that could not be followed
}

// Attr is a value to be written to an attribute in sysfs.
type Attr struct{ Name, Value string }

// state is a Result in the making.
type state struct {
	Result
	subject Subject
	final   map[string]bool // keys assigned with :=
	escape  bool            // characters that a name should not have become "_"
	parent  sysfs.Device    // the one that the rule's KERNELS and so on have matched
}

// Apply takes the rules in order. The subject is left as it is.
func (s Set) Apply(subject Subject) Result {
	st := &state{subject: subject, final: map[string]bool{}, escape: true}
	st.Env = map[string]string{}
	for k, v := range subject.Env {
		st.Env[k] = v
	}
	st.Links = slices.Clone(subject.Links)
	for i := 0; i < len(s.rules); i++ {
		r := s.rules[i]
		st.parent = sysfs.Device{}
		if !st.matches(r) {
			continue
		}
		for _, t := range r.tokens {
			if t.match == nil {
				st.assign(t)
			}
		}
		if r.jump > i {
			i = r.jump - 1
		}
	}
	return st.Result
}

// matches says whether all that a rule asks for is so.
func (st *state) matches(r rule) bool {
	var above []token
	for _, t := range r.tokens {
		switch t.key {
		case "KERNELS", "SUBSYSTEMS", "DRIVERS", "ATTRS":
			above = append(above, t)
			continue
		}
		if t.match != nil && !st.match(t) {
			return false
		}
	}
	if above == nil {
		return true
	}
	// All of them have to be true of one device: it, or one above it.
	for d := st.subject.Device; d.Valid(); d = d.Parent() {
		if !slices.ContainsFunc(above, func(t token) bool { return !matchAbove(t, d) }) {
			st.parent = d
			return true
		}
	}
	return false
}

func (t token) is(value string) bool { return t.match.matches(value) == (t.op == "==") }

func matchAbove(t token, d sysfs.Device) bool {
	switch t.key {
	case "KERNELS":
		return t.is(d.Name())
	case "SUBSYSTEMS":
		return t.is(d.Subsystem())
	case "DRIVERS":
		return t.is(d.Driver())
	}
	return t.isAttr(d)
}

// isAttr compares an attribute. One that is not there is neither equal nor not
// equal. Blanks at the end count only if the pattern has some too.
func (t token) isAttr(d sysfs.Device) bool {
	raw := d.Raw(t.arg)
	if raw == nil {
		return false
	}
	value := strings.TrimRight(string(raw), "\n")
	if !strings.HasSuffix(t.value, " ") {
		value = strings.TrimRight(value, " \t")
	}
	return t.is(value)
}

func (st *state) match(t token) bool {
	switch t.key {
	case "ACTION":
		return t.is(string(st.subject.Event.Action))
	case "DEVPATH":
		return t.is(st.subject.Event.DevPath)
	case "KERNEL":
		return t.is(st.subject.Device.Name())
	case "SUBSYSTEM":
		return t.is(st.subject.Event.Subsystem)
	case "DRIVER":
		return t.is(st.subject.Device.Driver())
	case "NAME":
		return t.is(st.name())
	case "SYMLINK":
		return slices.ContainsFunc(st.Links, t.match.matches) == (t.op == "==")
	case "ATTR":
		return t.isAttr(st.subject.Device)
	case "ENV":
		return t.is(st.Env[t.arg])
	case "TEST":
		return st.subject.Device.Has(t.value) == (t.op == "==")
	}
	return true // tags: nobody sets them, nobody asks
}

func (st *state) name() string {
	if st.Name != "" {
		return st.Name
	}
	return st.subject.Name
}

func (st *state) problem(t token, why string) {
	st.Problems = append(st.Problems, fmt.Sprintf("%s: %s%s%q: %s", t.where, t.key, t.op, t.value, why))
}

// assign does what a token says, if no earlier one has had the last word.
func (st *state) assign(t token) {
	key := t.key
	if t.arg != "" {
		key += "{" + t.arg + "}"
	}
	if st.final[key] {
		return
	}
	st.final[key] = t.op == ":="
	value := st.expand(t.value)
	switch t.key {
	case "NAME":
		st.setName(t, value)
	case "SYMLINK":
		st.setLinks(t, value)
	case "OWNER":
		st.Owner = value
	case "GROUP":
		st.Group = value
	case "MODE":
		if st.Mode = value; !modePattern.MatchString(value) {
			st.Mode = ""
			st.problem(t, "is "+strconv.Quote(value)+", no octal number")
		}
	case "ENV":
		if t.op == "+=" && st.Env[t.arg] != "" {
			value = st.Env[t.arg] + " " + value
		}
		if value == "" {
			delete(st.Env, t.arg)
		} else {
			st.Env[t.arg] = value
		}
	case "ATTR":
		st.Attrs = append(st.Attrs, Attr{t.arg, value})
	case "OPTIONS":
		if n, ok := strings.CutPrefix(value, "link_priority="); ok {
			st.Priority, _ = strconv.Atoi(n) // checked when it was read
		}
		if how, ok := strings.CutPrefix(value, "string_escape="); ok {
			st.escape = how == "replace"
		}
	}
}

func (st *state) setName(t token, value string) {
	if st.subject.Event.Subsystem != "net" {
		st.problem(t, "only network links can be named; a node keeps the kernel's name, and SYMLINK adds one")
		return
	}
	if why := BadLinkName(value); why != "" {
		st.problem(t, why)
		return
	}
	st.Name = value
}

// BadLinkName says why the kernel would not take the name of a network link.
func BadLinkName(name string) string {
	switch {
	case name == "" || len(name) > 15:
		return "a link's name has 1 to 15 bytes"
	case name == "." || name == "..", strings.ContainsAny(name, "/: \t\r\n\v\f%"):
		return "is no name for a link"
	}
	return ""
}

func (st *state) setLinks(t token, value string) {
	if t.op == "=" || t.op == ":=" {
		st.Links = nil
	}
	for _, name := range strings.Fields(value) {
		if st.escape {
			name = Replace(name, "/")
		}
		clean := strings.TrimPrefix(path.Clean("/"+strings.TrimPrefix(name, "/dev/")), "/")
		switch {
		case clean == "" || clean == ".":
			st.problem(t, "is "+strconv.Quote(name)+", no name")
		case t.op == "-=":
			st.Links = slices.DeleteFunc(st.Links, func(l string) bool { return l == clean })
		case !slices.Contains(st.Links, clean):
			st.Links = append(st.Links, clean)
		}
	}
}
