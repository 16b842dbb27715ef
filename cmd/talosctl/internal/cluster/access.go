package cluster

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"talos/client/talosconfig"
	"talos/cmd/talosctl/internal/cli"
	"talos/cmd/talosctl/internal/kubeconfig"
	"talos/cmd/talosctl/internal/node"
	"talos/internal/provision"
)

// mergeAccess adds a cluster's contexts to the user's files.
func mergeAccess(a *cli.App, c *provision.Cluster) error {
	if err := mergeTalosconfig(a, c); err != nil {
		return err
	}
	data, err := os.ReadFile(c.Kubeconfig())
	if err != nil {
		return err
	}
	return node.MergeKubeconfig(a, data, "", "", false)
}

func mergeTalosconfig(a *cli.App, c *provision.Cluster) error {
	path, err := talosconfig.Find(a.Talosconfig, a.Getenv)
	if err != nil {
		return err
	}
	in, err := talosconfig.Load(c.Talosconfig())
	if err != nil {
		return err
	}
	have, err := talosconfig.LoadOrEmpty(path)
	if err != nil {
		return err
	}
	for _, r := range have.Merge(in) {
		if r.From != r.To {
			a.Note("%s has another context %q: stored as %q", path, r.From, r.To)
		}
	}
	if err := have.Save(path); err != nil {
		return err
	}
	a.Note("merged the talosconfig into %s, current context %q", path, have.Context)
	return nil
}

// access is how a cluster is recognised in the user's files: by its CAs, so
// that a cluster of the same name elsewhere is left alone.
type access struct {
	ca   string // of the nodes' API, as a talosconfig holds it
	kube []kubeconfig.Cluster
}

// readAccess reads what mergeAccess merged. Of a cluster that is half gone it
// reads what there is.
func readAccess(name string) access {
	var out access
	c, err := provision.Load(name)
	if err != nil {
		return out
	}
	if cfg, err := talosconfig.Load(c.Talosconfig()); err == nil {
		if ctx, err := cfg.Select(""); err == nil {
			out.ca = ctx.CA
		}
	}
	if cfg, err := kubeconfig.Load(c.Kubeconfig()); err == nil {
		out.kube = cfg.Clusters
	}
	return out
}

// remove takes the cluster's contexts out of the user's files.
func (x access) remove(a *cli.App) error {
	return errors.Join(x.removeTalosconfig(a), x.removeKubeconfig(a))
}

func (x access) removeTalosconfig(a *cli.App) error {
	path, err := talosconfig.Find(a.Talosconfig, a.Getenv)
	if err != nil || x.ca == "" {
		return err
	}
	cfg, err := talosconfig.LoadOrEmpty(path)
	if err != nil {
		return err
	}
	var removed []string
	for _, name := range cfg.Names() {
		if cfg.Contexts[name].CA == x.ca {
			removed = append(removed, name)
			delete(cfg.Contexts, name)
		}
	}
	return saveWithout(a, path, removed, func() error {
		if _, ok := cfg.Contexts[cfg.Context]; !ok {
			cfg.Context = ""
		}
		if cfg.Context == "" && len(cfg.Contexts) > 0 {
			a.Note("no context is current in %s now: choose one with `%s config context NAME`", path, a.Name)
		}
		return cfg.Save(path)
	})
}

func (x access) removeKubeconfig(a *cli.App) error {
	path, err := kubeconfig.DefaultPath(a.Getenv)
	if err != nil {
		return err
	}
	cfg, err := kubeconfig.Load(path)
	if err != nil {
		return err
	}
	var removed []string
	for _, c := range x.kube {
		removed = append(removed, cfg.Remove(c)...)
	}
	return saveWithout(a, path, removed, func() error {
		if cfg.CurrentContext == "" && len(cfg.Contexts) > 0 {
			a.Note("no context is current in %s now: choose one with `kubectl config use-context NAME`", path)
		}
		return cfg.Save(path)
	})
}

// saveWithout saves a file from which something was removed.
func saveWithout(a *cli.App, path string, removed []string, save func() error) error {
	if len(removed) == 0 {
		return nil
	}
	if err := save(); err != nil {
		return fmt.Errorf("remove %s: %w", strings.Join(removed, ", "), err)
	}
	a.Note("removed %s from %s", strings.Join(removed, ", "), path)
	return nil
}
