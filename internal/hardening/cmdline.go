package hardening

import (
	"fmt"
	"slices"
	"strings"

	"talos/internal/cmdline"
)

// An Arg is a kernel argument without which machined does not boot.
type Arg struct {
	Name  string // as it is before "="
	Value string // "" for one that has none
	Why   string
	// Opposites undo it when they come later.
	Opposites []string
}

// String returns it as it is on a command line.
func (a Arg) String() string {
	if a.Value == "" {
		return a.Name
	}
	return a.Name + "=" + a.Value
}

// Args returns the kernel arguments that are enforced. They are on the command
// line of every image; a missing one means that somebody has edited it.
func Args() []Arg {
	return []Arg{
		{Name: "slab_nomerge", Opposites: []string{"slab_merge", "slub_merge"},
			Why: "objects of different types never share memory, so one that was freed is not reused as another"},
		{Name: "pti", Value: "on", Opposites: []string{"nopti"},
			Why: "the kernel's memory is not mapped while a program runs, on every processor, also on those that say they don't need it"},
		{Name: "init_on_alloc", Value: "1",
			Why: "memory that is given out holds nothing of who had it before"},
		{Name: "proc_mem.force_override", Value: "never",
			Why: "nobody writes to another program's read-only memory"},
	}
}

// mitigations=off takes back pti=on and more, wherever it stands.
var mitigations = Arg{Name: "mitigations", Value: "off"}

// CheckCmdline returns an error that names every enforced argument that
// a command line does not have, or takes back.
func CheckCmdline(line cmdline.Line) error {
	var missing []string
	for _, arg := range Args() {
		if !arg.on(line) {
			missing = append(missing, arg.String())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the kernel command line lacks %s", strings.Join(missing, ", "))
	}
	if mitigations.on(line) {
		return fmt.Errorf("the kernel command line has %s, which takes back what protects from faults of processors", mitigations)
	}
	return nil
}

// on says whether the last word about a is a itself.
func (a Arg) on(line cmdline.Line) bool {
	on := false
	for _, said := range line.Args {
		switch {
		case said.Is(a.Name):
			on = said.Value == a.Value
		case slices.ContainsFunc(a.Opposites, said.Is):
			on = false
		}
	}
	return on
}
