package node

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

func editCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("edit", "Change what nodes are told in an editor")
	cmd.AddCommand(editConfigCommand(a))
	return cmd
}

func editConfigCommand(a *cli.App) *cobra.Command {
	ch := &change{a: a}
	cmd := &cobra.Command{
		Use: "machineconfig", Aliases: configNames,
		Short: "Change the nodes' configuration in an editor",
		Long: `Change the nodes' configuration in an editor, $VISUAL or $EDITOR, else vi. What the
node refuses is shown at the top of the file, to go on. Nothing changes when the
file is left as it is, or empty, or when the node's configuration has changed in
between. The file holds keys; only you can read it, and it is removed.

` + modesText,
		Args: cobra.NoArgs,
	}
	ch.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		mode, err := ch.parse()
		if err != nil {
			return err
		}
		return cli.OneByOne(cmd.Context(), a, ch.confirm > 0, func(ctx context.Context, c *client.Client, node string) error {
			doc, err := present(ctx, a, c)
			if err != nil {
				return err
			}
			e := &edit{change: ch, node: node, original: doc.GetDocument(), send: func(data []byte) error {
				return ch.apply(ctx, c, node, ch.request(mode, data, doc.GetNumber()))
			}}
			return e.run(ctx)
		})
	}
	return cmd
}

// edit is the way of one node's configuration through an editor.
type edit struct {
	*change
	node     string
	original []byte
	send     func(data []byte) error

	path string
}

// ours marks the lines that we put at the top and take away again.
const ours = "#| "

func (e *edit) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "talosctl-edit-") // nobody else may look into it
	if err != nil {
		return err
	}
	e.path = filepath.Join(dir, "machineconfig.yaml")
	lost, err := e.rounds(ctx)
	if err != nil && lost {
		return fmt.Errorf("%w\nwhat you wrote is in %s: it holds keys, remove it when you need it no more", err, e.path)
	}
	return cmp.Or(err, os.RemoveAll(dir))
}

// rounds edits until the node takes it or the user gives up; lost says whether
// there is something that the user wrote.
func (e *edit) rounds(ctx context.Context) (lost bool, err error) {
	data, notes := e.original, []string{"The configuration of " + e.node + ". Lines that begin like this one are taken away."}
	var refused error
	for {
		written, err := e.open(ctx, data, notes)
		switch {
		case err != nil:
			return refused != nil, err
		case refused != nil && (bytes.Equal(written, data) || empty(written)):
			return !empty(written), refused
		case bytes.Equal(written, e.original), empty(written):
			e.a.Note("%s: nothing changed", e.node)
			return false, nil
		}
		refused = e.send(written)
		if refused == nil {
			return false, nil
		}
		code := status.Code(refused)
		if code != codes.InvalidArgument && (code != codes.FailedPrecondition || e.force) {
			return true, refused
		}
		data, notes = written, append(strings.Split(refused.Error(), "\n"), "Change it and save it to try again; leave it as it is to give up.")
	}
}

func empty(data []byte) bool { return len(bytes.TrimSpace(data)) == 0 }

// open shows a document with notes above it, and reads what became of it.
func (e *edit) open(ctx context.Context, data []byte, notes []string) ([]byte, error) {
	var text bytes.Buffer
	for _, note := range notes {
		text.WriteString(ours + moved(note, len(notes)) + "\n")
	}
	text.Write(data)
	if err := os.WriteFile(e.path, text.Bytes(), 0o600); err != nil {
		return nil, err
	}
	if err := e.editor(ctx); err != nil {
		return nil, err
	}
	written, err := os.ReadFile(e.path)
	if err != nil {
		return nil, err
	}
	var kept []byte
	for line := range bytes.Lines(written) {
		if !bytes.HasPrefix(line, []byte(strings.TrimSpace(ours))) {
			kept = append(kept, line...)
		}
	}
	return kept, nil
}

var place = regexp.MustCompile(`configuration:(\d+):`)

// moved corrects the lines that a problem names by those above the document.
func moved(note string, by int) string {
	return place.ReplaceAllStringFunc(note, func(s string) string {
		n, err := strconv.Atoi(place.FindStringSubmatch(s)[1])
		if err != nil {
			return s
		}
		return fmt.Sprintf("line %d:", n+by)
	})
}

// editor runs the user's editor, which may have arguments.
func (e *edit) editor(ctx context.Context) error {
	program := cmp.Or(e.a.Getenv("VISUAL"), e.a.Getenv("EDITOR"), "vi")
	cmd := exec.CommandContext(ctx, "sh", "-c", program+` "$0"`, e.path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.a.In, e.a.Out, e.a.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("editor %q: %w", program, err)
	}
	return nil
}
