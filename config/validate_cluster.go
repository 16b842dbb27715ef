package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"

	"talos/internal/pki"
)

func (d *decoder) cluster(c *Config, cl *Cluster) {
	cp := c.IsControlPlane()
	d.require("cluster.controlPlane.endpoint", cl.ControlPlane != nil && cl.ControlPlane.Endpoint != "", "the URL of the API server such as https://10.5.0.1:6443")
	if cl.ControlPlane != nil {
		if u, err := url.Parse(cl.ControlPlane.Endpoint); err == nil && (u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil) {
			d.wrong("cluster.controlPlane.endpoint", show(cl.ControlPlane.Endpoint), "scheme, host and port only")
		}
	}
	d.require("cluster.token", cl.Token != "", "the bootstrap token, from the secrets bundle")
	d.authority("cluster.ca", cl.CA, cp, c.Machine != nil && c.Machine.Type == TypeWorker)
	d.accepted("cluster.acceptedCAs", cl.AcceptedCAs)
	d.subnets(cl.Network)
	d.cni(cl.Network)
	seen := map[string]bool{}
	for i, m := range cl.InlineManifests {
		k := fmt.Sprintf("cluster.inlineManifests[%d].name", i)
		d.require(k, m.Name != "", "a name")
		if seen[m.Name] && m.Name != "" {
			d.wrong(k, show(m.Name)+" a second time", "each name once")
		}
		seen[m.Name] = true
	}
	if a := cl.APIServer; a != nil {
		for i, p := range a.AdmissionControl {
			d.require(fmt.Sprintf("cluster.apiServer.admissionControl[%d].name", i), p.Name != "", "the name of a plugin such as PodSecurity")
		}
	}
	if cp {
		d.controlPlaneSecrets(cl)
	}
}

func (d *decoder) controlPlaneSecrets(cl *Cluster) {
	d.authority("cluster.aggregatorCA", cl.AggregatorCA, true, false)
	var etcd *CertificateAndKey
	if cl.Etcd != nil {
		etcd = cl.Etcd.CA
	}
	d.authority("cluster.etcd.ca", etcd, true, false)
	own := cl.APIServer != nil && len(cl.APIServer.EncryptionConfig) > 0
	if own && (cl.SecretboxEncryptionSecret != "" || cl.AescbcEncryptionSecret != "") {
		d.wrong("cluster.apiServer.encryptionConfig", "a configuration of encryption beside a secret for it", "one of the two")
	}
	d.require("cluster.secretboxEncryptionSecret", own || cl.SecretboxEncryptionSecret != "" || cl.AescbcEncryptionSecret != "",
		"base64 of 32 bytes that encrypt Kubernetes's secrets, from the secrets bundle")
	if cl.ServiceAccount == nil || len(cl.ServiceAccount.Key) == 0 {
		d.require("cluster.serviceAccount.key", false, "the key that signs service account tokens, from the secrets bundle")
	} else if _, err := pki.ParseKey(cl.ServiceAccount.Key); err != nil {
		d.wrong("cluster.serviceAccount.key", err.Error(), "an ECDSA or RSA key in PEM, base64 of it")
	}
}

// subnets holds pods and services apart, and to at most one subnet per family each.
func (d *decoder) subnets(n *ClusterNetwork) {
	if n == nil {
		n = &ClusterNetwork{}
	}
	pods := d.families("cluster.network.podSubnets", n.PodSubnets)
	services := d.families("cluster.network.serviceSubnets", n.ServiceSubnets)
	if len(n.PodSubnets) == 0 {
		pods = []netip.Prefix{netip.MustParsePrefix(DefaultPodSubnet)}
	}
	if len(n.ServiceSubnets) == 0 {
		services = []netip.Prefix{netip.MustParsePrefix(DefaultServiceSubnet)}
	}
	for _, s := range services {
		for _, p := range pods {
			if p.Overlaps(s) {
				d.wrong("cluster.network.serviceSubnets", strconv.Quote(s.String()), "a subnet that does not overlap the pods' "+p.String())
			}
		}
		if host := s.Addr().BitLen() - s.Bits(); host > 20 || host < 4 {
			d.wrong("cluster.network.serviceSubnets", strconv.Quote(s.String()), "a subnet of 4 to 20 host bits, as the API server takes it")
		}
	}
}

func (d *decoder) families(k string, list []string) []netip.Prefix {
	var out []netip.Prefix
	seen := map[bool]bool{}
	for i, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			continue // reported where it was decoded
		}
		if seen[p.Addr().Is4()] {
			d.wrong(fmt.Sprintf("%s[%d]", k, i), strconv.Quote(s), "at most one subnet of each address family")
		}
		seen[p.Addr().Is4()] = true
		out = append(out, p)
	}
	return out
}

func (d *decoder) cni(n *ClusterNetwork) {
	if n == nil || n.CNI == nil {
		return
	}
	if n.CNI.Name == "custom" {
		d.require("cluster.network.cni.urls", len(n.CNI.URLs) > 0, "the manifests of the CNI")
	} else if len(n.CNI.URLs) > 0 {
		d.wrong("cluster.network.cni.urls", "URLs for "+show(n.CNI.Name), "them with name custom only")
	}
}
