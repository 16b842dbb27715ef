package controlplane

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"talos/internal/pki"
	"talos/internal/resources/k8s"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
)

// files are a component's folder: name to content.
type files map[string][]byte

// hash covers the files that the program reads at its start only: a change of
// another is noticed by the program itself, and must not restart it.
func (f files) hash(reread ...string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if !slices.Contains(reread, name) {
			fmt.Fprintf(h, "%s %d\n", name, len(f[name]))
			h.Write(f[name])
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Material is what the folders are made of.
type Material struct {
	Root    secrets.KubernetesRootSecretsSpec
	Dynamic secrets.KubernetesDynamicCertsSpec
	Kube    secrets.KubernetesSecretsSpec
	Etcd    secrets.EtcdSecretsSpec
	EtcdCA  secrets.EtcdRootSecretsSpec
	// LocalServer replaces the server in the kubeconfigs of components on this
	// node, unless empty.
	LocalServer string
}

// apiServerReread are the files that kube-apiserver watches.
var apiServerReread = []string{
	"ca.crt", "apiserver.crt", "apiserver.key", "kubelet-client.crt", "kubelet-client.key", "etcd-client.crt", "etcd-client.key",
	"front-proxy-ca.crt", "front-proxy-client.crt", "front-proxy-client.key", "authentication.yaml", "authorization.yaml",
}

func apiServerFiles(in *inputs) (files, error) {
	m := in.material
	if m.Root.IssuingCA == nil || m.Root.AggregatorCA == nil || m.Root.ServiceAccount == nil {
		return nil, errors.New("kubernetes root secrets are incomplete")
	}
	if m.Dynamic.APIServer == nil || m.Dynamic.APIServerKubeletClient == nil || m.Dynamic.FrontProxy == nil || m.Etcd.EtcdAPIServer == nil || m.EtcdCA.EtcdCA == nil {
		return nil, errors.New("certificates of the control plane are incomplete")
	}
	public, err := publicKeys(m.Root)
	if err != nil {
		return nil, err
	}
	f := files{
		"ca.crt":                 bundle(m.Root.IssuingCA, m.Root.AcceptedCAs),
		"apiserver.crt":          m.Dynamic.APIServer.Crt,
		"apiserver.key":          m.Dynamic.APIServer.Key,
		"kubelet-client.crt":     m.Dynamic.APIServerKubeletClient.Crt,
		"kubelet-client.key":     m.Dynamic.APIServerKubeletClient.Key,
		"front-proxy-ca.crt":     bundle(m.Root.AggregatorCA, m.Root.AcceptedAggregatorCAs),
		"front-proxy-client.crt": m.Dynamic.FrontProxy.Crt,
		"front-proxy-client.key": m.Dynamic.FrontProxy.Key,
		"etcd-ca.crt":            m.EtcdCA.EtcdCA.Crt,
		"etcd-client.crt":        m.Etcd.EtcdAPIServer.Crt,
		"etcd-client.key":        m.Etcd.EtcdAPIServer.Key,
		"service-account.key":    m.Root.ServiceAccount.Key,
		"service-account.pub":    public,
	}
	for name, v := range map[string]any{
		"encryption.yaml":     encryption(m.Root),
		"authentication.yaml": in.authn.Config.Values,
		"authorization.yaml":  authorization(in.authz),
		"admission.yaml":      admissionConfig(in.admission),
		"audit-policy.yaml":   in.audit.Config.Values,
	} {
		if f[name], err = yaml.Marshal(v); err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
	}
	return f, nil
}

func managerFiles(m Material) (files, error) {
	if m.Root.IssuingCA == nil || len(m.Root.IssuingCA.Key) == 0 || m.Root.ServiceAccount == nil {
		return nil, errors.New("kubernetes root secrets are incomplete")
	}
	kubeconfig, err := atServer(m.Kube.ControllerManagerKubeconfig, m.LocalServer)
	if err != nil {
		return nil, err
	}
	return files{
		"ca.crt":              bundle(m.Root.IssuingCA, m.Root.AcceptedCAs),
		"issuing-ca.crt":      m.Root.IssuingCA.Crt,
		"issuing-ca.key":      m.Root.IssuingCA.Key,
		"service-account.key": m.Root.ServiceAccount.Key,
		"kubeconfig":          kubeconfig,
	}, nil
}

func schedulerFiles(m Material, s k8s.SchedulerConfigSpec) (files, error) {
	kubeconfig, err := atServer(m.Kube.SchedulerKubeconfig, m.LocalServer)
	if err != nil {
		return nil, err
	}
	conf, err := yaml.Marshal(schedulerConfig(s.Config.Values))
	if err != nil {
		return nil, fmt.Errorf("encode scheduler configuration: %w", err)
	}
	return files{"kubeconfig": kubeconfig, "scheduler.yaml": conf}, nil
}

// schedulerConfig is the user's configuration with what the node needs in it.
func schedulerConfig(user map[string]any) map[string]any {
	out := map[string]any{
		"apiVersion": "kubescheduler.config.k8s.io/v1",
		"kind":       "KubeSchedulerConfiguration",
	}
	maps.Copy(out, user)
	conn := map[string]any{}
	if have, ok := out["clientConnection"].(map[string]any); ok {
		maps.Copy(conn, have)
	}
	conn["kubeconfig"] = dir(Scheduler) + "/kubeconfig"
	out["clientConnection"] = conn
	if _, ok := out["enableProfiling"]; !ok {
		out["enableProfiling"] = false
	}
	return out
}

// atServer is a kubeconfig that goes to server instead.
func atServer(kubeconfig, server string) ([]byte, error) {
	if kubeconfig == "" {
		return nil, errors.New("kubeconfigs of the control plane are incomplete")
	}
	if server == "" {
		return []byte(kubeconfig), nil
	}
	var k map[string]any
	if err := yaml.Unmarshal([]byte(kubeconfig), &k); err != nil {
		return nil, fmt.Errorf("decode kubeconfig: %w", err)
	}
	clusters, _ := k["clusters"].([]any)
	for _, c := range clusters {
		if entry, ok := c.(map[string]any); ok {
			if cluster, ok := entry["cluster"].(map[string]any); ok {
				cluster["server"] = server
			}
		}
	}
	return yaml.Marshal(k)
}

// encryption keeps secrets encrypted in etcd: with secretbox, with AES-CBC when
// that is the key which is given, or as the user says. A key of the other kind,
// and plain text, stay readable.
func encryption(root secrets.KubernetesRootSecretsSpec) map[string]any {
	if len(root.EtcdEncryptionConfig.Values) > 0 {
		return root.EtcdEncryptionConfig.Values
	}
	provider := func(kind, secret string) map[string]any {
		return map[string]any{kind: map[string]any{"keys": []any{map[string]any{"name": "key1", "secret": secret}}}}
	}
	var providers []any
	if root.SecretboxEncryptionSecret != "" {
		providers = append(providers, provider("secretbox", root.SecretboxEncryptionSecret))
	}
	if root.AesCBCEncryptionSecret != "" {
		providers = append(providers, provider("aescbc", root.AesCBCEncryptionSecret))
	}
	return map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "EncryptionConfiguration",
		"resources": []any{map[string]any{
			"resources": []any{"secrets"},
			"providers": append(providers, map[string]any{"identity": map[string]any{}}),
		}},
	}
}

func authorization(s k8s.AuthorizationConfigSpec) map[string]any {
	var list []any
	for _, a := range s.Config {
		entry := map[string]any{"type": a.Type, "name": a.Name}
		if len(a.Webhook.Values) > 0 {
			entry["webhook"] = a.Webhook.Values
		}
		list = append(list, entry)
	}
	return map[string]any{
		"apiVersion":  "apiserver.config.k8s.io/v1",
		"kind":        "AuthorizationConfiguration",
		"authorizers": list,
	}
}

func admissionConfig(s k8s.AdmissionControlConfigSpec) map[string]any {
	list := []any{}
	for _, p := range s.Config {
		list = append(list, map[string]any{"name": p.Name, "configuration": p.Configuration.Values})
	}
	return map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "AdmissionConfiguration",
		"plugins":    list,
	}
}

// bundle is the issuing CA and the others that are accepted, each once.
func bundle(issuing *respem.CertificateAndKey, accepted []*respem.Certificate) []byte {
	var parts []string
	add := func(crt []byte) {
		if text := strings.TrimSpace(string(crt)); text != "" && !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	if issuing != nil {
		add(issuing.Crt)
	}
	for _, c := range accepted {
		add(c.Crt)
	}
	return []byte(strings.Join(parts, "\n") + "\n")
}

// publicKeys are the keys that service account tokens are checked with.
func publicKeys(root secrets.KubernetesRootSecretsSpec) ([]byte, error) {
	var out bytes.Buffer
	seen := map[string]bool{}
	for _, k := range append([]*respem.Key{root.ServiceAccount}, root.ServiceAccountAcceptedKeys...) {
		text, err := publicKey(k.Key)
		if err != nil {
			return nil, fmt.Errorf("service account key: %w", err)
		}
		if !seen[string(text)] {
			seen[string(text)] = true
			out.Write(text)
		}
	}
	return out.Bytes(), nil
}

// publicKey is the public half of a key; one that is public already stays.
func publicKey(data []byte) ([]byte, error) {
	if block, _ := pem.Decode(data); block != nil && block.Type == "PUBLIC KEY" {
		return pem.EncodeToMemory(block), nil
	}
	return pki.PublicKeyPEM(data)
}
