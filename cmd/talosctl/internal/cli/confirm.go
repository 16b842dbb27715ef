package cli

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNotConfirmed is the end of a command that the user did not confirm.
var ErrNotConfirmed = errors.New("not confirmed, nothing was done")

// NamedNodes refuses a command that destroys something unless its nodes are on
// the command line: those of the context are too easily forgotten.
func (a *App) NamedNodes(verb string) error {
	if len(a.Nodes) == 0 {
		return Usage("%s needs its nodes on the command line, with -n: those of the context do not count", verb)
	}
	return nil
}

// ConfirmName has the user type one of the names on the terminal, or takes it
// from given, which is what --confirm says. Without either it is a usage error.
func (a *App) ConfirmName(warning, given string, names ...string) error {
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	if given != "" {
		if !slices.Contains(names, given) {
			return Usage("--confirm=%s confirms something else: it takes %s", given, strings.Join(names, " or "))
		}
		return nil
	}
	if !Terminal(a.In) {
		return Usage("%s Where there is no terminal to ask on, --confirm=%s confirms it", warning, names[0])
	}
	a.mu.Lock()
	fmt.Fprintf(a.Err, "%s\nType %s to go on: ", warning, strings.Join(names, " or "))
	a.mu.Unlock()
	// What was typed before an error counts as well.
	line, _ := bufio.NewReader(a.In).ReadString('\n')
	if !slices.Contains(names, strings.TrimSpace(line)) {
		return ErrNotConfirmed
	}
	return nil
}
