package cli

import (
	"context"
	"slices"
	"strings"

	"talos/client"
)

// OneByOne runs fn for the target nodes one after the other. A node that fails
// is reported; with stop it is the last one, and the rest is named.
func OneByOne(ctx context.Context, a *App, stop bool, fn func(ctx context.Context, c *client.Client, node string) error) error {
	c, err := a.Connect(ctx, Node)
	if err != nil {
		return err
	}
	defer c.Close()
	nodes := c.Nodes()
	if len(nodes) == 0 {
		return fn(ctx, c, c.Endpoints()[0])
	}
	var failed []error
	for i, node := range nodes {
		err := fn(client.WithNode(ctx, node), c, node)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return err
		}
		if failed = append(failed, err); len(nodes) > 1 {
			a.Report(err)
		}
		if rest := nodes[i+1:]; stop && len(rest) > 0 {
			a.Note("left as they are: %s", strings.Join(rest, ", "))
			failed = append(failed, slices.Repeat([]error{err}, len(rest))...)
			break
		}
	}
	return verdict(failed, len(nodes))
}

// Difference shows the lines of a difference, in colours on a terminal.
func (a *App) Difference(diff string) string {
	if !Colors(a.Out, a.Getenv) {
		return diff
	}
	var out strings.Builder
	for line := range strings.Lines(diff) {
		text := strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(text, "+"):
			text = "\x1b[32m" + text + "\x1b[0m"
		case strings.HasPrefix(text, "-"):
			text = "\x1b[31m" + text + "\x1b[0m"
		}
		out.WriteString(text + "\n")
	}
	return out.String()
}
