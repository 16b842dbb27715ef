package config

import (
	"maps"
	"slices"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Kinds are the kinds of documents that are known, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds())) }

// alias is the name that a kind has here.
func alias(name string) string {
	switch name {
	case "UnattendedInstall":
		return "UnattendedInstallConfig"
	case "KubeSpanEndpoints":
		return "KubeSpanEndpointsConfig"
	}
	return name
}

const (
	noVolumes  = "there are no disks for volumes, data would lie elsewhere than it says"
	noFirewall = "the node has no firewall of its own, what should be blocked would be open"
	ownRoutes  = "traffic would take another way than it says"
)

// kinds are all forms of documents, by name.
var kinds = sync.OnceValue(func() map[string]kind {
	all := map[string]kind{}
	for _, group := range []map[string]kind{kubernetesKinds, controlPlaneKinds, networkKinds, machineKinds, otherKinds()} {
		maps.Copy(all, group)
	}
	return all
})

// kubernetesKinds configure what runs on every node of a cluster.
var kubernetesKinds = map[string]kind{
	"KubeClusterConfig": {says: "The cluster's name and endpoint.", keys: slices.Concat(
		under("cluster", "clusterName"), to("endpoint", "cluster.controlPlane.endpoint"))},
	"KubeNetworkConfig": {says: "The networks of pods and services.", begin: clusterNetwork, keys: slices.Concat(
		under("cluster.network", "dnsDomain podSubnets serviceSubnets"),
		maskSize("nodeCIDRMaskSizeIPv4", "ipv4", "24"), maskSize("nodeCIDRMaskSizeIPv6", "ipv6", "64"))},
	"KubeNodeConfig": {says: "The Kubernetes node.", keys: slices.Concat(
		under("machine.kubelet", "skipNodeRegistration registerWithFQDN nodeIP.validSubnets"),
		under("machine", "labels=nodeLabels annotations=nodeAnnotations taints=nodeTaints"))},
	"KubeletConfig": {says: "The kubelet.", keys: slices.Concat(args("machine.kubelet.extraArgs"),
		under("machine.kubelet", "image config=extraConfig clusterDNS defaultRuntimeSeccompProfileEnabled"))},
	"KubeCredentialProviderConfig": {says: "How the kubelet gets credentials of registries.", keys: to("configuration", "machine.kubelet.credentialProviderConfig")},
	"KubePrismConfig": {says: "The node's own balancer over all API servers.", begin: is("machine.features.kubePrism.enabled"), keys: slices.Concat(
		under("machine.features.kubePrism", "port"),
		none(Warned, "the API servers' certificates hold the balancer's address", "", "tlsServerName"))},
	"KubeStaticPodConfig": {says: "A static pod.", named: "a name", keys: to("pod", "machine.pods[+]")},
	"KubeTalosAPIAccessConfig": {says: "Access of pods to the machine's API.", begin: is("machine.features.kubernetesTalosAPIAccess.enabled"),
		keys: under("machine.features.kubernetesTalosAPIAccess", "allowedRoles allowedKubernetesNamespaces")},
	"KubeProxyConfig": {says: "kube-proxy.", keys: slices.Concat(inverted("enabled", "cluster.proxy.disabled"), under("cluster.proxy", "image mode"), args("cluster.proxy.extraArgs"),
		none(Refused, "kube-proxy is configured by mode and extraArgs", map[string]any{}, "config"),
		none(Warned, "kube-proxy asks for what it needs", map[string]any{}, "resources"))},
	"KubeCoreDNSConfig": {says: "The cluster's DNS.", keys: slices.Concat(inverted("enabled", "cluster.coreDNS.disabled"), under("cluster.coreDNS", "image"))},
	"KubeFlannelCNIConfig": {says: "Flannel as the pod network.", begin: flannel, keys: slices.Concat(
		to("extraArgs", "cluster.network.cni.flannel.extraArgs"),
		only(Refused, "flannel's backend is vxlan, another one would not be set up", "backendType", "vxlan"),
		number(Refused, "flannel's port is 4789, peers would not be reached", "backendPort", "4789", "0"),
		none(Warned, "flannel finds the MTU out", 0, "backendMTU"),
		none(Refused, "flannel's backend has no further settings here", map[string]any{}, "backendExtraConfig"),
		none(Warned, "flannel asks for what it needs", map[string]any{}, "resources"),
		none(Refused, "nothing enforces network policies beside flannel", true, "kubeNetworkPoliciesEnabled"))},
	"DiscoveryIdentityConfig": {says: "The cluster's identity.", keys: under("cluster", "clusterID=id clusterSecret=secret")},
	"DiscoveryServiceConfig": {says: "A hosted service through which nodes find each other.", named: "a name", begin: trueOnce("cluster.discovery.enabled"),
		keys: to("endpoint", "cluster.discovery.registries.service.endpoint")},
}

// controlPlaneKinds configure the control plane; workers' configurations have
// the certificate of its authority alone.
var controlPlaneKinds = map[string]kind{
	"KubeAPIServerCAConfig": {says: "Kubernetes's authority.", keys: slices.Concat(
		pemText("issuingCA.cert", "cluster.ca.crt"), pemText("issuingCA.key", "cluster.ca.key"), pemText("acceptedCAs[]", "cluster.acceptedCAs[#].crt"))},
	"KubeAggregatorCAConfig": {says: "The authority of the aggregation layer.", keys: slices.Concat(
		pemText("issuingCA.cert", "cluster.aggregatorCA.crt"), pemText("issuingCA.key", "cluster.aggregatorCA.key"),
		none(Refused, "the aggregation layer trusts one authority", []string{}, "acceptedCAs"))},
	"KubeServiceAccountConfig": {says: "Service account tokens.", keys: slices.Concat(
		pemText("issuer.privateKey", "cluster.serviceAccount.key"), to("issuer.issuerURL", "cluster.apiServer.extraArgs.service-account-issuer"),
		none(Refused, "one key, one issuer and its audience are accepted", []string{}, "accepted.publicKeys accepted.issuers accepted.audiences"))},
	"KubeEtcdEncryptionConfig": {says: "How Kubernetes's secrets are encrypted in etcd.", keys: to("config", "cluster.apiServer.encryptionConfig")},
	"KubeAPIServerConfig": {says: "kube-apiserver.", keys: slices.Concat(args("cluster.apiServer.extraArgs"),
		under("cluster.apiServer", "image env resources certExtraSANs=certSANs"), to("apiPort", "cluster.controlPlane.localAPIServerPort"),
		none(Warned, "kube-apiserver has probes always", true, "startupProbes"))},
	"KubeAdmissionControlConfig": {says: "An admission plugin.", named: "the plugin's name", keys: slices.Concat(
		to("configuration", "cluster.apiServer.admissionControl[name={name}].configuration"))},
	"KubeAuditPolicyConfig":    {says: "What kube-apiserver logs for the audit.", keys: to("configuration", "cluster.apiServer.auditPolicy")},
	"KubeAuthenticationConfig": {says: "How kube-apiserver authenticates.", keys: to("configuration", "cluster.apiServer.authenticationConfig")},
	"KubeAuthorizerConfig": {says: "A step of kube-apiserver's chain of authorizers.", named: "a name", keys: slices.Concat(
		under("cluster.apiServer.authorizationConfig[name={name}]", "type webhook"))},
	"KubeControllerManagerConfig": {says: "kube-controller-manager.", keys: slices.Concat(args("cluster.controllerManager.extraArgs"),
		inverted("enabled", "machine.controlPlane.controllerManager.disabled"), under("cluster.controllerManager", "image env resources"))},
	"KubeSchedulerConfig": {says: "kube-scheduler.", keys: slices.Concat(args("cluster.scheduler.extraArgs"),
		inverted("enabled", "machine.controlPlane.scheduler.disabled"), under("cluster.scheduler", "image env resources config"))},
	"KubeInlineManifestConfig": {says: "A Kubernetes manifest.", named: "a name", keys: to("manifest", "cluster.inlineManifests[name={name}].contents")},
	"KubeExternalManifestConfig": {says: "A Kubernetes manifest by its URL.", named: "a name", begin: external, keys: slices.Concat(
		to("url", "cluster.extraManifests[+]"),
		[]docKey{{name: "headers", to: "cluster.extraManifestHeaders", how: func(*translator, docKey, *yaml.Node, key, string) {}}})},
}

const linkKey = "machine.network.interfaces[interface={name}]"

// networkKinds configure the machine's network.
var networkKinds = map[string]kind{
	"HostnameConfig": {says: "The host name.", keys: slices.Concat(under("machine.network", "hostname"),
		[]docKey{{name: "auto", to: "machine.features.stableHostname", as: stringType, how: hostnameAuto}})},
	"ResolverConfig": {says: "Name servers and search domains.", keys: slices.Concat(
		to("nameservers[].address", "machine.network.nameservers[+]"),
		only(Refused, "questions go to name servers in the clear", "nameservers[].protocol", "Do53", ""),
		none(Refused, "questions go to name servers in the clear", "", "nameservers[].tlsServerName"),
		under("machine.network", "searchDomains.domains=searchDomains searchDomains.disableDefault=disableSearchDomain"),
		under("machine.features", "hostDNS.enabled hostDNS.forwardKubeDNSToHost hostDNS.resolveMemberNames"))},
	"TimeSyncConfig": {says: "Where the time comes from.", keys: slices.Concat(inverted("enabled", "machine.time.disabled"),
		under("machine.time", "bootTimeout ntp.servers=servers"),
		none(Refused, "time is asked for without authentication", true, "ntp.useNTS"),
		none(Warned, "time comes by NTP", []string{}, "ptp.devices"))},
	"StaticHostConfig": {says: "A line of /etc/hosts.", named: "an address", keys: slices.Concat(
		to("hostnames", "machine.network.extraHostEntries[ip={name}].aliases"))},
	"LinkConfig": {says: "A link that is there.", named: "the link's name", keys: slices.Concat(
		under(linkKey, "mtu"), to("addresses[].address", linkKey+".addresses[+]"),
		none(Warned, "the addresses' routes have the kernel's metric", 0, "addresses[].routePriority"),
		to("routes[].destination", linkKey+".routes[#].network"), to("routes[].gateway", linkKey+".routes[#].gateway"), to("routes[].source", linkKey+".routes[#].source"),
		to("routes[].metric", linkKey+".routes[#].metric"), to("routes[].mtu", linkKey+".routes[#].mtu"),
		only(Refused, "all routes are in the main table", "routes[].table", "main", ""),
		[]docKey{{name: "up", lot: Refused, reason: "links are up", as: boolType, how: mustBe(true)}},
		none(Warned, "links keep the kernel's setting", true, "multicast"))},
	"DHCPv4Config": {says: "DHCP on a link.", named: "the link's name", begin: askDHCP(false), keys: slices.Concat(
		to("routeMetric", linkKey+".dhcpOptions.routeMetric"),
		none(Warned, "what the server gives is used, unless the configuration says otherwise", true, "ignoreHostname ignoreRoutes"),
		only(Warned, "the server knows the machine by the link's address", "clientIdentifier", "mac", "none"),
		none(Warned, "the server knows the machine by the link's address", "", "duidRaw"))},
	"DHCPv6Config": {says: "DHCP for IPv6 on a link.", named: "the link's name", begin: askDHCP(true), keys: slices.Concat(
		to("duidRaw", linkKey+".dhcpOptions.duidv6"),
		none(Warned, "networkd speaks DHCPv4 only", 0, "routeMetric"), none(Warned, "networkd speaks DHCPv4 only", true, "ignoreHostname"),
		none(Warned, "networkd speaks DHCPv4 only", "", "clientIdentifier"))},
	"KubeSpanConfig": {says: "A WireGuard mesh between nodes.", keys: slices.Concat(
		under("machine.network.kubespan", "enabled advertiseKubernetesNetworks allowDownPeerBypass harvestExtraEndpoints mtu filters.endpoints"),
		none(Refused, "traffic between nodes is not encrypted with WireGuard", []string{}, "filters.excludeAdvertisedNetworks"))},
	"NetworkDefaultActionConfig": {says: "What the firewall does with the rest.", keys: only(Refused, noFirewall, "ingress", "accept", "")},
}

// machineKinds configure the machine itself.
var machineKinds = map[string]kind{
	"EnvironmentConfig": {says: "Environment of the operating system's services.", keys: to("variables", "machine.env")},
	"SysctlConfig":      {says: "Kernel parameters.", keys: to("params", "machine.sysctls")},
	"SysfsConfig":       {says: "Files below /sys.", keys: to("params", "machine.sysfs")},
	"UdevRulesConfig":   {says: "Device nodes.", keys: to("rules", "machine.udev.rules")},
	"KernelModuleConfig": {says: "A kernel module.", named: "the module's name", keys: slices.Concat(
		to("name", "machine.kernel.modules[name={name}]"), // the item has the name already
		under("machine.kernel.modules[name={name}]", "parameters"))},
	"UnattendedInstallConfig": {says: "How the operating system is installed on disk.", keys: slices.Concat(
		to("installer.image", "machine.install.image"), to("provisioning.wipe", "machine.install.wipe"),
		to("provisioning.diskSelector.match", "machine.install.diskSelector.match"),
		none(Warned, "a machine starts from its disk as soon as it is installed", true, "reboot"))},
	"WatchdogTimerConfig":   {says: "The timer that resets a machine that hangs.", keys: under("machine.watchdog", "device timeout")},
	"SecurityProfileConfig": {says: "Further isolation.", keys: under("machine.securityProfile", "workloadIsolation")},
	"VolumeConfig": {says: "A volume of the operating system.", named: "the volume's name", keys: slices.Concat(
		none(Refused, "disks are not encrypted", map[string]any{}, "encryption"),
		none(Warned, "the volumes of the operating system have their fixed places", map[string]any{}, "provisioning filesystem mount trim scrub"))},
	"FilesystemTrimConfig":  {says: "Trimming of file systems.", keys: none(Warned, "file systems are left alone", Duration(0), "interval")},
	"FilesystemScrubConfig": {says: "Scrubbing of file systems.", keys: none(Warned, "file systems are left alone", Duration(0), "interval")},
	"ZswapConfig": {says: "Compressed swap.", keys: slices.Concat(
		none(Warned, "nodes have no swap", 0, "maxPoolPercent"), none(Warned, "nodes have no swap", true, "shrinkerEnabled"))},
	"RegistryMirrorConfig": {says: "A mirror of a registry.", named: "the registry", keys: slices.Concat(
		to("endpoints[].url", "machine.registries.mirrors.{name}.endpoints[+]"), under("machine.registries.mirrors.{name}", "skipFallback"),
		[]docKey{{name: "endpoints[].overridePath", to: "machine.registries.mirrors.{name}.overridePath", as: boolType, how: overridePath}})},
	"RegistryAuthConfig": {says: "How the node authenticates to a registry.", named: "the registry", keys: slices.Concat(
		under("machine.registries.config.{name}.auth", "username password auth identityToken"))},
	"RegistryTLSConfig": {says: "TLS with a registry.", named: "the registry", keys: slices.Concat(
		pemText("clientIdentity.cert", "machine.registries.config.{name}.tls.clientIdentity.crt"), pemText("clientIdentity.key", "machine.registries.config.{name}.tls.clientIdentity.key"),
		pemText("ca", "machine.registries.config.{name}.tls.ca"), under("machine.registries.config.{name}.tls", "insecureSkipVerify"))},
	"ImageCacheConfig":         {says: "The cache of images.", keys: to("local.enabled", "machine.features.imageCache.localEnabled")},
	"CRIBaseRuntimeSpecConfig": {says: "What every pod's OCI spec gets.", keys: to("overrides", "machine.baseRuntimeSpecOverrides")},
}

// otherKinds are those of which nothing can be done, by why.
func otherKinds() map[string]kind {
	out := map[string]kind{}
	for _, g := range []struct {
		lot    Disposition
		reason string
		kinds  []string
	}{
		{Warned, noRealLink, []string{"BridgeConfig", "DummyLinkConfig", "VethConfig", "EthernetConfig", "LinkAliasConfig"}},
		{Warned, "bonds and VLANs are made of machine.network.interfaces", []string{"BondConfig", "VLANConfig"}},
		{Warned, "no node takes over a shared address", []string{"Layer2VIPConfig", "HCloudVIPConfig"}},
		{Warned, "nothing is probed but the node's own services", []string{"TCPProbeConfig", "HTTPProbeConfig"}},
		{Warned, "nodes do not announce further endpoints", []string{"KubeSpanEndpointsConfig"}},
		{Warned, "events are read over the API", []string{"EventSinkConfig"}},
		{Warned, "the kernel's log is the host's", []string{"KmsgLogConfig"}},
		{Warned, "the kernel decides what it ends when memory is short", []string{"OOMConfig"}},
		{Warned, "drivers are the host's", []string{"PCIDriverRebindConfig"}},
		{Refused, "links are not encrypted with WireGuard, traffic would go in the clear or nowhere", []string{"WireguardConfig"}},
		{Refused, noFirewall, []string{"NetworkRuleConfig"}},
		{Refused, ownRoutes, []string{"VRFConfig", "BGPInstanceConfig", "BlackholeRouteConfig", "RoutingRuleConfig"}},
		{Refused, noVolumes, []string{"UserVolumeConfig", "RawVolumeConfig", "ExistingVolumeConfig", "ExternalVolumeConfig", "SwapVolumeConfig",
			"LVMVolumeGroupConfig", "LVMLogicalVolumeConfig", "RAIDArrayConfig"}},
		{Refused, "images are not checked against signatures", []string{"ImageVerificationConfig"}},
		{Refused, "the roots that programs trust are those of the node's image", []string{"TrustedRootsConfig"}},
		{Refused, "the node joins no management network", []string{"SideroLinkConfig"}},
		{Refused, "no containers run beside Kubernetes", []string{"ContainerConfig"}},
		{Refused, "the image has no extensions", []string{"ExtensionServiceConfig"}},
		{Refused, "containerd's configuration is the image's; registries have documents of their own", []string{"CRICustomizationConfig"}},
		{Refused, "/etc is read-only; files can be below /var, /opt and /etc/cni with machine.files", []string{"EtcFileConfig"}},
	} {
		for _, name := range g.kinds {
			out[name] = kind{lot: g.lot, reason: g.reason, named: "a name"}
		}
	}
	for _, name := range []string{"KubeSpanEndpointsConfig", "EventSinkConfig", "OOMConfig", "ImageVerificationConfig", "SideroLinkConfig"} {
		k := out[name]
		k.named = ""
		out[name] = k
	}
	return out
}
