package local

import (
	"github.com/spf13/cobra"

	"talos/cmd/talosctl/internal/cli"
)

func machineConfigCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("machineconfig", "Make and change configurations, without a node")
	cmd.Aliases = []string{"mc"}
	gen := genConfigCommand(a)
	gen.Use = "gen NAME ENDPOINT"
	gen.Example = "  " + a.Name + " machineconfig gen demo https://10.5.0.1:6443 -t controlplane -o -"
	cmd.AddCommand(gen, patchCommand(a))
	return cmd
}

func patchCommand(a *cli.App) *cobra.Command {
	var patches []string
	var output string
	cmd := &cobra.Command{
		Use:   "patch FILE",
		Short: "Change a configuration by patches",
		Long: `Change a configuration by patches (- reads standard input).

A patch is a part of a manifest or of documents, which is merged, or a JSON
patch. The result is not checked: validate does that.`,
		Example: "  " + a.Name + " machineconfig patch worker.yaml -p @patch.yaml -o worker-7.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(patches) == 0 {
				return cli.Usage("--patch is required")
			}
			_, data, err := readDocument(a, args[0])
			if err != nil {
				return err
			}
			if data, err = cli.Patch(data, patches); err != nil {
				return err
			}
			return writeOut(a, output, data, true)
		},
	}
	cmd.Flags().StringArrayVarP(&patches, "patch", "p", nil, "a patch, or @FILE (repeatable)")
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write (- is standard output)")
	return cmd
}
