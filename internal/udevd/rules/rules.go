// Package rules reads and applies what people write into machine.udev.rules: the
// part of udev's rule language that works without programs to run.
//
// It owns the language. A Set says what a device should get; doing it is the
// caller's. Nothing here touches the machine but through the Subject it is given.
// A Set does not change and is safe for concurrent use.
//
// Known are the matches ACTION, DEVPATH, KERNEL, NAME, SYMLINK, SUBSYSTEM,
// DRIVER, ATTR{}, ENV{}, TEST, and on the device or any one above it KERNELS,
// SUBSYSTEMS, DRIVERS, ATTRS{}; the assignments NAME, SYMLINK, OWNER, GROUP,
// MODE, ENV{}, ATTR{}, OPTIONS (link_priority, string_escape), LABEL and GOTO.
// TAG and TAGS are read over: nobody asks for tags. RUN, PROGRAM, RESULT and
// IMPORT are errors, for there are no programs on a node.
package rules

import (
	"fmt"
	"regexp"
	"strings"
)

// Set is a list of rules in the order in which they apply. The zero value is
// empty.
type Set struct {
	rules []rule
}

// Len is how many rules there are.
func (s Set) Len() int { return len(s.rules) }

type rule struct {
	tokens []token
	label  string // the rule's own
	jump   int    // index of the rule to go on with; 0 is the next one
}

type token struct {
	key, arg, op string
	value        string
	match        *pattern // of a match
	where        string   // for messages: "rule 2, line 1"
}

// Error says where a rule is wrong.
type Error struct {
	Rule  int    // counted from 1
	Line  int    // within the rule, counted from 1
	Token string // what is wrong
	Text  string // why
}

func (e *Error) Error() string {
	return fmt.Sprintf("rule %d, line %d: %s: %s", e.Rule, e.Line, e.Token, e.Text)
}

// Bounds: more is not for people to write.
const (
	maxText   = 64 << 10 // of one entry
	maxTokens = 4096     // of all
)

// keys are the known ones: whether they may match, and what they may assign with.
var keys = map[string]struct {
	arg    bool
	match  bool
	assign string // operators
}{
	"ACTION": {match: true}, "DEVPATH": {match: true}, "KERNEL": {match: true}, "SUBSYSTEM": {match: true}, "DRIVER": {match: true},
	"KERNELS": {match: true}, "SUBSYSTEMS": {match: true}, "DRIVERS": {match: true}, "ATTRS": {arg: true, match: true},
	"TEST": {match: true}, "TAGS": {match: true}, "TAG": {match: true, assign: "= += -= :="},
	"ATTR": {arg: true, match: true, assign: "= :="}, "ENV": {arg: true, match: true, assign: "= += :="},
	"NAME": {match: true, assign: "= :="}, "SYMLINK": {match: true, assign: "= += -= :="},
	"OWNER": {assign: "= :="}, "GROUP": {assign: "= :="}, "MODE": {assign: "= :="},
	"OPTIONS": {assign: "= +="}, "LABEL": {assign: "="}, "GOTO": {assign: "="},
}

// refused are those that need what a node has not.
var refused = map[string]string{
	"RUN": "there are no programs on a node to run", "PROGRAM": "there are no programs on a node to run", "RESULT": "there are no programs on a node whose result it could be",
	"IMPORT": "there are no programs or files on a node to import from", "SECLABEL": "devices have no security labels", "SYSCTL": "use machine.sysctls", "CONST": "is not known here",
	"WAIT_FOR": "is not known here",
}

// Parse reads rules, of which an entry may hold several, on a line each. Every
// problem is told, as an *Error each, and the Set is then empty.
func Parse(entries []string) (Set, []error) {
	var set Set
	var problems []error
	tokens := 0
	for i, text := range entries {
		if len(text) > maxText {
			problems = append(problems, &Error{i + 1, 1, "rule", fmt.Sprintf("longer than %d bytes", maxText)})
			continue
		}
		for _, l := range joined(text) {
			r, err := parseRule(l.text, i+1, l.number)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			if tokens += len(r.tokens); tokens > maxTokens {
				return Set{}, append(problems, &Error{i + 1, l.number, "rule", fmt.Sprintf("more than %d keys in all rules", maxTokens)})
			}
			if len(r.tokens) > 0 || r.label != "" {
				set.rules = append(set.rules, r)
			}
		}
	}
	problems = append(problems, set.link()...)
	if len(problems) > 0 {
		return Set{}, problems
	}
	return set, nil
}

// link finds where each GOTO goes to: forward, to the rule that has the label.
func (s *Set) link() []error {
	var problems []error
	for i := range s.rules {
		for _, t := range s.rules[i].tokens {
			if t.key != "GOTO" {
				continue
			}
			for j := i + 1; j < len(s.rules); j++ {
				if s.rules[j].label == t.value {
					s.rules[i].jump = j
					break
				}
			}
			if s.rules[i].jump == 0 {
				problems = append(problems, fmt.Errorf("%s: GOTO: no later rule has LABEL=%q", t.where, t.value))
			}
		}
	}
	return problems
}

type line struct {
	number int
	text   string
}

// joined are the lines that are rules, with what a backslash continues.
func joined(text string) []line {
	var out []line
	open := false
	for i, l := range strings.Split(text, "\n") {
		l = strings.TrimRight(l, "\r")
		trimmed := strings.TrimSpace(l)
		switch {
		case strings.HasPrefix(trimmed, "#") && !open, trimmed == "" && !open:
			continue
		case open:
			out[len(out)-1].text += " " + trimmed
		default:
			out = append(out, line{i + 1, trimmed})
		}
		last := &out[len(out)-1]
		open = strings.HasSuffix(last.text, `\`)
		last.text = strings.TrimSuffix(last.text, `\`)
	}
	return out
}

// one is a key with its operator, up to the quote that opens the value.
var one = regexp.MustCompile(`^([A-Z_]+)(?:\{([^}"]*)\})?\s*(==|!=|\+=|-=|:=|=)\s*(i?)"`)

func parseRule(text string, number, lineNumber int) (rule, error) {
	var r rule
	fail := func(token, why string) (rule, error) {
		return rule{}, &Error{number, lineNumber, token, why}
	}
	for rest := strings.TrimLeft(text, " \t,"); rest != ""; rest = strings.TrimLeft(rest, " \t,") {
		m := one.FindStringSubmatch(rest)
		if m == nil {
			return fail(shortened(rest), `want KEY or KEY{name}, an operator, and a value in double quotes`)
		}
		key, arg, op, fold := m[1], m[2], m[3], m[4] == "i"
		value, n, ok := quoted(rest[len(m[0]):])
		if !ok {
			return fail(shortened(rest), "the value's closing quote is missing")
		}
		rest = rest[len(m[0])+n:]
		t := token{key: key, arg: arg, op: op, value: value, where: fmt.Sprintf("rule %d, line %d", number, lineNumber)}
		if why := check(&t, fold); why != "" {
			name := key
			if arg != "" {
				name += "{" + arg + "}"
			}
			return fail(name+op+`"`+shortened(value)+`"`, why)
		}
		if key == "LABEL" {
			r.label = value
			continue
		}
		r.tokens = append(r.tokens, t)
	}
	return r, nil
}

// quoted reads a value up to its closing quote; \" is a quote within.
func quoted(s string) (value string, n int, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), i + 1, true
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
		}
		b.WriteByte(s[i])
	}
	return "", 0, false
}

func shortened(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// check says what is wrong with a token; empty is nothing.
func check(t *token, fold bool) string {
	if why, ok := refused[t.key]; ok {
		return why
	}
	k, known := keys[t.key]
	matches := t.op == "==" || t.op == "!="
	switch {
	case !known:
		return "no such key"
	case k.arg && t.arg == "":
		return "want a name in braces after it"
	case !k.arg && t.arg != "" && t.key != "TEST": // TEST{mode} is allowed, the mode without effect
		return "takes no name in braces"
	case matches && !k.match:
		return "can't be matched, only assigned"
	case !matches && k.assign == "":
		return "can't be assigned, only matched with == or !="
	case !matches && !strings.Contains(" "+k.assign+" ", " "+t.op+" "):
		return "can't be assigned with " + t.op
	case fold && !matches:
		return `i"…" is for matches`
	case strings.Contains(t.arg, ".."), t.key == "TEST" && strings.Contains(t.value, ".."):
		return "leads out of the device's folder"
	}
	if matches {
		t.match = compile(t.value, fold)
		return ""
	}
	return checkAssign(t)
}

var (
	modePattern   = regexp.MustCompile(`^[0-7]{3,4}$`)
	optionPattern = regexp.MustCompile(`^(link_priority=-?\d{1,9}|string_escape=(none|replace)|static_node=.*|(no)?watch|db_persist)$`)
)

func checkAssign(t *token) string {
	switch t.key {
	case "MODE":
		if !strings.ContainsRune(t.value, '$') && !strings.ContainsRune(t.value, '%') && !modePattern.MatchString(t.value) {
			return "want an octal number such as 0660"
		}
	case "OPTIONS":
		if !optionPattern.MatchString(t.value) {
			return "want link_priority=N or string_escape=none|replace"
		}
	case "LABEL", "GOTO":
		if t.value == "" {
			return "want a name"
		}
	}
	if strings.Contains(t.value, "$result") || regexp.MustCompile(`(^|[^%])(%%)*%c`).MatchString(t.value) {
		return "there are no programs on a node whose result it could be"
	}
	return ""
}
