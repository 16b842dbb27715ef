package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"talos/cmd/talosctl/internal/cli"
	"talos/config"
)

// Where a node runs.
var modes = []string{"metal", "cloud", "container"}

func validateCommand(a *cli.App) *cobra.Command {
	var file, mode string
	var strict bool
	cmd := &cobra.Command{
		Use:   "validate -c FILE -m MODE",
		Short: "Check a configuration, and list all that is wrong with it",
		Args:  cobra.NoArgs,
	}
	format := cli.OutputFlag(cmd)
	cmd.Flags().StringVarP(&file, "config", "c", "", "the configuration (- is standard input)")
	cmd.Flags().StringVarP(&mode, "mode", "m", "", "metal, cloud or container: where the node runs")
	cmd.Flags().BoolVar(&strict, "strict", false, "take warnings for errors")
	cmd.RunE = func(*cobra.Command, []string) error {
		if file == "" {
			return cli.Usage("--config is required")
		}
		if mode == "" {
			return cli.Usage("--mode is required: metal, cloud or container")
		}
		if !slices.Contains(modes, mode) {
			return cli.Usage("--mode %q is none of metal, cloud, container", mode)
		}
		name, data, err := readDocument(a, file)
		if err != nil {
			return err
		}
		return check(name, mode, data).print(a, *format, strict)
	}
	return cmd
}

func readDocument(a *cli.App, file string) (string, []byte, error) {
	if file == "-" {
		data, err := io.ReadAll(a.In)
		return "standard input", data, err
	}
	data, err := os.ReadFile(file)
	return file, data, err
}

// verdict is what a check found.
type verdict struct {
	file, mode string
	err        error
	warnings   []string
}

func check(file, mode string, data []byte) verdict {
	cfg, warnings, err := config.Load(file, data)
	v := verdict{file: file, mode: mode, err: err}
	if mode != "container" {
		warnings = config.OnMachine(warnings)
	}
	for _, w := range warnings {
		v.warnings = append(v.warnings, fmt.Sprint(w))
	}
	if err == nil && mode == "metal" && (cfg.Machine.Install == nil || cfg.Machine.Install.Disk == "" && cfg.Machine.Install.DiskSelector == nil) {
		v.warnings = append(v.warnings, file+": machine.install.disk: want the disk to install to; without one a machine that was started from the ISO or the network forgets everything when it goes down")
	}
	return v
}

func (v verdict) print(a *cli.App, format cli.Format, strict bool) error {
	err := v.err
	if err == nil && strict && len(v.warnings) > 0 {
		err = fmt.Errorf("%s: --strict takes warnings for errors (%d)", v.file, len(v.warnings))
	}
	if format != cli.TableFormat {
		if perr := a.PrintDocs(format, v.doc(err == nil)); perr != nil {
			return perr
		}
		if err != nil {
			return &cli.Silent{Err: err}
		}
		return nil
	}
	for _, w := range v.warnings {
		a.Note("warning: %s", w)
	}
	if err == nil {
		fmt.Fprintf(a.Out, "%s is valid for %s mode\n", v.file, v.mode)
	}
	return err
}

func (v verdict) doc(valid bool) cli.Doc {
	problems := []cli.Doc{}
	var list config.Problems
	if errors.As(v.err, &list) {
		for _, p := range list {
			problems = append(problems, cli.Doc{
				{Key: "line", Value: p.Line}, {Key: "column", Value: p.Column}, {Key: "key", Value: p.Key},
				{Key: "got", Value: p.Got}, {Key: "want", Value: p.Want},
			})
		}
	}
	return cli.Doc{
		{Key: "file", Value: v.file}, {Key: "mode", Value: v.mode}, {Key: "valid", Value: valid},
		{Key: "problems", Value: problems}, {Key: "warnings", Value: orEmpty(v.warnings)},
	}
}
