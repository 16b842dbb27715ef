package config

import (
	"strings"
	"testing"
)

func TestDiffByKey(t *testing.T) {
	base := document(t, generated(t).ControlPlane)
	a := `machine: {nodeLabels: {rack: "7"}, files: [{path: /var/a, content: "1\n2\n3\n4\n5\n6\n7\n8\n9\n"}], env: {A: b}, network: {interfaces: [{interface: eth0, mtu: 1500}, {interface: eth1, dhcp: false}]}, kubelet: {extraConfig: {a: {b: 1, c: [1, 2]}}}}`
	b := `machine: {nodeLabels: {"a.b/c": x}, files: [{path: /var/a, content: "1\n2\n3\n4\n5\n6\n7\n8\nX\n"}], network: {interfaces: [{interface: eth1, dhcp: true}, {interface: eth0, mtu: 1400}]}, kubelet: {extraConfig: {a: {b: 2, c: [1, 2, 3]}}}, certSANs: [` + strings.Repeat("very-long-name.example.org, ", 9) + `z]}`
	load := func(patch string) *Config {
		doc, err := ApplyPatches([]byte(base), []Patch{mustPatch(t, patch)})
		if err != nil {
			t.Fatal(err)
		}
		c, _ := loaded(t, string(doc))
		return c
	}
	want := `-machine.certSANs: [api.example.org]
+machine.certSANs: [api.example.org, very-long-name.example.org, very-long-name…very-long-name.example.org, z] (272 characters)
-machine.env.A: b
 machine.files[0].content:
     6
     7
     8
-    9
+    X
-machine.kubelet.extraConfig.a.b: 1
+machine.kubelet.extraConfig.a.b: 2
-machine.kubelet.extraConfig.a.c: [1, 2]
+machine.kubelet.extraConfig.a.c: [1, 2, 3]
-machine.network.interfaces[eth0].mtu: 1500
+machine.network.interfaces[eth0].mtu: 1400
-machine.network.interfaces[eth1].dhcp: false
+machine.network.interfaces[eth1].dhcp: true
-machine.nodeLabels.rack: "7"
+machine.nodeLabels["a.b/c"]: x
`
	got := Diff(load(a), load(b))
	if got != want {
		t.Errorf("Diff =\n%s\nwant\n%s", got, want)
	}
}

// A document and the manifest's key for the same thing are no difference; the
// secrets of documents are not shown.
func TestDiffAcrossForms(t *testing.T) {
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	base := filled(t, s, bareManifest)
	doc := func(password string) *Config {
		c, _ := loaded(t, base+"---\n{apiVersion: v1alpha1, kind: RegistryAuthConfig, name: r.example, username: u, password: "+password+"}\n")
		return c
	}
	manifest, err := ApplyPatches([]byte(base), []Patch{mustPatch(t, "machine: {registries: {config: {r.example: {auth: {username: u, password: hunter2}}}}}")})
	if err != nil {
		t.Fatal(err)
	}
	one, _ := loaded(t, string(manifest))
	if diff := Diff(one, doc("hunter2")); diff != "" {
		t.Errorf("a document and the manifest's key differ:\n%s", diff)
	}
	want := "-machine.registries.config[\"r.example\"].auth.password: '[redacted]'\n+machine.registries.config[\"r.example\"].auth.password: '[redacted]'\n"
	if diff := Diff(doc("hunter2"), doc("hunter3")); diff != want {
		t.Errorf("Diff = %s, want %s", diff, want)
	}
}
