package config

import (
	"fmt"
	"slices"
	"strings"
)

// Position is a place in a document; lines and columns count from 1.
type Position struct {
	File         string
	Line, Column int
}

// String gives file:line:col, as editors understand it.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one thing that is wrong with a document.
type Problem struct {
	Position
	Key  string // such as machine.network.interfaces[0].addresses[0]; empty for the document itself
	Got  string // what is there; secrets are not shown
	Want string // what is expected
}

// Error gives it on one line.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Position.String())
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": ")
	switch {
	case p.Got != "" && p.Want != "":
		b.WriteString("got " + p.Got + ", want " + p.Want)
	case p.Want != "":
		b.WriteString("want " + p.Want)
	default:
		b.WriteString(p.Got)
	}
	return b.String()
}

// Problems are all that is wrong with a document, in its order.
type Problems []Problem

// Error gives one line per problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return strings.Join(lines, "\n")
}

func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}

// Warning is something that a document asks for and that is not done.
type Warning struct {
	Position
	Key  string
	Text string
	// InContainers says that it holds for a node in a container only.
	InContainers bool
}

// OnMachine are the warnings that a machine has reason to give.
func OnMachine(warnings []Warning) []Warning {
	return slices.DeleteFunc(slices.Clone(warnings), func(w Warning) bool { return w.InContainers })
}

// String gives it on one line.
func (w Warning) String() string { return fmt.Sprintf("%s: %s: %s", w.Position, w.Key, w.Text) }

// maxShown bounds how much of a wrong value a problem repeats.
const maxShown = 64

// show quotes a value for a problem.
func show(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
