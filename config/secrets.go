package config

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"time"

	"go.yaml.in/yaml/v3"

	"talos/internal/pki"
)

// Secrets is what makes a cluster this cluster, in the format that `gen
// secrets` writes: from it, configurations of further nodes are made at any
// later time. Whoever has it owns the cluster.
type Secrets struct {
	Cluster    ClusterIdentity `yaml:"cluster"`
	Secrets    SharedSecrets   `yaml:"secrets"`
	TrustdInfo TrustdInfo      `yaml:"trustdinfo"`
	Certs      Certs           `yaml:"certs"`
}

// ClusterIdentity tells the clusters of the world apart.
type ClusterIdentity struct {
	ID     string `yaml:"id"`     // 32 random bytes, base64
	Secret string `yaml:"secret"` // 32 random bytes, base64
}

// SharedSecrets are known to all nodes, or to all control plane nodes.
type SharedSecrets struct {
	BootstrapToken            string `yaml:"bootstraptoken"`                      // kubelets join with it
	AESCBCEncryptionSecret    string `yaml:"aescbcencryptionsecret,omitempty"`    // of old clusters
	SecretboxEncryptionSecret string `yaml:"secretboxencryptionsecret,omitempty"` // 32 random bytes, base64: encrypts Kubernetes's secrets in etcd
}

// TrustdInfo is what a node shows trustd.
type TrustdInfo struct {
	Token string `yaml:"token"`
}

// Certs are the authorities, and the key of service account tokens.
type Certs struct {
	Etcd              *CertificateAndKey `yaml:"etcd"`
	K8s               *CertificateAndKey `yaml:"k8s"`
	K8sAggregator     *CertificateAndKey `yaml:"k8saggregator"`
	K8sServiceAccount *Key               `yaml:"k8sserviceaccount"`
	OS                *CertificateAndKey `yaml:"os"`
}

// NewSecrets makes the secrets of a new cluster. The operating system's
// authority is Ed25519, the others ECDSA P-256. So is the service account key:
// Kubernetes signs tokens with it as ES256, and it takes no time to make; RSA
// keys of existing clusters are read and used all the same.
func NewSecrets(clock func() time.Time) (*Secrets, error) {
	now := clock()
	s := &Secrets{
		Cluster:    ClusterIdentity{ID: randomBase64(), Secret: randomBase64()},
		Secrets:    SharedSecrets{BootstrapToken: newToken(), SecretboxEncryptionSecret: randomBase64()},
		TrustdInfo: TrustdInfo{Token: newToken()},
	}
	for _, one := range []struct {
		into    **CertificateAndKey
		alg     pki.Algorithm
		subject pki.Subject
	}{
		{&s.Certs.Etcd, pki.ECDSAP256, pki.Subject{Organization: []string{"etcd"}}},
		{&s.Certs.K8s, pki.ECDSAP256, pki.Subject{Organization: []string{"kubernetes"}}},
		{&s.Certs.K8sAggregator, pki.ECDSAP256, pki.Subject{CommonName: "front-proxy"}},
		{&s.Certs.OS, pki.Ed25519, pki.Subject{Organization: []string{"talos"}}},
	} {
		pair, err := pki.NewCA(one.alg, one.subject, now)
		if err != nil {
			return nil, fmt.Errorf("make authority %v: %w", one.subject, err)
		}
		*one.into = &CertificateAndKey{Crt: pair.Crt, Key: pair.Key}
	}
	key, err := pki.NewKey(pki.ECDSAP256)
	if err != nil {
		return nil, fmt.Errorf("make service account key: %w", err)
	}
	s.Certs.K8sServiceAccount = &Key{Key: key}
	return s, nil
}

// LoadSecrets reads a bundle; name is what problems call it.
func LoadSecrets(name string, data []byte) (*Secrets, error) {
	d := newDecoder(name)
	var doc yaml.Node
	s := &Secrets{}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		d.syntax(err)
		return nil, d.problems
	}
	if len(doc.Content) == 0 {
		d.problem(nil, key{}, "an empty document", "a secrets bundle")
		return nil, d.problems
	}
	d.decode(doc.Content[0], reflect.ValueOf(s).Elem(), key{})
	d.bundle(s)
	if len(d.problems) > 0 {
		d.problems.sort()
		return nil, d.problems
	}
	return s, nil
}

// bundle checks that a bundle makes a cluster.
func (d *decoder) bundle(s *Secrets) {
	for k, v := range map[string]string{"secrets.bootstraptoken": s.Secrets.BootstrapToken, "trustdinfo.token": s.TrustdInfo.Token} {
		if want := token(v); want != "" {
			d.wrong(k, "a secret of another form", want)
		}
	}
	d.require("secrets.secretboxencryptionsecret", s.Secrets.SecretboxEncryptionSecret != "" || s.Secrets.AESCBCEncryptionSecret != "", "base64 of 32 bytes")
	d.authority("certs.etcd", s.Certs.Etcd, true, false)
	d.authority("certs.k8s", s.Certs.K8s, true, false)
	d.authority("certs.k8saggregator", s.Certs.K8sAggregator, true, false)
	d.authority("certs.os", s.Certs.OS, true, false)
	if s.Certs.K8sServiceAccount == nil {
		d.require("certs.k8sserviceaccount.key", false, "an ECDSA or RSA key in PEM, base64 of it")
	} else if _, err := pki.ParseKey(s.Certs.K8sServiceAccount.Key); err != nil {
		d.wrong("certs.k8sserviceaccount.key", err.Error(), "an ECDSA or RSA key in PEM, base64 of it")
	}
}

// Bytes is the bundle as YAML.
func (s *Secrets) Bytes() ([]byte, error) {
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(4)
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("encode secrets: %w", err)
	}
	return buf.Bytes(), nil
}

// SecretsFromConfig gets the bundle back from the configuration of a control
// plane node.
func SecretsFromConfig(c *Config) (*Secrets, error) {
	m, cl := c.machine(), c.cluster()
	if m.Type != TypeControlPlane || cl.Etcd == nil {
		return nil, errors.New("secrets are in the configuration of a control plane node only")
	}
	secretbox, aescbc := cl.SecretboxEncryptionSecret, cl.AescbcEncryptionSecret
	if a := cl.APIServer; a != nil && len(a.EncryptionConfig) > 0 {
		secretbox, aescbc = providerSecret(a.EncryptionConfig, "secretbox"), providerSecret(a.EncryptionConfig, "aescbc")
	}
	return &Secrets{
		Cluster:    ClusterIdentity{ID: cl.ID, Secret: cl.Secret},
		Secrets:    SharedSecrets{BootstrapToken: cl.Token, AESCBCEncryptionSecret: aescbc, SecretboxEncryptionSecret: secretbox},
		TrustdInfo: TrustdInfo{Token: m.Token},
		Certs: Certs{
			Etcd: cl.Etcd.CA, K8s: cl.CA, K8sAggregator: cl.AggregatorCA, K8sServiceAccount: cl.ServiceAccount, OS: m.CA,
		},
	}, nil
}

// providerSecret is the first secret of a provider in an EncryptionConfiguration.
func providerSecret(values map[string]any, provider string) string {
	for _, r := range listIn(values, "resources") {
		for _, p := range listIn(r, "providers") {
			settings, _ := p[provider].(map[string]any)
			for _, k := range listIn(settings, "keys") {
				if secret, ok := k["secret"].(string); ok {
					return secret
				}
			}
		}
	}
	return ""
}

// listIn are the mappings in a list of a mapping.
func listIn(values map[string]any, name string) []map[string]any {
	var out []map[string]any
	list, _ := values[name].([]any)
	for _, v := range list {
		if m, ok := v.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

func randomBase64() string {
	raw := make([]byte, 32)
	rand.Read(raw) // never returns an error
	return base64.StdEncoding.EncodeToString(raw)
}

// newToken makes a token of the form that Kubernetes uses for bootstrap.
func newToken() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, 0, 23)
	for len(out) < 23 {
		if len(out) == 6 {
			out = append(out, '.')
			continue
		}
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			panic(err) // rand.Reader never returns an error
		}
		out = append(out, letters[n.Int64()])
	}
	return string(out)
}
