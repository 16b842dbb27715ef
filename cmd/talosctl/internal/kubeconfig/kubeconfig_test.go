package kubeconfig_test

import (
	"testing"

	"talos/cmd/talosctl/internal/kubeconfig"
)

func parse(t *testing.T, text string) *kubeconfig.Config {
	t.Helper()
	c, err := kubeconfig.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fetched is what a cluster hands out, with that address and client key.
func fetched(t *testing.T, server, key string) *kubeconfig.Config {
	return parse(t, `
clusters: [{name: demo, cluster: {server: "`+server+`", certificate-authority-data: Q0E=}}]
users: [{name: admin@demo, user: {client-key-data: `+key+`}}]
contexts: [{name: admin@demo, context: {cluster: demo, user: admin@demo}}]
current-context: admin@demo
`)
}

func TestMergeThenRemove(t *testing.T) {
	have := parse(t, `
clusters: [{name: mine, cluster: {server: "https://192.0.2.9"}}]
users: [{name: me, user: {token: t}}]
contexts: [{name: mine, context: {cluster: mine, user: me}}]
current-context: mine
`)
	first, second := fetched(t, "https://10.5.0.1:6443", "b25l"), fetched(t, "https://10.5.1.1:6443", "dHdv")
	for _, step := range []struct {
		in   *kubeconfig.Config
		want string // name of the context
		sum  int    // contexts afterwards
	}{
		{first, "admin@demo", 2},
		{second, "admin@demo-1", 3},                                      // another cluster of the same name
		{fetched(t, "https://10.5.0.1:6443", "bmV3"), "admin@demo", 3},   // new credentials for the first
		{fetched(t, "https://10.5.1.1:6443", "bmV3"), "admin@demo-1", 3}, // and for the second
	} {
		if got := have.Merge(step.in, false)["admin@demo"]; got != step.want || have.CurrentContext != step.want || len(have.Contexts) != step.sum {
			t.Errorf("Merge = %q, current %q, %d contexts; want %q, %d", got, have.CurrentContext, len(have.Contexts), step.want, step.sum)
		}
	}
	for _, u := range have.Users {
		if u.Name != "me" && u.User["client-key-data"] != "bmV3" {
			t.Errorf("user %s has the old key", u.Name)
		}
	}
	if removed := have.Remove(second.Clusters[0]); len(removed) != 1 || removed[0] != "admin@demo-1" {
		t.Errorf("Remove = %v, want admin@demo-1", removed)
	}
	have.Remove(first.Clusters[0])
	if len(have.Contexts) != 1 || len(have.Clusters) != 1 || len(have.Users) != 1 || have.CurrentContext != "" {
		t.Errorf("left after Remove: %+v", have)
	}
}

// TestMergeKeepsSharedUser: a user of somebody else's context is not replaced.
func TestMergeKeepsSharedUser(t *testing.T) {
	have := parse(t, `
clusters: [{name: other, cluster: {server: "https://192.0.2.9"}}]
users: [{name: admin@demo, user: {token: t}}]
contexts: [{name: other, context: {cluster: other, user: admin@demo}}]
`)
	if got := have.Merge(fetched(t, "https://10.5.0.1:6443", "b25l"), false)["admin@demo"]; got != "admin@demo-1" {
		t.Errorf("Merge = %q, want admin@demo-1", got)
	}
	if have.Users[0].User["token"] != "t" {
		t.Error("the user of the other context was replaced")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("clusters: [{name: a, cluster: {server: x}}]\ncontexts: [{name: c, context: {cluster: a, user: u}}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := kubeconfig.Parse(data)
		if err != nil {
			return
		}
		for name, to := range (&kubeconfig.Config{}).Merge(c, false) {
			if to == "" && name != "" {
				t.Errorf("context %q got no name", name)
			}
		}
	})
}
