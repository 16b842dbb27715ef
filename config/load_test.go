package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func clock() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// generated is a fresh cluster.
func generated(t testing.TB) *Bundle {
	t.Helper()
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Generate(Input{ClusterName: "demo", Endpoint: "https://10.5.0.1:6443", Secrets: s, AdditionalSANs: []string{"api.example.org"}, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func document(t testing.TB, c *Config) string {
	t.Helper()
	doc, err := c.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// patched is the generated control plane configuration with a patch.
func patched(t testing.TB, patch string) string {
	t.Helper()
	p, err := LoadPatch([]byte(patch))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := ApplyPatches([]byte(document(t, generated(t).ControlPlane)), []Patch{p})
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

func TestEveryKeyHasItsLot(t *testing.T) {
	keys := Keys()
	listed := map[string]bool{}
	for _, g := range table {
		if (g.disposition == Applied) != (g.reason == "") {
			t.Errorf("table: %s %.40s: disposition %v with reason %q", g.prefix, g.keys, g.disposition, g.reason)
		}
		for _, name := range strings.Fields(g.keys) {
			k := key{path: g.prefix, pattern: g.prefix}.field(name).pattern
			if listed[k] {
				t.Errorf("table has %s twice", k)
			}
			listed[k] = true
			if !slices.Contains(keys, k) {
				t.Errorf("table has %s, which is no key", k)
			}
		}
	}
	for _, k := range keys {
		if !listed[k] {
			t.Errorf("key %s is not in the table", k)
		}
	}
	for k := range checks {
		if !listed[strings.TrimSuffix(k, "[]")] {
			t.Errorf("checks has %s, which is no key", k)
		}
	}
	for _, k := range secretKeys {
		if !listed[k] {
			t.Errorf("secretKeys has %s, which is no key", k)
		}
	}
}

// Facts of the format: these keys promise security.
func TestPromisesOfSecurityAreKept(t *testing.T) {
	for _, row := range Table() {
		for _, promise := range []string{"ncryption", "wireguard", "kubespan", "seccompProfiles", "rbac", "apidCheckExtKeyUsage", "kernel.modules", "acceptedCAs"} {
			if strings.Contains(row.Key, promise) && row.Disposition == Warned {
				t.Errorf("%s promises security and is merely accepted", row.Key)
			}
		}
	}
}

func TestGeneratedRoundTrip(t *testing.T) {
	b := generated(t)
	for _, c := range []*Config{b.ControlPlane, b.Worker} {
		doc := document(t, c)
		got, warnings, err := Load("x.yaml", []byte(doc))
		if err != nil || len(warnings) > 0 {
			t.Fatalf("Load(generated %s) = %v, %v; want neither", c.Machine.Type, warnings, err)
		}
		if diff := cmp.Diff(doc, document(t, got)); diff != "" {
			t.Errorf("%s changed on its way:\n%s", c.Machine.Type, diff)
		}
	}
	if strings.Contains(document(t, b.Worker), "secretbox") || len(b.Worker.Cluster.CA.Key)+len(b.Worker.Machine.CA.Key) > 0 {
		t.Error("the worker's configuration holds secrets of the control plane")
	}
}

func TestProblems(t *testing.T) {
	for name, test := range map[string]struct{ patch, want string }{
		"address":        {`machine: {network: {interfaces: [{interface: eth0, addresses: ["10.0.0.0/8"]}]}}`, `machine.network.interfaces[0].addresses[0]: got "10.0.0.0/8", want an address with prefix such as 10.5.0.2/24`},
		"route":          {`machine: {network: {interfaces: [{interface: eth0, routes: [{network: 10.1.0.1/8, gateway: x}]}]}}`, `routes[0].network: got "10.1.0.1/8", want the subnet without host bits, 10.0.0.0/8`},
		"family":         {`machine: {network: {interfaces: [{interface: eth0, routes: [{network: 10.0.0.0/8, gateway: "fe80::1"}]}]}}`, `want a gateway of the network's own family`},
		"unknown":        {`machine: {netwrok: {}}`, `machine.netwrok: got an unknown key, want perhaps network`},
		"letter case":    {`machine: {certSans: []}`, `machine.certSans: got an unknown key, want certSANs`},
		"bool":           {`debug: maybe`, `debug: got "maybe", want true or false`},
		"number":         {`machine: {network: {interfaces: [{interface: eth0, mtu: big}]}}`, `.mtu: got "big", want a whole number`},
		"bounds":         {`machine: {network: {interfaces: [{interface: eth0, mtu: 70000}]}}`, `want a number from 0 to 65535`},
		"kind":           {`machine: {certSANs: {a: b}}`, `machine.certSANs: got a mapping, want a list`},
		"text":           {`machine: {network: {hostname: [a]}}`, `machine.network.hostname: got a list, want a text`},
		"enum":           {`cluster: {network: {cni: {name: calico}}}`, `cluster.network.cni.name: got "calico", want one of flannel, custom, none`},
		"custom":         {`cluster: {network: {cni: {name: custom}}}`, `cluster.network.cni.urls: got nothing`},
		"duration":       {`cluster: {adminKubeconfig: {certLifetime: 1y}}`, `want a duration such as 1h30m`},
		"mode":           {`machine: {files: [{path: /var/x, permissions: 0o99}]}`, `permissions: got "0o99", want a file mode`},
		"path":           {`machine: {files: [{path: var/x}]}`, `want an absolute path`},
		"read-only":      {`machine: {files: [{path: /var/../etc/passwd}]}`, `path: got "/var/../etc/passwd", want an absolute path below /var`},
		"url":            {`cluster: {controlPlane: {endpoint: "http://10.5.0.1:6443"}}`, `cluster.controlPlane.endpoint: got "http://10.5.0.1:6443", want a URL such as https://`},
		"url path":       {`cluster: {controlPlane: {endpoint: "https://10.5.0.1:6443/x"}}`, `want scheme, host and port only`},
		"host name":      {`machine: {network: {hostname: Node_1}}`, `got "Node_1", want a host name`},
		"name server":    {`machine: {network: {nameservers: [dns]}}`, `machine.network.nameservers[0]: got "dns", want an address`},
		"token":          {`machine: {token: abcdefghijkl}`, `machine.token: got a secret of another form, want a token of the form`},
		"base64":         {`machine: {ca: {crt: "%%%"}}`, `machine.ca.crt: got "%%%", want base64`},
		"not a CA":       {`machine: {ca: {crt: aGFsbG8=}}`, `machine.ca.crt: got what is not the certificate of an authority`},
		"overlap":        {`cluster: {network: {podSubnets: [10.0.0.0/8]}}`, `that does not overlap the pods' 10.0.0.0/8`},
		"two families":   {`cluster: {network: {podSubnets: [10.0.0.0/16, 10.1.0.0/16]}}`, `at most one subnet of each address family`},
		"encryption":     {`machine: {systemDiskEncryption: {state: {keys: [{nodeID: {}, slot: 0}]}}}`, `keys[0].nodeID: got a key that is refused, want it left out: disks are not encrypted`},
		"wireguard":      {`machine: {network: {interfaces: [{interface: wg0, wireguard: {listenPort: 1}}]}}`, `wireguard.listenPort: got a key that is refused`},
		"access role":    {`machine: {features: {kubernetesTalosAPIAccess: {allowedRoles: ["os:impersonator"]}}}`, `machine.features.kubernetesTalosAPIAccess.allowedRoles[0]`},
		"sort algorithm": {`machine: {features: {nodeAddressSortAlgorithm: v3}}`, `want one of v1, v2`},
		"rbac":           {`machine: {features: {rbac: false}}`, `want true: this check cannot be switched off`},
		"taint":          {`machine: {nodeTaints: {a: b:Never}}`, `machine.nodeTaints.a: got "b:Never", want value:effect`},
		"label":          {`machine: {nodeLabels: {"a b": c}}`, `want a label as Kubernetes takes it`},
		"kubelet":        {`machine: {kubelet: {extraConfig: {staticPodPath: /x}}}`, `machine.kubelet.extraConfig.staticPodPath: got a key that the node itself decides`},
		"link twice":     {`[{op: add, path: /machine/network/interfaces, value: [{interface: a}, {interface: a}]}]`, `interfaces[1].interface: got "a" a second time`},
		"no link":        {`machine: {network: {interfaces: [{dhcp: true}]}}`, `want one of them`},
		"secretbox":      {`cluster: {secretboxEncryptionSecret: c2hvcnQ=}`, `want base64 of 32 bytes`},
		"no CA key":      {`cluster: {ca: {key: {$patch: delete}}}`, `cluster.ca.key: got nothing, want the authority's key`},
		"no etcd CA":     {`cluster: {etcd: {$patch: delete}}`, `cluster.etcd.ca.crt: got nothing`},
		"no aggregator":  {`cluster: {aggregatorCA: {$patch: delete}}`, `cluster.aggregatorCA.crt: got nothing`},
		"no service key": {`cluster: {serviceAccount: {$patch: delete}}`, `cluster.serviceAccount.key: got nothing`},
		"no encryption":  {`cluster: {secretboxEncryptionSecret: {$patch: delete}}`, `cluster.secretboxEncryptionSecret: got nothing`},
		"key of worker":  {`machine: {type: worker}`, `machine.ca.key: got a key, want none: workers must not be able to issue`},
		"pod":            {`machine: {pods: [{kind: Pot, metadata: {name: a}}]}`, `machine.pods[0].kind: got "Pot", want Pod`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _, err := Load("x.yaml", []byte(patched(t, test.patch)))
			if err == nil || cfg != nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "x.yaml:") {
				t.Errorf("Load(%s) = %v, %v; want no configuration and an error with %q", test.patch, cfg, err, test.want)
			}
		})
	}
}

func TestAllProblemsAtOnceInOrder(t *testing.T) {
	const doc = `version: v1
machine:
  type: controlplane
  token: abcdef.0123456789abcdef
  certSANs: [a, b]
  certSANs: [c]
  network:
    interfaces:
      - interface: eth0
        addresses: ["10.0.0.0/8"]
        adresses: []
cluster:
  controlPlane: {endpoint: "https://x:6443"}
  network: {podSubnets: [10.244.0.0]}
`
	_, _, err := Load("cp.yaml", []byte(doc))
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("Load = %v, want Problems", err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Position.String()+" "+p.Key)
	}
	want := []string{
		"cp.yaml:1:10 version",
		"cp.yaml:3:3 machine.ca.crt",
		"cp.yaml:6:3 machine.certSANs",
		"cp.yaml:10:21 machine.network.interfaces[0].addresses[0]",
		"cp.yaml:11:9 machine.network.interfaces[0].adresses",
		"cp.yaml:13:3 cluster.token",
		"cp.yaml:13:3 cluster.ca.crt",
		"cp.yaml:13:3 cluster.aggregatorCA.crt",
		"cp.yaml:13:3 cluster.etcd.ca.crt",
		"cp.yaml:13:3 cluster.secretboxEncryptionSecret",
		"cp.yaml:13:3 cluster.serviceAccount.key",
		"cp.yaml:14:26 cluster.network.podSubnets[0]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestDocuments(t *testing.T) {
	for name, test := range map[string]struct{ doc, want string }{
		"empty":      {"# nothing\n", "x.yaml: got an empty document, want a manifest with version, machine and cluster"},
		"not YAML":   {"a: b\n\tc: d\n", "x.yaml:2:1: is not YAML: found a tab character that violates indentation"},
		"a list":     {"- a\n", "x.yaml:1:1: got a list, want a mapping"},
		"two":        {"version: v1alpha1\n---\nversion: v1alpha1\n", "x.yaml:3:1: got a second manifest, want one manifest"},
		"later ones": {"kind: HostnameConfig\n---\nkind: LinkConfig\n", "x.yaml:1:1: got documents without a manifest, want a manifest beside them"},
		"cycle":      {"machine: &a {kubelet: {extraConfig: &b {x: *b}}}\n", "too large or nests too deep"},
	} {
		_, _, err := Load("x.yaml", []byte(test.doc))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Load = %v, want %q", name, err, test.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	doc := patched(t, `cluster: {discovery: {enabled: true, registries: {kubernetes: {disabled: true}, service: {disabled: true}}}}
machine: {sysctls: {vm.swappiness: "1"}, install: {disk: /dev/sda, wipe: false}, features: {kubePrism: {enabled: true, port: 7445}, hostDNS: {enabled: true}, imageCache: {localEnabled: true}, diskQuotaSupport: false}}`)
	_, warnings, err := Load("x.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.Key)
	}
	slices.Sort(got)
	want := []string{"machine.features.imageCache.localEnabled", "machine.install.disk", "machine.sysctls"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// TestAccessOnWorker: one patch for all nodes may ask for it.
func TestAccessOnWorker(t *testing.T) {
	p, err := LoadPatch([]byte(`machine: {features: {kubernetesTalosAPIAccess: {enabled: true, allowedRoles: ["os:reader"], allowedKubernetesNamespaces: [default]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Config{generated(t).ControlPlane, generated(t).Worker} {
		doc, err := ApplyPatches([]byte(document(t, c)), []Patch{p})
		if err != nil {
			t.Fatal(err)
		}
		_, warnings, err := Load("x", doc)
		want := 0
		if c.Machine.Type == TypeWorker {
			want = 1
		}
		if err != nil || len(warnings) != want {
			t.Errorf("%s: %v, %v; want %d warnings", c.Machine.Type, warnings, err, want)
		}
	}
}

func TestScalars(t *testing.T) {
	doc := patched(t, `{debug: yes, machine: {env: {a: 1, b: true}, files: [{path: /var/a, permissions: 0644}, {path: /var/b, permissions: 0o600}], time: {bootTimeout: 90s}, kubelet: {extraConfig: {maxPods: 5, list: [a, {b: 1.5}], when: 2026-01-01}}}}`)
	c, _, err := Load("x", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	m := c.Machine
	if !*c.Debug || m.Env["a"] != "1" || m.Env["b"] != "true" || m.Files[0].Permissions != 0o644 || m.Files[1].Permissions != 0o600 || m.Time.BootTimeout != Duration(90*time.Second) {
		t.Errorf("Load = %v %v %v %v", *c.Debug, m.Env, m.Files, m.Time)
	}
	want := map[string]any{"maxPods": 5, "list": []any{"a", map[string]any{"b": 1.5}}, "when": "2026-01-01"}
	if diff := cmp.Diff(want, m.Kubelet.ExtraConfig); diff != "" {
		t.Errorf("extraConfig (-want +got):\n%s", diff)
	}
}

func TestDefaults(t *testing.T) {
	c := &Config{}
	got := []any{
		c.ClusterName(), c.PodSubnets()[0].String(), c.ServiceSubnets()[0].String(), c.KubernetesServiceIPs()[0].String(), c.DNSServiceIPs()[0].String(),
		c.DNSDomain(), c.CNIName(), c.ProxyMode(), c.LocalEndpoint().String(), c.KubeletImage(), c.EtcdImage(), c.AdminKubeconfigLifetime(),
	}
	want := []any{
		"talos", "10.244.0.0/16", "10.96.0.0/12", "10.96.0.1", "10.96.0.10",
		"cluster.local", "flannel", "nftables", "https://127.0.0.1:6443", "registry.talos.dev/kubelet:v1.37.1", "registry.k8s.io/etcd:v3.7.3", 365 * 24 * time.Hour,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

// TestOnMachine: what only a container can't do is no warning on a machine.
func TestOnMachine(t *testing.T) {
	doc := document(t, generated(t).Worker) + `---
apiVersion: v1alpha1
kind: KernelModuleConfig
name: br_netfilter
---
apiVersion: v1alpha1
kind: SysctlConfig
params: {net.core.somaxconn: "1024"}
`
	cfg, warnings, err := Load("x.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Machine.Kernel.Modules; len(got) != 1 || got[0].Name != "br_netfilter" {
		t.Errorf("modules = %+v, want br_netfilter", got)
	}
	if got := len(warnings); got != 2 {
		t.Errorf("in a container %d warnings, want 2: %v", got, warnings)
	}
	if got := OnMachine(warnings); len(got) != 0 {
		t.Errorf("on a machine: %v, want none", got)
	}
}
