package local

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"talos/config"
)

// The authorities of an existing Kubernetes are taken over, the rest is new.
func TestSecretsFromKubernetesPKI(t *testing.T) {
	s, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etcd"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]config.Base64{
		"ca.crt": s.Certs.K8s.Crt, "ca.key": s.Certs.K8s.Key, "sa.key": s.Certs.K8sServiceAccount.Key,
		"front-proxy-ca.crt": s.Certs.K8sAggregator.Crt, "front-proxy-ca.key": s.Certs.K8sAggregator.Key,
		"etcd/ca.crt": s.Certs.Etcd.Crt, "etcd/ca.key": s.Certs.Etcd.Key,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := secretsFromPKI(dir, "abcdef.0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Certs.K8s.Key, s.Certs.K8s.Key) || !bytes.Equal(got.Certs.Etcd.Crt, s.Certs.Etcd.Crt) || bytes.Equal(got.Certs.OS.Key, s.Certs.OS.Key) {
		t.Error("the authorities are not those of the folder, or the operating system's is")
	}
	if got.Secrets.BootstrapToken != "abcdef.0123456789abcdef" {
		t.Errorf("bootstrap token %q", got.Secrets.BootstrapToken)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), s.Certs.Etcd.Key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secretsFromPKI(dir, ""); err == nil {
		t.Error("a key of another authority is taken")
	}
}
