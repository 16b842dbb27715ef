package netconfig

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/reconcile"
	"talos/internal/resources/network"
)

// Addresses of the node's own name server: for the node, and for its pods. The
// latter is the one that users of this system know.
var (
	nodeDNS = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 53}), 53)
	podDNS  = netip.AddrPortFrom(netip.AddrFrom4([4]byte{169, 254, 116, 108}), 53)
)

// featureController hands machine.features on to networkd.
func featureController(o Options) controller.Controller {
	c := &reconcile.Controller{ID: "network.FeatureController", Log: o.Log}
	c.In = []controller.Input{active.Input()}
	c.Out = []resource.Kind{reconcile.Kind[*network.HostDNSConfig](), reconcile.Kind[*network.NodeAddressSortAlgorithm]()}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		cfg, err := active.Config(ctx, r)
		if err != nil || cfg == nil {
			return err
		}
		f := config.Of(config.Of(cfg.Machine).Features)
		if err := reconcile.Put(ctx, r, network.NewHostDNSConfig(network.HostDNSID), hostDNS(cfg)); err != nil {
			return err
		}
		sort := network.NodeAddressSortAlgorithmSpec{}
		if f.NodeAddressSortAlgorithm == network.AddressSortV2.String() {
			sort.Algorithm = network.AddressSortV2
		}
		return reconcile.Put(ctx, r, network.NewNodeAddressSortAlgorithm(network.SortID), sort)
	}
	return c
}

// hostDNS is what the configuration says of the node's name server.
func hostDNS(cfg *config.Config) network.HostDNSConfigSpec {
	if cfg == nil {
		return network.HostDNSConfigSpec{}
	}
	h := config.Of(config.Of(config.Of(cfg.Machine).Features).HostDNS)
	if !config.Of(h.Enabled) {
		return network.HostDNSConfigSpec{}
	}
	s := network.HostDNSConfigSpec{Enabled: true, ListenAddresses: []netip.AddrPort{nodeDNS}, ResolveMemberNames: config.Of(h.ResolveMemberNames)}
	if config.Of(h.ForwardKubeDNSToHost) {
		s.ListenAddresses = append(s.ListenAddresses, podDNS)
		s.ServiceHostDNSAddress = podDNS.Addr()
	}
	return s
}

// podAddress puts the address that pods ask on the loopback link: a packet to
// it reaches the node by any way that leads to the node.
func (out specs) podAddress(link string, s network.HostDNSConfigSpec) {
	a := s.ServiceHostDNSAddress
	if !a.IsValid() {
		return
	}
	p := netip.PrefixFrom(a, a.BitLen())
	out.addresses[configuration+link+"/"+p.String()] = network.AddressSpecSpec{
		Address: p, LinkName: link, Family: familyOf(a), Scope: network.ScopeHost, Layer: network.LayerConfiguration,
	}
}
