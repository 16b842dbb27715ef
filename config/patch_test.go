package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		"JSON in YAML": {[]string{"- op: add\n  path: /machine/type\n  value: worker\n"}, nil, []string{"type: worker"}},
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
		`hello`:                        "got a single value",
		"kind: LinkConfig\nname: eth0": "kind LinkConfig",
		"a: 1\n---\nb: 2":              "several documents",
		"a: [":                         "parse patch: yaml",
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

func TestRedactLeavesTheOriginal(t *testing.T) {
	c := generated(t).ControlPlane
	c.Machine.Registries = &Registries{Config: map[string]Registry{"r.example.org": {Auth: &RegistryAuth{Username: "u", Password: "hunter2"}}}}
	c.Cluster.ExtraManifestHeaders = map[string]string{"Authorization": "hunter3"}
	before := document(t, c)
	shown := document(t, Redact(c))
	for _, s := range []string{"hunter", c.Machine.Token, c.Cluster.Token, c.Cluster.Secret} {
		if strings.Contains(shown, s) {
			t.Errorf("Redact shows %q:\n%s", s, shown)
		}
	}
	if !strings.Contains(shown, "username: u") || !strings.Contains(shown, "BEGIN") && !strings.Contains(shown, "LS0t") {
		t.Errorf("Redact hides what is no secret:\n%s", shown)
	}
	if diff := cmp.Diff(before, document(t, c)); diff != "" {
		t.Errorf("Redact changed its argument:\n%s", diff)
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
