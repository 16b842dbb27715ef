package health

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"talos/internal/pki"
)

// kubeconfigFor trusts a server and shows a certificate to it.
func kubeconfigFor(t *testing.T, s *httptest.Server) []byte {
	t.Helper()
	authority, err := pki.NewCA(pki.Ed25519, pki.Subject{CommonName: "k8s"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.ParseCA(authority.Crt, authority.Key)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Template{CommonName: "admin", Client: true, Lifetime: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	trusted := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return fmt.Appendf(nil, `clusters: [{cluster: {server: %q, certificate-authority-data: %s}}]
users: [{user: {client-certificate-data: %s, client-key-data: %s}}]
`, s.URL, encode(trusted), encode(pair.Crt), encode(pair.Key))
}

// Whoever may have the cluster checked says where Kubernetes is, not what the
// node asks of it with an administrator's certificate.
func TestEndpointIsAHostOnly(t *testing.T) {
	var asked []string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/api/v1/secrets", http.StatusFound)
		}
	}))
	defer s.Close()
	file := kubeconfigFor(t, s)
	host := strings.TrimPrefix(s.URL, "https://")
	for _, endpoint := range []string{
		"http://" + host, s.URL + "/api/v1/secrets?", host + "/api", host + "?", host + "#", "https://", "https://u:p@" + host, "file:///etc", "a b", "https:" + host,
	} {
		if _, _, err := Access(file, endpoint); !errors.Is(err, ErrEndpoint) {
			t.Errorf("Access(%q) = %v, want that it is no endpoint", endpoint, err)
		}
	}
	for _, endpoint := range []string{"", host, s.URL, s.URL + "/"} {
		asked = nil
		get, done, err := Access(file, endpoint)
		if err != nil {
			t.Errorf("Access(%q): %v", endpoint, err)
			continue
		}
		if err := get(context.Background(), "/readyz", nil); err != nil || fmt.Sprint(asked) != "[/readyz]" {
			t.Errorf("endpoint %q: asked %v, %v", endpoint, asked, err)
		}
		asked = nil
		if err := get(context.Background(), "/moved", nil); err == nil || fmt.Sprint(asked) != "[/moved]" {
			t.Errorf("endpoint %q: asked %v after a redirection, %v", endpoint, asked, err)
		}
		done()
	}
}
