// Package local holds the commands that need no node, or use one only to make
// a file here: talosconfig, gen, validate, completion.
package local

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"talos/client/talosconfig"
	"talos/cmd/talosctl/internal/cli"
)

// Commands makes the commands of this package. ofNodes are the commands below
// config that are about the nodes' configurations.
func Commands(a *cli.App, ofNodes ...*cobra.Command) []*cobra.Command {
	config := configCommand(a)
	config.AddCommand(ofNodes...)
	return []*cobra.Command{config, genCommand(a), imageCommand(a), machineConfigCommand(a), validateCommand(a), completionCommand(a)}
}

func configCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("config", "Manage the talosconfig (contexts, endpoints, default nodes) and the configurations of nodes")
	cmd.AddCommand(
		addCommand(a), mergeCommand(a), contextCommand(a), contextsCommand(a), endpointCommand(a),
		nodeCommand(a), infoCommand(a), removeCommand(a), newCommand(a),
	)
	return cmd
}

// open reads the talosconfig that the flags choose; empty if there is none yet.
func open(a *cli.App) (*talosconfig.Config, string, error) {
	path, err := talosconfig.Find(a.Talosconfig, a.Getenv)
	if err != nil {
		return nil, "", err
	}
	cfg, err := talosconfig.LoadOrEmpty(path)
	return cfg, path, err
}

// change edits the context that the flags choose and saves the file.
func change(a *cli.App, edit func(name string, ctx *talosconfig.Context) error) error {
	cfg, path, err := open(a)
	if err != nil {
		return err
	}
	ctx, err := cfg.Select(a.Context)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	name := a.Context
	if name == "" {
		name = cfg.Context
	}
	if err := edit(name, ctx); err != nil {
		return err
	}
	return cfg.Save(path)
}

func addCommand(a *cli.App) *cobra.Command {
	var ca, crt, key string
	cmd := &cobra.Command{
		Use:   "add NAME --ca FILE --crt FILE --key FILE [-e ENDPOINT]",
		Short: "Add a context made of PEM files",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, path, err := open(a)
			if err != nil {
				return err
			}
			if _, taken := cfg.Contexts[args[0]]; taken {
				return fmt.Errorf("%s: there is a context %q already", path, args[0])
			}
			ctx, err := fromFiles(ca, crt, key)
			if err != nil {
				return err
			}
			ctx.Endpoints, ctx.Nodes = a.Endpoints, a.Nodes
			cfg.Contexts[args[0]] = ctx
			if cfg.Context == "" {
				cfg.Context = args[0]
			}
			return cfg.Save(path)
		},
	}
	cmd.Flags().StringVar(&ca, "ca", "", "file with the CA's certificate")
	cmd.Flags().StringVar(&crt, "crt", "", "file with the client certificate")
	cmd.Flags().StringVar(&key, "key", "", "file with the client key")
	return cmd
}

func fromFiles(ca, crt, key string) (*talosconfig.Context, error) {
	ctx := &talosconfig.Context{}
	files := []struct {
		flag, path string
		to         *string
	}{{"ca", ca, &ctx.CA}, {"crt", crt, &ctx.Crt}, {"key", key, &ctx.Key}}
	for _, f := range files {
		if f.path == "" {
			return nil, cli.Usage("--%s is required", f.flag)
		}
	}
	for _, f := range files {
		data, err := os.ReadFile(f.path)
		if err != nil {
			return nil, err
		}
		*f.to = talosconfig.Encode(data)
	}
	if _, err := ctx.Authorities(); err != nil {
		return nil, err
	}
	_, err := ctx.Certificate()
	return ctx, err
}

func mergeCommand(a *cli.App) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "merge FILE",
		Short: "Add the contexts of another talosconfig",
		Long: `Add the contexts of another talosconfig (- reads standard input).

A context whose name is taken by a different one is stored as NAME-1, NAME-2 …;
with --force it replaces the one that is there. The current context becomes that
of the merged file.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			other, err := readConfig(a, args[0])
			if err != nil {
				return err
			}
			if len(other.Contexts) == 0 {
				return fmt.Errorf("%s: there is no context in it: is it a talosconfig?", args[0])
			}
			cfg, path, err := open(a)
			if err != nil {
				return err
			}
			if force {
				for name := range other.Contexts {
					delete(cfg.Contexts, name)
				}
			}
			for _, r := range cfg.Merge(other) {
				if r.From != r.To {
					a.Note("context %q exists and differs: stored as %q", r.From, r.To)
				}
			}
			if err := cfg.Save(path); err != nil {
				return err
			}
			a.Note("merged %s into %s, current context %q", args[0], path, cfg.Context)
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace contexts of the same name")
	return cmd
}

func readConfig(a *cli.App, path string) (*talosconfig.Config, error) {
	if path != "-" {
		return talosconfig.Load(path)
	}
	data, err := io.ReadAll(a.In)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return talosconfig.Parse(data)
}

func contextCommand(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use: "context NAME", Aliases: []string{"use-context"},
		Short:             "Choose the current context",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: contextNames(a),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, path, err := open(a)
			if err != nil {
				return err
			}
			if _, err := cfg.Select(args[0]); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			cfg.Context = args[0]
			return cfg.Save(path)
		},
	}
}

// contextNames completes the names of contexts.
func contextNames(a *cli.App) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		cfg, _, err := open(a)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return cfg.Names(), cobra.ShellCompDirectiveNoFileComp
	}
}

func contextsCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{Use: "contexts", Aliases: []string{"get-contexts"}, Short: "List the contexts", Args: cobra.NoArgs}
	format := cli.OutputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		cfg, _, err := open(a)
		if err != nil {
			return err
		}
		table := cli.NewTable(a.Out, "CURRENT", "NAME", "ENDPOINTS", "NODES")
		var docs []any
		for _, name := range cfg.Names() {
			ctx, current := cfg.Contexts[name], ""
			if name == cfg.Context {
				current = "*"
			}
			table.Row(current, name, strings.Join(ctx.Endpoints, ","), strings.Join(ctx.Nodes, ","))
			docs = append(docs, cli.Doc{
				{Key: "name", Value: name}, {Key: "current", Value: current != ""},
				{Key: "endpoints", Value: orEmpty(ctx.Endpoints)}, {Key: "nodes", Value: orEmpty(ctx.Nodes)},
			})
		}
		if *format != cli.TableFormat {
			return a.PrintDocs(*format, docs...)
		}
		return table.Flush()
	}
	return cmd
}

// orEmpty makes an empty list print as one.
func orEmpty(list []string) []string { return append([]string{}, list...) }

func endpointCommand(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use: "endpoint ENDPOINT …", Aliases: []string{"endpoints"},
		Short: "Set the endpoints of the context",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(a, func(_ string, ctx *talosconfig.Context) error { ctx.Endpoints = args; return nil })
		},
	}
}

func nodeCommand(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use: "node [NODE …]", Aliases: []string{"nodes"},
		Short: "Set the default nodes of the context; none clears them",
		RunE: func(_ *cobra.Command, args []string) error {
			return change(a, func(_ string, ctx *talosconfig.Context) error { ctx.Nodes = args; return nil })
		},
	}
}

func infoCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{Use: "info", Short: "Show the context in use", Args: cobra.NoArgs}
	format := cli.OutputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		cfg, path, err := open(a)
		if err != nil {
			return err
		}
		ctx, err := cfg.Select(a.Context)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		name := a.Context
		if name == "" {
			name = cfg.Context
		}
		roles, end := []string{}, ""
		if pair, err := ctx.Certificate(); err != nil {
			return fmt.Errorf("context %q: %w", name, err)
		} else if pair != nil {
			roles, end = orEmpty(pair.Leaf.Subject.Organization), pair.Leaf.NotAfter.UTC().Format(time.RFC3339)
		}
		if *format != cli.TableFormat {
			return a.PrintDocs(*format, cli.Doc{
				{Key: "file", Value: path}, {Key: "context", Value: name},
				{Key: "endpoints", Value: orEmpty(ctx.Endpoints)}, {Key: "nodes", Value: orEmpty(ctx.Nodes)},
				{Key: "roles", Value: roles}, {Key: "certificateExpires", Value: end},
			})
		}
		table := cli.NewTable(a.Out, "File:", path)
		table.Row("Context:", name)
		table.Row("Endpoints:", orNone(ctx.Endpoints))
		table.Row("Nodes:", orNone(ctx.Nodes))
		table.Row("Roles:", orNone(roles))
		table.Row("Certificate expires:", orNone([]string{end}))
		return table.Flush()
	}
	return cmd
}

func orNone(list []string) string {
	if text := strings.Join(list, ", "); text != "" {
		return text
	}
	return "none"
}

func removeCommand(a *cli.App) *cobra.Command {
	var yes, dry bool
	cmd := &cobra.Command{
		Use:               "remove NAME …",
		Short:             "Remove contexts, with their keys",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: contextNames(a),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, path, err := open(a)
			if err != nil {
				return err
			}
			for _, name := range args {
				if _, err := cfg.Select(name); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
			if dry {
				a.Note("would remove %s from %s", strings.Join(args, ", "), path)
				return nil
			}
			if !yes {
				if err := a.Confirm(fmt.Sprintf("remove %s and the keys in it from %s?", strings.Join(args, ", "), path)); err != nil {
					return err
				}
			}
			for _, name := range args {
				delete(cfg.Contexts, name)
			}
			if slices.Contains(args, cfg.Context) {
				cfg.Context = ""
				a.Note("no context is selected now")
			}
			return cfg.Save(path)
		},
	}
	cmd.Flags().BoolVarP(&yes, "noconfirm", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	return cmd
}
