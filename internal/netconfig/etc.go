package netconfig

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/layout"
	"talos/internal/linux/atomicfile"
	"talos/internal/reconcile"
	"talos/internal/resources/files"
	"talos/internal/resources/network"
)

// etcSpecs says what is in /etc/{hostname,hosts,resolv.conf}, and in the
// resolv.conf of pods.
func etcSpecs(o Options) controller.Controller {
	c := &reconcile.Controller{ID: "network.EtcFileController", Log: o.Log}
	c.In = []controller.Input{
		reconcile.Input[*network.HostnameStatus](), reconcile.Input[*network.ResolverStatus](),
		reconcile.Input[*network.NodeAddress](), reconcile.Input[*network.StaticHost](),
		reconcile.Input[*network.HostDNSConfig](), reconcile.Input[*network.DNSResolveCache](),
	}
	c.Shared = []resource.Type{files.EtcFileSpecType}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		var in etcInput
		name, err := get[*network.HostnameStatus](ctx, r, network.NewHostnameStatus(network.HostnameID))
		if err != nil {
			return err
		}
		if name != nil {
			in.hostname = *name
		}
		resolver, err := get[*network.ResolverStatus](ctx, r, network.NewResolverStatus(network.ResolverID))
		if err != nil {
			return err
		}
		if resolver != nil {
			in.resolver = *resolver
		}
		address, err := get[*network.NodeAddress](ctx, r, network.NewNodeAddress(network.NodeAddressDefaultID))
		if err != nil {
			return err
		}
		if address != nil && len(address.Addresses) > 0 {
			in.address = address.Addresses[0].Addr()
		}
		hosts, err := safe.ReaderList[*network.StaticHost](ctx, r, network.NewStaticHost("").Metadata())
		if err != nil {
			return err
		}
		for h := range hosts.All() {
			in.hosts = append(in.hosts, host{h.Metadata().ID(), h.TypedSpec().Addresses})
		}
		if in.nodeDNS, in.podDNS, err = nameServers(ctx, r); err != nil {
			return err
		}
		slices.SortFunc(in.hosts, func(a, b host) int { return strings.Compare(a.name, b.name) })
		want := map[resource.ID]files.EtcFileSpecSpec{
			"hosts":                             {Contents: in.hostsFile(), Mode: 0o644},
			"resolv.conf":                       {Contents: in.resolvConf(in.nodeDNS), Mode: 0o644},
			filepath.Base(layout.PodResolvConf): {Contents: in.resolvConf(in.podDNS), Mode: 0o644},
		}
		if in.hostname.Hostname != "" {
			want["hostname"] = files.EtcFileSpecSpec{Contents: []byte(in.hostname.Hostname + "\n"), Mode: 0o644}
		}
		return reconcile.Output(ctx, r, c.Name(), files.NewEtcFileSpec, want, nil)
	}
	return c
}

// get returns the spec of a resource, nil when there is none.
func get[R reconcile.Resource[S], S any](ctx context.Context, r controller.Reader, which R) (*S, error) {
	res, err := safe.ReaderGet[R](ctx, r, which.Metadata())
	if state.IsNotFoundError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return res.TypedSpec(), nil
}

// nameServers are the addresses of the node's own name server, for the node
// and for its pods, each once it answers there.
func nameServers(ctx context.Context, r controller.Reader) (node, pods netip.Addr, err error) {
	cfg, err := get[*network.HostDNSConfig](ctx, r, network.NewHostDNSConfig(network.HostDNSID))
	if err != nil || cfg == nil || !cfg.Enabled {
		return node, pods, err
	}
	for _, a := range cfg.ListenAddresses {
		answers, err := get[*network.DNSResolveCache](ctx, r, network.NewDNSResolveCache("udp-"+a.String()))
		switch {
		case err != nil:
			return node, pods, err
		case answers == nil:
		case a.Addr() == cfg.ServiceHostDNSAddress:
			pods = a.Addr()
		default:
			node = a.Addr()
		}
	}
	return node, pods, nil
}

type etcInput struct {
	hostname network.HostnameStatusSpec
	resolver network.ResolverStatusSpec
	address  netip.Addr
	hosts    []host
	nodeDNS  netip.Addr // instead of the resolvers; podDNS likewise
	podDNS   netip.Addr
}

type host struct {
	name      string
	addresses []netip.Addr
}

func (in etcInput) fullName() string {
	if in.hostname.Domainname == "" {
		return in.hostname.Hostname
	}
	return in.hostname.Hostname + "." + in.hostname.Domainname
}

// hostsFile is /etc/hosts: the node's own name stands for its address, never
// for a loopback one.
func (in etcInput) hostsFile() []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	if in.address.IsValid() && in.hostname.Hostname != "" {
		names := in.hostname.Hostname
		if full := in.fullName(); full != names {
			names = full + " " + names
		}
		fmt.Fprintf(&b, "%s %s\n", in.address, names)
	}
	for _, h := range in.hosts {
		for _, a := range h.addresses {
			fmt.Fprintf(&b, "%s %s\n", a, h.name)
		}
	}
	return b.Bytes()
}

// maxServers and the six domains are what resolvers read (resolv.conf(5)).
const maxServers, maxDomains = 3, 6

// resolvConf is a resolv.conf with the node's own name server, if there is one.
func (in etcInput) resolvConf(own netip.Addr) []byte {
	var b bytes.Buffer
	servers := in.resolver.DNSServers
	if own.IsValid() {
		servers = []netip.Addr{own}
	}
	for i, s := range servers {
		if i < maxServers {
			fmt.Fprintf(&b, "nameserver %s\n", s)
		}
	}
	domains := in.resolver.SearchDomains
	if len(domains) > maxDomains {
		domains = domains[:maxDomains]
	}
	if len(domains) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(domains, " "))
	}
	return b.Bytes()
}

// writeFile makes path hold contents. The folder is a tmpfs: nothing needs to
// be synced.
func writeFile(path string, contents []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return atomicfile.Update(path, contents, mode)
}

// defaultHostname names the node after its machine-id(5), which lasts as long
// as STATE does, where nobody else gives it a name.
func defaultHostname(o Options) controller.Controller {
	c := &reconcile.Controller{ID: "network.DefaultHostnameController", Log: o.Log}
	c.Shared = []resource.Type{network.HostnameSpecType}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		id, err := os.ReadFile(filepath.Join(o.EtcDir, "machine-id"))
		if err != nil {
			return fmt.Errorf("default host name: %w", err)
		}
		return reconcile.Output(ctx, r, c.Name(), func(id resource.ID) *network.HostnameSpec {
			return network.NewHostnameSpec(network.ConfigNamespace, id)
		}, map[resource.ID]network.HostnameSpecSpec{
			"default/hostname": {Hostname: stableName(strings.TrimSpace(string(id))), Layer: network.LayerDefault},
		}, nil)
	}
	return c
}

// stableName is talos-xxx-xxx, always the same for one identity.
func stableName(identity string) string {
	sum := sha256.Sum256([]byte("hostname " + identity))
	text := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))
	return "talos-" + text[:3] + "-" + text[3:6]
}
