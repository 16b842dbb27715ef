package config

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/internal/pki"
)

func TestSecretsRoundTrip(t *testing.T) {
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := s.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	// The known format of the bundle: these names, in this nesting.
	for _, want := range []string{
		`(?m)^cluster:\n    id: \S{44}\n    secret: \S{44}$`, `(?m)^secrets:\n    bootstraptoken: [a-z0-9]{6}\.[a-z0-9]{16}\n    secretboxencryptionsecret: \S{44}$`,
		`(?m)^trustdinfo:\n    token: [a-z0-9]{6}\.[a-z0-9]{16}$`, `(?m)^certs:\n    etcd:\n        crt: \S+\n        key: \S+\n    k8s:`,
		`(?m)^    k8saggregator:\n        crt: `, `(?m)^    k8sserviceaccount:\n        key: `, `(?m)^    os:\n        crt: `,
	} {
		if !regexp.MustCompile(want).Match(doc) {
			t.Errorf("bundle lacks %s:\n%s", want, doc)
		}
	}
	got, err := LoadSecrets("secrets.yaml", doc)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got); diff != "" {
		t.Errorf("LoadSecrets (-want +got):\n%s", diff)
	}
	b, err := Generate(Input{ClusterName: "a", Endpoint: "https://a:6443", Secrets: s, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	back, err := SecretsFromConfig(b.ControlPlane)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("SecretsFromConfig (-want +got):\n%s", diff)
	}
	if _, err := SecretsFromConfig(b.Worker); err == nil {
		t.Error("SecretsFromConfig(worker) = nil, want an error")
	}
}

func TestLoadSecretsProblems(t *testing.T) {
	_, err := LoadSecrets("s.yaml", []byte("cluster: {id: a}\ntrustdinfo: {token: b}\ncerts: {ox: {}}\n"))
	for _, want := range []string{
		"s.yaml:2:21: trustdinfo.token: got a secret of another form", "s.yaml:3:9: certs.ox: got an unknown key, want perhaps os", "certs.k8s.crt: got nothing",
		"certs.k8sserviceaccount.key: got nothing", "secrets.bootstraptoken",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("LoadSecrets = %v, want %q", err, want)
		}
	}
}

// Clusters that exist sign service account tokens with RSA.
func TestRSAServiceAccountKey(t *testing.T) {
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s.Certs.K8sServiceAccount.Key = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if _, err := Generate(Input{ClusterName: "a", Endpoint: "https://a:6443", Secrets: s, Clock: clock}); err != nil {
		t.Errorf("Generate with an RSA key = %v, want none", err)
	}
}

func TestClient(t *testing.T) {
	b := generated(t)
	crt, err := pki.ParseCertificate(b.Client.Crt)
	if err != nil {
		t.Fatal(err)
	}
	if crt.PublicKeyAlgorithm != x509.Ed25519 || len(crt.Subject.Organization) != 1 || crt.Subject.Organization[0] != "os:admin" {
		t.Errorf("client certificate = %v %v, want Ed25519 and os:admin", crt.PublicKeyAlgorithm, crt.Subject)
	}
	roots, err := pki.Pool(b.ControlPlane.Machine.CA.Crt)
	if err != nil {
		t.Fatal(err)
	}
	for use, ok := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageClientAuth: true, x509.ExtKeyUsageServerAuth: false} {
		if err := pki.Verify(b.Client.Crt, roots, use, clock().Add(364*24*time.Hour)); (err == nil) != ok {
			t.Errorf("verify for use %v = %v, want ok %v", use, err, ok)
		}
	}
	if err := pki.Verify(b.Client.Crt, roots, x509.ExtKeyUsageClientAuth, clock().Add(366*24*time.Hour)); err == nil {
		t.Error("the client certificate is valid after a year")
	}
}

func TestGenerateRefuses(t *testing.T) {
	s, err := NewSecrets(clock)
	if err != nil {
		t.Fatal(err)
	}
	for want, in := range map[string]Input{
		"no secrets":                    {ClusterName: "a", Endpoint: "https://a:6443"},
		"cluster name":                  {ClusterName: "a b", Endpoint: "https://a:6443", Secrets: s},
		"cluster.controlPlane.endpoint": {ClusterName: "a", Endpoint: "a:6443", Secrets: s},
		"machine.certSANs[0]":           {ClusterName: "a", Endpoint: "https://a:6443", Secrets: s, AdditionalSANs: []string{"a/b"}},
	} {
		if _, err := Generate(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Generate = %v, want %q", err, want)
		}
	}
}
