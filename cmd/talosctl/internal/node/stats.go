package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
)

func memoryCommand(a *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "memory", Aliases: []string{"free", "m"},
		Short: "Show the use of memory, in megabytes",
		Args:  cobra.NoArgs,
	}
	format := cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return lister[*machine.Memory, *machine.MemoryResponse]{
			call: func(ctx context.Context, c *client.Client) (*machine.MemoryResponse, error) {
				return c.Machine.Memory(ctx, &emptypb.Empty{})
			},
			head: []string{"NODE", "TOTAL", "USED", "FREE", "SHARED", "BUFFERS", "CACHE", "AVAILABLE"},
			rows: func(node string, m *machine.Memory, row func(...string)) {
				i := m.GetMeminfo()
				free := i.GetMemfree() + i.GetBuffers() + i.GetCached() + i.GetSreclaimable()
				used := max(i.GetMemtotal(), free) - free
				row(node, mega(i.GetMemtotal()), mega(used), mega(i.GetMemfree()), mega(i.GetShmem()),
					mega(i.GetBuffers()), mega(i.GetCached()+i.GetSreclaimable()), mega(i.GetMemavailable()))
			},
		}.run(cmd.Context(), a, *format)
	}
	return cmd
}

// mega turns the kernel's kilobytes into megabytes.
func mega(kilo uint64) string { return strconv.FormatUint(kilo/1024, 10) }

// namespaceFor is where -k looks.
func namespaceFor(kubernetes bool) (string, common.ContainerDriver) {
	if kubernetes {
		return "k8s.io", common.ContainerDriver_CRI
	}
	return "system", common.ContainerDriver_CONTAINERD
}

func containersCommand(a *cli.App) *cobra.Command {
	var kubernetes bool
	cmd := &cobra.Command{
		Use: "containers", Aliases: []string{"c"},
		Short: "List the system's containers, or with -k those of Kubernetes",
		Args:  cobra.NoArgs,
	}
	if a.Name == "osctl" { // as that name knew it
		cmd.Aliases = append(cmd.Aliases, "ps")
	}
	format := cli.OutputFlag(cmd)
	cmd.Flags().BoolVarP(&kubernetes, "kubernetes", "k", false, "those of Kubernetes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		namespace, driver := namespaceFor(kubernetes)
		head := []string{"NODE", "NAMESPACE", "ID", "IMAGE", "PID", "STATUS"}
		if a.Name == "osctl" {
			head = head[1:]
		}
		return lister[*machine.Container, *machine.ContainersResponse]{
			call: func(ctx context.Context, c *client.Client) (*machine.ContainersResponse, error) {
				return c.Machine.Containers(ctx, &machine.ContainersRequest{Namespace: namespace, Driver: driver})
			},
			head: head,
			rows: func(node string, m *machine.Container, row func(...string)) {
				for _, c := range sortContainers(m.GetContainers()) {
					cells := []string{node, c.GetNamespace(), indent(c), c.GetImage(), pid(c.GetPid()), c.GetStatus()}
					row(cells[len(cells)-len(head):]...)
				}
			},
		}.run(cmd.Context(), a, *format)
	}
	return cmd
}

// sortContainers puts each pod's containers below their pod.
func sortContainers(list []*machine.ContainerInfo) []*machine.ContainerInfo {
	return slices.SortedStableFunc(slices.Values(list), func(a, b *machine.ContainerInfo) int {
		return cmp.Or(
			cmp.Compare(a.GetNamespace(), b.GetNamespace()),
			cmp.Compare(podOf(a), podOf(b)),
			cmp.Compare(a.GetId(), b.GetId()),
		)
	})
}

func podOf(c *machine.ContainerInfo) string { return cmp.Or(c.GetPodId(), c.GetId()) }

// indent marks a container of a pod.
func indent(c *machine.ContainerInfo) string {
	if c.GetPodId() != "" && c.GetPodId() != c.GetId() {
		return "└─ " + c.GetId()
	}
	return c.GetId()
}

func pid(n uint32) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(uint64(n), 10)
}

func processesCommand(a *cli.App) *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use: "processes", Aliases: []string{"p"},
		Short: "List the processes",
		Args:  cobra.NoArgs,
	}
	if a.Name != "osctl" {
		cmd.Aliases = append(cmd.Aliases, "ps")
	}
	format := cli.OutputFlag(cmd)
	cmd.Flags().StringVar(&by, "sort", "rss", "rss, cpu or pid")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		order, ok := processOrders[by]
		if !ok {
			return cli.Usage("--sort %q is none of rss, cpu, pid", by)
		}
		return lister[*machine.Process, *machine.ProcessesResponse]{
			call: func(ctx context.Context, c *client.Client) (*machine.ProcessesResponse, error) {
				return c.Machine.Processes(ctx, &emptypb.Empty{})
			},
			head: []string{"NODE", "PID", "STATE", "THREADS", "CPU-TIME", "VIRTMEM", "RESMEM", "COMMAND"},
			rows: func(node string, m *machine.Process, row func(...string)) {
				for _, p := range slices.SortedStableFunc(slices.Values(m.GetProcesses()), order) {
					cpu := time.Duration(p.GetCpuTime() * float64(time.Second)).Round(10 * time.Millisecond)
					row(node, strconv.Itoa(int(p.GetPid())), p.GetState(), strconv.Itoa(int(p.GetThreads())), cpu.String(),
						size(p.GetVirtualMemory()), size(p.GetResidentMemory()), commandOf(p))
				}
			},
		}.run(cmd.Context(), a, *format)
	}
	return cmd
}

var processOrders = map[string]func(a, b *machine.ProcessInfo) int{
	"rss": func(a, b *machine.ProcessInfo) int { return cmp.Compare(b.GetResidentMemory(), a.GetResidentMemory()) },
	"cpu": func(a, b *machine.ProcessInfo) int { return cmp.Compare(b.GetCpuTime(), a.GetCpuTime()) },
	"pid": func(a, b *machine.ProcessInfo) int { return cmp.Compare(a.GetPid(), b.GetPid()) },
}

func commandOf(p *machine.ProcessInfo) string {
	return cmp.Or(p.GetArgs(), p.GetExecutable(), "["+p.GetCommand()+"]")
}

// size shows bytes in the largest unit that leaves a number above one.
func size(bytes uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	value, unit := float64(bytes), 0
	for value >= 1000 && unit < len(units)-1 {
		value, unit = value/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
