package networkd

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/internal/networkd/hostdns"
	"talos/internal/reconcile"
	"talos/internal/resources/cluster"
	"talos/internal/resources/network"
)

const dnsPort = 53

// hostDNSController runs the node's name server as HostDNSConfig says, with the
// resolvers as upstreams and the members as names.
func hostDNSController(log *slog.Logger) controller.Controller {
	server := hostdns.New(log)
	var task reconcile.Task
	c := &reconcile.Controller{ID: "network.HostDNSController", Log: log, Ticks: server.Changed(), Close: task.Stop}
	c.In = []controller.Input{
		reconcile.Input[*network.HostDNSConfig](), reconcile.Input[*network.ResolverStatus](), reconcile.Input[*cluster.Member](),
	}
	c.Shared = []resource.Type{network.DNSUpstreamType, network.DNSResolveCacheType}
	c.Step = func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
		cfg, err := reconcile.Get[*network.HostDNSConfig](ctx, r, network.HostDNSID)
		if err != nil {
			return err
		}
		if cfg == nil || !cfg.TypedSpec().Enabled {
			task.Stop()
			server.SetUpstreams(nil)
			return dnsStatus(ctx, r, c.Name(), server)
		}
		spec := *cfg.TypedSpec()
		servers, err := upstreams(ctx, r, spec)
		if err != nil {
			return err
		}
		names, err := memberNames(ctx, r, spec)
		if err != nil {
			return err
		}
		server.SetUpstreams(servers)
		server.SetMembers(names)
		task.Ensure(ctx, log, fmt.Sprint(spec.ListenAddresses), func(ctx context.Context) error { return server.Run(ctx, spec.ListenAddresses) })
		return dnsStatus(ctx, r, c.Name(), server)
	}
	return c
}

// upstreams are the node's resolvers, without ourselves.
func upstreams(ctx context.Context, r controller.Reader, spec network.HostDNSConfigSpec) ([]netip.AddrPort, error) {
	status, err := reconcile.Get[*network.ResolverStatus](ctx, r, network.ResolverID)
	if err != nil || status == nil {
		return nil, err
	}
	ours := map[netip.Addr]bool{}
	for _, a := range spec.ListenAddresses {
		ours[a.Addr()] = true
	}
	var out []netip.AddrPort
	for _, a := range status.TypedSpec().DNSServers {
		if !ours[a] {
			out = append(out, netip.AddrPortFrom(a, dnsPort))
		}
	}
	return out, nil
}

// memberNames are the nodes by name, in full and by its first label.
func memberNames(ctx context.Context, r controller.Reader, spec network.HostDNSConfigSpec) (map[string][]netip.Addr, error) {
	if !spec.ResolveMemberNames {
		return nil, nil
	}
	members, err := reconcile.Specs[*cluster.Member](ctx, r, cluster.NewMember("").Metadata())
	if err != nil {
		return nil, err
	}
	out := map[string][]netip.Addr{}
	for _, m := range members {
		short, _, qualified := strings.Cut(m.Hostname, ".")
		if short == "" || len(m.Addresses) == 0 {
			continue
		}
		out[short] = append(out[short], m.Addresses...)
		if qualified {
			out[m.Hostname] = append(out[m.Hostname], m.Addresses...)
		}
	}
	return out, nil
}

// dnsStatus tells where the server answers and whom it asks.
func dnsStatus(ctx context.Context, r controller.Runtime, owner string, server *hostdns.Server) error {
	asks := map[resource.ID]network.DNSUpstreamSpec{}
	for _, u := range server.Upstreams() {
		asks[u.Addr.Addr().String()] = network.DNSUpstreamSpec{Healthy: u.Healthy, Addr: u.Addr.String()}
	}
	if err := reconcile.Output(ctx, r, owner, network.NewDNSUpstream, asks, nil); err != nil {
		return err
	}
	answers := map[resource.ID]network.DNSResolveCacheSpec{}
	for _, a := range server.Running() {
		for _, protocol := range []string{"udp", "tcp"} {
			answers[protocol+"-"+a.String()] = network.DNSResolveCacheSpec{Status: "running"}
		}
	}
	return reconcile.Output(ctx, r, owner, network.NewDNSResolveCache, answers, nil)
}
