package config

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"talos/internal/disk/match"
)

// A check looks at one value and says what was wanted instead, or nothing.
type check interface {
	want(value string) string
}

// form is any rule, choice one of some values, span a number within bounds.
type (
	form   func(value string) (want string)
	choice []string
	span   struct{ low, high int64 }
)

func (f form) want(v string) string { return f(v) }

// checks are the forms of single values, by key; items of lists and entries of
// maps by their own keys. What concerns several keys at once is in validate.go.
var checks = map[string]check{
	"version":                                                                 oneOf(Version),
	"machine.type":                                                            oneOf(TypeControlPlane, TypeWorker),
	"machine.token":                                                           form(token),
	"machine.certSANs[]":                                                      form(hostOrIP),
	"machine.kubelet.image":                                                   form(image),
	"machine.kubelet.clusterDNS[]":                                            form(address),
	"machine.kubelet.nodeIP.validSubnets[]":                                   form(subnetFilter),
	"machine.kubelet.extraMounts[].destination":                               form(absolute),
	"machine.kubelet.extraMounts[].source":                                    form(absolute),
	"machine.network.hostname":                                                form(hostname),
	"machine.network.nameservers[]":                                           form(address),
	"machine.network.searchDomains[]":                                         form(domain),
	"machine.network.extraHostEntries[].ip":                                   form(address),
	"machine.network.extraHostEntries[].aliases[]":                            form(hostname),
	"machine.network.interfaces[].interface":                                  form(link),
	"machine.network.interfaces[].addresses[]":                                form(addressPrefix),
	"machine.network.interfaces[].mtu":                                        between(0, 65535),
	"machine.network.interfaces[].routes[].network":                           form(network),
	"machine.network.interfaces[].routes[].gateway":                           form(address),
	"machine.network.interfaces[].routes[].source":                            form(address),
	"machine.network.interfaces[].routes[].metric":                            between(0, 1<<32-1),
	"machine.network.interfaces[].routes[].mtu":                               between(0, 65535),
	"machine.network.interfaces[].dhcpOptions.routeMetric":                    between(0, 1<<32-1),
	"machine.network.interfaces[].vip.ip":                                     form(address),
	"machine.network.interfaces[].vlans[].vlanId":                             between(1, 4094),
	"machine.network.interfaces[].vlans[].addresses[]":                        form(addressPrefix),
	"machine.network.interfaces[].vlans[].mtu":                                between(0, 65535),
	"machine.network.interfaces[].vlans[].routes[].network":                   form(network),
	"machine.network.interfaces[].vlans[].routes[].gateway":                   form(address),
	"machine.network.interfaces[].vlans[].routes[].source":                    form(address),
	"machine.network.interfaces[].vlans[].routes[].metric":                    between(0, 1<<32-1),
	"machine.network.interfaces[].vlans[].routes[].mtu":                       between(0, 65535),
	"machine.network.interfaces[].vlans[].dhcpOptions.routeMetric":            between(0, 1<<32-1),
	"machine.network.interfaces[].vlans[].vip.ip":                             form(address),
	"machine.network.interfaces[].bond.mode":                                  oneOf("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"),
	"machine.network.interfaces[].bond.interfaces[]":                          form(link),
	"machine.network.interfaces[].bond.xmitHashPolicy":                        oneOf("layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4"),
	"machine.network.interfaces[].bond.lacpRate":                              oneOf("slow", "fast"),
	"machine.network.interfaces[].bond.arpIPTarget[]":                         form(address),
	"machine.network.interfaces[].bond.arpValidate":                           oneOf("none", "active", "backup", "all", "filter", "filter_active", "filter_backup"),
	"machine.network.interfaces[].bond.arpAllTargets":                         oneOf("any", "all"),
	"machine.network.interfaces[].bond.primary":                               form(link),
	"machine.network.interfaces[].bond.primaryReselect":                       oneOf("always", "better", "failure"),
	"machine.network.interfaces[].bond.failOverMac":                           oneOf("none", "active", "follow"),
	"machine.network.interfaces[].bond.adSelect":                              oneOf("stable", "bandwidth", "count"),
	"machine.network.interfaces[].bond.miimon":                                between(0, 1<<31-1),
	"machine.network.interfaces[].bond.updelay":                               between(0, 1<<31-1),
	"machine.network.interfaces[].bond.downdelay":                             between(0, 1<<31-1),
	"machine.network.interfaces[].bond.arpInterval":                           between(0, 1<<31-1),
	"machine.network.interfaces[].bond.resendIgmp":                            between(0, 255),
	"machine.network.interfaces[].bond.minLinks":                              between(0, 1<<31-1),
	"machine.network.interfaces[].bond.lpInterval":                            between(0, 1<<31-1),
	"machine.network.interfaces[].bond.packetsPerSlave":                       between(0, 65535),
	"machine.network.interfaces[].bond.numPeerNotif":                          between(0, 255),
	"machine.network.interfaces[].bond.tlbDynamicLb":                          between(0, 1),
	"machine.network.interfaces[].bond.allSlavesActive":                       between(0, 1),
	"machine.network.interfaces[].bond.adActorSysPrio":                        between(0, 65535),
	"machine.network.interfaces[].bond.adUserPortKey":                         between(0, 1023),
	"machine.install.diskSelector.type":                                       oneOf("ssd", "hdd", "nvme", "sd"),
	"machine.install.diskSelector.match":                                      form(expression),
	"machine.files[].path":                                                    form(writable),
	"machine.files[].op":                                                      oneOf("create", "append", "overwrite"),
	"machine.time.servers[]":                                                  form(hostOrIP),
	"machine.watchdog.device":                                                 form(absolute),
	"machine.watchdog.timeout":                                                form(watchful),
	"machine.time.bootTimeout":                                                form(notNegative),
	"machine.logging.destinations[].endpoint":                                 urlOf("tcp", "udp"),
	"machine.logging.destinations[].format":                                   oneOf("json_lines"),
	"machine.registries.mirrors{}.endpoints[]":                                urlOf("https", "http"),
	"machine.features.rbac":                                                   form(alwaysOn),
	"machine.features.apidCheckExtKeyUsage":                                   form(alwaysOn),
	"machine.features.kubernetesTalosAPIAccess.allowedRoles[]":                oneOf(accessRoles...),
	"machine.features.kubernetesTalosAPIAccess.allowedKubernetesNamespaces[]": form(namespace),
	"machine.features.kubePrism.port":                                         between(1, 65535),
	"machine.features.nodeAddressSortAlgorithm":                               oneOf("v1", "v2"),
	"cluster.controlPlane.endpoint":                                           urlOf("https"),
	"cluster.controlPlane.localAPIServerPort":                                 between(1, 65535),
	"cluster.clusterName":                                                     form(clusterName),
	"cluster.token":                                                           form(token),
	"cluster.secretboxEncryptionSecret":                                       base64Of(32),
	"cluster.aescbcEncryptionSecret":                                          base64Of(16, 24, 32),
	"cluster.network.dnsDomain":                                               form(domain),
	"cluster.network.podSubnets[]":                                            form(network),
	"cluster.network.serviceSubnets[]":                                        form(network),
	"cluster.network.cni.name":                                                oneOf("flannel", "custom", "none"),
	"cluster.network.cni.urls[]":                                              urlOf("https", "http"),
	"cluster.apiServer.image":                                                 form(image),
	"cluster.apiServer.certSANs[]":                                            form(hostOrIP),
	"cluster.apiServer.extraVolumes[].hostPath":                               form(absolute),
	"cluster.apiServer.extraVolumes[].mountPath":                              form(absolute),
	"cluster.apiServer.authorizationConfig[].type":                            oneOf("Node", "RBAC", "Webhook"),
	"cluster.controllerManager.image":                                         form(image),
	"cluster.controllerManager.extraVolumes[].hostPath":                       form(absolute),
	"cluster.controllerManager.extraVolumes[].mountPath":                      form(absolute),
	"cluster.scheduler.image":                                                 form(image),
	"cluster.scheduler.extraVolumes[].hostPath":                               form(absolute),
	"cluster.scheduler.extraVolumes[].mountPath":                              form(absolute),
	"cluster.proxy.image":                                                     form(image),
	"cluster.proxy.mode":                                                      oneOf("nftables", "iptables", "ipvs"),
	"cluster.coreDNS.image":                                                   form(image),
	"cluster.etcd.image":                                                      form(image),
	"cluster.etcd.advertisedSubnets[]":                                        form(subnetFilter),
	"cluster.etcd.listenSubnets[]":                                            form(subnetFilter),
	"cluster.extraManifests[]":                                                urlOf("https", "http"),
	"cluster.externalCloudProvider.manifests[]":                               urlOf("https", "http"),
	"cluster.adminKubeconfig.certLifetime":                                    form(positive),
}

var (
	tokenForm  = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)
	labelForm  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	imageForm  = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._:/-]*[a-zA-Z0-9])?(@sha256:[0-9a-f]{64})?$`)
	valueForm  = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
	serverForm = regexp.MustCompile(`^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)
)

// accessRoles are those that pods may be given: what clients have.
var accessRoles = []string{"os:admin", "os:operator", "os:reader", "os:etcd:backup", "os:meta:writer", "os:image:verifier"}

func namespace(v string) string {
	if labelForm.MatchString(v) {
		return ""
	}
	return "the name of a namespace such as kube-system"
}

func oneOf(values ...string) choice { return values }

func (c choice) want(v string) string {
	if slices.Contains(c, v) {
		return ""
	}
	if len(c) == 1 {
		return c[0]
	}
	return "one of " + strings.Join(c, ", ")
}

// expression is one over disks. What is wrong with it is said whole: it can't be
// tried out on the machine.
func expression(v string) string {
	if _, err := match.Compile(v); err != nil {
		return "an expression over disk that is true or false: " + err.Error()
	}
	return ""
}

func between(low, high int64) span { return span{low, high} }

func (s span) want(v string) string {
	n, err := strconv.ParseInt(v, 0, 64)
	if err != nil || n < s.low || n > s.high {
		return fmt.Sprintf("a number from %d to %d", s.low, s.high)
	}
	return ""
}

func token(v string) string {
	if tokenForm.MatchString(v) {
		return ""
	}
	return "a token of the form abcdef.0123456789abcdef"
}

func address(v string) string {
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		return ""
	}
	return "an address such as 10.5.0.2"
}

// addressPrefix is an address of a link: it must not be the network's own.
func addressPrefix(v string) string {
	const want = "an address with prefix such as 10.5.0.2/24"
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return want
	}
	host := p.Addr().BitLen() - p.Bits()
	if host > 1 && p.Masked().Addr() == p.Addr() || p.Addr().IsUnspecified() || p.Addr().IsMulticast() {
		return want
	}
	return ""
}

// network is a subnet: no bits set beyond its prefix.
func network(v string) string {
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return "a subnet such as 10.244.0.0/16"
	}
	if p.Masked() != p {
		return "the subnet without host bits, " + p.Masked().String()
	}
	return ""
}

// subnetFilter is a subnet that is chosen, or with ! left out.
func subnetFilter(v string) string {
	if network(strings.TrimPrefix(v, "!")) == "" {
		return ""
	}
	return "a subnet such as 10.5.0.0/24, or with ! before it to leave it out"
}

func hostname(v string) string {
	if len(v) <= 253 && everyLabel(v) {
		return ""
	}
	return "a host name such as node-1 or node-1.example.org, of small letters, digits and -"
}

func domain(v string) string {
	if len(v) <= 253 && everyLabel(strings.TrimSuffix(v, ".")) {
		return ""
	}
	return "a domain such as cluster.local"
}

func everyLabel(v string) bool {
	for label := range strings.SplitSeq(v, ".") {
		if !labelForm.MatchString(label) {
			return false
		}
	}
	return true
}

func hostOrIP(v string) string {
	if _, err := netip.ParseAddr(v); err == nil || len(v) <= 253 && serverForm.MatchString(strings.ToLower(v)) {
		return ""
	}
	return "a host name or an address"
}

// link is a name the kernel takes (dev_valid_name).
func link(v string) string {
	if v == "" || len(v) > 15 || v == "." || v == ".." || strings.ContainsAny(v, "/: \t\n") {
		return "a link name of at most 15 letters such as eth0"
	}
	return ""
}

func image(v string) string {
	if imageForm.MatchString(v) {
		return ""
	}
	return "an image reference such as registry.k8s.io/pause:3.10"
}

func absolute(v string) string {
	if path.IsAbs(v) && path.Clean(v) == strings.TrimSuffix(v, "/") || v == "/" {
		return ""
	}
	return "an absolute path without . and .."
}

// writable is a path where a node's files may be: the root is read-only.
func writable(v string) string {
	for _, dir := range []string{"/var/", "/opt/", "/etc/cni/"} {
		if strings.HasPrefix(v, dir) && absolute(v) == "" {
			return ""
		}
	}
	return "an absolute path below /var, /opt or /etc/cni, where the node is writable"
}

func clusterName(v string) string {
	if v != "" && len(v) <= 253 && !strings.ContainsAny(v, " \t\n\"'\\/") {
		return ""
	}
	return "a name without blanks, quotes and slashes"
}

func urlOf(schemes ...string) form {
	return func(v string) string {
		u, err := url.Parse(v)
		if err == nil && slices.Contains(schemes, u.Scheme) && u.Hostname() != "" && port(u) {
			return ""
		}
		return "a URL such as " + schemes[0] + "://example.org:6443"
	}
}

func port(u *url.URL) bool {
	return u.Port() == "" && !strings.HasSuffix(u.Host, ":") || between(1, 65535).want(u.Port()) == ""
}

func base64Of(sizes ...int) form {
	return func(v string) string {
		raw, err := base64.StdEncoding.DecodeString(v)
		if err == nil && slices.Contains(sizes, len(raw)) {
			return ""
		}
		return fmt.Sprintf("base64 of %d bytes", sizes[len(sizes)-1])
	}
}

func notNegative(v string) string {
	if d, err := time.ParseDuration(v); err != nil || d < 0 {
		return "a duration of 0 or more"
	}
	return ""
}

func positive(v string) string {
	if d, err := time.ParseDuration(v); err != nil || d <= 0 {
		return "a duration of more than 0"
	}
	return ""
}

// watchful is what hardware can be set to, and leaves time to be fed in.
func watchful(v string) string {
	if d, err := time.ParseDuration(v); err != nil || d < 10*time.Second || d > 10*time.Minute {
		return "a duration from 10s to 10m"
	}
	return ""
}

func alwaysOn(v string) string {
	switch strings.ToLower(v) {
	case "true", "yes", "on":
		return ""
	}
	return "true: this check cannot be switched off"
}
