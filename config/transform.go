package config

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kind is a form of document.
type kind struct {
	says   string      // what it is for
	named  string      // what its name is, where several may be there
	lot    Disposition // Applied: as its keys have it
	reason string      // why the whole of it is refused or has no effect
	keys   []docKey
	begin  func(t *translator, doc *yaml.Node) // what the document says by being there
}

// docKey is a key of a document.
type docKey struct {
	name   string       // [] stands for each item of a list
	to     string       // the manifest's key for it, as place has it
	as     reflect.Type // its type, where it is not that of the manifest's key
	lot    Disposition  // of keys without a place in the manifest
	reason string
	values []string // that mean what is done anyhow
	how    func(t *translator, dk docKey, value *yaml.Node, said key, index string)
}

// key finds a key of a document.
func (k kind) key(name string) (docKey, bool) {
	i := slices.IndexFunc(k.keys, func(dk docKey) bool { return dk.name == name })
	if i < 0 {
		return docKey{}, false
	}
	return k.keys[i], true
}

// names are the keys directly below a prefix.
func (k kind) names(prefix string) []string {
	out := []string{}
	for _, dk := range k.keys {
		rest, ok := strings.CutPrefix(dk.name, prefix)
		if !ok || rest == "" && prefix != dk.name {
			continue
		}
		if i := strings.IndexAny(rest, ".["); i >= 0 {
			rest = rest[:i]
		}
		if !slices.Contains(out, rest) {
			out = append(out, rest)
		}
	}
	return out
}

// under lists keys that are below a key of the manifest under the same name, or
// as theirs=ours.
func under(prefix, list string) []docKey {
	var out []docKey
	for _, item := range strings.Fields(list) {
		theirs, ours, renamed := strings.Cut(item, "=")
		if !renamed {
			ours = theirs
		}
		out = append(out, docKey{name: theirs, to: prefix + "." + ours})
	}
	return out
}

// to is a key with another name in the manifest.
func to(name, manifest string) []docKey { return []docKey{{name: name, to: manifest}} }

// none lists keys of one type that have no place in the manifest.
func none(lot Disposition, reason string, example any, list string) []docKey {
	var out []docKey
	for _, name := range strings.Fields(list) {
		out = append(out, docKey{name: name, lot: lot, reason: reason, as: reflect.TypeOf(example), how: (*translator).nowhere})
	}
	return out
}

// only is a text of which some values are what is done anyhow.
func only(lot Disposition, reason, name string, values ...string) []docKey {
	return []docKey{{name: name, lot: lot, reason: reason, values: values, as: reflect.TypeFor[string](), how: (*translator).nowhere}}
}

// number is the same of a number.
func number(lot Disposition, reason, name string, values ...string) []docKey {
	return []docKey{{name: name, lot: lot, reason: reason, values: values, as: reflect.TypeFor[int](), how: (*translator).nowhere}}
}

// mustBe refuses a switch in the other position.
func mustBe(want bool) func(*translator, docKey, *yaml.Node, key, string) {
	return func(t *translator, dk docKey, value *yaml.Node, said key, _ string) {
		if on, ok := t.typed(dk, value, said); ok && on.Bool() != want {
			t.d.problem(value, said, "a value that is refused", fmt.Sprintf("%v: %s", want, dk.reason))
		}
	}
}

var (
	stringType = reflect.TypeFor[string]()
	boolType   = reflect.TypeFor[bool]()
)

// nowhere warns of a key without a place in the manifest, or refuses it, when
// its value asks for something.
func (t *translator) nowhere(dk docKey, value *yaml.Node, said key, _ string) {
	if _, ok := t.typed(dk, value, said); !ok || slices.Contains(dk.values, value.Value) && value.Kind == yaml.ScalarNode || !asks(value, dk.lot) {
		return
	}
	if dk.lot == Refused {
		t.d.problem(value, said, "a key that is refused", "it left out: "+dk.reason)
		return
	}
	t.d.warnings = append(t.d.warnings, Warning{Position: t.d.position(value), Key: said.path, Text: "has no effect: " + dk.reason})
}

// inverted is a switch that the manifest has the other way round.
func inverted(name, manifest string) []docKey {
	return []docKey{{name: name, to: manifest, as: reflect.TypeFor[bool](), how: func(t *translator, dk docKey, value *yaml.Node, said key, index string) {
		on, ok := t.typed(dk, value, said)
		if !ok {
			return
		}
		n := flag(!on.Bool(), value)
		t.said(n, said)
		t.place(dk.to, n, said, index)
	}}}
}

// pemText is PEM text, which the manifest has in base64. That is taken too.
func pemText(name, manifest string) []docKey {
	return []docKey{{name: name, to: manifest, as: reflect.TypeFor[string](), how: func(t *translator, dk docKey, value *yaml.Node, said key, index string) {
		n := value
		if value.Kind == yaml.ScalarNode && strings.Contains(value.Value, "-----BEGIN ") {
			n = text(base64.StdEncoding.EncodeToString([]byte(value.Value)), value)
			t.said(n, said)
		}
		t.place(dk.to, n, said, index)
	}}}
}

// args are flags of a program. A flag may have a list of values here; the
// manifest has one.
func args(manifest string) []docKey {
	return []docKey{{name: "extraArgs", to: manifest, how: func(t *translator, dk docKey, value *yaml.Node, said key, _ string) {
		t.d.mapping(value, said, nil, func(name, v *yaml.Node) {
			at := said.entry(name.Value)
			if v.Kind == yaml.SequenceNode && len(v.Content) == 1 {
				v = v.Content[0]
			}
			if v.Kind != yaml.ScalarNode {
				t.d.problem(v, at, kindOf(v), "one text: a flag is given once")
				return
			}
			t.said(v, at)
			flags := t.root
			for part := range strings.SplitSeq(dk.to, ".") {
				if flags.Kind != yaml.MappingNode {
					return // reported where it is decoded
				}
				flags = t.child(flags, part, yaml.MappingNode)
			}
			if flags.Kind == yaml.MappingNode {
				t.put(flags, name.Value, dk.to+"."+name.Value, v, at)
			}
		})
	}}}
}

// is sets a switch of the manifest because the document is there.
func is(keys ...string) func(*translator, *yaml.Node) {
	return func(t *translator, doc *yaml.Node) {
		for _, k := range keys {
			n := flag(true, doc)
			said := key{path: t.label}
			t.said(n, said)
			t.place(k, n, said, "")
		}
	}
}

// dhcpLink is what the documents say of DHCP on a link.
type dhcpLink struct {
	name   string
	doc    *yaml.Node
	label  string
	v4, v6 bool
}

func askDHCP(v6 bool) func(*translator, *yaml.Node) {
	return func(t *translator, doc *yaml.Node) {
		i := slices.IndexFunc(t.links, func(l *dhcpLink) bool { return l.name == t.name })
		if i < 0 {
			i = len(t.links)
			t.links = append(t.links, &dhcpLink{name: t.name, doc: doc, label: t.label})
		}
		t.links[i].v4 = t.links[i].v4 || !v6
		t.links[i].v6 = t.links[i].v6 || v6
	}
}

// dhcp switches DHCP on for the links that documents ask it for.
func (t *translator) dhcp() {
	for _, l := range t.links {
		t.doc, t.name, t.label = l.doc, l.name, l.label
		set := func(k string, v bool) {
			n, said := flag(v, l.doc), key{path: l.label}
			t.said(n, said)
			t.place("machine.network.interfaces[interface={name}]."+k, n, said, "")
		}
		set("dhcp", true)
		if l.v6 {
			set("dhcpOptions.ipv6", true)
			set("dhcpOptions.ipv4", l.v4)
		}
	}
}

// externalHeaders are the headers that the first of the external manifests has.
type externalHeaders struct {
	value *yaml.Node
	line  int
}

// external adds a manifest's URL. All URLs of the model share their headers:
// what differs must not be sent to the wrong server.
func external(t *translator, doc *yaml.Node) {
	headers := find(doc, "headers")
	if headers == nil {
		headers = t.mapping()
	}
	if t.headers == nil {
		t.headers = &externalHeaders{value: headers, line: doc.Line}
		mixed := find(orNode(find(t.root, "cluster"), t.root), "extraManifests")
		if mixed != nil && t.owner[mixed] == nil && len(headers.Content) > 0 {
			t.d.problem(headers, key{path: t.label + ".headers"}, "headers beside cluster.extraManifests", "all manifests in one of the two forms")
			return
		}
		if len(headers.Content) > 0 {
			t.place("cluster.extraManifestHeaders", headers, key{path: t.label + ".headers"}, "")
		}
		return
	}
	if !equal(t.headers.value, headers) {
		t.d.problem(headers, key{path: t.label + ".headers"}, "other headers than those of the document on line "+itoa(t.headers.line),
			"the same: all manifests are fetched with the same headers")
	}
}

// overridePath is one switch for all endpoints of a mirror.
func overridePath(t *translator, dk docKey, value *yaml.Node, said key, _ string) {
	on, ok := t.typed(dk, value, said)
	if !ok {
		return
	}
	for _, n := range orNode(find(t.doc, "endpoints"), t.doc).Content {
		other := false
		if v := find(n, "overridePath"); v != nil {
			other, _ = boolean(v)
		}
		if other != on.Bool() {
			t.d.problem(value, said, "another value than of the mirror's other endpoints", "the same: paths are overridden for all endpoints of a mirror, or for none")
			return
		}
	}
	where := t.label + "/overridePath"
	if on.Bool() && t.items[where] == nil {
		t.items[where] = value
		t.place("machine.registries.mirrors.{name}.overridePath", value, said, "")
	}
}

// hostnameAuto is whether the name derives from the machine's identity.
func hostnameAuto(t *translator, dk docKey, value *yaml.Node, said key, index string) {
	if want := oneOf("stable", "off").want(value.Value); want != "" || value.Kind != yaml.ScalarNode {
		t.d.problem(value, said, show(value.Value), want)
		return
	}
	n := flag(value.Value == "stable", value)
	t.said(n, said)
	t.place(dk.to, n, said, index)
}

// maskSize is a flag of kube-controller-manager; what is usual needs none. The
// flag's name depends on whether pods have addresses of both families.
func maskSize(name, family, usual string) []docKey {
	return []docKey{{name: name, to: "cluster.controllerManager.extraArgs", as: reflect.TypeFor[int](),
		how: func(t *translator, dk docKey, value *yaml.Node, said key, index string) {
			if _, ok := t.typed(dk, value, said); !ok || value.Value == usual || value.Value == "0" {
				return
			}
			flagName, pods := "node-cidr-mask-size", orNode(find(t.doc, "podSubnets"), text(DefaultPodSubnet, t.doc))
			switch v6 := strings.Contains(orNode(first(pods), pods).Value, ":"); {
			case len(pods.Content) > 1:
				flagName += "-" + family
			case v6 != (family == "ipv6"):
				return
			}
			n := text(value.Value, value)
			t.said(n, said)
			t.place(dk.to+"."+flagName, n, said, index)
		}}}
}

func first(list *yaml.Node) *yaml.Node {
	if len(list.Content) == 0 {
		return nil
	}
	return list.Content[0]
}

// clusterNetwork marks that documents configure the cluster's network: flannel then is
// what a document of its own asks for.
func clusterNetwork(t *translator, doc *yaml.Node) { t.network = doc }

// noCNI says that there is none, where documents configure the network of a
// control plane and none of them is KubeFlannelCNIConfig.
func (t *translator) noCNI() {
	machine, cluster := find(t.root, "machine"), find(t.root, "cluster")
	if t.network == nil || machine == nil || lookup(machine, "type") != TypeControlPlane {
		return
	}
	if n := find(orNode(cluster, t.root), "network"); n != nil && find(n, "cni") != nil {
		return
	}
	t.doc, t.name, t.label = t.network, "", "KubeNetworkConfig"
	t.d.warnings = append(t.d.warnings, Warning{
		Position: t.d.position(t.doc), Key: t.label, Text: "no document KubeFlannelCNIConfig beside it: the cluster gets no pod network but what you deploy",
	})
	n := text("none", t.doc)
	said := key{path: t.label}
	t.said(n, said)
	t.place("cluster.network.cni.name", n, said, "")
}

// flannel is deployed because the document is there.
func flannel(t *translator, doc *yaml.Node) {
	n, said := text(DefaultCNI, doc), key{path: t.label}
	t.said(n, said)
	t.place("cluster.network.cni.name", n, said, "")
}

// trueOnce sets switches that several documents may ask for.
func trueOnce(keys ...string) func(*translator, *yaml.Node) {
	return func(t *translator, doc *yaml.Node) {
		for _, k := range keys {
			if t.items[k] == nil {
				t.items[k] = doc
				is(k)(t, doc)
			}
		}
	}
}
