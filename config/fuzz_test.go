package config

import (
	_ "embed"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// worker is the smallest configuration there is. It is always the same: inputs
// are kept, and what they show must not depend on keys of the day.
//
//go:embed testdata/worker.yaml
var worker string

// maxInput bounds inputs: longer ones say nothing new, and make each execution,
// and the search for a smaller one, slow.
const maxInput = 2 << 10

// parts are small seeds: each document that TestDocumentsSayTheSameAsOneManifest
// has, and each value of its manifest. One of all keys would be 10 kB, which a
// fuzzer that changes a few bytes at a time makes nothing of.
func parts(f *testing.F) []string {
	f.Helper()
	text := strings.NewReplacer("\nK8S", "\n    K8S").Replace(todaysManifest + todaysDocuments + "---" + sameAsOneManifest)
	docs, err := stream([]byte(text))
	if err != nil {
		f.Fatal(err)
	}
	var out []string
	add := func(v any) {
		text, err := yaml.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, string(text))
	}
	for _, doc := range docs {
		if find(doc, "kind") != nil {
			add(doc)
			continue
		}
		for _, name := range []string{"machine", "cluster"} {
			section := find(doc, name)
			for i := 0; i+1 < len(section.Content); i += 2 {
				add(map[string]map[string]*yaml.Node{name: {section.Content[i].Value: section.Content[i+1]}})
			}
		}
	}
	return out
}

// FuzzLoad reads whatever comes, as a configuration and as a part of a valid
// one: what is taken can be written, read again and compared.
func FuzzLoad(f *testing.F) {
	if _, _, err := Load("worker", []byte(worker)); err != nil {
		f.Fatal(err)
	}
	for _, part := range parts(f) {
		f.Add(part)
	}
	f.Add("machine: &a {kubelet: {extraConfig: &b {x: *b}}}")
	f.Add("version: v1alpha1\n---\nkind: LinkConfig\n")
	for _, line := range []string{
		"kind: LinkConfig, name: eth0, routes: [{gateway: 10.0.0.1}], addresses: [{address: 10.0.0.2/24}]", "kind: DHCPv6Config, name: eth0",
		"kind: RegistryMirrorConfig, name: a, endpoints: [{url: 'https://a', overridePath: true}]", "kind: ResolverConfig, nameservers: [{address: 1.1.1.1}]",
		"kind: KubeExternalManifestConfig, name: a, url: 'https://a', headers: {a: b}", "kind: KubeAPIServerCAConfig, acceptedCAs: [x]",
	} {
		f.Add("{machine: {network: &n {hostname: a}, x: *n}}\n---\n{apiVersion: v1alpha1, " + line + "}\n")
	}
	f.Add("? [a]\n: b\n<<: {}\nmachine: {env: {1: 2}}")
	f.Add("machine: {network: {interfaces: [{interface: eth0, dhcp: yes, addresses: [10.0.0.2/24], routes: [{network: 0.0.0.0/0, gateway: 10.0.0.1}], vlans: [{vlanId: 5}]}]}}")
	f.Add("machine: {files: [{path: /var/a, content: \"x\\n y\", permissions: 0o644, op: create}], env: {A: \"\"}, time: {bootTimeout: 1h30m}}")
	f.Fuzz(func(t *testing.T, doc string) {
		if len(doc) > maxInput {
			return
		}
		checkLoad(t, doc)
		p, err := LoadPatch([]byte(doc))
		if err != nil {
			return
		}
		if whole, err := ApplyPatches([]byte(worker), []Patch{p}); err == nil {
			checkLoad(t, string(whole))
		}
	})
}

func checkLoad(t *testing.T, doc string) {
	c, _, err := Load("x", []byte(doc))
	if (c == nil) == (err == nil) {
		t.Fatalf("Load = %v, %v; want exactly one", c, err)
	}
	if err != nil {
		return
	}
	out := document(t, c)
	again, _, err := Load("again", []byte(out))
	if err != nil {
		t.Fatalf("what Load took, written again, is refused: %v\n%s", err, out)
	}
	if got := Diff(c, again); got != "" {
		t.Fatalf("what was written and read again differs:\n%s", got)
	}
	if _, err := hidden(c).Bytes(); err != nil {
		t.Fatalf("redacted, it cannot be written: %v", err)
	}
}

// FuzzPatch merges and patches whatever comes: what is parsed is bounded, and
// what comes out is YAML.
func FuzzPatch(f *testing.F) {
	f.Add("machine: {a: [1]}", "machine: {a: [2], b: {$patch: delete}}")
	f.Add("machine: {a: [1]}\n---\nkind: LinkConfig\nname: a", "kind: LinkConfig\nname: a\n$patch: delete\n---\nmachine: {$patch: replace, b: 1}")
	f.Add("machine: {network: {interfaces: [{interface: a}]}}", "machine: {network: {interfaces: [{interface: a, $patch: delete}, {$patch: replace}]}}")
	f.Add("a: &a [x]\nb: [*a, *a]", "a: &a {b: *a}")
	f.Add("machine: {a: [1]}", `[{op: copy, from: /machine, path: /machine/x}, {op: copy, from: /machine, path: /machine/y}, {op: add, path: /machine/a/-, value: {b: c}}]`)
	f.Add("machine: {a: [1]}", `[{"op":"move","from":"/machine/a/0","path":"/x~1y"},{"op":"test","path":"","value":{}},{"op":"replace","path":"/machine","value":null}]`)
	f.Add("# c\nmachine: # d\n  a: |\n    x\n  b: [] # e\n", `[{"op":"test","path":"/machine/b","value":[]},{"op":"remove","path":"/machine/b"}]`)
	f.Fuzz(func(t *testing.T, doc, patch string) {
		if len(doc)+len(patch) > maxInput {
			return
		}
		p, err := LoadPatch([]byte(patch))
		if err != nil {
			return
		}
		out, err := ApplyPatches([]byte(doc), []Patch{p})
		if err != nil {
			return
		}
		docs, err := stream(out)
		if err != nil {
			t.Fatalf("what comes out of a patch cannot be read: %v\n%s", err, out)
		}
		sum := 0
		for _, d := range docs {
			sum += count(d)
		}
		if sum > 3*maxNodes {
			t.Fatalf("a patch of %d bytes made a document of %d nodes", len(patch), sum)
		}
	})
}

// FuzzMerge: what a merge says is there afterwards, and applied again, a merge
// without lists changes nothing more.
func FuzzMerge(f *testing.F) {
	f.Add("machine: {sysctls: {a: b}}", "machine: {sysctls: {c: d}}")
	f.Add("machine: {a: {b: 1}}\n---\nkind: X", "kind: X\na: {$patch: replace, b: c}")
	f.Add("kind: HostnameConfig\nhostname: a", "machine: {a: ~, b: \"~\"}\n---\nkind: HostnameConfig\nhostname: a-b")
	f.Add("{kind: LinkConfig, name: a, mtu: 1}", "{kind: LinkConfig, name: a, up: yes, b: {c: {d: !!str 1}}}")
	f.Add("machine: &m {a: b}\ncluster: *m", "machine: {a: {b: c}}")
	f.Fuzz(func(t *testing.T, doc, patch string) {
		if len(doc)+len(patch) > maxInput {
			return
		}
		p, err := LoadPatch([]byte(patch))
		if err != nil || len(p.operations) > 0 || slices.ContainsFunc(p.merge, func(n *yaml.Node) bool { return !plain(n) }) {
			return
		}
		once, err := ApplyPatches([]byte(doc), []Patch{p})
		if err != nil {
			return
		}
		if len(p.merge) == 1 {
			checkSays(t, once, p.merge[0])
		}
		twice, err := ApplyPatches(once, []Patch{p})
		if err != nil {
			t.Fatalf("the second time: %v\n%s", err, once)
		}
		if a, b := said(t, once), said(t, twice); a != b {
			t.Fatalf("the second time makes a difference:\n%s", cmp.Diff(a, b))
		}
	})
}

// plain says whether a part adds and replaces only, and has no lists.
func plain(n *yaml.Node) bool {
	return n.Kind != yaml.SequenceNode && !deletes(n) && !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return !plain(c) })
}

// checkSays looks for a part in what came out of its merge.
func checkSays(t *testing.T, text []byte, part *yaml.Node) {
	docs, err := stream(text)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(docs, func(d *yaml.Node) bool { return samePart(d, part) })
	if i < 0 {
		t.Fatalf("the part is not there:\n%s", text)
	}
	var missing []string
	var look func(have, want *yaml.Node, at string)
	look = func(have, want *yaml.Node, at string) {
		if have == nil || have.Kind != want.Kind || want.Kind == yaml.ScalarNode && have.Value != want.Value {
			missing = append(missing, at)
			return
		}
		for i := 0; i+1 < len(want.Content); i += 2 {
			if name := want.Content[i].Value; name != directive && !isNull(want.Content[i+1]) {
				look(find(have, name), want.Content[i+1], at+"."+name)
			}
		}
	}
	look(docs[i], part, "")
	if len(missing) > 0 {
		t.Fatalf("not there after the merge: %s\n%s", strings.Join(missing, ", "), text)
	}
}
