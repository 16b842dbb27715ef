package install

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"talos/internal/cmdline"
	"talos/internal/hardening"
	"talos/internal/uki"
	"talos/internal/verity"
)

// maxCmdline is what the kernel takes on x86, COMMAND_LINE_SIZE less the byte
// that ends it. It cuts off the rest without a word.
const maxCmdline = 2047

// single are arguments of which there is one: another value takes its place.
// All others, such as console=, are added to those that are there.
var single = []string{"talos.platform", "talos.config", "talos.hostname", "panic"}

// Arguments changes a kernel's command line as machine.install.extraKernelArgs
// asks: each is added, "-name" takes out what has that name, "-name=value" what
// is just that. Which root is started is not to be changed.
func Arguments(line string, extra []string) (string, error) {
	args := strings.Fields(line)
	for _, e := range extra {
		if strings.Join(strings.Fields(e), "") != e || e == "" || strings.Trim(e, "-") == "" {
			return "", fmt.Errorf("kernel argument %q: want one, without spaces", e)
		}
		out, removal := strings.CutPrefix(e, "-")
		name, _, valued := strings.Cut(out, "=")
		if name == verity.Argument {
			return "", fmt.Errorf("kernel argument %q: the root belongs to the kernel image", e)
		}
		args = slices.DeleteFunc(args, func(have string) bool {
			haveName, _, _ := strings.Cut(have, "=")
			switch {
			case removal && valued:
				return have == out
			case removal, slices.Contains(single, name):
				return haveName == name
			}
			return have == e // once is enough
		})
		if !removal {
			args = append(args, e)
		}
	}
	out := strings.Join(args, " ")
	told := cmdline.Parse(out)
	if _, wipes := told.Last(cmdline.WipeArgument); wipes {
		return "", fmt.Errorf("kernel argument %s: it would empty the disk at every start", cmdline.WipeArgument)
	}
	if len(out) > maxCmdline {
		return "", fmt.Errorf("kernel arguments: the command line would have %d bytes, and the kernel takes %d", len(out), maxCmdline)
	}
	if err := hardening.CheckCmdline(told); err != nil && hardening.CheckCmdline(cmdline.Parse(line)) == nil {
		return "", fmt.Errorf("kernel arguments: %w, without which the system does not start", err)
	}
	return out, nil
}

// CheckArguments says whether the system in a folder, an installation's source,
// can be installed with those arguments. It looks no further.
func CheckArguments(dir string, extra []string) error {
	name := filepath.Join(dir, KernelFile)
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	image, err := uki.Open(f, info.Size())
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	line, err := image.Text(uki.CommandLine)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err = Arguments(line, extra)
	return err
}
