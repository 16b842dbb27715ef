package cluster

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"talos/cmd/talosctl/internal/cli"
	"talos/internal/provision"
)

func showCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{Use: "show", Short: "Show a cluster and its nodes", Args: cobra.NoArgs}
	name, format := nameFlag(cmd), cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := provision.Load(*name)
		if err != nil {
			return explain(err, a)
		}
		if *format != cli.TableFormat {
			return a.PrintDocs(*format, clusterDoc(cmd.Context(), c))
		}
		t := cli.NewTable(a.Out, "NAME", c.Name)
		vmRows(t, c)
		t.Row("KUBERNETES", c.KubernetesVersion)
		t.Row("ENDPOINT", c.Endpoint)
		t.Row("NETWORK", c.CIDR.String())
		t.Row("GATEWAY", c.Gateway.String())
		t.Row("SUPERVISOR", orDash(c.Status(cmd.Context()).Supervisor))
		t.Row("CREATED", c.Created.Format(time.RFC3339))
		t.Row("FOLDER", c.Dir())
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(a.Out)
		return printNodes(cmd.Context(), a, c)
	}
	return cmd
}

// printNodes is the table of a cluster's nodes.
func printNodes(ctx context.Context, a *cli.App, c *provision.Cluster) error {
	t := cli.NewTable(a.Out, "NAME", "TYPE", "ADDRESS", "STATE", "CPUS", "MEMORY", "USED", "DISKS", "RESTARTS", "ERROR")
	for _, n := range c.Status(ctx).Nodes {
		t.Row(n.Name, n.Type, n.Address.String(), stateOf(n), limit(n.CPUs), mebi(n.Memory), mebi(n.UsedMem), disksOf(n.Node), strconv.Itoa(n.Restarts), n.Error)
	}
	return t.Flush()
}

// stateOf is a node's state and what was done to it on purpose.
func stateOf(n provision.NodeStatus) string {
	switch n.Cut {
	case "":
		return n.State
	case provision.CutBoth:
		return n.State + ", cut off"
	default:
		return n.State + ", cut off one way (" + n.Cut + ")"
	}
}

func orDash(pid int) string {
	if pid == 0 {
		return "not running"
	}
	return "process " + strconv.Itoa(pid)
}

func limit(cpus float64) string {
	if cpus == 0 {
		return "-"
	}
	return strconv.FormatFloat(cpus, 'g', -1, 64)
}

func mebi(bytes int64) string {
	if bytes == 0 {
		return "-"
	}
	return strconv.FormatInt(bytes>>20, 10) + " MiB"
}

func clusterDoc(ctx context.Context, c *provision.Cluster) cli.Doc {
	status := c.Status(ctx)
	nodes := []cli.Doc{}
	for _, n := range status.Nodes {
		doc := cli.Doc{
			{Key: "name", Value: n.Name}, {Key: "type", Value: n.Type}, {Key: "address", Value: n.Address.String()}, {Key: "mac", Value: n.MAC},
			{Key: "state", Value: n.State}, {Key: "cut", Value: n.Cut}, {Key: "pid", Value: n.PID}, {Key: "restarts", Value: n.Restarts}, {Key: "error", Value: n.Error},
			{Key: "cpus", Value: n.CPUs}, {Key: "memory", Value: n.Memory},
			{Key: "usedMemory", Value: n.UsedMem}, {Key: "usedCPUSeconds", Value: n.UsedCPU.Seconds()}, {Key: "log", Value: c.LogFile(n.Name)},
		}
		if c.VM != nil {
			doc = append(doc, cli.Field{Key: "uuid", Value: n.UUID}, cli.Field{Key: "disks", Value: n.Disks})
		}
		nodes = append(nodes, doc)
	}
	out := cli.Doc{
		{Key: "name", Value: c.Name}, {Key: "provisioner", Value: provisioner(c)}, {Key: "kubernetesVersion", Value: c.KubernetesVersion}, {Key: "endpoint", Value: c.Endpoint},
		{Key: "cidr", Value: c.CIDR.String()}, {Key: "gateway", Value: c.Gateway.String()}, {Key: "created", Value: c.Created.Format(time.RFC3339)},
		{Key: "folder", Value: c.Dir()}, {Key: "talosconfig", Value: c.Talosconfig()}, {Key: "kubeconfig", Value: c.Kubeconfig()},
		{Key: "supervisor", Value: status.Supervisor}, {Key: "nodes", Value: nodes},
	}
	if c.VM != nil {
		out = append(out, cli.Field{Key: "vm", Value: vmDoc(c.VM)})
	}
	return out
}

func listCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the clusters on this machine", Args: cobra.NoArgs}
	format := cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		clusters, err := provision.List()
		if err != nil {
			return err
		}
		t := cli.NewTable(a.Out, "NAME", "NODES", "RUNNING", "KUBERNETES", "ENDPOINT", "SUPERVISOR")
		var docs []any
		for _, c := range clusters {
			docs = append(docs, clusterDoc(cmd.Context(), c))
			status, running := c.Status(cmd.Context()), 0
			for _, n := range status.Nodes {
				if n.PID != 0 {
					running++
				}
			}
			t.Row(c.Name, strconv.Itoa(len(c.Nodes)), strconv.Itoa(running), c.KubernetesVersion, c.Endpoint, orDash(status.Supervisor))
		}
		if *format != cli.TableFormat {
			return a.PrintDocs(*format, docs...)
		}
		return t.Flush()
	}
	return cmd
}
