package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"talos/internal/pki"
)

// validate applies the rules that concern several keys, and what is missing.
func (d *decoder) validate(c *Config) {
	d.require("version", c.Version != "", Version)
	d.require("machine", c.Machine != nil, "the machine's own configuration")
	d.require("cluster", c.Cluster != nil, "the cluster's configuration")
	if m := c.Machine; m != nil {
		d.machine(m)
	}
	if cl := c.Cluster; cl != nil {
		d.cluster(c, cl)
	}
}

// node finds where a key is, or else the nearest that holds it, and what a
// document beside the manifest calls the key.
func (d *decoder) node(k string) (*yaml.Node, string) {
	whole := k
	for {
		if n := d.at[k]; n != nil {
			said := d.said[k]
			if said != "" {
				said += whole[len(k):]
			}
			return n, said
		}
		i := strings.LastIndexAny(k, ".[")
		if i < 0 {
			return d.at[""], ""
		}
		k = k[:i]
	}
}

func (d *decoder) wrong(k, got, want string) {
	n, said := d.node(k)
	d.problem(n, key{path: k, said: said}, got, want)
}

func (d *decoder) require(k string, ok bool, want string) {
	if !ok {
		d.wrong(k, "nothing", want)
	}
}

func (d *decoder) machine(m *Machine) {
	cp := m.Type == TypeControlPlane
	d.require("machine.type", m.Type != "", TypeControlPlane+" or "+TypeWorker)
	d.require("machine.token", m.Token != "", "the token that nodes join with, from the secrets bundle")
	d.authority("machine.ca", m.CA, cp, m.Type == TypeWorker)
	d.accepted("machine.acceptedCAs", m.AcceptedCAs)
	if n := m.Network; n != nil {
		d.interfaces(n.Interfaces)
		for i, h := range n.ExtraHostEntries {
			k := "machine.network.extraHostEntries[" + strconv.Itoa(i) + "]"
			d.require(k+".ip", h.IP != "", "an address")
			d.require(k+".aliases", len(h.Aliases) > 0, "at least one name")
		}
	}
	for i, f := range m.Files {
		d.require(fmt.Sprintf("machine.files[%d].path", i), f.Path != "", "an absolute path")
	}
	for i, l := range m.destinations() {
		d.require(fmt.Sprintf("machine.logging.destinations[%d].endpoint", i), l.Endpoint != "", "a URL such as tcp://10.5.0.9:5044")
	}
	if access := Of(Of(m.Features).KubernetesTalosAPIAccess); Of(access.Enabled) && m.Type == TypeWorker {
		const k = "machine.features.kubernetesTalosAPIAccess.enabled"
		n, said := d.node(k)
		d.warnings = append(d.warnings, Warning{Position: d.position(n), Key: key{path: k, said: said}.shown(), Text: "has no effect on a worker: control plane nodes issue the certificates"})
	}
	d.kubelet(m.Kubelet)
	d.registries(m.Registries)
	d.nodeMeta(m)
	for i, p := range m.Pods {
		d.pod(fmt.Sprintf("machine.pods[%d]", i), p)
	}
}

func (m *Machine) destinations() []LoggingDestination {
	if m.Logging == nil {
		return nil
	}
	return m.Logging.Destinations
}

func (d *decoder) interfaces(list []Device) {
	seen := map[string]bool{}
	for i, dev := range list {
		k := "machine.network.interfaces[" + strconv.Itoa(i) + "]"
		switch {
		case dev.Interface == "" && dev.DeviceSelector == nil:
			d.wrong(k, "neither interface nor deviceSelector", "one of them")
		case dev.Interface != "" && dev.DeviceSelector != nil:
			d.wrong(k, "interface and deviceSelector", "one of them")
		}
		if dev.Interface != "" && seen[dev.Interface] {
			d.wrong(k+".interface", strconv.Quote(dev.Interface)+" a second time", "each link once")
		}
		seen[dev.Interface] = true
		for j, r := range dev.Routes {
			d.route(fmt.Sprintf("%s.routes[%d]", k, j), r)
		}
	}
}

func (d *decoder) route(k string, r Route) {
	if r.Network == "" && r.Gateway == "" {
		d.wrong(k, "neither network nor gateway", "at least one of them")
	}
	n, err1 := netip.ParsePrefix(r.Network)
	g, err2 := netip.ParseAddr(r.Gateway)
	if err1 == nil && err2 == nil && n.Addr().Is4() != g.Is4() {
		d.wrong(k+".gateway", strconv.Quote(r.Gateway), "a gateway of the network's own family")
	}
}

// ownedByNode are the keys of the kubelet's configuration that the node decides.
var ownedByNode = strings.Fields(`apiVersion kind authentication authorization cgroupRoot kubeletCgroups port
	protectKernelDefaults resolvConf rotateCertificates systemCgroups staticPodPath seccompDefault`)

func (d *decoder) kubelet(k *Kubelet) {
	if k == nil {
		return
	}
	for _, name := range ownedByNode {
		if _, ok := k.ExtraConfig[name]; ok {
			d.wrong("machine.kubelet.extraConfig."+name, "a key that the node itself decides", "it left out")
		}
	}
	for i, m := range k.ExtraMounts {
		d.require(fmt.Sprintf("machine.kubelet.extraMounts[%d].destination", i), m.Destination != "", "an absolute path")
	}
}

func (d *decoder) registries(r *Registries) {
	if r == nil {
		return
	}
	for host, reg := range r.Config {
		k := key{path: "machine.registries.config"}.entry(host).path + ".tls"
		if reg.TLS == nil {
			continue
		}
		if _, err := pki.ParseCertificates(reg.TLS.CA); len(reg.TLS.CA) > 0 && err != nil {
			d.wrong(k+".ca", err.Error(), "certificates in PEM, base64 of them")
		}
		if id := reg.TLS.ClientIdentity; id != nil {
			if _, err := pki.TLS(pki.Pair{Crt: id.Crt, Key: id.Key}); err != nil {
				d.wrong(k+".clientIdentity", err.Error(), "a certificate and its key")
			}
		}
	}
}

func (d *decoder) nodeMeta(m *Machine) {
	for k, v := range m.NodeLabels {
		at := key{path: "machine.nodeLabels"}.entry(k).path
		if !labelKey(k) || !valueForm.MatchString(v) {
			d.wrong(at, strconv.Quote(k+"="+v), "a label as Kubernetes takes it")
		}
	}
	for k := range m.NodeAnnotations {
		if !labelKey(k) {
			d.wrong(key{path: "machine.nodeAnnotations"}.entry(k).path, strconv.Quote(k), "an annotation key as Kubernetes takes it")
		}
	}
	for k, v := range m.NodeTaints {
		value, effect, found := strings.Cut(v, ":")
		if !found {
			value, effect = "", v
		}
		if !labelKey(k) || !valueForm.MatchString(value) || !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) {
			d.wrong(key{path: "machine.nodeTaints"}.entry(k).path, show(v), "value:effect, the effect one of NoSchedule, PreferNoSchedule, NoExecute")
		}
	}
}

func labelKey(k string) bool {
	prefix, name, found := strings.Cut(k, "/")
	if !found {
		prefix, name = "", k
	}
	return name != "" && valueForm.MatchString(name) && (!found || domain(prefix) == "")
}

func (d *decoder) pod(k string, p map[string]any) {
	if p["kind"] != "Pod" {
		d.wrong(k+".kind", show(fmt.Sprint(p["kind"])), "Pod")
	}
	meta, _ := p["metadata"].(map[string]any)
	if name, _ := meta["name"].(string); hostname(name) != "" {
		d.wrong(k+".metadata.name", show(name), "a name of small letters, digits and -")
	}
}

// authority checks a CA. keyed: the key must be there; bare: it must not.
func (d *decoder) authority(k string, ca *CertificateAndKey, keyed, bare bool) {
	if ca == nil || len(ca.Crt) == 0 {
		d.require(k+".crt", false, "the authority's certificate, from the secrets bundle")
		return
	}
	if crt, err := pki.ParseCertificate(ca.Crt); err != nil || !crt.IsCA {
		d.wrong(k+".crt", "what is not the certificate of an authority", "one in PEM, base64 of it")
		return
	}
	switch {
	case keyed && len(ca.Key) == 0:
		d.require(k+".key", false, "the authority's key, from the secrets bundle")
	case bare && len(ca.Key) > 0:
		d.wrong(k+".key", "a key", "none: workers must not be able to issue")
	case len(ca.Key) > 0:
		if _, err := pki.ParseCA(ca.Crt, ca.Key); err != nil {
			d.wrong(k+".key", err.Error(), "the key of the certificate beside it")
		}
	}
}

func (d *decoder) accepted(k string, list []Certificate) {
	for i, c := range list {
		if _, err := pki.ParseCertificates(c.Crt); err != nil {
			d.wrong(fmt.Sprintf("%s[%d].crt", k, i), err.Error(), "a certificate in PEM, base64 of it")
		}
	}
}
