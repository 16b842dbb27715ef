// Package node looks after this machine's Node object: its name and addresses,
// the labels, annotations and taints that the configuration gives it, and what
// the API says about it and its static pods.
//
// It owns the keys listed in its ownership annotations, takes back the cordon of
// package drain after a start, and leaves every other key of the Node alone. Decisions are pure; the controllers are run by the
// store's runtime.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/kube/controlplane"
	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
	"talos/internal/resources/network"
)

// Ids of the resources of this package.
const (
	NameID = resource.ID("nodename")
	IPID   = controlplane.NodeIPID
)

const (
	roleLabel = "node-role.kubernetes.io/control-plane"
	// keepOutLabel keeps external load balancers from sending to control planes.
	keepOutLabel = "node.kubernetes.io/exclude-from-external-load-balancers"
)

// Options are what the controllers need of their surroundings.
type Options struct {
	Log *slog.Logger
	// Kubeconfig is how this node reaches the API; nil: not yet.
	Kubeconfig func(ctx context.Context, r controller.Reader) ([]byte, error)
	// Boot tells this run of the node from others: a cordon that an earlier one
	// made is taken back once the kubelet runs.
	Boot string
}

// Controllers are the controllers of this package.
func Controllers(o Options) []controller.Controller {
	return []controller.Controller{nameController(o), ipController(o), specController(o), newObjectController(o), newPodController(o)}
}

func nameController(o Options) controller.Controller {
	return &reconcile.Controller{
		ID:  "k8s.NodenameController",
		Log: o.Log,
		In: []controller.Input{
			active.Input(),
			reconcile.Input[*network.HostnameStatus](),
		},
		Out: []resource.Kind{reconcile.Kind[*k8s.Nodename]()},
		Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil {
				return err
			}
			list, err := safe.ReaderListAll[*network.HostnameStatus](ctx, r)
			if err != nil {
				return fmt.Errorf("list host names: %w", err)
			}
			if list.Len() == 0 {
				return nil
			}
			kubelet := config.Of(config.Of(cfg.Machine).Kubelet)
			host := list.Get(0)
			name := Name(*host.TypedSpec(), config.Of(kubelet.RegisterWithFQDN))
			if name == "" {
				return nil
			}
			return safe.WriterModify(ctx, r, k8s.NewNodename(NameID), func(n *k8s.Nodename) error {
				*n.TypedSpec() = k8s.NodenameSpec{
					Nodename:             name,
					HostnameVersion:      host.Metadata().Version().String(),
					SkipNodeRegistration: config.Of(kubelet.SkipNodeRegistration),
				}
				return nil
			})
		},
	}
}

// Name is the Node's name: the host name, with its domain if asked for, in the
// form that Kubernetes takes.
func Name(h network.HostnameStatusSpec, fqdn bool) string {
	name := h.Hostname
	if fqdn && h.Domainname != "" {
		name += "." + h.Domainname
	}
	return strings.Trim(strings.ToLower(strings.ReplaceAll(name, "_", "-")), ".-")
}

// keepIP keeps the address of a node that has lost it: networkd brings it back,
// and meanwhile the control plane's pods, which are rendered with it, must not
// be taken down.
func keepIP(ctx context.Context, r controller.Runtime) error {
	ip, err := reconcile.Get[*k8s.NodeIP](ctx, r, IPID)
	if err != nil || ip == nil {
		return err
	}
	return safe.WriterModify(ctx, r, k8s.NewNodeIP(IPID), func(*k8s.NodeIP) error { return nil })
}

func ipController(o Options) controller.Controller {
	return &reconcile.Controller{
		ID:  "k8s.NodeIPController",
		Log: o.Log,
		In: []controller.Input{
			active.Input(),
			reconcile.Input[*network.NodeAddress](),
		},
		Out: []resource.Kind{reconcile.Kind[*k8s.NodeIP](), reconcile.Kind[*k8s.NodeIPConfig]()},
		Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil {
				return err
			}
			want := ipConfig(cfg)
			err = safe.WriterModify(ctx, r, k8s.NewNodeIPConfig(IPID), func(c *k8s.NodeIPConfig) error {
				*c.TypedSpec() = want
				return nil
			})
			if err != nil {
				return err
			}
			routed, err := reconcile.Get[*network.NodeAddress](ctx, r, "routed")
			if err != nil {
				return err
			}
			if routed == nil {
				return keepIP(ctx, r)
			}
			ips, err := PickIPs(routed.TypedSpec().Addresses, want, cfg.ServiceSubnets())
			if err != nil {
				return err
			}
			if len(ips) == 0 {
				return keepIP(ctx, r)
			}
			return safe.WriterModify(ctx, r, k8s.NewNodeIP(IPID), func(n *k8s.NodeIP) error {
				n.TypedSpec().Addresses = ips
				return nil
			})
		},
	}
}

// ipConfig says which of the node's addresses may be the Node's: those in the
// valid subnets, never those of pods and services. A subnet with "!" before it
// is excluded.
func ipConfig(cfg *config.Config) k8s.NodeIPConfigSpec {
	var spec k8s.NodeIPConfigSpec
	valid := config.Of(config.Of(config.Of(cfg.Machine).Kubelet).NodeIP).ValidSubnets
	for _, s := range valid {
		if out, ok := strings.CutPrefix(s, "!"); ok {
			spec.ExcludeSubnets = append(spec.ExcludeSubnets, out)
		} else {
			spec.ValidSubnets = append(spec.ValidSubnets, s)
		}
	}
	spec.ExcludeSubnets = slices.Concat(spec.ExcludeSubnets, controlplane.Strings(cfg.PodSubnets()), controlplane.Strings(cfg.ServiceSubnets()))
	return spec
}

// PickIPs is the first fitting address of each family that services have, in
// the order of the service subnets.
func PickIPs(have []netip.Prefix, c k8s.NodeIPConfigSpec, services []netip.Prefix) ([]netip.Addr, error) {
	valid, err := prefixes(c.ValidSubnets)
	if err != nil {
		return nil, err
	}
	excluded, err := prefixes(c.ExcludeSubnets)
	if err != nil {
		return nil, err
	}
	fits := func(a netip.Addr) bool {
		return !a.IsLoopback() && !a.IsLinkLocalUnicast() && !within(a, excluded) && (len(valid) == 0 || within(a, valid))
	}
	var out []netip.Addr
	for _, s := range services {
		v6 := s.Addr().Is6()
		for _, p := range have {
			a := p.Addr().Unmap()
			if a.Is6() == v6 && fits(a) && !slices.Contains(out, a) {
				out = append(out, a)
				break
			}
		}
	}
	return out, nil
}

func prefixes(in []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range in {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("subnet of node addresses: %w", err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func within(a netip.Addr, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

func specController(o Options) controller.Controller {
	return &reconcile.Controller{
		ID:  "k8s.NodeSpecController",
		Log: o.Log,
		In:  []controller.Input{active.Input()},
		Out: []resource.Kind{
			reconcile.Kind[*k8s.NodeLabelSpec](), reconcile.Kind[*k8s.NodeAnnotationSpec](), reconcile.Kind[*k8s.NodeTaintSpec](),
		},
		Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil {
				return err
			}
			return writeSpecs(ctx, r, FromConfig(cfg))
		},
	}
}

func writeSpecs(ctx context.Context, w controller.Writer, want Wanted) error {
	for k, v := range want.Labels {
		err := safe.WriterModify(ctx, w, k8s.NewNodeLabelSpec(k), func(s *k8s.NodeLabelSpec) error {
			*s.TypedSpec() = k8s.NodeLabelSpecSpec{Key: k, Value: v}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for k, v := range want.Annotations {
		err := safe.WriterModify(ctx, w, k8s.NewNodeAnnotationSpec(k), func(s *k8s.NodeAnnotationSpec) error {
			*s.TypedSpec() = k8s.NodeAnnotationSpecSpec{Key: k, Value: v}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, t := range want.Taints {
		err := safe.WriterModify(ctx, w, k8s.NewNodeTaintSpec(t.Key), func(s *k8s.NodeTaintSpec) error {
			*s.TypedSpec() = k8s.NodeTaintSpecSpec{Key: t.Key, Value: t.Value, Effect: t.Effect}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
