package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

func applyCommand(a *cli.App) *cobra.Command {
	var file, mode string
	var dry bool
	var patches []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "apply-config -f FILE", Aliases: []string{"apply"},
		Short: "Give nodes a new configuration",
		Long: `Give nodes a new configuration (- reads standard input).

Modes: auto reboots only if a changed key needs it, no-reboot refuses such keys,
reboot always reboots, staged waits for the next reboot, try goes back after
--timeout unless the configuration is applied again in another mode.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the configuration")
	cmd.Flags().StringVarP(&mode, "mode", "m", "auto", "auto, no-reboot, reboot, staged or try")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what would change")
	cmd.Flags().StringArrayVarP(&patches, "config-patch", "p", nil, "change the configuration before it is sent: a patch, or @FILE (repeatable)")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "after which mode try goes back")
	format := cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		value, ok := machine.ApplyConfigurationRequest_Mode_value[strings.ToUpper(strings.ReplaceAll(mode, "-", "_"))]
		if !ok {
			return cli.Usage("--mode %q is none of auto, no-reboot, reboot, staged, try", mode)
		}
		data, err := readManifest(a, file, patches)
		if err != nil {
			return err
		}
		request := &machine.ApplyConfigurationRequest{Data: data, Mode: machine.ApplyConfigurationRequest_Mode(value), DryRun: dry}
		if request.Mode == machine.ApplyConfigurationRequest_TRY {
			request.TryModeTimeout = durationpb.New(timeout)
		}
		return apply(cmd.Context(), a, *format, request)
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

func apply(ctx context.Context, a *cli.App, format cli.Format, request *machine.ApplyConfigurationRequest) error {
	answers, failed := cli.Ask(ctx, a, cli.Node, func(ctx context.Context, c *client.Client) (*machine.ApplyConfigurationResponse, error) {
		return c.Machine.ApplyConfiguration(ctx, request)
	})
	printer := cli.NewPrinter(a.Out, format)
	for _, answer := range answers {
		for _, w := range answer.Message.GetWarnings() {
			a.Note("%s: warning: %s", answer.Node, w)
		}
		if format != cli.TableFormat {
			if err := printer.Print(cli.NodeDoc(answer.Node, answer.Message)); err != nil {
				return err
			}
			continue
		}
		dry := ""
		if request.DryRun {
			dry = "dry run, nothing changed: "
		}
		fmt.Fprintf(a.Out, "%s: %s%s\n", answer.Node, dry, strings.TrimSpace(answer.Message.GetModeDetails()))
	}
	return failed
}
