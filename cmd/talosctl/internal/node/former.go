package node

import (
	"github.com/spf13/cobra"

	"talos/cmd/talosctl/internal/cli"
)

// formerCommands are those that people remember: they say what is there instead.
func formerCommands() []*cobra.Command {
	var commands []*cobra.Command
	for _, c := range []struct{ name, now string }{
		{"disks", "`get disks`; on a machine that waits for its first configuration, `get disks --insecure -n ADDRESS`"},
		{"interfaces", "`get links` and `get addresses`"},
		{"routes", "`get routes`"},
	} {
		commands = append(commands, &cobra.Command{
			Use: c.name, Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error { return cli.Usage("%s is now %s", c.name, c.now) },
		})
	}
	return commands
}
