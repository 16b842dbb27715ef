package cluster

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"talos/cmd/talosctl/internal/cli"
	"talos/internal/provision"
)

// followPace is how often a console is looked at for more.
const followPace = 200 * time.Millisecond

func logsCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show a node's console, as text",
		Long: `Show a node's console: what it said since it was made, as text. What a terminal
would be steered by is left out; the file, which "cluster show -o json" names, has
all of it.`,
		Args: cobra.NoArgs,
	}
	name := nameFlag(cmd)
	nodes := nodeFlag(cmd, name, "the node, by name (or what follows the cluster's name in it) or address (required)")
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with what it says from now on")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(*nodes) != 1 {
			return cli.Usage("--node is required, once: whose console to show")
		}
		c, err := provision.Load(*name)
		if err != nil {
			return explain(err, a)
		}
		n, err := c.Node((*nodes)[0])
		if err != nil {
			return err
		}
		return console(cmd.Context(), &plain{to: a.Out}, c.LogFile(n.Name), *follow)
	}
	return cmd
}

// console copies a log file, and what comes to it, also where it is started anew.
func console(ctx context.Context, to io.Writer, path string, follow bool) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("it has not said anything yet")
	}
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	for {
		if _, err := io.Copy(to, f); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPace):
		}
		if next, err := os.Open(path); err == nil {
			if same(f, next) {
				next.Close()
				continue
			}
			f.Close()
			f = next
		}
	}
}

func same(a, b *os.File) bool {
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 != nil || err2 != nil || os.SameFile(x, y)
}

// plain passes text on without what steers a terminal: control characters, and
// the sequences that begin with escape (ECMA-48).
type plain struct {
	to    io.Writer
	state int
}

const (
	inText = iota
	afterEscape
	inSequence // of parameters, up to a letter
	inString   // up to a bell or the next escape
	inLatin    // behind the first byte of U+0080 to U+00BF
)

// latin begins these in UTF-8; those up to U+009F are control characters.
const latin = 0xc2

// Write implements io.Writer.
func (p *plain) Write(data []byte) (int, error) {
	out := make([]byte, 0, len(data)+1)
	for _, b := range data {
		out = p.take(out, b)
	}
	_, err := p.to.Write(out)
	return len(data), err
}

// take adds the next byte where it is text.
func (p *plain) take(out []byte, b byte) []byte {
	switch {
	case b == 0x1b:
		p.state = afterEscape
	case p.state == afterEscape && b == '[':
		p.state = inSequence
	case p.state == afterEscape && (b == ']' || b == 'P' || b == '^' || b == '_' || b == 'X'):
		p.state = inString
	case p.state == afterEscape && b >= 0x30, p.state == inSequence && b >= 0x40, p.state == inString && b == '\a':
		p.state = inText // its last byte
	case p.state == inLatin && (b < 0x80 || b > 0x9f):
		p.state = inText
		return p.take(append(out, latin), b)
	case p.state == inLatin:
		p.state = inText // was a control character of two bytes
	case p.state == inText && b == latin:
		p.state = inLatin
	case p.state == inText && (b == '\n' || b == '\t' || b >= 0x20 && b != 0x7f):
		return append(out, b)
	}
	return out
}
