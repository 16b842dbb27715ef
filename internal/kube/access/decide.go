package access

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"talos/client/talosconfig"
	"talos/internal/authz"
	"talos/internal/pki"
	"talos/internal/resources/kubeaccess"
	"talos/internal/resources/pem"
)

// Lifetime of a certificate that a pod gets; it is replaced after half of it.
const Lifetime = 24 * time.Hour

// Endpoint is the name by which pods reach the control plane nodes.
const Endpoint = serviceName + "." + serviceNamespace

// Account is what is asked for: an object ServiceAccount.
type Account struct {
	Namespace, Name string
	Roles           []string
}

// Refusal says why an account must not have what it asks for; "" means that
// it may.
func Refusal(s kubeaccess.ConfigSpec, a Account) string {
	const key = "machine.features.kubernetesTalosAPIAccess"
	if !slices.Contains(s.AllowedKubernetesNamespaces, a.Namespace) {
		return fmt.Sprintf("namespace %q is not in %s.allowedKubernetesNamespaces", a.Namespace, key)
	}
	if len(a.Roles) == 0 {
		return "spec.roles names no role"
	}
	for _, role := range a.Roles {
		switch known := authz.NewRoles(role); {
		case known == 0 || known.Has(authz.Impersonator):
			return fmt.Sprintf("%q is not a role that clients have", role)
		case !slices.Contains(s.AllowedAPIRoles, role):
			return fmt.Sprintf("role %q is not in %s.allowedRoles", role, key)
		}
	}
	return ""
}

// template is the certificate of an account. The audit log shows its name.
func template(a Account) pki.Template {
	name := "serviceaccount:" + a.Namespace + "/" + a.Name
	if len(name) > 64 { // RFC 5280, ub-common-name
		name = name[:64]
	}
	return pki.Template{CommonName: name, Organization: a.Roles, Client: true, Lifetime: Lifetime}
}

// Talosconfig returns have while it serves the account, else a new file.
func Talosconfig(have []byte, a Account, ca *pki.CA, accepted []*pem.Certificate, now time.Time) ([]byte, error) {
	var trusted bytes.Buffer
	for _, c := range accepted {
		trusted.WriteString(strings.TrimSpace(string(c.Crt)) + "\n")
	}
	authorities := base64.StdEncoding.EncodeToString(trusted.Bytes())
	if serves(have, a, authorities, ca, now) {
		return have, nil
	}
	pair, err := ca.Issue(template(a), now)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s/%s: %w", a.Namespace, a.Name, err)
	}
	return yaml.Marshal(&talosconfig.Config{
		Context: a.Name,
		Contexts: map[string]*talosconfig.Context{a.Name: {
			Endpoints: []string{Endpoint}, CA: authorities, Crt: talosconfig.Encode(pair.Crt), Key: talosconfig.Encode(pair.Key),
		}},
	})
}

func serves(have []byte, a Account, authorities string, ca *pki.CA, now time.Time) bool {
	file, err := talosconfig.Parse(have)
	if err != nil {
		return false
	}
	ctx := file.Contexts[a.Name]
	if file.Context != a.Name || ctx == nil || ctx.CA != authorities || !slices.Equal(ctx.Endpoints, []string{Endpoint}) {
		return false
	}
	crt, err1 := base64.StdEncoding.DecodeString(ctx.Crt)
	key, err2 := base64.StdEncoding.DecodeString(ctx.Key)
	return err1 == nil && err2 == nil && ca.Serves(pki.Pair{Crt: crt, Key: key}, template(a), now)
}
