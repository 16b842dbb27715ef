package access

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/client/talosconfig"
	"talos/internal/pki"
	"talos/internal/resources/kubeaccess"
	"talos/internal/resources/pem"
)

func TestRefusal(t *testing.T) {
	settings := kubeaccess.ConfigSpec{
		Enabled: true, AllowedAPIRoles: []string{"os:reader", "os:etcd:backup", "os:impersonator", "nonsense"}, AllowedKubernetesNamespaces: []string{"default"},
	}
	for _, c := range []struct {
		name, namespace, roles, want string
	}{
		{"allowed", "default", "os:reader", ""},
		{"both", "default", "os:reader os:etcd:backup", ""},
		{"other namespace", "kube-system", "os:reader", "allowedKubernetesNamespaces"},
		{"other role", "default", "os:reader os:admin", `"os:admin" is not in`},
		{"no role", "default", "", "names no role"},
		{"speaks for others", "default", "os:impersonator", "not a role that clients have"},
		{"no such role", "default", "nonsense", "not a role that clients have"},
	} {
		got := Refusal(settings, Account{Namespace: c.namespace, Name: "a", Roles: strings.Fields(c.roles)})
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: Refusal = %q, want %q", c.name, got, c.want)
		}
	}
	if Refusal(kubeaccess.ConfigSpec{Enabled: true}, Account{Namespace: "default", Roles: []string{"os:reader"}}) == "" {
		t.Error("with empty lists somebody is allowed")
	}
}

func newCA(t *testing.T, now time.Time) *pki.CA {
	t.Helper()
	made, err := pki.NewCA(pki.Ed25519, pki.Subject{Organization: []string{"talos"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.ParseCA(made.Crt, made.Key)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestTalosconfig(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ca, other := newCA(t, start), newCA(t, start)
	accepted := []*pem.Certificate{{Crt: ca.CrtPEM}, {Crt: other.CrtPEM}}
	a := Account{Namespace: "default", Name: "monitoring", Roles: []string{"os:reader", "os:etcd:backup"}}
	make := func(have []byte, a Account, ca *pki.CA, accepted []*pem.Certificate, now time.Time) []byte {
		t.Helper()
		out, err := Talosconfig(have, a, ca, accepted, now)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := make(nil, a, ca, accepted, start)
	file, err := talosconfig.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := file.Select("")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"talos.default"}, ctx.Endpoints); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	text, err := base64.StdEncoding.DecodeString(ctx.Crt)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := pki.ParseCertificate(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"os:etcd:backup", "os:reader"}, slices.Sorted(slices.Values(crt.Subject.Organization))); diff != "" || crt.Subject.CommonName != "serviceaccount:default/monitoring" {
		t.Errorf("subject %s; roles (-want +got):\n%s", crt.Subject, diff)
	}
	authorities, err := base64.StdEncoding.DecodeString(ctx.CA)
	if err != nil || bytes.Count(authorities, []byte("BEGIN CERTIFICATE")) != 2 {
		t.Errorf("authorities = %q, %v; want the two that are accepted", authorities, err)
	}

	fewer := a
	fewer.Roles = a.Roles[:1]
	again := a
	again.Roles = []string{"os:etcd:backup", "os:reader"}
	for _, c := range []struct {
		name     string
		account  Account
		ca       *pki.CA
		accepted []*pem.Certificate
		after    time.Duration
		same     bool
	}{
		{"at once", a, ca, accepted, 0, true},
		{"roles in another order", again, ca, accepted, 0, true},
		{"before half of its life", a, ca, accepted, Lifetime/2 - time.Minute, true},
		{"after half of its life", a, ca, accepted, Lifetime/2 + time.Minute, false},
		{"other roles", fewer, ca, accepted, 0, false},
		{"another authority", a, other, accepted, 0, false},
		{"an authority less", a, ca, accepted[:1], 0, false},
	} {
		if got := make(first, c.account, c.ca, c.accepted, start.Add(c.after)); bytes.Equal(got, first) != c.same {
			t.Errorf("%s: the same file %v, want %v", c.name, !c.same, c.same)
		}
	}
	if got := make([]byte("context: ["), a, ca, accepted, start); len(got) < 100 {
		t.Errorf("a broken file became %q", got)
	}
}

// TestTemplateIsIssued: also the longest names that Kubernetes has.
func TestTemplateIsIssued(t *testing.T) {
	ca := newCA(t, time.Now())
	a := Account{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("a", 253), Roles: []string{"os:reader"}}
	if _, err := Talosconfig(nil, a, ca, nil, time.Now()); err != nil {
		t.Error(err)
	}
}
