package secrets

import (
	"testing"
	"time"

	"talos/config"
)

// An EncryptionConfiguration of the user's is handed on whole, with its names of keys.
func TestOwnEncryption(t *testing.T) {
	s, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "a", Endpoint: "https://a:6443", Secrets: s})
	if err != nil {
		t.Fatal(err)
	}
	cfg := made.ControlPlane
	cfg.Cluster.SecretboxEncryptionSecret = ""
	cfg.Cluster.APIServer.EncryptionConfig = map[string]any{"resources": []any{"x"}}
	spec, err := kubeRoot(cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := spec.EtcdEncryptionConfig.Values
	if got["kind"] != "EncryptionConfiguration" || got["apiVersion"] != "apiserver.config.k8s.io/v1" || got["resources"] == nil {
		t.Errorf("encryption %v, want the user's with its kind", got)
	}
	if cfg.Cluster.APIServer.EncryptionConfig["kind"] != nil {
		t.Error("the configuration was changed")
	}
}
