package config

import (
	"cmp"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"talos/internal/pki"
)

// Defaults of what a document leaves out.
const (
	DefaultClusterName   = "talos"
	DefaultPodSubnet     = "10.244.0.0/16"
	DefaultServiceSubnet = "10.96.0.0/12"
	DefaultDNSDomain     = "cluster.local"
	DefaultAPIServerPort = 6443
	DefaultCNI           = "flannel"
	DefaultProxyMode     = "nftables"
	DefaultTimeServer    = "time.cloudflare.com"
)

// IsControlPlane says whether the machine carries the control plane.
func (c *Config) IsControlPlane() bool { return c.machine().Type == TypeControlPlane }

// ClusterName is the cluster's name, for kubeconfigs and people.
func (c *Config) ClusterName() string { return cmp.Or(c.cluster().ClusterName, DefaultClusterName) }

// Endpoint is the URL of the API server that everyone in the cluster uses; its port is always there.
func (c *Config) Endpoint() *url.URL {
	u := &url.URL{Scheme: "https"}
	if cp := c.cluster().ControlPlane; cp != nil {
		if parsed, err := url.Parse(cp.Endpoint); err == nil { // Load has checked it
			u = parsed
		}
	}
	if u.Port() == "" {
		u.Host += ":443"
	}
	u.Path = ""
	return u
}

// APIServerPort is the port that this node's API server listens on.
func (c *Config) APIServerPort() int {
	if cp := c.cluster().ControlPlane; cp != nil && cp.LocalAPIServerPort != 0 {
		return cp.LocalAPIServerPort
	}
	return DefaultAPIServerPort
}

// LocalEndpoint is the URL of this node's own API server.
func (c *Config) LocalEndpoint() *url.URL {
	return &url.URL{Scheme: "https", Host: "127.0.0.1:" + itoa(c.APIServerPort())}
}

// PodSubnets are the subnets of pods, one per address family.
func (c *Config) PodSubnets() []netip.Prefix {
	return prefixes(c.clusterNetwork().PodSubnets, DefaultPodSubnet)
}

// ServiceSubnets are the subnets of services, one per address family.
func (c *Config) ServiceSubnets() []netip.Prefix {
	return prefixes(c.clusterNetwork().ServiceSubnets, DefaultServiceSubnet)
}

// KubernetesServiceIPs are the addresses of the service kubernetes: the first of each subnet.
func (c *Config) KubernetesServiceIPs() []netip.Addr { return c.serviceIPs(1) }

// DNSServiceIPs are the addresses of the cluster's DNS: the tenth of each subnet.
func (c *Config) DNSServiceIPs() []netip.Addr { return c.serviceIPs(10) }

func (c *Config) serviceIPs(n int) []netip.Addr {
	var out []netip.Addr
	for _, p := range c.ServiceSubnets() {
		a := p.Addr()
		for range n {
			a = a.Next()
		}
		out = append(out, a)
	}
	return out
}

// DNSDomain is the domain of services.
func (c *Config) DNSDomain() string {
	return cmp.Or(strings.TrimSuffix(c.clusterNetwork().DNSDomain, "."), DefaultDNSDomain)
}

// CNIName is the pod network: flannel, custom or none.
func (c *Config) CNIName() string {
	if n := c.clusterNetwork().CNI; n != nil {
		return cmp.Or(n.Name, DefaultCNI)
	}
	return DefaultCNI
}

// ProxyMode is how kube-proxy programs the kernel.
func (c *Config) ProxyMode() string {
	if p := c.cluster().Proxy; p != nil {
		return cmp.Or(p.Mode, DefaultProxyMode)
	}
	return DefaultProxyMode
}

// SchedulableControlPlane says whether control plane nodes take ordinary pods.
func (c *Config) SchedulableControlPlane() bool {
	return Bool(c.cluster().AllowSchedulingOnControlPlanes, false)
}

// AdminKubeconfigLifetime is how long the administrator's kubeconfig is valid.
func (c *Config) AdminKubeconfigLifetime() time.Duration {
	if a := c.cluster().AdminKubeconfig; a != nil && a.CertLifetime > 0 {
		return time.Duration(a.CertLifetime)
	}
	return pki.YearLifetime
}

func (c *Config) machine() *Machine {
	if c.Machine == nil {
		return &Machine{}
	}
	return c.Machine
}

func (c *Config) cluster() *Cluster {
	if c.Cluster == nil {
		return &Cluster{}
	}
	return c.Cluster
}

func (c *Config) clusterNetwork() *ClusterNetwork {
	if n := c.cluster().Network; n != nil {
		return n
	}
	return &ClusterNetwork{}
}

// prefixes reads subnets that Load has checked.
func prefixes(list []string, unset string) []netip.Prefix {
	if len(list) == 0 {
		list = []string{unset}
	}
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}
