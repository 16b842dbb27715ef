// Package cli is what all commands of talosctl share: global flags, the
// connection to nodes, output in tables, JSON and YAML, progress, exit codes,
// and what to tell a user when something goes wrong.
//
// It knows no single command. An App serves one run of the program.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"talos/client"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitTimeout     = 4
	ExitPartial     = 5 // some nodes failed, others answered
	ExitInterrupted = 130
)

// App is one run of the program.
type App struct {
	Name   string // as it was called: talosctl or osctl
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Getenv func(string) string

	Endpoints, Nodes     []string
	Context, Talosconfig string

	insecure     bool       // to a machine in maintenance mode
	fingerprints []string   // of which it must have one
	started      bool       // the command line was understood
	mu           sync.Mutex // guards what is written to Err, and status
	status       string     // the progress line that stands on the terminal
}

// UsageError is a mistake in the command line.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Usage makes a UsageError.
func Usage(format string, args ...any) error { return &UsageError{Err: fmt.Errorf(format, args...)} }

// PartialError says that some nodes failed; each was reported already.
type PartialError struct{ Failed, All int }

func (e *PartialError) Error() string {
	return fmt.Sprintf("%d of %d nodes failed", e.Failed, e.All)
}

// Silent is an error that was reported already.
type Silent struct{ Err error }

func (e *Silent) Error() string { return e.Err.Error() }
func (e *Silent) Unwrap() error { return e.Err }

// Root makes the command that all others hang below.
func (a *App) Root() *cobra.Command {
	root := &cobra.Command{
		Use:   a.Name,
		Short: "Manage machines that run Talos, and the Kubernetes clusters they form",
		Long: `Manage machines that run Talos, and the Kubernetes clusters they form.

Exit codes: 0 done, 1 failed, 2 wrong usage, 4 timed out, 5 some nodes failed,
130 interrupted. Data goes to standard output, everything else to standard error.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: a.begin,
		Args:              cobra.ArbitraryArgs,
		RunE:              a.noCommand,
	}
	root.SetFlagErrorFunc(flagError)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetIn(a.In)
	f := root.PersistentFlags()
	f.StringSliceVarP(&a.Endpoints, "endpoints", "e", nil, "connect to these instead of the context's endpoints")
	f.StringSliceVarP(&a.Nodes, "nodes", "n", nil, "target nodes, as the endpoints see them (default: the context's nodes, else the first endpoint)")
	f.StringVar(&a.Context, "context", "", "context of the talosconfig to use (default: the current one)")
	f.StringVar(&a.Talosconfig, "talosconfig", "", "talosconfig file (default: $TALOSCONFIG, $XDG_CONFIG_HOME/talos/config.yaml if that variable is set, else ~/.talos/config)")
	return root
}

// flagError leaves out of a flag's error how its value was parsed.
func flagError(_ *cobra.Command, err error) error {
	text, value, found := strings.Cut(err.Error(), ": strconv.")
	if !found {
		return err
	}
	if strings.HasSuffix(value, strconv.ErrRange.Error()) {
		return Usage("%s: out of range", text)
	}
	return Usage("%s: not a number", text)
}

// begin runs before every command, once its arguments are known to be right.
func (a *App) begin(cmd *cobra.Command, _ []string) error {
	for _, f := range []struct {
		flag string
		list []string
	}{{"endpoints", a.Endpoints}, {"nodes", a.Nodes}} {
		// An empty variable of a script must not mean "the first endpoint".
		if cmd.Flags().Changed(f.flag) && (len(f.list) == 0 || slices.Contains(f.list, "")) {
			return Usage("--%s holds an empty name", f.flag)
		}
	}
	if err := a.checkInsecure(); err != nil {
		return err
	}
	a.started = true
	return nil
}

// noCommand answers a call without, or with an unknown, command.
func (a *App) noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	cmd.SuggestionsMinimumDistance = 2
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		text += ", did you mean " + strings.Join(like, " or ") + "?"
	}
	return Usage("%s", text)
}

// Group makes a command that only holds others.
func Group(use, short string, aliases ...string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Aliases: aliases, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return Usage("unknown command %q for %q", args[0], cmd.CommandPath())
		},
	}
}

// Run carries out the command line and answers the exit code.
func (a *App) Run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	plainArguments(root)
	cmd, err := root.ExecuteContextC(ctx)
	a.clear()
	if err == nil {
		return ExitOK
	}
	code := a.exitCode(ctx, err)
	if code == ExitInterrupted { // the user knows
		return code
	}
	var silent *Silent
	if !errors.As(err, &silent) {
		a.Report(err)
	}
	if code == ExitUsage {
		a.Note("usage: %s; see `%s --help`", cmd.UseLine(), cmd.CommandPath())
	}
	return code
}

// plainArguments has all commands say in our words that their arguments are too
// few or too many: cobra calls one that is not wanted an unknown command.
func plainArguments(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err != nil && check(cmd, nil) == nil && strings.HasPrefix(err.Error(), "unknown command") {
				return Usage("%q is too much: %s takes no arguments", args[0], cmd.CommandPath())
			}
			return err
		}
	}
	for _, sub := range c.Commands() {
		plainArguments(sub)
	}
}

func (a *App) exitCode(ctx context.Context, err error) int {
	var (
		usage   *UsageError
		partial *PartialError
		late    *TimeoutError
	)
	switch {
	case errors.As(err, &usage), !a.started:
		return ExitUsage
	case ctx.Err() != nil:
		return ExitInterrupted
	case errors.As(err, &partial):
		return ExitPartial
	case errors.As(err, &late), errors.Is(err, context.DeadlineExceeded), client.KindOf(err) == client.Timeout:
		return ExitTimeout
	}
	return ExitFailed
}

// Report tells an error, and what the user can do about it.
func (a *App) Report(err error) {
	a.clear()
	a.mu.Lock()
	defer a.mu.Unlock()
	label := "error:"
	if Colors(a.Err, a.Getenv) {
		label = "\x1b[31merror:\x1b[0m"
	}
	fmt.Fprintln(a.Err, label, err)
	if hint := a.hint(err); hint != "" {
		fmt.Fprintln(a.Err, "hint:", hint)
	}
}

// Note writes a line for the user that is no data.
func (a *App) Note(format string, args ...any) {
	a.clear()
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Fprintf(a.Err, format+"\n", args...)
}

// Terminal reports whether w is one.
func Terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Colors reports whether w should get colours.
func Colors(w any, getenv func(string) string) bool {
	return Terminal(w) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// Confirm asks the user on the terminal; without one it is a usage error.
func (a *App) Confirm(question string) error {
	if !Terminal(a.In) {
		return Usage("%s say --noconfirm, as there is no terminal to ask on", question)
	}
	a.mu.Lock()
	fmt.Fprintf(a.Err, "%s [y/N] ", question)
	a.mu.Unlock()
	var answer string
	if _, err := fmt.Fscanln(a.In, &answer); err != nil || !strings.HasPrefix(strings.ToLower(answer), "y") {
		return errors.New("not confirmed, nothing changed")
	}
	return nil
}
