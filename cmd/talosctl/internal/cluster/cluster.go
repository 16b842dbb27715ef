// Package cluster holds the commands for clusters on this machine. Package
// provision does the work; here are the flags, what is told, and the entries
// in the user's talosconfig and kubeconfig.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"talos/cmd/talosctl/internal/cli"
	"talos/config"
	"talos/internal/provision"
)

// defaultName is the cluster that is meant when none is named.
const defaultName = "demo"

// Commands makes the commands of this package.
func Commands(a *cli.App) []*cobra.Command {
	cmd := cli.Group("cluster", "Make and keep clusters on this machine")
	cmd.AddCommand(
		createCommand(a), showCommand(a), listCommand(a), logsCommand(a),
		startCommand(a), stopCommand(a), faultCommand(a), destroyCommand(a),
	)
	return []*cobra.Command{cmd, superviseCommand()}
}

// nameFlag gives cmd a flag --name.
func nameFlag(cmd *cobra.Command) *string {
	name := cmd.Flags().String("name", defaultName, "name of the cluster")
	// The flag exists, so this can't go wrong.
	_ = cmd.RegisterFlagCompletionFunc("name", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		clusters, err := provision.List()
		for _, c := range clusters {
			names = append(names, c.Name)
		}
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return name
}

// steps tells each step with the time since the start.
func steps(a *cli.App) func(string) {
	start := time.Now()
	return func(step string) { a.Note("%6.1fs  %s", time.Since(start).Seconds(), step) }
}

// superviseCommand is what create and start run detached.
func superviseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "supervise-cluster NAME", Short: "Keep a cluster's nodes running", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return provision.Supervise(cmd.Context(), args[0]) },
	}
}

func createCommand(a *cli.App) *cobra.Command {
	var (
		o                               = provision.Options{}
		patches, controlPlanes, workers []string
		cidr                            string
		merge                           bool
	)
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a cluster on this machine, and the access to it",
		Long: `Make a cluster on this machine, and the access to it: its contexts are merged
into the talosconfig and the kubeconfig. Needs root. For a cluster that exists
already this starts what does not run, and is otherwise harmless.`,
		Args: cobra.NoArgs,
	}
	name := nameFlag(cmd)
	f := cmd.Flags()
	f.IntVar(&o.ControlPlanes, "controlplanes", 1, "number of control plane nodes")
	f.IntVar(&o.Workers, "workers", 0, "number of workers; with none the control plane nodes take ordinary pods")
	f.StringVar(&o.KubernetesVersion, "kubernetes-version", config.DefaultKubernetesVersion, "version of Kubernetes")
	f.StringArrayVar(&patches, "config-patch", nil, "change all nodes' configurations: a patch, or @FILE (repeatable)")
	f.StringArrayVar(&controlPlanes, "config-patch-control-plane", nil, "change the control plane nodes' configurations (repeatable)")
	f.StringArrayVar(&workers, "config-patch-worker", nil, "change the workers' configurations (repeatable)")
	f.StringVar(&o.Provisioner, "provisioner", provision.Containers, "what nodes are: "+provision.Containers+", or "+provision.VirtualMachines+" for virtual machines")
	f.Float64Var(&o.CPUs, "cpus", 0, "processors per node (default: no limit for containers, 2 for virtual machines)")
	f.Float64Var(&o.WorkerCPUs, "cpus-workers", 0, "processors per worker, where they differ")
	sizeVar(f, &o.Memory, "memory", "memory per node, such as 2GiB (default: no limit for containers, 2GiB and 1GiB for workers for virtual machines)")
	sizeVar(f, &o.WorkerMemory, "memory-workers", "memory per worker, where they differ")
	f.StringVar(&cidr, "cidr", "", "network of the nodes (default: the first free 10.5.N.0/24)")
	f.BoolVar(&o.Wait, "wait", true, "wait until the cluster is healthy")
	f.DurationVar(&o.Timeout, "wait-timeout", 0, fmt.Sprintf("how long to wait (default: %v, for virtual machines %v)", provision.DefaultTimeout, provision.VMTimeout))
	f.BoolVar(&merge, "merge", true, "merge the access into the talosconfig and the kubeconfig")
	f.StringVar(&o.Assets.Rootfs, "rootfs", "", "SquashFS of the nodes (default: beside this program)")
	f.StringVar(&o.Assets.Images, "images", "", "OCI layout with the images (default: beside this program)")
	f.StringVar(&o.Assets.Runc, "runc", "", "runc to use (default: beside this program, or on PATH)")
	vmFlags(cmd, &o)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Name = *name
		err := errors.Join(
			readPatches(patches, &o.ConfigPatches), readPatches(controlPlanes, &o.ControlPlaneConfigPatches), readPatches(workers, &o.WorkerConfigPatches),
			parsePrefix(cidr, &o.CIDR),
		)
		if err != nil {
			return err
		}
		return create(cmd.Context(), a, o, merge)
	}
	return cmd
}

// create makes the cluster. The access is merged even where waiting failed: the
// user needs it to see why.
func create(ctx context.Context, a *cli.App, o provision.Options, merge bool) error {
	c, err := provision.Create(ctx, o, steps(a))
	if err != nil && c == nil {
		return err
	}
	if merge {
		if merr := mergeAccess(a, c); merr != nil {
			return errors.Join(err, merr)
		}
	}
	if err != nil {
		a.Note("the cluster is left as it is, to be looked at: `%s cluster show --name %s`, logs in %s", a.Name, c.Name, c.SupervisorLog())
		return err
	}
	if err := printNodes(ctx, a, c); err != nil {
		return err
	}
	a.Note(`
Try next:%[3]s
  kubectl get nodes -o wide
  %[1]s health
  %[1]s services
  %[1]s cluster destroy --name %[2]s`, a.Name, c.Name, pathHint())
	return nil
}

// pathHint is the line that puts this program and kubectl on the PATH, for
// whom they are not there.
func pathHint() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	dir := filepath.Dir(self)
	for _, name := range []string{filepath.Base(self), "kubectl"} {
		if _, err := exec.LookPath(name); err != nil {
			return "\n  export PATH=" + dir + ":$PATH"
		}
	}
	return ""
}

func readPatches(from []string, to *[][]byte) error {
	for _, p := range from {
		text, _, err := cli.ReadPatch(p)
		if err != nil {
			return err
		}
		*to = append(*to, text)
	}
	return nil
}

func parsePrefix(text string, to *netip.Prefix) error {
	if text == "" {
		return nil
	}
	var err error
	if *to, err = netip.ParsePrefix(text); err != nil {
		return cli.Usage("--cidr %q is not a network such as 10.5.0.0/24", text)
	}
	return nil
}

func destroyCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "destroy",
		Short: "End a cluster and remove all that is of it, with its contexts in the talosconfig and the kubeconfig",
		Args:  cobra.NoArgs,
	}
	name := nameFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		access := readAccess(*name)
		if err := provision.Destroy(cmd.Context(), *name, steps(a)); err != nil {
			return explain(err, a)
		}
		return access.remove(a)
	}
	return cmd
}

// explain adds what the user can do about an error.
func explain(err error, a *cli.App) error {
	if errors.Is(err, provision.ErrNotFound) {
		return fmt.Errorf("%w; `%s cluster list` shows those there are", err, a.Name)
	}
	return err
}
