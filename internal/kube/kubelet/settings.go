package kubelet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"talos/config"
	"talos/internal/kube/controlplane"
	"talos/internal/kube/node"
	"talos/internal/layout"
	"talos/internal/resources/k8s"
	"talos/internal/resources/object"
	"talos/internal/resources/secrets"
)

// settings is what the configuration says of the kubelet.
func settings(cfg *config.Config) k8s.KubeletConfigSpec {
	c := config.Of(config.Of(cfg.Machine).Kubelet)
	dns := c.ClusterDNS
	if len(dns) == 0 {
		dns = controlplane.Strings(cfg.DNSServiceIPs())
	}
	s := k8s.KubeletConfigSpec{
		Image:                        cfg.KubeletImage(),
		ClusterDNS:                   dns,
		ClusterDomain:                cfg.DNSDomain(),
		ExtraArgs:                    map[string]k8s.ArgValues{},
		ExtraConfig:                  object.Map{Values: c.ExtraConfig},
		CloudProviderExternal:        config.Of(config.Of(config.Of(cfg.Cluster).ExternalCloudProvider).Enabled),
		DefaultRuntimeSeccompEnabled: config.Of(c.DefaultRuntimeSeccompProfileEnabled),
		SkipNodeRegistration:         config.Of(c.SkipNodeRegistration),
		EnableFSQuotaMonitoring:      config.Of(config.Of(config.Of(cfg.Machine).Features).DiskQuotaSupport),
		DisableManifestsDirectory:    config.Of(c.DisableManifestsDirectory),
		CredentialProviderConfig:     object.Map{Values: c.CredentialProviderConfig},
		RegisterWithTaints:           map[string]string{},
	}
	for k, v := range c.ExtraArgs {
		s.ExtraArgs[k] = k8s.ArgValues{Values: []string{v}}
	}
	for _, m := range c.ExtraMounts {
		s.ExtraMounts = append(s.ExtraMounts, k8s.Mount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options})
	}
	for _, t := range node.FromConfig(cfg).Taints {
		s.RegisterWithTaints[t.Key] = t.Value + ":" + t.Effect
	}
	return s
}

// protectedArgs are flags that a user can't replace.
var protectedArgs = []string{"config", "kubeconfig", "bootstrap-kubeconfig", "cert-dir", "hostname-override", "root-dir"}

// Spec is what the kubelet runs with.
func Spec(c k8s.KubeletConfigSpec, nodename string, ips []netip.Addr, controlPlane bool, where Surroundings) k8s.KubeletSpecSpec {
	args := map[string][]string{
		"config":               {ConfigFile},
		"kubeconfig":           {KubeconfigFile},
		"bootstrap-kubeconfig": {bootstrapFile},
		"cert-dir":             {pkiDir},
		"hostname-override":    {nodename},
		"node-ip":              {join(ips)},
	}
	if c.SkipNodeRegistration { // it runs its static pods and talks to nobody
		delete(args, "kubeconfig")
		delete(args, "bootstrap-kubeconfig")
	}
	if c.CloudProviderExternal {
		args["cloud-provider"] = []string{"external"}
	}
	if len(c.CredentialProviderConfig.Values) > 0 {
		args["image-credential-provider-config"] = []string{providerFile}
		args["image-credential-provider-bin-dir"] = []string{providerDir}
	}
	for name, v := range c.ExtraArgs {
		if name = strings.TrimLeft(name, "-"); !slices.Contains(protectedArgs, name) {
			args[name] = v.Values
		}
	}
	return k8s.KubeletSpecSpec{
		Image:                    c.Image,
		Args:                     flags(args),
		ExtraMounts:              c.ExtraMounts,
		ExpectedNodename:         nodename,
		Config:                   object.Map{Values: configuration(c, controlPlane, where)},
		CredentialProviderConfig: c.CredentialProviderConfig,
	}
}

func flags(args map[string][]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(args)) {
		for _, v := range args[name] {
			out = append(out, "--"+name+"="+v)
		}
	}
	return out
}

func join(ips []netip.Addr) string {
	var out []string
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return strings.Join(out, ",")
}

// protectedConfig are fields of KubeletConfiguration that a user can't replace.
var protectedConfig = []string{
	"apiVersion", "kind", "authentication", "authorization", "cgroupRoot", "kubeletCgroups", "port", "protectKernelDefaults", "resolvConf",
	"rotateCertificates", "serverTLSBootstrap", "systemCgroups", "staticPodPath", "seccompDefault", "containerRuntimeEndpoint",
}

// configuration is the KubeletConfiguration: what the node needs, then the
// user's fields, where objects are merged.
func configuration(c k8s.KubeletConfigSpec, controlPlane bool, where Surroundings) map[string]any {
	out := base(c, where)
	if !c.DisableManifestsDirectory || controlPlane { // the control plane is made of such pods
		out["staticPodPath"] = layout.ManifestsDir
	}
	if len(c.RegisterWithTaints) > 0 {
		var taints []any
		for _, key := range slices.Sorted(maps.Keys(c.RegisterWithTaints)) {
			t := node.ParseTaint(key, c.RegisterWithTaints[key])
			taints = append(taints, map[string]any{"key": t.Key, "value": t.Value, "effect": t.Effect})
		}
		out["registerWithTaints"] = taints
	}
	if c.EnableFSQuotaMonitoring {
		out["featureGates"] = map[string]any{"LocalStorageCapacityIsolationFSQuotaMonitoring": true}
	}
	merge(out, c.ExtraConfig.Values, protectedConfig)
	return out
}

// base is what every node's kubelet has. What is fast is so for a cluster's
// first seconds: images of different pods are pulled side by side, and a change
// of a manifest that inotify did not report is seen soon.
func base(c k8s.KubeletConfigSpec, where Surroundings) map[string]any {
	out := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true, "cacheTTL": "2m0s"},
			"x509":      map[string]any{"clientCAFile": caFile},
		},
		"authorization": map[string]any{
			"mode":    "Webhook",
			"webhook": map[string]any{"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
		},
		"cgroupDriver":                   "cgroupfs",
		"cgroupRoot":                     "/",
		"clusterDNS":                     anys(c.ClusterDNS),
		"clusterDomain":                  c.ClusterDomain,
		"containerRuntimeEndpoint":       "unix://" + layout.CRISocket,
		"containerLogMaxSize":            "10Mi",
		"containerLogMaxFiles":           5,
		"failCgroupV1":                   false,
		"failSwapOn":                     false,
		"fileCheckFrequency":             "5s",
		"healthzBindAddress":             "127.0.0.1",
		"makeIPTablesUtilChains":         false, // the node has no iptables, kube-proxy uses nftables
		"oomScoreAdj":                    oomScore(where),
		"protectKernelDefaults":          !where.Container,
		"readOnlyPort":                   0,
		"registerNode":                   !c.SkipNodeRegistration,
		"resolvConf":                     layout.PodResolvConf,
		"rotateCertificates":             true,
		"seccompDefault":                 c.DefaultRuntimeSeccompEnabled,
		"serializeImagePulls":            false,
		"serverTLSBootstrap":             !c.SkipNodeRegistration,
		"shutdownGracePeriod":            "0s",
		"streamingConnectionIdleTimeout": "5m0s",
		"systemReserved":                 map[string]any{"cpu": "50m", "memory": "192Mi", "ephemeral-storage": "256Mi", "pid": "100"},
		"tlsMinVersion":                  "VersionTLS13",
		"volumePluginDir":                layout.KubeletDir + "/volumeplugins",
	}
	if c.SkipNodeRegistration { // nobody to ask
		out["authentication"].(map[string]any)["webhook"] = map[string]any{"enabled": false}
		out["authorization"] = map[string]any{"mode": "AlwaysAllow"}
	}
	if where.Container { // how full the host's disk is tells nothing about the node
		out["imageGCHighThresholdPercent"] = 100
		out["evictionHard"] = map[string]any{
			"memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%",
		}
	}
	return out
}

func oomScore(where Surroundings) int {
	if where.LowerOOMScore {
		return -450
	}
	return 0
}

// merge lets the user's fields win, but for the protected ones; an object is
// merged into ours, anything else replaces it.
func merge(into, user map[string]any, protected []string) {
	for k, v := range user {
		if slices.Contains(protected, k) {
			continue
		}
		ours, ok1 := into[k].(map[string]any)
		theirs, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			merge(ours, theirs, nil)
			continue
		}
		into[k] = v
	}
}

func anys(in []string) []any {
	out := make([]any, len(in))
	for i, v := range in {
		out[i] = v
	}
	return out
}

// fingerprint covers everything that the kubelet reads at its start only.
func fingerprint(spec k8s.KubeletSpecSpec, sec secrets.KubeletSecretsSpec) string {
	var cas []string
	for _, c := range sec.AcceptedCAs {
		cas = append(cas, string(c.Crt))
	}
	data, _ := json.Marshal([]any{spec.Image, spec.Args, spec.ExtraMounts, spec.Config.Values, spec.CredentialProviderConfig.Values, cas, sec.Endpoint.String()}) // plain values always encode
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}
