// Package manifest puts into the cluster what makes it one: the bootstrap
// token, the permissions of nodes, kube-proxy, the pod network, the name
// server, and what the configuration adds.
//
// Objects are applied by server-side apply as field manager "talos", each when
// it is missing or when what we want of it changed since it was applied last,
// which a ConfigMap remembers: an edit by somebody else stays until then. It
// deletes nothing. Rendering is pure; the controllers are run by the store's
// runtime on control plane nodes.
package manifest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/kube/controlplane"
	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
	"talos/internal/resources/object"
	"talos/internal/resources/secrets"
)

// Ids of the resources of this package.
const (
	settingsID = resource.ID("manifests")
	extraID    = resource.ID("extra-manifests")
	statusID   = resource.ID("manifests")
)

// Controllers are the controllers of this package. server gives the API for pods
// that share the network of their node, the same on every node.
func Controllers(log *slog.Logger, server func(*config.Config) *url.URL) []controller.Controller {
	return []controller.Controller{settingsController(log, server), renderController(log), applyController(log)}
}

func settingsController(log *slog.Logger, server func(*config.Config) *url.URL) controller.Controller {
	return &reconcile.Controller{
		ID:  "k8s.ManifestConfigController",
		Log: log,
		In:  []controller.Input{active.Input()},
		Out: []resource.Kind{reconcile.Kind[*k8s.BootstrapManifestsConfig](), reconcile.Kind[*k8s.ExtraManifestsConfig]()},
		Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil || !cfg.IsControlPlane() {
				return err
			}
			spec := settings(cfg, server(cfg))
			err = safe.WriterModify(ctx, r, k8s.NewBootstrapManifestsConfig(settingsID), func(c *k8s.BootstrapManifestsConfig) error {
				*c.TypedSpec() = spec
				return nil
			})
			if err != nil {
				return err
			}
			return safe.WriterModify(ctx, r, k8s.NewExtraManifestsConfig(extraID), func(c *k8s.ExtraManifestsConfig) error {
				c.TypedSpec().ExtraManifests = extras(cfg)
				return nil
			})
		},
	}
}

// settings is what the configuration says of the bootstrap manifests. server is
// the API for pods in the network of their node.
func settings(cfg *config.Config, server *url.URL) k8s.BootstrapManifestsConfigSpec {
	c := config.Of(cfg.Cluster)
	cni := config.Of(config.Of(c.Network).CNI)
	proxy, dns := config.Of(c.Proxy), config.Of(c.CoreDNS)
	s := k8s.BootstrapManifestsConfigSpec{
		String:                 server.String(),
		Endpoint:               cfg.Endpoint().String(),
		ClusterDomain:          cfg.DNSDomain(),
		PodCIDRs:               controlplane.Strings(cfg.PodSubnets()),
		ProxyEnabled:           !config.Of(proxy.Disabled),
		ProxyImage:             cfg.ProxyImage(),
		CoreDNSEnabled:         !config.Of(dns.Disabled),
		CoreDNSImage:           cfg.CoreDNSImage(),
		CniName:                cfg.CNIName(),
		FlannelImage:           config.FlannelImage(),
		FlannelExtraArgs:       config.Of(cni.Flannel).ExtraArgs,
		FlannelKubeServiceHost: server.Hostname(),
		FlannelKubeServicePort: server.Port(),
		FlannelBackendType:     "vxlan",
		FlannelBackendPort:     4789,
	}
	s.FlannelEnabled = s.CniName == "flannel"
	features := config.Of(config.Of(cfg.Machine).Features)
	s.TalosAPIServiceEnabled = config.Of(config.Of(features.KubernetesTalosAPIAccess).Enabled)
	dnsHost := config.Of(features.HostDNS)
	s.CoreDNSForwardsToHost = config.Of(dnsHost.Enabled) && config.Of(dnsHost.ForwardKubeDNSToHost)
	s.ProxyConfig = object.Map{Values: proxyConfig(s.PodCIDRs, cfg.ProxyMode())}
	s.ProxyConfigChecksum = checksum(s.ProxyConfig.Values)
	s.ProxyArgs = proxyArgs(proxy.ExtraArgs)
	for _, a := range controlplane.Strings(cfg.DNSServiceIPs()) {
		if isV6(a) {
			s.DNSServiceIPv6 = a
		} else {
			s.DNSServiceIP = a
		}
	}
	return s
}

func isV6(address string) bool {
	for _, c := range address {
		if c == ':' {
			return true
		}
	}
	return false
}

// extras are the manifests that the configuration adds, in the order in which
// they are applied: of a custom pod network, of the cloud provider, the user's.
func extras(cfg *config.Config) []k8s.ExtraManifest {
	c := config.Of(cfg.Cluster)
	var out []k8s.ExtraManifest
	from := func(priority string, urls []string) {
		for i, u := range urls {
			out = append(out, k8s.ExtraManifest{
				Name: fmt.Sprintf("%s-%02d", priority, i), URL: u, Priority: priority, ExtraHeaders: c.ExtraManifestHeaders,
			})
		}
	}
	if cni := config.Of(config.Of(c.Network).CNI); cni.Name == "custom" {
		from("05-cni", cni.URLs)
	}
	if cloud := config.Of(c.ExternalCloudProvider); config.Of(cloud.Enabled) {
		from("30-cloud", cloud.Manifests)
	}
	from("90-extra", c.ExtraManifests)
	for i, m := range c.InlineManifests {
		out = append(out, k8s.ExtraManifest{
			Name: "99-inline-" + strconv.Itoa(i) + "-" + m.Name, Priority: "99-inline", InlineManifest: m.Contents,
		})
	}
	return out
}

func checksum(v any) string {
	data, _ := json.Marshal(v) // plain values always encode; maps in the order of their keys
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

func renderController(log *slog.Logger) controller.Controller {
	var fetched fetcher
	return &reconcile.Controller{
		ID:  "k8s.ManifestController",
		Log: log,
		In: []controller.Input{
			reconcile.Input[*k8s.BootstrapManifestsConfig](),
			reconcile.Input[*k8s.ExtraManifestsConfig](),
			reconcile.Input[*secrets.KubernetesRootSecrets](),
		},
		Out:   []resource.Kind{reconcile.Kind[*k8s.Manifest]()},
		Close: fetched.task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			c, err := reconcile.Get[*k8s.BootstrapManifestsConfig](ctx, r, settingsID)
			if err != nil || c == nil {
				return err
			}
			extra, err := reconcile.Get[*k8s.ExtraManifestsConfig](ctx, r, extraID)
			if err != nil || extra == nil {
				return err
			}
			root, err := reconcile.Get[*secrets.KubernetesRootSecrets](ctx, r, "k8s")
			if err != nil || root == nil {
				return err
			}
			all := Render(*c.TypedSpec(), *root.TypedSpec(), time.Now()) // again at each resync: the token's time
			all = append(all, fetched.manifests(ctx, r, log, extra.TypedSpec().ExtraManifests)...)
			for _, m := range all {
				err := safe.WriterModify(ctx, r, k8s.NewManifest(m.Name), func(res *k8s.Manifest) error {
					res.TypedSpec().Items = items(m.Objects)
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func items(objects []map[string]any) []k8s.SingleManifest {
	var out []k8s.SingleManifest
	for _, o := range objects {
		out = append(out, k8s.SingleManifest{Object: object.Map{Values: o}})
	}
	return out
}
