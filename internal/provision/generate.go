package provision

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"talos/client/talosconfig"
	"talos/config"
	"talos/internal/linux/atomicfile"
	"talos/internal/pki"
)

// adminLifetime is how long the certificates in talosconfig and kubeconfig are valid.
const adminLifetime = pki.YearLifetime

// mirrored are the registries that the supervisor stands in for.
var mirrored = []string{"registry.k8s.io", "registry.talos.dev", "ghcr.io"}

// generate makes the cluster's secrets and writes all files that hold them:
// the configurations of the nodes, and the two with which a user gets in.
func (c *Cluster) generate(o Options) error {
	now := time.Now()
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		return err
	}
	data, err := secrets.Bytes()
	if err != nil {
		return err
	}
	if err := atomicfile.Save(c.dirs.secrets(), data, 0o600); err != nil {
		return err
	}
	registryCA, err := c.registryCertificate(now)
	if err != nil {
		return err
	}
	bundle, err := config.Generate(c.input(secrets, registryCA))
	if err != nil {
		return err
	}
	if err := c.writeTalosconfig(bundle.Client); err != nil {
		return err
	}
	if err := c.writeKubeconfig(secrets, now); err != nil {
		return err
	}
	return c.writeConfigs(o, bundle)
}

func (c *Cluster) input(secrets *config.Secrets, registryCA []byte) config.Input {
	registry := netip.AddrPortFrom(c.Gateway, RegistryPort).String()
	in := config.Input{
		ClusterName:       c.Name,
		Endpoint:          c.Endpoint,
		Secrets:           secrets,
		KubernetesVersion: c.KubernetesVersion,
		RegistryMirrors:   map[string]config.RegistryMirror{},
		RegistryConfig:    map[string]config.Registry{registry: {TLS: &config.RegistryTLS{CA: registryCA}}},
		Schedulable:       len(c.controlPlanes()) == len(c.Nodes),
		InstallDisk:       c.backend().install(c),
	}
	for _, n := range c.controlPlanes() {
		in.Endpoints = append(in.Endpoints, n.Address.String())
	}
	for _, host := range mirrored {
		in.RegistryMirrors[host] = config.RegistryMirror{Endpoints: []string{"https://" + registry}}
	}
	return in
}

// registryCertificate makes the registry's key and certificate under an
// authority whose key is thrown away, and returns the authority.
func (c *Cluster) registryCertificate(now time.Time) ([]byte, error) {
	pair, err := pki.NewCA(pki.ECDSAP256, pki.Subject{CommonName: c.Name + " image registry"}, now)
	if err != nil {
		return nil, err
	}
	ca, err := pki.ParseCA(pair.Crt, pair.Key)
	if err != nil {
		return nil, err
	}
	server, err := ca.Issue(pki.Template{CommonName: "registry", IPs: []netip.Addr{c.Gateway}, Server: true, Lifetime: pki.CALifetime}, now)
	if err != nil {
		return nil, err
	}
	return pair.Crt, errors.Join(
		atomicfile.Save(c.dirs.registryCA(), pair.Crt, 0o644),
		atomicfile.Save(c.dirs.registryCert(), server.Crt, 0o644),
		atomicfile.Save(c.dirs.registryKey(), server.Key, 0o600),
	)
}

func (c *Cluster) writeTalosconfig(client config.Client) error {
	t := &talosconfig.Config{Context: c.Name, Contexts: map[string]*talosconfig.Context{c.Name: {
		Endpoints: client.Endpoints,
		CA:        talosconfig.Encode(client.CA),
		Crt:       talosconfig.Encode(client.Crt),
		Key:       talosconfig.Encode(client.Key),
	}}}
	return t.Save(c.dirs.talosconfig())
}

func (c *Cluster) writeKubeconfig(secrets *config.Secrets, now time.Time) error {
	ca, err := pki.ParseCA(secrets.Certs.K8s.Crt, secrets.Certs.K8s.Key)
	if err != nil {
		return err
	}
	admin, err := ca.Issue(pki.Template{CommonName: "admin", Organization: []string{"system:masters"}, Client: true, Lifetime: adminLifetime}, now)
	if err != nil {
		return err
	}
	return atomicfile.Save(c.dirs.kubeconfig(), kubeconfig(c.Name, c.Endpoint, secrets.Certs.K8s.Crt, admin), 0o600)
}

func kubeconfig(cluster, endpoint string, ca []byte, admin pki.Pair) []byte {
	user := "admin@" + cluster
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
    - name: %[1]s
      cluster:
        server: %[2]s
        certificate-authority-data: %[3]s
users:
    - name: %[4]s
      user:
        client-certificate-data: %[5]s
        client-key-data: %[6]s
contexts:
    - name: %[4]s
      context:
        cluster: %[1]s
        user: %[4]s
current-context: %[4]s
`, cluster, endpoint, talosconfig.Encode(ca), user, talosconfig.Encode(admin.Crt), talosconfig.Encode(admin.Key))
}

// writeConfigs gives every node its configuration and its name.
func (c *Cluster) writeConfigs(o Options, bundle *config.Bundle) error {
	for kind, base := range map[string]*config.Config{ControlPlane: bundle.ControlPlane, Worker: bundle.Worker} {
		own := o.ControlPlaneConfigPatches
		if kind == Worker {
			own = o.WorkerConfigPatches
		}
		doc, err := patch(kind, base, append(append([][]byte(nil), o.ConfigPatches...), own...))
		if err != nil {
			return err
		}
		loaded, _, err := config.Load(kind+" configuration", doc)
		if err != nil {
			return err
		}
		if kind == ControlPlane {
			c.CoreDNS = !coreDNSDisabled(loaded)
		}
		for _, n := range c.Nodes {
			if n.Type != kind {
				continue
			}
			if err := c.runner(n).Configure(n.Name, doc); err != nil {
				return err
			}
		}
	}
	return nil
}

func patch(kind string, base *config.Config, texts [][]byte) ([]byte, error) {
	doc, err := base.Bytes()
	if err != nil {
		return nil, err
	}
	var patches []config.Patch
	for i, text := range texts {
		p, err := config.LoadPatch(text)
		if err != nil {
			return nil, fmt.Errorf("config patch %d: %w", i+1, err)
		}
		patches = append(patches, p)
	}
	if len(patches) == 0 {
		return doc, nil
	}
	doc, err = config.ApplyPatches(doc, patches)
	if err != nil {
		return nil, fmt.Errorf("patch %s configuration: %w", kind, err)
	}
	return doc, nil
}

func coreDNSDisabled(c *config.Config) bool {
	return c.Cluster != nil && c.Cluster.CoreDNS != nil && c.Cluster.CoreDNS.Disabled != nil && *c.Cluster.CoreDNS.Disabled
}
