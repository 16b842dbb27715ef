package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func TestApplyPatches(t *testing.T) {
	const base = `# kept
machine:
    certSANs:
        - a
    network:
        hostname: old
        interfaces:
            - interface: eth0
              addresses:
                - 10.5.0.2/24
            - interface: eth1
    sysctls:
        a: "1"
        b: "2"
cluster:
    network:
        podSubnets:
            - 10.244.0.0/16
    extraManifests:
        - https://a
        - https://b
    apiServer:
        admissionControl:
            - name: PodSecurity
              configuration:
                x: 1
`
	for name, test := range map[string]struct{ patches, gone, come []string }{
		"text":           {[]string{`machine: {network: {hostname: new}}`}, []string{"hostname: old"}, []string{"hostname: new", "# kept"}},
		"list appends":   {[]string{`machine: {certSANs: [b]}`}, nil, []string{"- a\n", "- b\n"}},
		"list replaced":  {[]string{`cluster: {network: {podSubnets: [10.1.0.0/16]}}`}, []string{"10.244.0.0/16"}, []string{"10.1.0.0/16"}},
		"map merges":     {[]string{`machine: {sysctls: {b: "3", c: "4"}}`}, []string{`b: "2"`}, []string{`a: "1"`, `b: "3"`, `c: "4"`}},
		"key deleted":    {[]string{`machine: {sysctls: {$patch: delete}}`}, []string{"sysctls", "$patch"}, []string{"hostname: old"}},
		"item deleted":   {[]string{`machine: {network: {interfaces: [{interface: eth1, $patch: delete}]}}`}, []string{"eth1", "$patch"}, []string{"eth0"}},
		"absent deleted": {[]string{`machine: {udev: {$patch: delete}}`}, []string{"udev", "$patch"}, nil},
		"interface by name": {[]string{`machine: {network: {interfaces: [{interface: eth0, mtu: 1400, addresses: [10.6.0.2/24]}]}}`}, nil,
			[]string{"mtu: 1400", "10.5.0.2/24", "10.6.0.2/24"}},
		"plugin by name":  {[]string{`cluster: {apiServer: {admissionControl: [{name: PodSecurity, configuration: {x: 2}}]}}`}, []string{"x: 1"}, []string{"x: 2"}},
		"null is nothing": {[]string{`machine: {sysctls: null}`}, nil, []string{`a: "1"`}},
		"one after other": {[]string{`machine: {network: {hostname: x}}`, `machine: {network: {hostname: y}}`}, []string{"hostname: x"}, []string{"hostname: y"}},
		"JSON": {[]string{`[{"op":"test","path":"/machine/network/hostname","value":"old"},{"op":"replace","path":"/machine/network/hostname","value":"new"},
			{"op":"add","path":"/machine/certSANs/0","value":"first"},{"op":"add","path":"/machine/certSANs/-","value":"last"},
			{"op":"remove","path":"/machine/sysctls/a"},{"op":"copy","from":"/machine/sysctls/b","path":"/machine/sysctls/x~1y"},
			{"op":"move","from":"/cluster/extraManifests/0","path":"/cluster/extraManifests/1"}]`},
			[]string{"hostname: old", `a: "1"`}, []string{`hostname: "new"`, "- \"first\"\n        - a\n        - \"last\"", `x/y: "2"`, "- https://b\n        - https://a"}},
		"list replaced by directive": {[]string{`cluster: {extraManifests: [$patch: replace, https://c]}`}, []string{"https://a", "https://b", "$patch"}, []string{"https://c"}},
		"mapping replaced":           {[]string{`machine: {sysctls: {$patch: replace, c: "4"}}`}, []string{`a: "1"`, `b: "2"`, "$patch"}, []string{`c: "4"`}},
		"item replaced":              {[]string{`machine: {network: {interfaces: [{interface: eth0, $patch: replace, mtu: 9000}]}}`}, []string{"10.5.0.2/24", "$patch"}, []string{"mtu: 9000", "eth1"}},
		"false and empty are set":    {[]string{`machine: {network: {hostname: "", interfaces: [{interface: eth1, dhcp: false}]}}`}, []string{"old"}, []string{"dhcp: false"}},
		"document added":             {[]string{"{apiVersion: v1alpha1, kind: HostnameConfig, hostname: x}"}, nil, []string{"---\n", "kind: HostnameConfig", "# kept"}},
		"manifest and documents":     {[]string{"machine: {certSANs: [b]}\n---\nkind: LinkConfig\nname: eth0\n"}, nil, []string{"- b\n", "---\nkind: LinkConfig\nname: eth0\n"}},
		"document merged": {[]string{"kind: LinkConfig\nname: eth0\nmtu: 1", "kind: LinkConfig\nname: eth1\nmtu: 2", "kind: LinkConfig\nname: eth0\nmtu: 3\naddresses: [a]", "kind: LinkConfig\nname: eth0\naddresses: [b]"},
			[]string{"mtu: 1\n"}, []string{"mtu: 2\n", "mtu: 3\naddresses: [a, b]"}},
		"document deleted":  {[]string{"kind: LinkConfig\nname: eth0\nmtu: 1", "kind: LinkConfig\nname: eth0\n$patch: delete"}, []string{"LinkConfig", "---"}, []string{"# kept"}},
		"absent document":   {[]string{"kind: LinkConfig\nname: eth0\n$patch: delete"}, []string{"LinkConfig"}, []string{"# kept"}},
		"document replaced": {[]string{"kind: LinkConfig\nname: eth0\nmtu: 1\nup: true", "kind: LinkConfig\nname: eth0\nmtu: 2\n$patch: replace"}, []string{"up: true", "$patch"}, []string{"mtu: 2"}},
		"document's list":   {[]string{"kind: KubeNetworkConfig\npodSubnets: [10.1.0.0/16]", "kind: KubeNetworkConfig\npodSubnets: [10.2.0.0/16]"}, []string{"10.1.0.0/16"}, []string{"10.2.0.0/16"}},
		"aliases":           {[]string{"machine: {files: [&f {path: /var/a, content: x}, *f]}"}, []string{"&f", "*f"}, []string{"path: /var/a"}},
		"JSON whole":        {[]string{`[{"op":"test","path":"/machine/certSANs","value":["a"]},{"op":"replace","path":"","value":{"a":1}}]`}, []string{"machine"}, []string{`"a": 1`}},
		"JSON in YAML":      {[]string{"- op: add\n  path: /machine/type\n  value: worker\n"}, nil, []string{"type: worker"}},
	} {
		t.Run(name, func(t *testing.T) {
			var patches []Patch
			for _, text := range test.patches {
				p, err := LoadPatch([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				patches = append(patches, p)
			}
			for range 2 { // a patch can be used again
				out, err := ApplyPatches([]byte(base), patches)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range test.gone {
					if strings.Contains(string(out), s) {
						t.Errorf("%q is still there:\n%s", s, out)
					}
				}
				for _, s := range test.come {
					if !strings.Contains(string(out), s) {
						t.Errorf("%q is not there:\n%s", s, out)
					}
				}
			}
		})
	}
}

func TestPatchErrors(t *testing.T) {
	for text, want := range map[string]string{
		`[{op: put, path: /a}]`:                          "want op, one of add",
		`[{op: add, path: /a}]`:                          "want a value",
		`[{op: remove, path: a}]`:                        "want path",
		`[{op: remove, path: /machine/x}]`:               "operation 1: remove /machine/x: there is nothing at this path",
		`[{op: test, path: /machine/type, value: x}]`:    "the value is another one",
		`[{op: move, from: /machine, path: /machine/x}]`: "cannot move into itself",
		`hello`:                                 "got a single value",
		"{}\n---\n[{op: remove}]":               "line 3: got a list",
		"{kind: HostnameConfig}\n---\n[1]":      "line 3: got a list",
		"":                                      "nothing in it",
		"{machine: {$patch: remove}}":           "line 1: $patch: got \"remove\", want delete or replace",
		`[{op: replace, path: "", value: [1]}]`: "must stay a mapping",
		`[{op: remove, path: ""}]`:              "want path",
		`[{op: add, path: /machine/x/01, value: 1}]`: "there is nothing at this path",
		"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]": "too large",
		"a: &a {b: *a}": "nests too deep",
		doubling():      "becomes too large or nests too deep",
		"a: [":          "parse patch: yaml",
	} {
		p, err := LoadPatch([]byte(text))
		if err == nil {
			_, err = ApplyPatches([]byte("machine: {type: worker}"), []Patch{p})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("patch %q = %v, want %q", text, err, want)
		}
	}
}

func TestDiffShowsNoSecret(t *testing.T) {
	a, b := generated(t).ControlPlane, generated(t).ControlPlane
	b.Machine.Network.Hostname = "node-1"
	b.Cluster.Network.PodSubnets = []string{"10.243.0.0/16"}
	got := Diff(a, b)
	for _, want := range []string{"-machine.token: '[redacted]'\n+machine.token: '[redacted]'\n", "\n+machine.network.hostname: node-1\n", "\n-cluster.network.podSubnets: [10.244.0.0/16]\n+cluster.network.podSubnets: [10.243.0.0/16]\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("Diff lacks %q:\n%s", want, got)
		}
	}
	for _, c := range []*Config{a, b} {
		for _, s := range []string{c.Machine.Token, c.Cluster.Token, c.Cluster.Secret, c.Cluster.SecretboxEncryptionSecret} {
			if strings.Contains(got, s) {
				t.Errorf("Diff shows a secret")
			}
		}
	}
	b.Machine.Network.Hostname = ""
	b.Cluster.Network.PodSubnets = a.Cluster.Network.PodSubnets
	if got := Diff(a, a); got != "" {
		t.Errorf("Diff(a, a) = %q, want nothing", got)
	}
}

// hidden has every secret replaced.
func hidden(c *Config) *Config { return redactWith(c, func(string) string { return Redacted }) }

func TestRedactLeavesTheOriginal(t *testing.T) {
	c := generated(t).ControlPlane
	c.Machine.Registries = &Registries{Config: map[string]Registry{"r.example.org": {Auth: &RegistryAuth{Username: "u", Password: "hunter2"}}}}
	c.Cluster.ExtraManifestHeaders = map[string]string{"Authorization": "hunter3"}
	before := document(t, c)
	shown := document(t, hidden(c))
	for _, s := range []string{"hunter", c.Machine.Token, c.Cluster.Token, c.Cluster.Secret} {
		if strings.Contains(shown, s) {
			t.Errorf("redactWith shows %q:\n%s", s, shown)
		}
	}
	if !strings.Contains(shown, "username: u") || !strings.Contains(shown, "BEGIN") && !strings.Contains(shown, "LS0t") {
		t.Errorf("redactWith hides what is no secret:\n%s", shown)
	}
	if diff := cmp.Diff(before, document(t, c)); diff != "" {
		t.Errorf("redactWith changed its argument:\n%s", diff)
	}
}

func TestChanged(t *testing.T) {
	a, _, _ := Load("a", []byte(patched(t, `{}`)))
	doc, err := ApplyPatches([]byte(document(t, a)), []Patch{mustPatch(t, `machine: {files: [{path: /var/x, content: y}], network: {hostname: n}, registries: {mirrors: {docker.io: {endpoints: [https://m]}}}}`)})
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := Load("b", doc)
	if err != nil {
		t.Fatal(err)
	}
	keys := Changed(a, b)
	want := []string{"machine.files[].content", "machine.files[].path", "machine.network.hostname", "machine.registries.mirrors{}.endpoints"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("Changed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:2], NeedReboot(keys)); diff != "" {
		t.Errorf("NeedReboot (-want +got):\n%s", diff)
	}
	if got := Changed(b, b); len(got) > 0 {
		t.Errorf("Changed(b, b) = %v, want none", got)
	}
}

func mustPatch(t *testing.T, text string) Patch {
	t.Helper()
	p, err := LoadPatch([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// doubling copies the document into itself, again and again.
func doubling() string {
	var b strings.Builder
	b.WriteString("[")
	for i := range 40 {
		fmt.Fprintf(&b, "{op: copy, from: /machine, path: /machine/x%d},", i)
	}
	return b.String() + "]"
}

// TestLongTextAgainAndAgain: aliases and copies of long text make a document as
// large as many nodes do.
func TestLongTextAgainAndAgain(t *testing.T) {
	text := strings.Repeat("x", 1<<18)
	bomb := "machine: {env: {a: &a " + text + "}, certSANs: [" + strings.Repeat("*a, ", 200) + "]}"
	_, _, loadErr := Load("x", []byte(bomb))
	_, patchErr := LoadPatch([]byte(bomb))
	part := "machine: {a: &a " + text + ", b: [" + strings.Repeat("*a, ", 90) + "]}\n---\n"
	_, partsErr := LoadPatch([]byte(strings.Repeat(part, 3)))
	_, baseErr := ApplyPatches([]byte(bomb), nil)
	_, copyErr := ApplyPatches([]byte("machine: {a: "+text+"}"), []Patch{mustPatch(t, doubling())})
	for name, err := range map[string]error{"configuration": loadErr, "patch": patchErr, "patch of parts": partsErr, "document to patch": baseErr, "copies": copyErr} {
		if err == nil || !strings.Contains(err.Error(), "too large") || len(err.Error()) > 64<<10 {
			t.Errorf("%s: %.200v, want it too large", name, err)
		}
	}
	whole := "version: v1alpha1\ncluster: {inlineManifests: [{name: a, contents: '" + strings.Repeat(text, 12) + "'}]}"
	if _, err := ApplyPatches([]byte(whole), []Patch{mustPatch(t, whole)}); err != nil {
		t.Errorf("%d bytes of manifests are refused: %.200v", len(whole), err)
	}
}

// Every list that the reference documents as special.
func TestSpecialLists(t *testing.T) {
	for _, test := range []struct{ name, base, patch, want string }{
		{"podSubnets", "cluster: {network: {podSubnets: [a]}}", "cluster: {network: {podSubnets: [b]}}", "cluster: {network: {podSubnets: [b]}}"},
		{"serviceSubnets", "cluster: {network: {serviceSubnets: [a]}}", "cluster: {network: {serviceSubnets: [b]}}", "cluster: {network: {serviceSubnets: [b]}}"},
		{"auditPolicy", "cluster: {apiServer: {auditPolicy: {a: 1, rules: [1]}}}", "cluster: {apiServer: {auditPolicy: {rules: [2]}}}", "cluster: {apiServer: {auditPolicy: {rules: [2]}}}"},
		{"authenticationConfig", "cluster: {apiServer: {authenticationConfig: {a: 1}}}", "cluster: {apiServer: {authenticationConfig: {b: 1}}}", "cluster: {apiServer: {authenticationConfig: {b: 1}}}"},
		{"encryptionConfig", "cluster: {apiServer: {encryptionConfig: {a: 1}}}", "cluster: {apiServer: {encryptionConfig: {b: 1}}}", "cluster: {apiServer: {encryptionConfig: {b: 1}}}"},
		{"credentialProviderConfig", "machine: {kubelet: {credentialProviderConfig: {a: 1}}}", "machine: {kubelet: {credentialProviderConfig: {b: 1}}}", "machine: {kubelet: {credentialProviderConfig: {b: 1}}}"},
		{"baseRuntimeSpecOverrides", "machine: {baseRuntimeSpecOverrides: {a: 1}}", "machine: {baseRuntimeSpecOverrides: {b: 1}}", "machine: {baseRuntimeSpecOverrides: {b: 1}}"},
		{"interfaces by name", "machine: {network: {interfaces: [{interface: a, mtu: 1}]}}", "machine: {network: {interfaces: [{interface: a, mtu: 2}, {interface: b}]}}", "machine: {network: {interfaces: [{interface: a, mtu: 2}, {interface: b}]}}"},
		{"interfaces by selector", "machine: {network: {interfaces: [{deviceSelector: {driver: x, busPath: y}, mtu: 1}]}}", "machine: {network: {interfaces: [{deviceSelector: {busPath: y, driver: x}, mtu: 2}]}}",
			"machine: {network: {interfaces: [{deviceSelector: {driver: x, busPath: y}, mtu: 2}]}}"},
		{"vlans", "machine: {network: {interfaces: [{interface: a, vlans: [{vlanId: 1, mtu: 1}]}]}}", "machine: {network: {interfaces: [{interface: a, vlans: [{vlanId: 1, mtu: 2}, {vlanId: 2}]}]}}",
			"machine: {network: {interfaces: [{interface: a, vlans: [{vlanId: 1, mtu: 2}, {vlanId: 2}]}]}}"},
		{"admissionControl", "cluster: {apiServer: {admissionControl: [{name: a, configuration: {x: 1}}]}}", "cluster: {apiServer: {admissionControl: [{name: a, configuration: {x: 2}}]}}", "cluster: {apiServer: {admissionControl: [{name: a, configuration: {x: 2}}]}}"},
		{"inlineManifests", "cluster: {inlineManifests: [{name: a, contents: x}]}", "cluster: {inlineManifests: [{name: a, contents: y}]}", "cluster: {inlineManifests: [{name: a, contents: y}]}"},
		{"destinations", "machine: {logging: {destinations: [{endpoint: a, format: x}]}}", "machine: {logging: {destinations: [{endpoint: a, format: y}]}}", "machine: {logging: {destinations: [{endpoint: a, format: y}]}}"},
		{"extraVolumes", "cluster: {scheduler: {extraVolumes: [{mountPath: a, hostPath: x}]}}", "cluster: {scheduler: {extraVolumes: [{mountPath: a, hostPath: y}]}}", "cluster: {scheduler: {extraVolumes: [{mountPath: a, hostPath: y}]}}"},
		{"static pod", "{kind: KubeStaticPodConfig, name: a, pod: {x: 1}}", "{kind: KubeStaticPodConfig, name: a, pod: {y: 1}}", "{kind: KubeStaticPodConfig, name: a, pod: {y: 1}}"},
		{"firewall", "{kind: NetworkRuleConfig, name: a, portSelector: {ports: [1]}, ingress: [{subnet: a}]}", "{kind: NetworkRuleConfig, name: a, portSelector: {ports: [2]}, ingress: [{subnet: b}]}",
			"{kind: NetworkRuleConfig, name: a, portSelector: {ports: [2]}, ingress: [{subnet: b}]}"},
		{"configFiles", "{kind: ExtensionServiceConfig, name: a, configFiles: [{mountPath: a, content: x}]}", "{kind: ExtensionServiceConfig, name: a, configFiles: [{mountPath: a, content: y}]}",
			"{kind: ExtensionServiceConfig, name: a, configFiles: [{mountPath: a, content: y}]}"},
		{"all other lists", "machine: {certSANs: [a], files: [{path: a}]}", "machine: {certSANs: [a], files: [{path: a}]}", "machine: {certSANs: [a, a], files: [{path: a}, {path: a}]}"},
	} {
		got, err := ApplyPatches([]byte(test.base), []Patch{mustPatch(t, test.patch)})
		if err != nil || strings.TrimSpace(string(got)) != test.want {
			t.Errorf("%s: ApplyPatches = %s, %v; want %s", test.name, got, err, test.want)
		}
	}
	several := "machine: {}\n---\n{kind: HostnameConfig, hostname: a}\n"
	if _, err := ApplyPatches([]byte(several), []Patch{mustPatch(t, "[{op: remove, path: /machine}]")}); err == nil || !strings.Contains(err.Error(), "has 2 documents") {
		t.Errorf("a JSON patch of several documents = %v, want it refused", err)
	}
}

// said is what a stream says, whatever its style and comments.
func said(t *testing.T, text []byte) string {
	docs, err := stream(text)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	var write func(n *yaml.Node)
	write = func(n *yaml.Node) {
		fmt.Fprintf(&b, "%d %q ", n.Kind, n.Value)
		for _, c := range n.Content {
			write(c)
		}
		b.WriteString("; ")
	}
	for _, d := range docs {
		write(d)
		b.WriteString("\n")
	}
	return b.String()
}
