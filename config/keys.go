package config

import (
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Disposition is what becomes of a key.
type Disposition int

// The dispositions. A key that promises security is applied or refused, never
// accepted with a warning.
const (
	Applied    Disposition = iota // the node does what it says
	Warned                        // the document is accepted, the key does nothing, a warning says so
	Refused                       // the document is not accepted
	OnMachines                    // applied on machines; in a container as Warned
)

// Effect is when a changed key takes effect.
type Effect int

// The effects.
const (
	Live   Effect = iota // at once
	Reboot               // at the next boot
)

// KeyInfo is a row of the table of keys.
type KeyInfo struct {
	Key         string // as Keys names it
	Disposition Disposition
	Effect      Effect
	Reason      string // why it is not applied
}

// group is a part of the table: keys below one prefix that share their lot.
type group struct {
	disposition Disposition
	effect      Effect
	reason      string
	prefix      string
	keys        string // separated by blanks
}

const (
	noDisks    = "a node in a container has no disks of its own"
	noRealLink = "networkd makes VLANs and bonds only"
)

// table is the lot of every key. A test holds it against the types.
var table = []group{
	{Applied, Live, "", "", `version`},
	{Warned, Live, "logs are the same always", "", `debug`},

	{Applied, Reboot, "", "machine", `type`},
	{Applied, Live, "", "machine", `token ca.crt ca.key acceptedCAs[].crt certSANs env pods nodeLabels nodeAnnotations nodeTaints`},
	{Applied, Reboot, "", "machine.files[]", `content permissions path op`},
	{Applied, Live, "", "machine.controlPlane", `controllerManager.disabled scheduler.disabled`},
	{Applied, Live, "", "machine.kubelet", `image clusterDNS extraArgs extraConfig credentialProviderConfig
		defaultRuntimeSeccompProfileEnabled registerWithFQDN nodeIP.validSubnets skipNodeRegistration disableManifestsDirectory`},
	{Applied, Live, "", "machine.kubelet.extraMounts[]", `destination type source options`},
	{Warned, Live, "the kubelet's mounts keep the ids of the node", "machine.kubelet.extraMounts[]",
		`uidMappings[].containerID uidMappings[].hostID uidMappings[].size gidMappings[].containerID gidMappings[].hostID gidMappings[].size`},

	{Applied, Live, "", "machine.network", `hostname nameservers searchDomains disableSearchDomain extraHostEntries[].ip extraHostEntries[].aliases`},
	{Applied, Live, "", "machine.network.interfaces[]", `interface addresses mtu dhcp ignore
		routes[].network routes[].gateway routes[].source routes[].metric routes[].mtu
		dhcpOptions.routeMetric dhcpOptions.ipv4`},
	{Applied, Live, "", "machine.network.interfaces[].deviceSelector", `busPath hardwareAddr permanentAddr pciID driver physical`},
	{Warned, Live, "networkd speaks DHCPv4 only", "machine.network.interfaces[].dhcpOptions", `ipv6 duidv6`},
	{Warned, Live, noRealLink, "machine.network.interfaces[]", `dummy bridgePort.master bridge.interfaces bridge.stp.enabled bridge.vlan.vlanFiltering`},
	{Applied, Live, "", "machine.network.interfaces[].bond", `interfaces arpIPTarget mode xmitHashPolicy lacpRate arpValidate
		arpAllTargets primary primaryReselect failOverMac adSelect miimon updelay downdelay arpInterval resendIgmp minLinks lpInterval packetsPerSlave
		numPeerNotif tlbDynamicLb allSlavesActive useCarrier adActorSysPrio adUserPortKey`},
	{Warned, Live, "the kernel chooses the system of an aggregator, and when peers are told", "machine.network.interfaces[].bond", `adActorSystem peerNotifyDelay`},
	{Applied, Live, "", "machine.network.interfaces[].bond.deviceSelectors[]", `busPath hardwareAddr permanentAddr pciID driver physical`},
	{Applied, Live, "", "machine.network.interfaces[].vlans[]", `addresses dhcp vlanId mtu
		routes[].network routes[].gateway routes[].source routes[].metric routes[].mtu dhcpOptions.routeMetric dhcpOptions.ipv4`},
	{Warned, Live, "networkd speaks DHCPv4 only", "machine.network.interfaces[].vlans[].dhcpOptions", `ipv6 duidv6`},
	{Warned, Live, "no node takes over a shared address", "machine.network.interfaces[].vlans[].vip", `ip equinixMetal.apiToken hcloud.apiToken`},
	{Warned, Live, "no node takes over a shared address", "machine.network.interfaces[].vip", `ip equinixMetal.apiToken hcloud.apiToken`},
	{Refused, Live, "links are not encrypted with WireGuard, traffic would go in the clear or nowhere", "machine.network.interfaces[].wireguard",
		`privateKey listenPort firewallMark peers[].publicKey peers[].endpoint peers[].persistentKeepaliveInterval peers[].allowedIPs`},
	{Refused, Live, "traffic between nodes is not encrypted with WireGuard", "machine.network.kubespan",
		`enabled advertiseKubernetesNetworks allowDownPeerBypass harvestExtraEndpoints mtu filters.endpoints`},

	{OnMachines, Live, noDisks, "machine.install", `disk wipe extraKernelArgs
		diskSelector.size diskSelector.name diskSelector.model diskSelector.serial diskSelector.modalias diskSelector.uuid diskSelector.wwid
		diskSelector.type diskSelector.busPath diskSelector.match`},
	{Warned, Live, "a machine is installed from what it has booted", "machine.install", `image`},
	{Warned, Live, "machines start by UEFI only", "machine.install", `legacyBIOSSupport`},
	{OnMachines, Reboot, noDisks, "machine.disks[]", `device partitions[].size partitions[].mountpoint`},
	{Refused, Live, "disks are not encrypted", "machine.systemDiskEncryption.state", encryptionKeys},
	{Refused, Live, "disks are not encrypted", "machine.systemDiskEncryption.ephemeral", encryptionKeys},

	{Applied, Live, "", "machine.time", `disabled servers bootTimeout`},
	{OnMachines, Live, "kernel parameters are the host's", "machine", `sysctls sysfs`},
	{OnMachines, Live, "device nodes are the host's", "machine.udev", `rules`},
	{OnMachines, Live, "watchdogs are the host's", "machine.watchdog", `device timeout`},
	{OnMachines, Live, "the kernel is the host's", "machine.kernel.modules[]", `name`},
	{Refused, Live, "all of the kernel is built in, its parts take parameters on the command line only", "machine.kernel.modules[]", `parameters`},
	{Refused, Live, "seccomp profiles are not installed, pods that ask for one would not start", "machine.seccompProfiles[]", `name value`},
	{Warned, Live, "pods get containerd's own runtime spec", "machine", `baseRuntimeSpecOverrides`},
	{Applied, Live, "", "machine.logging.destinations[]", `endpoint format extraTags`},

	{Applied, Live, "", "machine.registries", `mirrors{}.endpoints mirrors{}.overridePath mirrors{}.skipFallback
		config{}.tls.clientIdentity.crt config{}.tls.clientIdentity.key config{}.tls.ca config{}.tls.insecureSkipVerify
		config{}.auth.username config{}.auth.password config{}.auth.auth config{}.auth.identityToken`},

	{Applied, Live, "", "machine.features", `rbac apidCheckExtKeyUsage stableHostname nodeAddressSortAlgorithm diskQuotaSupport`},
	{Applied, Reboot, "", "machine.securityProfile", `workloadIsolation`},
	{Applied, Live, "", "machine.features.kubernetesTalosAPIAccess", `enabled allowedRoles allowedKubernetesNamespaces`},
	{Applied, Live, "", "machine.features.kubePrism", `enabled port`},
	{Applied, Live, "", "machine.features.hostDNS", `enabled forwardKubeDNSToHost resolveMemberNames`},
	{Warned, Live, "the node's image holds no images of Kubernetes that could be copied to a cache", "machine.features.imageCache", `localEnabled`},

	{Applied, Live, "", "cluster", `id secret clusterName token ca.crt ca.key acceptedCAs[].crt aggregatorCA.crt aggregatorCA.key serviceAccount.key
		aescbcEncryptionSecret secretboxEncryptionSecret controlPlane.endpoint controlPlane.localAPIServerPort
		extraManifests extraManifestHeaders inlineManifests[].name inlineManifests[].contents adminKubeconfig.certLifetime
		allowSchedulingOnControlPlanes externalCloudProvider.enabled externalCloudProvider.manifests coreDNS.disabled coreDNS.image`},
	{Applied, Live, "", "cluster.network", `cni.name cni.urls cni.flannel.extraArgs dnsDomain podSubnets serviceSubnets`},
	{Applied, Live, "", "cluster.apiServer", `image extraArgs env certSANs resources auditPolicy
		extraVolumes[].hostPath extraVolumes[].mountPath extraVolumes[].readonly admissionControl[].name admissionControl[].configuration
		authorizationConfig[].type authorizationConfig[].name authorizationConfig[].webhook authenticationConfig encryptionConfig`},
	{Warned, Live, "Kubernetes has no pod security policies any more", "cluster.apiServer", `disablePodSecurityPolicy`},
	{Applied, Live, "", "cluster.controllerManager", `image extraArgs env resources extraVolumes[].hostPath extraVolumes[].mountPath extraVolumes[].readonly`},
	{Applied, Live, "", "cluster.scheduler", `image extraArgs env resources config extraVolumes[].hostPath extraVolumes[].mountPath extraVolumes[].readonly`},
	{Applied, Live, "", "cluster.proxy", `disabled image mode extraArgs`},
	{Applied, Live, "", "cluster.etcd", `ca.crt ca.key`},
	{Applied, Reboot, "", "cluster.etcd", `image extraArgs advertisedSubnets listenSubnets`},
	{Applied, Live, "", "cluster.discovery", `enabled`},
	{Warned, Live, "nodes find each other through the cluster endpoint; no registry is asked", "cluster.discovery",
		`registries.kubernetes.disabled registries.service.disabled registries.service.endpoint`},
}

const encryptionKeys = `provider cipher keySize blockSize options keys[].static.passphrase keys[].nodeID keys[].kms.endpoint keys[].slot
	keys[].tpm.checkSecurebootStatusOnEnroll`

// secrets are the keys whose values are never shown.
var secretKeys = strings.Fields(`machine.token machine.ca.key machine.network.interfaces[].wireguard.privateKey
	machine.network.interfaces[].vip.equinixMetal.apiToken machine.network.interfaces[].vip.hcloud.apiToken
	machine.network.interfaces[].vlans[].vip.equinixMetal.apiToken machine.network.interfaces[].vlans[].vip.hcloud.apiToken
	machine.systemDiskEncryption.state.keys[].static.passphrase machine.systemDiskEncryption.ephemeral.keys[].static.passphrase
	machine.registries.config{}.tls.clientIdentity.key machine.registries.config{}.auth.password machine.registries.config{}.auth.auth
	machine.registries.config{}.auth.identityToken
	cluster.secret cluster.token cluster.ca.key cluster.aggregatorCA.key cluster.serviceAccount.key cluster.etcd.ca.key
	cluster.aescbcEncryptionSecret cluster.secretboxEncryptionSecret cluster.apiServer.encryptionConfig cluster.extraManifestHeaders`)

var rows = sync.OnceValue(func() map[string]KeyInfo {
	m := map[string]KeyInfo{}
	for _, g := range table {
		for _, name := range strings.Fields(g.keys) {
			k := key{path: g.prefix, pattern: g.prefix}.field(name).pattern
			m[k] = KeyInfo{Key: k, Disposition: g.disposition, Effect: g.effect, Reason: g.reason}
		}
	}
	return m
})

// Table is the table of keys, sorted by key.
func Table() []KeyInfo {
	var out []KeyInfo
	for _, row := range rows() {
		out = append(out, row)
	}
	slices.SortFunc(out, func(a, b KeyInfo) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// NeedReboot are those of the keys, as Changed gives them, that take effect at
// the next boot only.
func NeedReboot(changed []string) []string {
	var out []string
	for _, k := range changed {
		if row := rows()[k]; row.Effect == Reboot && (row.Disposition == Applied || row.Disposition == OnMachines) {
			out = append(out, k)
		}
	}
	return out
}

// secret says whether the value of a key must not be shown.
func secret(pattern string) bool {
	for _, s := range secretKeys {
		if rest, ok := strings.CutPrefix(pattern, s); ok && (rest == "" || rest[0] == '[' || rest[0] == '{') {
			return true
		}
	}
	return false
}

// tell warns of a key or refuses it, as the table has it, when its value asks for something.
func (d *decoder) tell(name, value *yaml.Node, k key) {
	row, ok := rows()[k.pattern]
	if !ok || !asks(value, row.Disposition) || registryOff(k.pattern) {
		return
	}
	switch row.Disposition {
	case Warned, OnMachines:
		d.warnings = append(d.warnings, Warning{
			Position: d.position(name), Key: k.shown(), Text: "has no effect: " + row.Reason, InContainers: row.Disposition == OnMachines,
		})
	case Refused:
		d.problem(name, k, "a key that is refused", "it left out: "+row.Reason)
	}
}

// registryOff says whether a key switches off a registry of members: none is
// ever asked, so the node does what it says.
func registryOff(pattern string) bool {
	return strings.HasPrefix(pattern, "cluster.discovery.registries.") && strings.HasSuffix(pattern, ".disabled")
}

// asks says whether a value wants anything. What merely switches off does not.
func asks(n *yaml.Node, lot Disposition) bool {
	switch n.Kind {
	case yaml.AliasNode:
		return asks(n.Alias, lot)
	case yaml.SequenceNode:
		return len(n.Content) > 0
	case yaml.MappingNode:
		return len(n.Content) > 0 || lot == Refused
	}
	if off, ok := boolean(n); ok {
		return off
	}
	return !isNull(n) && n.Value != "" && (n.Value != "0" || lot == Refused)
}
