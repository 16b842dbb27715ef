package console

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/cosi-project/runtime/pkg/resource"

	"talos/internal/follow"
	"talos/internal/loop"
	"talos/internal/resources/cluster"
	"talos/internal/resources/config"
	"talos/internal/resources/k8s"
	"talos/internal/resources/network"
	"talos/internal/resources/runtime"
	"talos/internal/service"
	"talos/internal/version"
)

// State is all that consoles show. Everybody who stands before the machine
// reads it: no secret has a field here.
type State struct {
	Version   string
	Stage     runtime.MachineStage
	Ready     bool
	Hostname  string
	Addresses []netip.Addr // the most important first
	Links     []Link
	Type      cluster.MachineType
	Node      *Node // of Kubernetes; nil until it has been seen
	// Fingerprint of the key that the API serves with in maintenance mode; empty
	// otherwise, when clients compare certificates.
	Fingerprint string
	// Unsure says that it is not known whether the machine has a configuration: it
	// serves whoever asks, and takes none.
	Unsure   bool
	Wrong    []Problem
	Activity []string
	Recent   []Line // the last warnings and errors, the newest last
}

// Link is a network card.
type Link struct {
	Name, HardwareAddr string
	Up                 bool // it has a carrier
}

// Node is the machine as Kubernetes sees it.
type Node struct {
	Name            string
	Ready, Cordoned bool
}

// Problem is what is wrong.
type Problem struct{ What, Why string }

// gatherer keeps a State up to date.
type gatherer struct {
	Options
	recent recent

	mu          sync.Mutex // guards the fields below
	machine     runtime.MachineStatusSpec
	hostname    string
	addresses   []netip.Addr
	links       []Link
	kind        cluster.MachineType
	node        *Node
	fingerprint string
	maintenance bool
	diagnostics []Problem
}

func newGatherer(o Options) *gatherer { return &gatherer{Options: o} }

// follow watches until ctx ends.
func (g *gatherer) follow(ctx context.Context) error {
	group, ctx := loop.NewGroup(ctx)
	watch(ctx, g, group, runtime.Namespace, runtime.MachineStatusType, func(all map[resource.ID]*runtime.MachineStatus) {
		g.machine = runtime.MachineStatusSpec{}
		for _, r := range all { // there is one
			g.machine = *r.TypedSpec()
		}
	})
	watch(ctx, g, group, network.Namespace, network.HostnameStatusType, func(all map[resource.ID]*network.HostnameStatus) {
		g.hostname = ""
		if r := all[network.HostnameID]; r != nil {
			g.hostname = r.TypedSpec().Hostname
		}
	})
	watch(ctx, g, group, network.Namespace, network.NodeAddressType, func(all map[resource.ID]*network.NodeAddress) {
		g.addresses = addresses(all[network.NodeAddressDefaultID], all[network.NodeAddressRoutedID])
	})
	watch(ctx, g, group, network.Namespace, network.LinkStatusType, func(all map[resource.ID]*network.LinkStatus) { g.links = links(all) })
	watch(ctx, g, group, config.Namespace, config.MachineTypeType, func(all map[resource.ID]*config.MachineType) {
		g.kind = cluster.TypeUnknown
		if r := all[config.MachineTypeID]; r != nil {
			g.kind = r.TypedSpec().Type
		}
	})
	watch(ctx, g, group, k8s.Namespace, k8s.NodeStatusType, func(all map[resource.ID]*k8s.NodeStatus) {
		g.node = nil
		for _, r := range all { // there is one
			s := r.TypedSpec()
			g.node = &Node{Name: s.Nodename, Ready: s.NodeReady, Cordoned: s.Unschedulable}
		}
	})
	watch(ctx, g, group, runtime.Namespace, runtime.CertificateStatusType, func(all map[resource.ID]*runtime.CertificateStatus) {
		g.fingerprint = ""
		if r := all["apid-server"]; r != nil {
			g.fingerprint = r.TypedSpec().KeyFingerprint
		}
	})
	watch(ctx, g, group, runtime.Namespace, runtime.MaintenanceServiceRequestType, func(all map[resource.ID]*runtime.MaintenanceServiceRequest) {
		g.maintenance = len(all) > 0
	})
	watch(ctx, g, group, runtime.Namespace, runtime.DiagnosticType, func(all map[resource.ID]*runtime.Diagnostic) { g.diagnostics = diagnostics(all) })
	if g.Logs != nil {
		group.Go(func() error { return g.recent.follow(ctx, g.Logs) })
	}
	return group.Wait()
}

// watch calls apply, with g.mu held, with all resources of a type and every
// change.
func watch[R resource.Resource](ctx context.Context, g *gatherer, group *loop.Group, ns resource.Namespace, kind resource.Type, apply func(map[resource.ID]R)) {
	group.Go(func() error {
		follow.Kind(ctx, g.State, g.Log, ns, kind, func(all map[resource.ID]R) {
			g.mu.Lock()
			defer g.mu.Unlock()
			apply(all)
		})
		return nil
	})
}

// state is what is known now.
func (g *gatherer) state() State {
	g.mu.Lock()
	s := State{
		Version: version.Tag, Stage: g.machine.Stage, Ready: g.machine.Status.Ready, Hostname: g.hostname,
		Addresses: slices.Clone(g.addresses), Links: slices.Clone(g.links), Type: g.kind, Node: g.node, Wrong: slices.Clone(g.diagnostics),
	}
	if g.maintenance {
		s.Fingerprint = g.fingerprint
		s.Unsure = slices.ContainsFunc(s.Wrong, func(p Problem) bool { return p.What == runtime.DisksID })
	}
	unmet := g.machine.Status.UnmetConditions
	g.mu.Unlock()
	for _, u := range unmet {
		s.Wrong = append(s.Wrong, Problem{u.Name, g.reason(u)})
	}
	if g.Activity != nil {
		s.Activity = g.Activity()
	}
	s.Recent = g.recent.lines()
	return s
}

// reason is why a condition is not met: of a service, the last that was heard
// of it too.
func (g *gatherer) reason(u runtime.UnmetCondition) string {
	id, _, _ := strings.Cut(u.Reason, " ")
	if u.Name != "services" || g.Services == nil {
		return u.Reason
	}
	status, err := g.Services.Get(id)
	if err != nil {
		return u.Reason
	}
	if last := lastWords(status); last != "" {
		return u.Reason + ": " + last
	}
	return u.Reason
}

func lastWords(s service.Status) string {
	if !s.Health.Unknown && !s.Health.Healthy && s.Health.Message != "" {
		return s.Health.Message
	}
	if len(s.Events) == 0 {
		return ""
	}
	return s.Events[len(s.Events)-1].Message
}

// addresses puts the one that stands for the machine first.
func addresses(lists ...*network.NodeAddress) []netip.Addr {
	var out []netip.Addr
	for _, list := range lists {
		if list == nil {
			continue
		}
		for _, p := range list.TypedSpec().Addresses {
			if !slices.Contains(out, p.Addr()) {
				out = append(out, p.Addr())
			}
		}
	}
	return out
}

// links are those with a card: what is made by software comes of the
// configuration, or of pods.
func links(all map[resource.ID]*network.LinkStatus) []Link {
	var out []Link
	for _, r := range all {
		if s := r.TypedSpec(); s.Kind == "" && s.Type == network.LinkEther {
			out = append(out, Link{r.Metadata().ID(), s.HardwareAddr.String(), s.LinkState})
		}
	}
	slices.SortFunc(out, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func diagnostics(all map[resource.ID]*runtime.Diagnostic) []Problem {
	var out []Problem
	for _, id := range slices.Sorted(maps.Keys(all)) {
		s := all[id].TypedSpec()
		out = append(out, Problem{id, strings.Join(append([]string{s.Message}, s.Details...), ": ")})
	}
	return out
}
