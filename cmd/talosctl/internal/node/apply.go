package node

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"talos/api/configuration"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

func applyCommand(a *cli.App) *cobra.Command {
	var file string
	var patches []string
	ch := &change{a: a}
	cmd := &cobra.Command{
		Use: "apply-config -f FILE", Aliases: []string{"apply"},
		Short: "Give nodes a new configuration",
		Long:  "Give nodes a new configuration (- reads standard input).\n\n" + modesText,
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the configuration")
	cmd.Flags().StringArrayVarP(&patches, "config-patch", "p", nil, "change the configuration before it is sent: a patch, or @FILE (repeatable)")
	ch.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		mode, err := ch.parse()
		if err != nil {
			return err
		}
		data, err := readManifest(a, file, patches)
		if err != nil {
			return err
		}
		return cli.OneByOne(cmd.Context(), a, ch.confirm > 0, func(ctx context.Context, c *client.Client, node string) error {
			return ch.apply(ctx, c, node, ch.request(mode, data, 0))
		})
	}
	return cmd
}

// readManifest reads a configuration and patches it.
func readManifest(a *cli.App, file string, patches []string) ([]byte, error) {
	var data []byte
	var err error
	switch file {
	case "":
		return nil, cli.Usage("--file is required")
	case "-":
		data, err = io.ReadAll(a.In)
	default:
		data, err = os.ReadFile(file)
	}
	if err != nil || len(patches) == 0 {
		return data, err
	}
	return cli.Patch(data, patches)
}

func patchCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("patch", "Change a part of what nodes are told")
	cmd.AddCommand(patchConfigCommand(a))
	return cmd
}

// configNames are the names that the machine configuration goes by.
var configNames = []string{"mc", "machineconfigs"}

func patchConfigCommand(a *cli.App) *cobra.Command {
	var patches, files []string
	ch := &change{a: a}
	cmd := &cobra.Command{
		Use: "machineconfig -p PATCH|@FILE", Aliases: configNames,
		Short: "Change a part of the nodes' configuration",
		Long: `Change a part of the nodes' configuration: each node's own is read, patched and
applied. A patch is a part of the manifest that is merged in, or a JSON patch.
If the configuration of a node changes in between, nothing is changed.

What is patched is the configuration that was applied last, be it staged.

` + modesText,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringArrayVarP(&patches, "patch", "p", nil, "a patch, or @FILE (repeatable)")
	cmd.Flags().StringArrayVar(&files, "patch-file", nil, "a file with a patch (repeatable)")
	ch.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		mode, err := ch.parse()
		if err != nil {
			return err
		}
		for _, f := range files {
			patches = append(patches, "@"+f)
		}
		if len(patches) == 0 {
			return cli.Usage("--patch or --patch-file is required")
		}
		for _, p := range patches { // before anybody is asked
			if _, _, err := cli.ReadPatch(p); err != nil {
				return err
			}
		}
		return cli.OneByOne(cmd.Context(), a, ch.confirm > 0, func(ctx context.Context, c *client.Client, node string) error {
			doc, err := present(ctx, a, c)
			if err != nil {
				return err
			}
			data, err := cli.Patch(doc.GetDocument(), patches)
			if err != nil {
				return err
			}
			return ch.apply(ctx, c, node, ch.request(mode, data, doc.GetNumber()))
		})
	}
	return cmd
}

// present reads the configuration that a new one is made from.
func present(ctx context.Context, a *cli.App, c *client.Client) (*configuration.ConfigurationDocument, error) {
	reply, err := call(ctx, a, func(ctx context.Context) (*configuration.ConfigurationGetResponse, error) {
		return c.Configurations.Get(ctx, &configuration.ConfigurationGetRequest{})
	})
	if err != nil {
		return nil, err
	}
	for _, m := range reply.GetMessages() {
		return m, nil
	}
	return &configuration.ConfigurationDocument{}, nil
}
