package console

import (
	"fmt"
	"slices"
	"strings"

	"talos/internal/version"
)

// Report says in lines what has changed from one state to another, for
// terminals that are read from top to bottom. It leaves out logs, which go
// there by themselves, and counts nothing that stayed.
func Report(old, now State) []string {
	var out []string
	before := told(old)
	for _, line := range told(now) {
		if !slices.Contains(before, line) {
			out = append(out, line)
		}
	}
	for _, w := range old.Wrong {
		if !slices.ContainsFunc(now.Wrong, func(n Problem) bool { return n.What == w.What }) {
			out = append(out, "as it should be again: "+clean(w.What))
		}
	}
	return slices.Compact(out)
}

// told is a state in lines, each of which means something by itself.
func told(s State) []string {
	if s.Version == "" { // nothing was told yet
		return nil
	}
	lines := []string{fmt.Sprintf("%s %s, %s", version.Name, clean(s.Version), stage(s))}
	if s.Hostname != "" {
		lines = append(lines, "host "+clean(s.Hostname))
	}
	if len(s.Addresses) > 0 || len(s.Links) > 0 {
		lines = append(lines, "address "+addressText(s))
	}
	if role := role(s.Type); role != "" {
		lines = append(lines, role+", Kubernetes: "+nodeText(s.Node))
	}
	for _, a := range s.Activity {
		lines = append(lines, clean(a))
	}
	for _, w := range s.Wrong {
		lines = append(lines, "not as it should be: "+problemText(w))
	}
	if s.Fingerprint != "" && len(s.Addresses) > 0 {
		command := strangersCommand(s)
		lines = append(lines, waitsFor(s)+": "+strings.TrimSuffix(command[0], ` \`)+strings.TrimPrefix(command[1], " "))
	}
	return lines
}
