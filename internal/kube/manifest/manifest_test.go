package manifest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/config"
	"talos/internal/resources/k8s"
	"talos/internal/resources/secrets"
)

func generated(t *testing.T, change func(*config.Cluster)) *config.Config {
	t.Helper()
	s, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := config.Generate(config.Input{ClusterName: "c", Endpoint: "https://api.example.com:6443", Secrets: s})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(b.ControlPlane.Cluster)
	}
	return b.ControlPlane
}

// local is the API for pods in the network of their node.
var local = &url.URL{Scheme: "https", Host: "127.0.0.1:7445"}

func names(list []Manifest) []string {
	var out []string
	for _, m := range list {
		out = append(out, m.Name)
	}
	return out
}

func TestRender(t *testing.T) {
	yes := true
	always := []string{"00-bootstrap-token", "01-node-bootstrap", "02-kubelet-access"}
	for _, c := range []struct {
		name   string
		change func(*config.Cluster)
		want   []string
	}{
		{"all", nil, []string{"05-flannel", "10-kube-proxy", "11-coredns"}},
		{"no network", func(c *config.Cluster) { c.Network = &config.ClusterNetwork{CNI: &config.CNI{Name: "none"}} }, []string{"10-kube-proxy", "11-coredns"}},
		{"another network", func(c *config.Cluster) { c.Network = &config.ClusterNetwork{CNI: &config.CNI{Name: "custom"}} }, []string{"10-kube-proxy", "11-coredns"}},
		{"neither proxy nor names", func(c *config.Cluster) {
			c.Proxy, c.CoreDNS = &config.Proxy{Disabled: &yes}, &config.CoreDNS{Disabled: &yes}
		}, []string{"05-flannel"}},
	} {
		got := names(Render(settings(generated(t, c.change), local), secrets.KubernetesRootSecretsSpec{BootstrapTokenID: "abcdef"}, time.Now()))
		if diff := cmp.Diff(slices.Concat(always, c.want), got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// TestTokenExpires: the bootstrap token is good for a day at least and a day and a
// half at most, and control plane nodes whose clocks differ a little agree on when.
func TestTokenExpires(t *testing.T) {
	expires := func(now time.Time) time.Time {
		o := bootstrapToken(secrets.KubernetesRootSecretsSpec{BootstrapTokenID: "abcdef", BootstrapTokenSecret: "0123456789abcdef"}, now)
		text, err := base64.StdEncoding.DecodeString(o["data"].(m)["expiration"].(string))
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, string(text))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	changes := 0
	began := time.Date(2026, 3, 1, 11, 59, 0, 0, time.FixedZone("east", 3*3600))
	for minutes := range 3 * 24 * 60 {
		now := began.Add(time.Duration(minutes) * time.Minute)
		at := expires(now)
		if left := at.Sub(now); left < 24*time.Hour || left > 36*time.Hour {
			t.Fatalf("at %v it is good for %v", now, left)
		}
		if !at.Equal(expires(now.Add(-time.Minute))) {
			changes++
		}
	}
	if changes != 6 {
		t.Errorf("it changes %d times in three days, want 6", changes)
	}
}

// TestServers: what shares the node's network has the node's own address of the
// API, which survives the loss of any API server; other pods the endpoint.
func TestServers(t *testing.T) {
	for _, m := range Render(settings(generated(t, nil), local), secrets.KubernetesRootSecretsSpec{}, time.Now()) {
		data, err := json.Marshal(m.Objects)
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		want := map[string][2]bool{"05-flannel": {true, false}, "10-kube-proxy": {true, false}, "11-coredns": {false, true}}[m.Name]
		if got := [2]bool{strings.Contains(text, "7445"), strings.Contains(text, "api.example.com")}; got != want {
			t.Errorf("%s has the local address and the endpoint: %v, want %v", m.Name, got, want)
		}
	}
}

// TestLeastPrivilege: what runs in the pod network, or for it, has no more than
// it needs.
func TestLeastPrivilege(t *testing.T) {
	for _, m := range Render(settings(generated(t, nil), local), secrets.KubernetesRootSecretsSpec{}, time.Now()) {
		for _, o := range m.Objects {
			if o["kind"] != "ClusterRole" {
				continue
			}
			for _, r := range o["rules"].(l) {
				for _, v := range slices.Concat(r.(map[string]any)["verbs"].(l), r.(map[string]any)["resources"].(l)) {
					if v == "*" || v == "create" || v == "delete" || v == "secrets" {
						t.Errorf("%s may %v", m.Name, r)
					}
				}
			}
		}
	}
}

func TestExtras(t *testing.T) {
	cfg := generated(t, func(c *config.Cluster) {
		c.Network = &config.ClusterNetwork{CNI: &config.CNI{Name: "custom", URLs: []string{"https://x/cni"}}}
		c.ExtraManifests = []string{"https://x/a"}
		c.ExtraManifestHeaders = map[string]string{"Token": "t"}
		c.InlineManifests = []config.InlineManifest{{Name: "own", Contents: "x"}}
	})
	want := []k8s.ExtraManifest{
		{Name: "05-cni-00", URL: "https://x/cni", Priority: "05-cni", ExtraHeaders: map[string]string{"Token": "t"}},
		{Name: "90-extra-00", URL: "https://x/a", Priority: "90-extra", ExtraHeaders: map[string]string{"Token": "t"}},
		{Name: "99-inline-0-own", Priority: "99-inline", InlineManifest: "x"},
	}
	if diff := cmp.Diff(want, extras(cfg)); diff != "" {
		t.Error(diff)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, want, err string }{
		{"several documents", "kind: A\napiVersion: v1\nmetadata: {name: a}\n---\n# nothing\n---\nkind: B\napiVersion: v1\nmetadata: {name: b}\n", "A B", ""},
		{"a list", "kind: List\napiVersion: v1\nitems:\n- {kind: A, apiVersion: v1, metadata: {name: a}}\n- {kind: B, apiVersion: v1, metadata: {name: b}}\n", "A B", ""},
		{"JSON", `{"kind":"A","apiVersion":"v1","metadata":{"name":"a"}}`, "A", ""},
		{"no name", "kind: A\napiVersion: v1\n", "", "metadata.name"},
		{"no object", "just text", "", "document 1"},
		{"bad YAML", "a: [", "", "document 1"},
	} {
		objects, err := Parse([]byte(c.text))
		var kinds []string
		for _, o := range objects {
			kinds = append(kinds, o["kind"].(string))
		}
		if got := strings.Join(kinds, " "); c.err == "" && (err != nil || got != c.want) {
			t.Errorf("%s: Parse = %q, %v, want %q", c.name, got, err, c.want)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: Parse = %v, want an error with %q", c.name, err, c.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("kind: List\nitems:\n- {kind: A}\n---\n[]\n"))
	f.Add([]byte(`{"kind":"A","apiVersion":"v1","metadata":{"name":"a"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := Parse(data)
		for _, o := range objects {
			if err == nil && check(o) != nil {
				t.Errorf("Parse(%q) gave an incomplete object %v", data, o)
			}
		}
	})
}

func TestFetch(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Token") != "t" {
			http.Error(w, "who are you", http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte("kind: A")) // the client's read shows what is missing
	}))
	defer srv.Close()
	if got, err := fetch(t.Context(), srv.URL, map[string]string{"Token": "t"}); err != nil || string(got) != "kind: A" {
		t.Errorf("fetch = %q, %v", got, err)
	}
	if _, err := fetch(t.Context(), srv.URL, nil); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("fetch without its header = %v, want 403", err)
	}
}

func TestNamespacesComeFirst(t *testing.T) {
	var g group
	for _, kind := range []string{"ConfigMap", "CustomResourceDefinition", "Namespace"} {
		o, err := normal(map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": "x"}})
		if err != nil {
			t.Fatal(err)
		}
		g.objects = append(g.objects, o)
	}
	var got []string
	for _, o := range ordered([]group{g}) {
		got = append(got, o.GetKind())
	}
	if want := []string{"Namespace", "CustomResourceDefinition", "ConfigMap"}; !slices.Equal(got, want) {
		t.Errorf("order = %v, want %v", got, want)
	}
}
