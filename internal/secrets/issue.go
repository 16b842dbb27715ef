package secrets

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/safe"
	"go.yaml.in/yaml/v3"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/layout"
	"talos/internal/pki"
	"talos/internal/resources/pem"
	"talos/internal/resources/secrets"
)

// roleImpersonator lets a control plane node speak for a caller to other nodes.
const roleImpersonator = "os:impersonator"

var localhost = netip.MustParseAddr("127.0.0.1")

// apiStep issues what apid and trustd serve with.
func (w *worker) apiStep(ctx context.Context, r controller.Runtime, now time.Time) error {
	cfg, err := active.Config(ctx, r)
	if err != nil {
		return err
	}
	if cfg == nil {
		return w.maintenance(ctx, r, now)
	}
	if err := w.endMaintenance(ctx, r); err != nil {
		return err
	}
	cfg, n, err := inputs(ctx, r)
	if err != nil || cfg == nil {
		return err
	}
	if !cfg.IsControlPlane() {
		return w.step(ctx, r, cfg, n, now)
	}
	// Whoever reaches a control plane node does so by the cluster's endpoint too.
	ips, names := split(append([]string{cfg.Endpoint().Hostname()}, cfg.Machine.CertSANs...))
	ips = unique(append(append(ips, n.addresses...), localhost))
	names = append(names, n.hostname, "localhost")
	if access := config.Of(config.Of(cfg.Machine.Features).KubernetesTalosAPIAccess); config.Of(access.Enabled) {
		const service = "talos" // of Kubernetes: package access
		names = append(names, service, service+".default", service+".default.svc", service+".default.svc."+cfg.DNSDomain())
	}
	names = unique(names)
	if err := writeCertSANs(ctx, r, n, ips, names); err != nil {
		return err
	}
	ca, err := authority("machine.ca", cfg.Machine.CA)
	if err != nil {
		return err
	}
	trusted := accepted(cfg.Machine.CA, cfg.Machine.AcceptedCAs)
	server := pki.Template{CommonName: n.hostname, IPs: ips, DNSNames: append(slices.Clone(names), layout.APIName), Server: true, Lifetime: DaemonLifetime}
	client := pki.Template{CommonName: n.hostname, Organization: []string{roleImpersonator}, Client: true, Lifetime: DaemonLifetime}
	if err := safe.WriterModify(ctx, r, secrets.NewApiCertificate(APIID), func(res *secrets.ApiCertificate) error {
		spec := res.TypedSpec()
		spec.AcceptedCAs = trusted
		if spec.Server, err = issue(ca, spec.Server, server, now); err != nil {
			return err
		}
		spec.Client, err = issue(ca, spec.Client, client, now)
		return err
	}); err != nil {
		return err
	}
	server.DNSNames = append(slices.Clone(names), layout.TrustName)
	return safe.WriterModify(ctx, r, secrets.NewTrustdCertificate(TrustdID), func(res *secrets.TrustdCertificate) error {
		spec := res.TypedSpec()
		spec.AcceptedCAs = trusted
		spec.Server, err = issue(ca, spec.Server, server, now)
		return err
	})
}

func writeCertSANs(ctx context.Context, r controller.Runtime, n node, ips []netip.Addr, names []string) error {
	return safe.WriterModify(ctx, r, secrets.NewCertSAN(APIID), func(res *secrets.CertSAN) error {
		*res.TypedSpec() = secrets.CertSANSpec{IPs: ips, DNSNames: names, FQDN: n.hostname}
		return nil
	})
}

// etcdStep issues what etcd serves with, and what speaks to it.
func etcdStep(ctx context.Context, r controller.Runtime, now time.Time) error {
	cfg, n, err := inputs(ctx, r)
	if err != nil || cfg == nil || !cfg.IsControlPlane() {
		return err
	}
	ca, err := authority("cluster.etcd.ca", cfg.Cluster.Etcd.CA)
	if err != nil {
		return err
	}
	ips := append(append([]netip.Addr{}, n.addresses...), localhost)
	names := []string{n.hostname, "localhost"}
	return safe.WriterModify(ctx, r, secrets.NewEtcdSecrets(EtcdID), func(res *secrets.EtcdSecrets) error {
		spec := res.TypedSpec()
		for _, one := range []struct {
			into **pem.CertificateAndKey
			what pki.Template
		}{
			// etcd's gRPC gateway dials its own server, hence the client's use.
			{&spec.Etcd, pki.Template{CommonName: n.hostname, IPs: ips, DNSNames: names, Server: true, Client: true}},
			{&spec.EtcdPeer, pki.Template{CommonName: n.hostname, IPs: ips, DNSNames: names, Server: true, Client: true}},
			{&spec.EtcdAdmin, pki.Template{CommonName: "talos", Client: true}},
			{&spec.EtcdAPIServer, pki.Template{CommonName: "kube-apiserver", Client: true}},
		} {
			one.what.Lifetime = KubeLifetime
			if *one.into, err = issue(ca, *one.into, one.what, now); err != nil {
				return err
			}
		}
		return nil
	})
}

// kubeStep issues the control plane's certificates and kubeconfigs.
func kubeStep(ctx context.Context, r controller.Runtime, now time.Time) error {
	cfg, n, err := inputs(ctx, r)
	if err != nil || cfg == nil || !cfg.IsControlPlane() {
		return err
	}
	root, err := kubeRoot(cfg)
	if err != nil {
		return err
	}
	ca, err := authority("cluster.ca", cfg.Cluster.CA)
	if err != nil {
		return err
	}
	aggregator, err := authority("cluster.aggregatorCA", cfg.Cluster.AggregatorCA)
	if err != nil {
		return err
	}
	server := apiServerTemplate(root, n)
	if err := safe.WriterModify(ctx, r, secrets.NewKubernetesDynamicCerts(KubeCertsID), func(res *secrets.KubernetesDynamicCerts) error {
		spec := res.TypedSpec()
		if spec.APIServer, err = issue(ca, spec.APIServer, server, now); err != nil {
			return err
		}
		// No system:masters: a role binding gives it the kubelet's API and no more.
		kubelet := pki.Template{CommonName: "kube-apiserver-kubelet-client", Client: true, Lifetime: KubeLifetime}
		if spec.APIServerKubeletClient, err = issue(ca, spec.APIServerKubeletClient, kubelet, now); err != nil {
			return err
		}
		front := pki.Template{CommonName: "front-proxy-client", Client: true, Lifetime: KubeLifetime}
		spec.FrontProxy, err = issue(aggregator, spec.FrontProxy, front, now)
		return err
	}); err != nil {
		return err
	}
	return safe.WriterModify(ctx, r, secrets.NewKubernetesSecrets(KubeconfigID), func(res *secrets.KubernetesSecrets) error {
		return kubeconfigs(res.TypedSpec(), ca, root, cfg.AdminKubeconfigLifetime(), now)
	})
}

// apiServerTemplate names all by which the API server is reached.
func apiServerTemplate(root secrets.KubernetesRootSecretsSpec, n node) pki.Template {
	ips, names := split(append([]string{root.Endpoint.Hostname()}, root.CertSANs...))
	ips = append(append(append(ips, n.addresses...), root.APIServerIPs...), localhost)
	names = append(names, n.hostname, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc."+root.DNSDomain)
	return pki.Template{
		CommonName: "kube-apiserver", Organization: []string{"kube-master"}, IPs: unique(ips), DNSNames: unique(names), Server: true, Lifetime: KubeLifetime,
	}
}

// kubeconfigs renews each of the four that needs it.
func kubeconfigs(spec *secrets.KubernetesSecretsSpec, ca *pki.CA, root secrets.KubernetesRootSecretsSpec, admin time.Duration, now time.Time) error {
	local, outside, trusted := root.LocalEndpoint.String(), root.Endpoint.String(), bundle(root.AcceptedCAs)
	for _, one := range []struct {
		into   *string
		server string
		user   string
		what   pki.Template
	}{
		{&spec.SchedulerKubeconfig, local, "kube-scheduler", pki.Template{CommonName: "system:kube-scheduler", Lifetime: KubeLifetime}},
		{&spec.ControllerManagerKubeconfig, local, "kube-controller-manager", pki.Template{CommonName: "system:kube-controller-manager", Lifetime: KubeLifetime}},
		{&spec.LocalhostAdminKubeconfig, local, "admin", pki.Template{CommonName: "talos:admin", Organization: []string{"system:masters"}, Lifetime: KubeLifetime}},
		{&spec.AdminKubeconfig, outside, "admin", pki.Template{CommonName: "admin", Organization: []string{"system:masters"}, Lifetime: admin}},
	} {
		one.what.Client = true
		if keeps(*one.into, one.server, root.Name, trusted, ca, one.what, now) {
			continue
		}
		pair, err := ca.Issue(one.what, now)
		if err != nil {
			return fmt.Errorf("issue certificate %q: %w", one.what.CommonName, err)
		}
		text, err := Kubeconfig(root.Name, one.server, one.user, trusted, pair)
		if err != nil {
			return err
		}
		*one.into = text
	}
	return nil
}

// The part of the kubeconfig format that we write.
type (
	kubeconfig struct {
		APIVersion     string         `yaml:"apiVersion"`
		Kind           string         `yaml:"kind"`
		Clusters       []namedCluster `yaml:"clusters"`
		Users          []namedUser    `yaml:"users"`
		Contexts       []namedContext `yaml:"contexts"`
		CurrentContext string         `yaml:"current-context"`
	}
	namedCluster struct {
		Name    string      `yaml:"name"`
		Cluster kubeCluster `yaml:"cluster"`
	}
	kubeCluster struct {
		Server string `yaml:"server"`
		CA     string `yaml:"certificate-authority-data"`
	}
	namedUser struct {
		Name string   `yaml:"name"`
		User kubeUser `yaml:"user"`
	}
	kubeUser struct {
		Crt string `yaml:"client-certificate-data"`
		Key string `yaml:"client-key-data"`
	}
	namedContext struct {
		Name    string      `yaml:"name"`
		Context kubeContext `yaml:"context"`
	}
	kubeContext struct {
		Cluster   string `yaml:"cluster"`
		Namespace string `yaml:"namespace"`
		User      string `yaml:"user"`
	}
)

// Kubeconfig writes a file for one user of one cluster; user and context are
// called user@cluster.
func Kubeconfig(cluster, server, user string, ca []byte, pair pki.Pair) (string, error) {
	encode := base64.StdEncoding.EncodeToString
	name := user + "@" + cluster
	out, err := yaml.Marshal(kubeconfig{
		APIVersion: "v1", Kind: "Config", CurrentContext: name,
		Clusters: []namedCluster{{Name: cluster, Cluster: kubeCluster{Server: server, CA: encode(ca)}}},
		Users:    []namedUser{{Name: name, User: kubeUser{Crt: encode(pair.Crt), Key: encode(pair.Key)}}},
		Contexts: []namedContext{{Name: name, Context: kubeContext{Cluster: cluster, Namespace: "default", User: name}}},
	})
	return string(out), err
}

// keeps says whether a kubeconfig is still what it should be.
func keeps(text, server, cluster string, trusted []byte, ca *pki.CA, t pki.Template, now time.Time) bool {
	var k kubeconfig
	if yaml.Unmarshal([]byte(text), &k) != nil || len(k.Clusters) != 1 || len(k.Users) != 1 {
		return false
	}
	crt, err1 := base64.StdEncoding.DecodeString(k.Users[0].User.Crt)
	key, err2 := base64.StdEncoding.DecodeString(k.Users[0].User.Key)
	return err1 == nil && err2 == nil && k.Clusters[0].Cluster.Server == server && k.Clusters[0].Name == cluster &&
		k.Clusters[0].Cluster.CA == base64.StdEncoding.EncodeToString(trusted) &&
		ca.Serves(pki.Pair{Crt: crt, Key: key}, t, now)
}
