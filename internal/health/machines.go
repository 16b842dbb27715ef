package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
)

// Least sizes of a machine: those that `make bench` has one run in, idle. Some of
// the memory is the kernel's before anybody can count it.
const (
	mib               = 1 << 20
	leastControlPlane = (1536 - kernels) * mib
	leastWorker       = (512 - kernels) * mib
	kernels           = 100
	leastDisk         = 6 * 1000 * mib
)

func isEnd(err error) bool { return errors.Is(err, io.EOF) }

// Checks are all of them.
func (c *Cluster) Checks() []Check {
	return []Check{
		{"apid to answer on all nodes", c.onEach(everyNode, answers)},
		{"all nodes to have enough memory", c.onEach(everyNode, enoughMemory)},
		{"all nodes to have enough disk space", c.onEach(everyNode, enoughDisk)},
		{"time to be in sync on all nodes", c.onEach(everyNode, inSync)},
		{"the system's services to be healthy on all nodes", c.onEach(everyNode, services(func(id string) bool { return id != "etcd" && id != "kubelet" }))},
		{"etcd to be healthy on all control plane nodes", c.onEach(controlPlane, services(func(id string) bool { return id == "etcd" }))},
		{"etcd members to be consistent across nodes", c.etcdConsistent},
		{"etcd members to be the control plane nodes", c.etcdMembers},
		{"kubelet to be healthy on all nodes", c.onEach(everyNode, services(func(id string) bool { return id == "kubelet" }))},
		{"all nodes to have reported to Kubernetes", c.onEach(everyNode, c.reported)},
		{"the control plane's static pods to run", c.onEach(controlPlane, c.staticPods)},
		{"the control plane's components to be ready", c.components},
		{"all Kubernetes nodes to be Ready", c.nodesReady},
		{"all nodes to have finished their boot", c.onEach(everyNode, booted)},
		{"no diagnostics on any node", c.onEach(everyNode, noDiagnostics)},
		{"kube-proxy to be ready", c.proxyReady},
		{"coredns to be ready", c.dnsReady},
		{"all Kubernetes nodes to be schedulable", c.schedulable},
		{"all nodes to run the same version", c.sameVersion},
	}
}

func answers(ctx context.Context, n Node) error {
	_, err := n.Machine.Version(ctx, &emptypb.Empty{})
	return err
}

func enoughMemory(ctx context.Context, n Node) error {
	reply, err := n.Machine.Memory(ctx, &emptypb.Empty{})
	if err != nil {
		return err
	}
	least := uint64(leastWorker)
	if n.ControlPlane {
		least = leastControlPlane
	}
	for _, m := range reply.GetMessages() {
		if have := m.GetMeminfo().GetMemtotal() * 1024; have < least {
			return fmt.Errorf("%d MiB of memory, at least %d are needed", have/mib, least/mib)
		}
	}
	return nil
}

func enoughDisk(ctx context.Context, n Node) error {
	reply, err := n.Machine.Mounts(ctx, &emptypb.Empty{})
	if err != nil {
		return err
	}
	for _, m := range reply.GetMessages() {
		for _, s := range m.GetStats() {
			if s.GetMountedOn() == "/var" && s.GetSize() < leastDisk {
				return fmt.Errorf("EPHEMERAL has %d MiB, at least %d are needed", s.GetSize()/mib, leastDisk/mib)
			}
		}
	}
	return nil
}

func inSync(ctx context.Context, n Node) error {
	specs, err := n.list(ctx, "runtime", "TimeStatuses.v1alpha1.talos.dev")
	if err != nil {
		return err
	}
	for _, spec := range specs {
		if strings.Contains(spec, "synced: true") {
			return nil
		}
	}
	return errors.New("time is not in sync")
}

// services wants those that match to run and be healthy.
func services(match func(id string) bool) func(context.Context, Node) error {
	return func(ctx context.Context, n Node) error {
		reply, err := n.Machine.ServiceList(ctx, &emptypb.Empty{})
		if err != nil {
			return err
		}
		found := false
		for _, m := range reply.GetMessages() {
			for _, s := range m.GetServices() {
				if !match(s.GetId()) {
					continue
				}
				found = true
				if err := serviceHealthy(s); err != nil {
					return err
				}
			}
		}
		if !found {
			return errors.New("no such service is known yet")
		}
		return nil
	}
}

func serviceHealthy(s *machine.ServiceInfo) error {
	switch h := s.GetHealth(); {
	case s.GetState() == "Skipped" || s.GetState() == "Finished":
		return nil
	case s.GetState() != "Running":
		reason := ""
		if events := s.GetEvents().GetEvents(); len(events) > 0 && events[len(events)-1].GetMsg() != "" {
			reason = ": " + events[len(events)-1].GetMsg()
		}
		return fmt.Errorf("%s is %s%s", s.GetId(), s.GetState(), reason)
	case h.GetHealthy() || s.GetId() == "machined": // which could not tell if it were not
		return nil
	case h.GetLastMessage() != "":
		return fmt.Errorf("%s is not healthy: %s", s.GetId(), h.GetLastMessage())
	}
	return fmt.Errorf("%s has not been checked yet", s.GetId())
}

// member is a member of etcd's cluster as a node lists it.
type member struct {
	name, id string
	hosts    []string
	learner  bool
}

func etcdMembersOf(ctx context.Context, n Node) ([]member, error) {
	reply, err := n.Machine.EtcdMemberList(n.target(ctx), &machine.EtcdMemberListRequest{})
	if err != nil {
		return nil, err
	}
	var out []member
	for _, m := range reply.GetMessages() {
		for _, e := range m.GetMembers() {
			out = append(out, member{name: e.GetHostname(), id: fmt.Sprintf("%016x", e.GetId()), hosts: hosts(e.GetPeerUrls()), learner: e.GetIsLearner()})
		}
	}
	slices.SortFunc(out, func(a, b member) int { return strings.Compare(a.id, b.id) })
	return out, nil
}

func (c *Cluster) etcdConsistent(ctx context.Context) error {
	nodes, err := c.matching(ctx, controlPlane)
	if err != nil {
		return err
	}
	first := ""
	for i, n := range nodes {
		members, err := etcdMembersOf(ctx, n)
		if err != nil {
			return fmt.Errorf("%s: %s", n.Name, plain(err))
		}
		var list []string
		for _, m := range members {
			if m.name == "" {
				return fmt.Errorf("member %s has not started", m.id)
			}
			list = append(list, m.name+"="+m.id)
		}
		text := strings.Join(list, ", ")
		if i == 0 {
			first = text
		} else if text != first {
			return fmt.Errorf("%s lists %s; %s lists %s", nodes[0].Name, first, n.Name, text)
		}
	}
	return nil
}

// etcdMembers wants every control plane node to be a voting member, and nobody
// else to be one.
func (c *Cluster) etcdMembers(ctx context.Context) error {
	nodes, err := c.matching(ctx, controlPlane)
	if err != nil {
		return err
	}
	members, err := etcdMembersOf(ctx, nodes[0])
	if err != nil {
		return fmt.Errorf("%s: %s", nodes[0].Name, plain(err))
	}
	return compareMembers(members, nodes)
}

func compareMembers(members []member, nodes []Node) error {
	is := func(m member, n Node) bool {
		return m.name == n.Name || slices.ContainsFunc(n.Addresses, func(a string) bool { return slices.Contains(m.hosts, a) })
	}
	for _, n := range nodes {
		i := slices.IndexFunc(members, func(m member) bool { return is(m, n) })
		if i < 0 {
			return fmt.Errorf("%s is no member", n.Name)
		}
		if members[i].learner {
			return fmt.Errorf("%s is still a learner", n.Name)
		}
	}
	for _, m := range members {
		if !slices.ContainsFunc(nodes, func(n Node) bool { return is(m, n) }) {
			return fmt.Errorf("member %s (%s) is none of the control plane nodes %s", m.name, m.id, strings.Join(names(nodes), ", "))
		}
	}
	return nil
}

// booted is what a machine says of itself.
func booted(ctx context.Context, n Node) error {
	var status struct {
		Stage  string `yaml:"stage"`
		Status struct {
			Ready bool `yaml:"ready"`
			Unmet []struct {
				Reason string `yaml:"reason"`
			} `yaml:"unmetConditions"`
		} `yaml:"status"`
	}
	found, err := n.get(ctx, "runtime", "MachineStatuses.runtime.talos.dev", "machine", &status)
	switch {
	case err != nil:
		return err
	case !found:
		return errors.New("the machine has no status yet")
	case len(status.Status.Unmet) > 0:
		return errors.New(status.Status.Unmet[0].Reason)
	case status.Stage != "running":
		return fmt.Errorf("the machine is %s", status.Stage)
	}
	return nil
}

func noDiagnostics(ctx context.Context, n Node) error {
	specs, err := n.list(ctx, "runtime", "Diagnostics.runtime.talos.dev")
	if err != nil {
		return err
	}
	for id, text := range specs {
		return fmt.Errorf("%s: %s", id, strings.Join(strings.Fields(text), " "))
	}
	return nil
}

// sameVersion does not fail: in the middle of an upgrade it is as it should be.
func (c *Cluster) sameVersion(ctx context.Context) error {
	nodes, err := c.matching(ctx, everyNode)
	if err != nil {
		return err
	}
	by := map[string][]string{}
	for _, n := range nodes {
		reply, err := n.Machine.Version(n.target(ctx), &emptypb.Empty{})
		if err != nil {
			return fmt.Errorf("%s: %s", n.Name, plain(err))
		}
		for _, m := range reply.GetMessages() {
			tag := m.GetVersion().GetTag()
			by[tag] = append(by[tag], n.Name)
		}
	}
	if len(by) < 2 {
		return nil
	}
	var list []string
	for tag, on := range by {
		list = append(list, tag+" on "+strings.Join(on, ", "))
	}
	slices.Sort(list)
	return skip(strings.Join(list, "; "))
}
