package node

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"talos/internal/resources/k8s"
	"talos/internal/resources/network"
)

func TestName(t *testing.T) {
	for _, c := range []struct {
		host network.HostnameStatusSpec
		fqdn bool
		want string
	}{
		{network.HostnameStatusSpec{Hostname: "n1", Domainname: "example.com"}, false, "n1"},
		{network.HostnameStatusSpec{Hostname: "n1", Domainname: "example.com"}, true, "n1.example.com"},
		{network.HostnameStatusSpec{Hostname: "Node_1"}, true, "node-1"},
	} {
		if got := Name(c.host, c.fqdn); got != c.want {
			t.Errorf("Name(%v, %v) = %q, want %q", c.host, c.fqdn, got, c.want)
		}
	}
}

func TestPickIPs(t *testing.T) {
	p := func(list ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	have := p("127.0.0.1/8", "169.254.0.1/16", "10.244.0.1/24", "10.5.0.2/24", "192.168.1.2/24", "fe80::1/64", "fd01::2/64")
	pods := []string{"10.244.0.0/16"}
	for _, c := range []struct {
		name     string
		config   k8s.NodeIPConfigSpec
		services []netip.Prefix
		want     []string
	}{
		{"the first that is not of pods", k8s.NodeIPConfigSpec{ExcludeSubnets: pods}, p("10.96.0.0/12"), []string{"10.5.0.2"}},
		{"in the valid subnets", k8s.NodeIPConfigSpec{ExcludeSubnets: pods, ValidSubnets: []string{"192.168.0.0/16"}}, p("10.96.0.0/12"), []string{"192.168.1.2"}},
		{"one of each family", k8s.NodeIPConfigSpec{ExcludeSubnets: pods}, p("10.96.0.0/12", "fd02::/112"), []string{"10.5.0.2", "fd01::2"}},
		{"IPv6 first", k8s.NodeIPConfigSpec{ExcludeSubnets: pods}, p("fd02::/112", "10.96.0.0/12"), []string{"fd01::2", "10.5.0.2"}},
		{"none", k8s.NodeIPConfigSpec{ValidSubnets: []string{"172.16.0.0/12"}}, p("10.96.0.0/12"), nil},
	} {
		got, err := PickIPs(have, c.config, c.services)
		if err != nil {
			t.Fatal(err)
		}
		var text []string
		for _, ip := range got {
			text = append(text, ip.String())
		}
		if diff := cmp.Diff(c.want, text); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := new(unstructured.Unstructured)
	if err := o.UnmarshalJSON([]byte(`{"apiVersion":"v1","kind":"Node",` + text + `}`)); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestPlan(t *testing.T) {
	taint := Taint{Key: "a", Value: "1", Effect: "NoSchedule"}
	for _, c := range []struct {
		name, node string
		want       Wanted
		noTaints   bool
		patch      string // "" for none
	}{
		{
			"a new node", `"metadata":{"name":"n","resourceVersion":"5","labels":{"x":"y"}}`,
			Wanted{Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"n": "1"}, Taints: []Taint{taint}}, false,
			`{"metadata":{"resourceVersion":"5","labels":{"l":"1"},"annotations":{"n":"1","talos.dev/owned-labels":"[\"l\"]","talos.dev/owned-annotations":"[\"n\"]","talos.dev/owned-taints":"[\"a\"]"}},
			"spec":{"taints":[{"key":"a","value":"1","effect":"NoSchedule"}]}}`,
		},
		{
			"all as it should be", `"metadata":{"name":"n","labels":{"l":"1"},"annotations":{"talos.dev/owned-labels":"[\"l\"]","talos.dev/owned-taints":"[\"a\"]"}},"spec":{"taints":[{"key":"a","value":"1","effect":"NoSchedule"}]}`,
			Wanted{Labels: map[string]string{"l": "1"}, Taints: []Taint{taint}}, false, "",
		},
		{
			"what left the configuration leaves, what others gave stays",
			`"metadata":{"name":"n","resourceVersion":"5","labels":{"old":"1","theirs":"1"},"annotations":{"talos.dev/owned-labels":"[\"old\"]","talos.dev/owned-taints":"[\"a\"]"}},"spec":{"taints":[{"key":"a","value":"1","effect":"NoSchedule"},{"key":"node.kubernetes.io/not-ready","effect":"NoSchedule"}]}`,
			Wanted{}, false,
			`{"metadata":{"resourceVersion":"5","labels":{"old":null},"annotations":{"talos.dev/owned-labels":"[]","talos.dev/owned-taints":"[]"}},"spec":{"taints":[{"key":"node.kubernetes.io/not-ready","effect":"NoSchedule"}]}}`,
		},
		{
			"a worker leaves taints alone", `"metadata":{"name":"n"}`, Wanted{Labels: map[string]string{"l": "1"}, Taints: []Taint{taint}}, true,
			`{"metadata":{"labels":{"l":"1"},"annotations":{"talos.dev/owned-labels":"[\"l\"]"}}}`,
		},
	} {
		got := Plan(parse(t, c.node), c.want, !c.noTaints)
		var want map[string]any
		if c.patch != "" {
			if err := json.Unmarshal([]byte(c.patch), &want); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: Plan (-want +got): %s", c.name, diff)
		}
	}
}

func TestParseTaint(t *testing.T) {
	for text, want := range map[string]Taint{
		"NoSchedule":  {"k", "", "NoSchedule"},
		":NoSchedule": {"k", "", "NoSchedule"},
		"v:NoExecute": {"k", "v", "NoExecute"},
	} {
		if got := ParseTaint("k", text); got != want {
			t.Errorf("ParseTaint(%q) = %v, want %v", text, got, want)
		}
	}
}
