package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// TestSchema has a validator of JSON Schema read ours: it takes what Load takes
// and refuses what Load refuses for its form.
func TestSchema(t *testing.T) {
	text, err := Schema(func(reflect.Type, string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(text string) error {
		docs, err := stream([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			if err := schema.Validate(asJSON(t, d)); err != nil {
				return err
			}
		}
		return nil
	}
	b := generated(t)
	todaysForm, _ := todays(t)
	for name, good := range map[string]string{
		"control plane": document(t, b.ControlPlane), "worker": document(t, b.Worker), "today's form": todaysForm,
		"documents": "{apiVersion: v1alpha1, kind: LinkConfig, name: eth0, mtu: 1400, addresses: [{address: 10.0.0.2/24}], routes: [{gateway: 10.0.0.1}]}\n---\n" +
			"{apiVersion: v1alpha1, kind: UnattendedInstall, reboot: true}\n---\n{apiVersion: v1alpha1, kind: KubeAPIServerConfig, extraArgs: {v: 4, w: [x]}}",
	} {
		if err := validate(good); err != nil {
			t.Errorf("%s is refused: %v", name, err)
		}
	}
	for _, bad := range []string{
		"version: v1alpha1\n", "version: v2\nmachine: {}\ncluster: {}\n", "{version: v1alpha1, machine: {typ: worker}, cluster: {}}",
		"{version: v1alpha1, machine: {type: init}, cluster: {}}", "{version: v1alpha1, machine: {certSANs: a}, cluster: {}}",
		"{version: v1alpha1, machine: {network: {interfaces: [{mtu: 70000}]}}, cluster: {}}", "{version: v1alpha1, machine: {time: {bootTimeout: 1y}}, cluster: {}}",
		"{kind: HostnameConfig, hostname: a}", "{apiVersion: v1alpha1, kind: Nonsense}", "{apiVersion: v1alpha1, kind: HostnameConfig, hostnam: a}",
		"{apiVersion: v1alpha1, kind: LinkConfig, mtu: 1}", "{apiVersion: v1alpha1, kind: LinkConfig, name: a, routes: [{to: b}]}",
		"{apiVersion: v1alpha1, kind: WireguardConfig, name: a}", "{apiVersion: v1alpha1, kind: KubeAPIServerConfig, apiPort: 0}", "[1]",
	} {
		if validate(bad) == nil {
			t.Errorf("%s is taken", strings.TrimSpace(bad))
		}
	}
}

func asJSON(t *testing.T, n *yaml.Node) any {
	t.Helper()
	var v any
	if err := n.Decode(&v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
