package config

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The kinds of documents, and their keys, are facts of the format.
func TestEveryKindIsKnown(t *testing.T) {
	facts, err := os.ReadFile("testdata/documents.txt")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(facts)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		listed[alias(words[0])] = true
		k, ok := kinds()[alias(words[0])]
		if !ok {
			t.Errorf("kind %s is not known", words[0])
			continue
		}
		if k.lot != Applied {
			continue // named as a whole
		}
		for _, name := range words[1:] {
			if name == "name" && k.named != "" {
				continue
			}
			if !k.holds(name) {
				t.Errorf("%s: key %s is not known", words[0], name)
			}
		}
		for _, dk := range k.keys {
			if !slices.ContainsFunc(words[1:], func(w string) bool {
				return w == strings.TrimSuffix(dk.name, "[]") || strings.HasPrefix(w, dk.name+".")
			}) {
				t.Errorf("%s: %s is no key of the format", words[0], dk.name)
			}
		}
	}
	for _, name := range Kinds() {
		// The list of keys leaves out two kinds that users have.
		if !listed[name] && name != "ImageVerificationConfig" && name != "SideroLinkConfig" && name != "PCIDriverRebindConfig" {
			t.Errorf("kind %s is not one of the format", name)
		}
	}
}

// holds says whether a key, or one above it as a whole, is among a document's.
func (k kind) holds(name string) bool {
	return slices.ContainsFunc(k.keys, func(dk docKey) bool {
		return dk.name == name || dk.name == name+"[]" || strings.HasPrefix(name, dk.name+".")
	})
}

func TestKindsHaveTheirLot(t *testing.T) {
	for name, k := range kinds() {
		if (k.lot == Applied) != (k.reason == "") {
			t.Errorf("%s: %v with reason %q", name, k.lot, k.reason)
		}
		if k.lot == Applied && (k.says == "" || len(k.keys) == 0) {
			t.Errorf("%s: says %q and has %d keys", name, k.says, len(k.keys))
		}
		for _, dk := range k.keys {
			if (dk.lot == Applied) != (dk.reason == "") || (dk.lot == Applied) == (dk.to == "") {
				t.Errorf("%s.%s: %v with reason %q, place %q", name, dk.name, dk.lot, dk.reason, dk.to)
			}
			if dk.to != "" && typeAt(pattern(dk.to)) == nil {
				t.Errorf("%s.%s: %s is no key of the manifest", name, dk.name, dk.to)
			}
		}
	}
	for _, row := range Documents() {
		text := row.Kind + "." + row.Key
		for _, promise := range []string{"ncryption", "Wireguard", "KubeSpanConfig", "NetworkRule", "DefaultAction", "ImageVerification", "workloadIsolation",
			"NetworkPolicies", "useNTS", "protocol", "tlsServerName", "TrustedRoots", "accepted", "KernelModule"} {
			if strings.Contains(text, promise) && row.Disposition == Warned && row.Kind != "KubePrismConfig" {
				t.Errorf("%s promises security and is merely accepted", text)
			}
		}
	}
}

const todaysManifest = `version: v1alpha1
machine:
  type: controlplane
  token: TOKEN
  ca: {crt: OSCRT, key: OSKEY}
  certSANs: [api.example.org]
cluster:
  token: BOOTSTRAP
  etcd: {ca: {crt: ETCDCRT, key: ETCDKEY}}
  allowSchedulingOnControlPlanes: false
`

const bareManifest = todaysManifest + `  id: ID
  secret: SECRET
  controlPlane: {endpoint: https://10.5.0.1:6443}
  ca: {crt: B64K8SCRT, key: B64K8SKEY}
  aggregatorCA: {crt: AGGCRT, key: AGGKEY}
  serviceAccount: {key: SAKEY}
  secretboxEncryptionSecret: SECRETBOX
`

const todaysDocuments = `---
apiVersion: v1alpha1
kind: HostnameConfig
auto: stable
---
apiVersion: v1alpha1
kind: KubeClusterConfig
clusterName: demo
endpoint: https://10.5.0.1:6443
---
apiVersion: v1alpha1
kind: KubeNetworkConfig
dnsDomain: cluster.local
podSubnets: [10.244.0.0/16]
serviceSubnets: [10.96.0.0/12]
nodeCIDRMaskSizeIPv4: 24
---
apiVersion: v1alpha1
kind: KubeFlannelCNIConfig
backendType: vxlan
backendPort: 4789
---
apiVersion: v1alpha1
kind: KubeAPIServerCAConfig
issuingCA:
  cert: |
K8SCRT
  key: |
K8SKEY
---
apiVersion: v1alpha1
kind: KubeAggregatorCAConfig
issuingCA: {cert: AGGCRT, key: AGGKEY}
---
apiVersion: v1alpha1
kind: KubeServiceAccountConfig
issuer:
  privateKey: SAKEY
  issuerURL: https://10.5.0.1:6443
---
apiVersion: v1alpha1
kind: KubeEtcdEncryptionConfig
config:
  resources:
    - resources: [secrets]
      providers: [{secretbox: {keys: [{name: key2, secret: SECRETBOX}]}}, {identity: {}}]
---
apiVersion: v1alpha1
kind: KubeAPIServerConfig
image: registry.k8s.io/kube-apiserver:v1.37.1
certExtraSANs: [10.5.0.1, api.example.org]
extraArgs: {v: ["2"]}
---
apiVersion: v1alpha1
kind: KubeAdmissionControlConfig
name: PodSecurity
configuration: {kind: PodSecurityConfiguration}
---
apiVersion: v1alpha1
kind: KubeAuditPolicyConfig
configuration: {kind: Policy, rules: [{level: Metadata}]}
---
apiVersion: v1alpha1
kind: KubeAuthenticationConfig
configuration: {anonymous: {enabled: false}}
---
apiVersion: v1alpha1
kind: KubeAuthorizerConfig
name: node
type: Node
---
apiVersion: v1alpha1
kind: KubeAuthorizerConfig
name: rbac
type: RBAC
---
apiVersion: v1alpha1
kind: KubeControllerManagerConfig
enabled: true
image: registry.k8s.io/kube-controller-manager:v1.37.1
---
apiVersion: v1alpha1
kind: KubeSchedulerConfig
enabled: true
image: registry.k8s.io/kube-scheduler:v1.37.1
---
apiVersion: v1alpha1
kind: KubeProxyConfig
enabled: true
image: registry.k8s.io/kube-proxy:v1.37.1
---
apiVersion: v1alpha1
kind: KubeCoreDNSConfig
enabled: true
image: registry.k8s.io/coredns/coredns:v1.15.0
---
apiVersion: v1alpha1
kind: KubeletConfig
image: registry.talos.dev/kubelet:v1.37.1
defaultRuntimeSeccompProfileEnabled: true
---
apiVersion: v1alpha1
kind: KubeNodeConfig
labels: {rack: "7"}
---
apiVersion: v1alpha1
kind: KubePrismConfig
port: 7445
---
apiVersion: v1alpha1
kind: DiscoveryIdentityConfig
clusterID: ID
clusterSecret: SECRET
---
apiVersion: v1alpha1
kind: ResolverConfig
hostDNS: {enabled: true, forwardKubeDNSToHost: true}
---
apiVersion: v1alpha1
kind: VolumeConfig
name: EPHEMERAL
provisioning: {grow: true}
---
apiVersion: v1alpha1
kind: FilesystemTrimConfig
interval: 168h
---
apiVersion: v1alpha1
kind: UnattendedInstall
installer: {image: registry.talos.dev/installer:v1}
provisioning: {diskSelector: {match: system_disk}}
---
apiVersion: v1alpha1
kind: SecurityProfileConfig
workloadIsolation: true
`

const sameAsOneManifest = `
machine:
  network: {}
  kubelet: {image: registry.talos.dev/kubelet:v1.37.1, defaultRuntimeSeccompProfileEnabled: true}
  nodeLabels: {rack: "7"}
  install: {image: registry.talos.dev/installer:v1, diskSelector: {match: system_disk}}
  securityProfile: {workloadIsolation: true}
  features: {stableHostname: true, kubePrism: {enabled: true, port: 7445}, hostDNS: {enabled: true, forwardKubeDNSToHost: true}}
  controlPlane: {controllerManager: {disabled: false}, scheduler: {disabled: false}}
cluster:
  id: ID
  secret: SECRET
  clusterName: demo
  controlPlane: {endpoint: https://10.5.0.1:6443}
  network: {dnsDomain: cluster.local, podSubnets: [10.244.0.0/16], serviceSubnets: [10.96.0.0/12], cni: {name: flannel}}
  ca: {crt: B64K8SCRT, key: B64K8SKEY}
  aggregatorCA: {crt: AGGCRT, key: AGGKEY}
  serviceAccount: {key: SAKEY}
  apiServer:
    image: registry.k8s.io/kube-apiserver:v1.37.1
    certSANs: [10.5.0.1, api.example.org]
    extraArgs: {v: "2", service-account-issuer: https://10.5.0.1:6443}
    admissionControl: [{name: PodSecurity, configuration: {kind: PodSecurityConfiguration}}]
    auditPolicy: {kind: Policy, rules: [{level: Metadata}]}
    authenticationConfig: {anonymous: {enabled: false}}
    encryptionConfig: {resources: [{resources: [secrets], providers: [{secretbox: {keys: [{name: key2, secret: SECRETBOX}]}}, {identity: {}}]}]}
    authorizationConfig: [{name: node, type: Node}, {name: rbac, type: RBAC}]
  controllerManager: {image: registry.k8s.io/kube-controller-manager:v1.37.1}
  scheduler: {image: registry.k8s.io/kube-scheduler:v1.37.1}
  proxy: {disabled: false, image: registry.k8s.io/kube-proxy:v1.37.1}
  coreDNS: {disabled: false, image: registry.k8s.io/coredns/coredns:v1.15.0}
`

// filled puts a cluster's secrets into a document.
func filled(t testing.TB, s *Secrets, doc string) string {
	t.Helper()
	b64 := func(b Base64) string {
		v, err := b.MarshalYAML()
		if err != nil {
			t.Fatal(err)
		}
		return v.(string)
	}
	block := func(b Base64) string {
		return "    " + strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\n    ")
	}
	return strings.NewReplacer(
		"B64K8SCRT", b64(s.Certs.K8s.Crt), "B64K8SKEY", b64(s.Certs.K8s.Key), "K8SCRT", block(s.Certs.K8s.Crt), "K8SKEY", block(s.Certs.K8s.Key),
		"OSCRT", b64(s.Certs.OS.Crt), "OSKEY", b64(s.Certs.OS.Key), "ETCDCRT", b64(s.Certs.Etcd.Crt), "ETCDKEY", b64(s.Certs.Etcd.Key),
		"AGGCRT", b64(s.Certs.K8sAggregator.Crt), "AGGKEY", b64(s.Certs.K8sAggregator.Key), "SAKEY", b64(s.Certs.K8sServiceAccount.Key),
		"TOKEN", s.TrustdInfo.Token, "BOOTSTRAP", s.Secrets.BootstrapToken, "SECRETBOX", s.Secrets.SecretboxEncryptionSecret,
		"clusterID: ID", "clusterID: "+s.Cluster.ID, "clusterSecret: SECRET", "clusterSecret: "+s.Cluster.Secret,
		" id: ID", " id: "+s.Cluster.ID, " secret: SECRET\n", " secret: "+s.Cluster.Secret+"\n",
	).Replace(doc)
}

func loaded(t testing.TB, doc string) (*Config, []Warning) {
	t.Helper()
	c, warnings, err := Load("x.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return c, warnings
}

// todays is what today's generators write for a control plane node.
func todays(t testing.TB) (string, *Secrets) {
	t.Helper()
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	return filled(t, s, todaysManifest+todaysDocuments), s
}

func TestDocumentsSayTheSameAsOneManifest(t *testing.T) {
	doc, s := todays(t)
	c, warnings := loaded(t, doc)
	one, err := ApplyPatches([]byte(filled(t, s, todaysManifest)), []Patch{mustPatch(t, filled(t, s, sameAsOneManifest))})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := loaded(t, string(one))
	if diff := Diff(want, c); diff != "" || len(Changed(want, c)) > 0 {
		t.Errorf("documents say something else than one manifest: %v\n%s", Changed(want, c), diff)
	}
	var keys []string
	for _, w := range warnings {
		keys = append(keys, w.Key)
	}
	wantKeys := []string{"VolumeConfig[EPHEMERAL].provisioning", "FilesystemTrimConfig.interval", "UnattendedInstall.installer.image", "UnattendedInstall.provisioning.diskSelector.match"}
	if !slices.Equal(keys, wantKeys) {
		t.Errorf("warnings %v, want %v", keys, wantKeys)
	}
	back, err := SecretsFromConfig(c)
	if err != nil || back.Secrets.SecretboxEncryptionSecret != s.Secrets.SecretboxEncryptionSecret {
		t.Errorf("SecretsFromConfig = %v, %v; want the secret of the encryption's configuration", back, err)
	}
	shown := document(t, hidden(c))
	for _, secret := range []string{s.Secrets.SecretboxEncryptionSecret, s.Cluster.Secret, s.TrustdInfo.Token} {
		if strings.Contains(shown, secret) {
			t.Errorf("redactWith shows a secret of a document:\n%s", shown)
		}
	}
}

func TestDocumentsByKind(t *testing.T) {
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	base := filled(t, s, bareManifest)
	for doc, manifest := range map[string]string{
		"{kind: HostnameConfig, hostname: n1}":                "machine: {network: {hostname: n1}}",
		"{kind: HostnameConfig, hostname: n1, auto: \"off\"}": "machine: {network: {hostname: n1}, features: {stableHostname: false}}",
		"{kind: ResolverConfig, nameservers: [{address: 1.1.1.1}, {address: 9.9.9.9, protocol: Do53}], searchDomains: {domains: [a.b], disableDefault: true}}": "machine: {network: {nameservers: [1.1.1.1, 9.9.9.9], searchDomains: [a.b], disableSearchDomain: true}}",
		"{kind: TimeSyncConfig, enabled: false, bootTimeout: 2m, ntp: {servers: [a.b]}}":                                                                       "machine: {time: {disabled: true, bootTimeout: 2m, servers: [a.b]}}",
		"{kind: StaticHostConfig, name: 10.0.0.9, hostnames: [a, b]}":                                                                                          "machine: {network: {extraHostEntries: [{ip: 10.0.0.9, aliases: [a, b]}]}}",
		"{kind: EnvironmentConfig, variables: {A: b}}":                                                                                                         "machine: {env: {A: b}}",
		"{kind: SysctlConfig, params: {vm.swappiness: \"1\"}}":                                                                                                 "machine: {sysctls: {vm.swappiness: \"1\"}}",
		"{kind: SysfsConfig, params: {a: b}}":                                                                                                                  "machine: {sysfs: {a: b}}",
		"{kind: WatchdogTimerConfig, device: /dev/watchdog0, timeout: 2m}":                                                                                     "machine: {watchdog: {device: /dev/watchdog0, timeout: 2m}}",
		"{kind: UdevRulesConfig, rules: [a]}":                                                                                                                  "machine: {udev: {rules: [a]}}",
		"{kind: ImageCacheConfig, local: {enabled: true}}":                                                                                                     "machine: {features: {imageCache: {localEnabled: true}}}",
		"{kind: CRIBaseRuntimeSpecConfig, overrides: {a: {b: 1}}}":                                                                                             "machine: {baseRuntimeSpecOverrides: {a: {b: 1}}}",
		"{kind: KubePrismConfig}":                                                                                                                              "machine: {features: {kubePrism: {enabled: true}}}",
		"{kind: KubeTalosAPIAccessConfig, allowedRoles: [\"os:reader\"], allowedKubernetesNamespaces: [a]}":                                                    "machine: {features: {kubernetesTalosAPIAccess: {enabled: true, allowedRoles: [\"os:reader\"], allowedKubernetesNamespaces: [a]}}}",
		"{kind: KubeNodeConfig, skipNodeRegistration: true, registerWithFQDN: true, nodeIP: {validSubnets: [10.0.0.0/8]}, annotations: {a: b}, taints: {a: NoSchedule}}":                            "machine: {kubelet: {skipNodeRegistration: true, registerWithFQDN: true, nodeIP: {validSubnets: [10.0.0.0/8]}}, nodeAnnotations: {a: b}, nodeTaints: {a: NoSchedule}}",
		"{kind: KubeletConfig, config: {maxPods: 5}, extraArgs: {v: 4}, clusterDNS: [10.96.0.10]}":                                                                                                  "machine: {kubelet: {extraConfig: {maxPods: 5}, extraArgs: {v: 4}, clusterDNS: [10.96.0.10]}}",
		"{kind: KubeCredentialProviderConfig, configuration: {providers: []}}":                                                                                                                      "machine: {kubelet: {credentialProviderConfig: {providers: []}}}",
		"{kind: KubeStaticPodConfig, name: x, pod: {kind: Pod, metadata: {name: x}}}":                                                                                                               "machine: {pods: [{kind: Pod, metadata: {name: x}}]}",
		"{kind: KubeInlineManifestConfig, name: x, manifest: 'kind: Namespace'}":                                                                                                                    "cluster: {inlineManifests: [{name: x, contents: 'kind: Namespace'}]}",
		"{kind: KubeSchedulerConfig, enabled: false, config: {profiles: []}, env: {A: b}}":                                                                                                          "{machine: {controlPlane: {scheduler: {disabled: true}}}, cluster: {scheduler: {config: {profiles: []}, env: {A: b}}}}",
		"{kind: KubeControllerManagerConfig, resources: {requests: {cpu: 1}}, extraArgs: {v: [\"3\"]}}":                                                                                             "cluster: {controllerManager: {resources: {requests: {cpu: 1}}, extraArgs: {v: \"3\"}}}",
		"{kind: KubeProxyConfig, mode: iptables}":                                                                                                                                                   "cluster: {proxy: {mode: iptables}}",
		"{kind: KubeCoreDNSConfig, enabled: false}":                                                                                                                                                 "cluster: {coreDNS: {disabled: true}}",
		"{kind: KubeAPIServerConfig, apiPort: 7443, env: {A: b}, startupProbes: true}":                                                                                                              "cluster: {controlPlane: {localAPIServerPort: 7443}, apiServer: {env: {A: b}}}",
		"{kind: KubeFlannelCNIConfig, extraArgs: [--iface=eth0]}":                                                                                                                                   "cluster: {network: {cni: {name: flannel, flannel: {extraArgs: [--iface=eth0]}}}}",
		"{kind: DiscoveryServiceConfig, name: a, endpoint: 'https://d.example'}":                                                                                                                    "cluster: {discovery: {enabled: true, registries: {service: {endpoint: 'https://d.example'}}}}",
		"{kind: RegistryMirrorConfig, name: docker.io, endpoints: [{url: 'https://a', overridePath: true}, {url: 'https://b', overridePath: true}], skipFallback: true}":                            "machine: {registries: {mirrors: {docker.io: {endpoints: ['https://a', 'https://b'], overridePath: true, skipFallback: true}}}}",
		"{kind: RegistryAuthConfig, name: r.example, username: u, password: p}":                                                                                                                     "machine: {registries: {config: {r.example: {auth: {username: u, password: p}}}}}",
		"{kind: RegistryTLSConfig, name: r.example, insecureSkipVerify: true}":                                                                                                                      "machine: {registries: {config: {r.example: {tls: {insecureSkipVerify: true}}}}}",
		"{kind: KubeExternalManifestConfig, name: a, url: 'https://a', headers: {H: i}}\n---\n{apiVersion: v1alpha1, kind: KubeExternalManifestConfig, name: b, url: 'https://b', headers: {H: i}}": "cluster: {extraManifests: ['https://a', 'https://b'], extraManifestHeaders: {H: i}}",
		"{kind: LinkConfig, name: eth0, up: true, mtu: 1400, addresses: [{address: 10.0.0.2/24}, {address: 10.0.1.2/24}], routes: [{gateway: 10.0.0.1, metric: 5}, {destination: 10.9.0.0/16, gateway: 10.0.0.1, source: 10.0.0.2, mtu: 1300, table: main}]}": "machine: {network: {interfaces: [{interface: eth0, mtu: 1400, addresses: [10.0.0.2/24, 10.0.1.2/24], routes: [{gateway: 10.0.0.1, metric: 5}, {network: 10.9.0.0/16, gateway: 10.0.0.1, source: 10.0.0.2, mtu: 1300}]}]}}",
		"{kind: DHCPv4Config, name: eth0, routeMetric: 7}\n---\n{apiVersion: v1alpha1, kind: LinkConfig, name: eth0, mtu: 1400}":                                                                                                                              "machine: {network: {interfaces: [{interface: eth0, mtu: 1400, dhcp: true, dhcpOptions: {routeMetric: 7}}]}}",
		"{kind: DHCPv6Config, name: eth0}": "machine: {network: {interfaces: [{interface: eth0, dhcp: true, dhcpOptions: {ipv6: true, ipv4: false}}]}}",
		"{kind: DHCPv6Config, name: eth0}\n---\n{apiVersion: v1alpha1, kind: DHCPv4Config, name: eth0}": "machine: {network: {interfaces: [{interface: eth0, dhcp: true, dhcpOptions: {ipv6: true, ipv4: true}}]}}",
		"{kind: KubeSpanConfig, enabled: false}":                                                        "machine: {network: {kubespan: {enabled: false}}}",
		"{kind: NetworkDefaultActionConfig, ingress: accept}":                                           "{version: v1alpha1}",
		"{kind: BondConfig, name: bond0, bondMode: 802.3ad}":                                            "{version: v1alpha1}",
		"{kind: SecurityProfileConfig, workloadIsolation: no}":                                          "machine: {securityProfile: {workloadIsolation: false}}",
		"{kind: SecurityProfileConfig, workloadIsolation: true}":                                        "machine: {securityProfile: {workloadIsolation: true}}",
	} {
		got, _ := loaded(t, base+"---\n"+strings.Replace(doc, "{", "{apiVersion: v1alpha1, ", 1)+"\n")
		one, err := ApplyPatches([]byte(base), []Patch{mustPatch(t, manifest)})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := loaded(t, string(one))
		if diff := Diff(want, got); diff != "" || len(Changed(want, got)) > 0 {
			t.Errorf("%s: differs from the manifest %s: %v\n%s", doc, manifest, Changed(want, got), diff)
		}
	}
}

func TestDocumentProblems(t *testing.T) {
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	base := filled(t, s, bareManifest)
	after := strings.Count(base, "\n") + 1
	for _, test := range []struct{ doc, want string }{
		{"kind: HostnameConfig\nhostname: Node_1", `HostnameConfig.hostname: got "Node_1", want a host name`},
		{"kind: HostnameConfig\nhostnam: a", `HostnameConfig.hostnam: got an unknown key, want perhaps hostname`},
		{"kind: HostnameConfig\nhostname: [a]", `HostnameConfig.hostname: got a list, want a text`},
		{"kind: HostnameConfig\nauto: maybe", `HostnameConfig.auto: got "maybe", want one of stable, off`},
		{"kind: HostnamConfig", `HostnamConfig on line 19 (an unknown kind, perhaps HostnameConfig)`},
		{"kind: LinkConfig\nmtu: 1400", `LinkConfig.name: got nothing, want the link's name`},
		{"kind: LinkConfig\nname: eth0\nmtu: big", `LinkConfig[eth0].mtu: got "big", want a whole number`},
		{"kind: LinkConfig\nname: eth0\naddresses: [{address: 10.0.0.0/8}]", `LinkConfig[eth0].addresses[0].address: got "10.0.0.0/8", want an address with prefix`},
		{"kind: LinkConfig\nname: eth0\nroutes: [{destination: 10.0.0.0/8, gateway: 'fe80::1'}]", `LinkConfig[eth0].routes[0].gateway: got "fe80::1", want a gateway of the network's own family`},
		{"kind: LinkConfig\nname: eth0\nroutes: [{gateway: 10.0.0.1, table: '7'}]", `LinkConfig[eth0].routes[0].table: got a key that is refused`},
		{"kind: LinkConfig\nname: eth0\nup: false", `LinkConfig[eth0].up: got a value that is refused`},
		{"kind: LinkConfig\nname: eth0\naddresses: {a: b}", `LinkConfig[eth0].addresses: got a mapping, want a list`},
		{"kind: ResolverConfig\nnameservers: [{address: 1.1.1.1, protocol: DoT}]", `ResolverConfig.nameservers[0].protocol: got a key that is refused`},
		{"kind: TimeSyncConfig\nntp: {useNTS: true}", `TimeSyncConfig.ntp.useNTS: got a key that is refused`},
		{"kind: KubeAPIServerConfig\nextraArgs: {a: [b, c]}", `KubeAPIServerConfig.extraArgs.a: got a list, want one text`},
		{"kind: KubernetesThing", `KubernetesThing on line 19 (an unknown kind)`},
		{"kind: KernelModuleConfig\nname: br_netfilter\nparameters: [a=b]", `KernelModuleConfig[br_netfilter].parameters: got a key that is refused`},
		{"kind: KubeSpanConfig\nenabled: true", `KubeSpanConfig.enabled: got a key that is refused, want it left out: traffic between nodes is not encrypted`},
		{"kind: VolumeConfig\nname: STATE\nencryption: {provider: luks2}", `VolumeConfig[STATE].encryption: got a key that is refused`},
		{"kind: HostnameConfig\nhostname: a\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: b", `HostnameConfig: got the document again, first given on line 19, want it once`},
		{"kind: KubeAPIServerCAConfig\nissuingCA: {cert: x, key: y}", `KubeAPIServerCAConfig.issuingCA.cert: got what cluster.ca.crt on line 14 says too, want one of the two`},
		{"kind: KubeClusterConfig\nendpoint: https://a:6443", `KubeClusterConfig.endpoint: got what cluster.controlPlane.endpoint on line 13 says too, want one of the two`},
		{"kind: KubeEtcdEncryptionConfig\nconfig: {resources: []}", `KubeEtcdEncryptionConfig.config: got a configuration of encryption beside a secret for it`},
		{"kind: KubeServiceAccountConfig\naccepted: {issuers: [a]}", `KubeServiceAccountConfig.accepted.issuers: got a key that is refused`},
		{"kind: RegistryMirrorConfig\nname: a\nendpoints: [{url: 'https://a', overridePath: true}, {url: 'https://b'}]", `endpoints[0].overridePath: got another value than of the mirror's other endpoints`},
		{"kind: KubeExternalManifestConfig\nname: a\nurl: https://a\n---\napiVersion: v1alpha1\nkind: KubeExternalManifestConfig\nname: b\nurl: https://b\nheaders: {a: b}", `KubeExternalManifestConfig[b].headers: got other headers than those of the document on line 19`},
	} {
		doc := base + "---\napiVersion: v1alpha1\n" + test.doc + "\n"
		c, _, err := Load("x.yaml", []byte(doc))
		if err == nil || c != nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "x.yaml:") {
			t.Errorf("%s (line %d): Load = %v\nwant %q", test.doc, after+1, err, test.want)
		}
	}
	_, _, err = Load("x.yaml", []byte(base+"---\nkind: HostnameConfig\napiVersion: v2\n"))
	if err == nil || !strings.Contains(err.Error(), `HostnameConfig.apiVersion: got "v2", want v1alpha1`) {
		t.Errorf("another version: Load = %v", err)
	}
}

// What cannot be done is named at once, with the rest of what is wrong.
func TestRefusedDocumentsAreNamedAtOnce(t *testing.T) {
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	doc := filled(t, s, bareManifest) + `---
{apiVersion: v1alpha1, kind: WireguardConfig, name: wg0}
---
{apiVersion: v1alpha1, kind: HostnameConfig, hostname: "%"}
---
{apiVersion: v1alpha1, kind: NetworkRuleConfig, name: ingress}
---
{apiVersion: v1alpha1, kind: Nonsense}
`
	_, _, err = Load("x.yaml", []byte(doc))
	want := `x.yaml:19:1: got documents of kinds that are refused: WireguardConfig[wg0] on line 19 (links are not encrypted with WireGuard, traffic would go in the clear or nowhere); ` +
		`NetworkRuleConfig[ingress] on line 23 (the node has no firewall of its own, what should be blocked would be open); Nonsense on line 25 (an unknown kind), want them left out
x.yaml:21:56: HostnameConfig.hostname: got "%", want a host name such as node-1 or node-1.example.org, of small letters, digits and -`
	if err == nil || err.Error() != want {
		t.Errorf("Load = %v\nwant %s", err, want)
	}
}

func TestControlPlaneWithoutFlannel(t *testing.T) {
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	network := "---\n{apiVersion: v1alpha1, kind: KubeNetworkConfig, podSubnets: ['fd00::/56'], serviceSubnets: ['fd01::/112'], nodeCIDRMaskSizeIPv4: 26, nodeCIDRMaskSizeIPv6: 72}\n"
	c, warnings := loaded(t, filled(t, s, bareManifest)+network)
	if c.CNIName() != "none" || len(warnings) != 1 || !strings.Contains(warnings[0].Text, "KubeFlannelCNIConfig") {
		t.Errorf("pod network %q with warnings %v; want none, and a warning", c.CNIName(), warnings)
	}
	if got := c.Cluster.ControllerManager.ExtraArgs; len(got) != 1 || got["node-cidr-mask-size"] != "72" {
		t.Errorf("flags %v, want the IPv6 mask as node-cidr-mask-size", got)
	}
}
