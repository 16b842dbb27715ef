package kubelet

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"talos/internal/linux/atomicfile"
	"talos/internal/pki"
	"talos/internal/resources/k8s"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
)

// given is everything that the kubelet's files are made of.
type given struct {
	spec    k8s.KubeletSpecSpec
	secrets secrets.KubeletSecretsSpec
	server  string                    // the API, as this node reaches it
	issuing *respem.CertificateAndKey // nil on workers
	now     time.Time
}

// folders exist before the kubelet starts; those that only hold sockets and
// volumes it makes itself.
var folders = []string{
	"/etc/kubernetes/pki", "/etc/kubernetes/manifests", "/etc/cni/net.d", "/opt/cni/bin", "/var/lib/kubelet/pki", "/var/lib/kubelet/seccomp",
	"/var/lib/kubelet/volumeplugins", "/var/lib/containerd", "/var/log/pods", "/var/log/containers",
}

// prepare writes the kubelet's files below root.
func prepare(root string, g given) error {
	for _, dir := range folders {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(root+pkiDir, 0o700); err != nil {
		return err
	}
	conf, err := yaml.Marshal(g.spec.Config.Values)
	if err != nil {
		return fmt.Errorf("encode kubelet configuration: %w", err)
	}
	files := map[string][]byte{
		ConfigFile: conf,
		caFile:     joinCAs(g.secrets.AcceptedCAs),
	}
	if len(g.spec.CredentialProviderConfig.Values) > 0 {
		if files[providerFile], err = yaml.Marshal(g.spec.CredentialProviderConfig.Values); err != nil {
			return fmt.Errorf("encode credential provider configuration: %w", err)
		}
	}
	for path, data := range files {
		if err := atomicfile.Update(root+path, data, 0o600); err != nil {
			return err
		}
	}
	return credentials(root, g)
}

// credentials leaves the kubelet with a valid client certificate and a
// kubeconfig that names it, or with neither and the bootstrap token, with which
// it asks for one. A control plane node holds the cluster's CA and issues its
// own first certificate: its kubelet need not wait for the API server to start,
// the request to be approved and the certificate to be signed. Rotation goes
// the usual way.
func credentials(root string, g given) error {
	const current = ClientFile
	data, err := os.ReadFile(root + current)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !usable(data, g) {
		if data, err = issue(g); err != nil {
			return fmt.Errorf("issue client certificate of the kubelet: %w", err)
		}
		if data == nil {
			return errors.Join(remove(root+current), remove(root+KubeconfigFile), bootstrap(root, g))
		}
		if err := store(root, current, data, g.now); err != nil {
			return err
		}
	}
	kc, err := kubeconfig(g.server, g.secrets.EndpointTLSServerName, map[string]any{"client-certificate": current, "client-key": current})
	if err != nil {
		return err
	}
	return errors.Join(atomicfile.Update(root+KubeconfigFile, kc, 0o600), remove(root+bootstrapFile))
}

// bootstrap gives the kubelet the token.
func bootstrap(root string, g given) error {
	kc, err := kubeconfig(g.server, g.secrets.EndpointTLSServerName, map[string]any{"token": g.secrets.BootstrapTokenID + "." + g.secrets.BootstrapTokenSecret})
	if err != nil {
		return err
	}
	return atomicfile.Update(root+bootstrapFile, kc, 0o600)
}

// forgetToken takes the bootstrap token away from a kubelet that has its
// certificate: every node's can be asked for with it.
func forgetToken(root string) error {
	if _, err := os.Stat(root + ClientFile); err != nil {
		return nil // it still needs it
	}
	return remove(root + bootstrapFile)
}

// usable tells whether the certificate that is there is this node's, valid for
// a while, and of a CA that the API server still accepts.
func usable(data []byte, g given) bool {
	block, _ := pem.Decode(data)
	if block == nil || !bytes.Contains(data, []byte("PRIVATE KEY")) {
		return false
	}
	crt, err := x509.ParseCertificate(block.Bytes)
	if err != nil || crt.Subject.CommonName != nodeUser(g) {
		return false
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(joinCAs(g.secrets.AcceptedCAs))
	_, err = crt.Verify(x509.VerifyOptions{
		Roots: pool, CurrentTime: g.now.Add(time.Minute), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}

func nodeUser(g given) string { return "system:node:" + g.spec.ExpectedNodename }

// issue makes the first client certificate; nil where the CA's key is not.
func issue(g given) ([]byte, error) {
	if g.issuing == nil || len(g.issuing.Key) == 0 {
		return nil, nil
	}
	ca, err := pki.ParseCA(g.issuing.Crt, g.issuing.Key)
	if err != nil {
		return nil, err
	}
	pair, err := ca.Issue(pki.Template{
		CommonName: nodeUser(g), Organization: []string{"system:nodes"}, Client: true, Lifetime: 365 * 24 * time.Hour,
	}, g.now)
	if err != nil {
		return nil, err
	}
	return slices.Concat(pair.Crt, pair.Key), nil
}

// store keeps a certificate as the kubelet itself does: a file with the time in
// its name, and a link to it.
func store(root, current string, data []byte, now time.Time) error {
	name := "kubelet-client-" + now.UTC().Format("2006-01-02-15-04-05") + ".pem"
	if err := atomicfile.Update(root+pkiDir+"/"+name, data, 0o600); err != nil {
		return err
	}
	if err := remove(root + current); err != nil {
		return err
	}
	// Absolute, as the kubelet's own links are; what reads it has no other root.
	return os.Symlink(filepath.Join(pkiDir, name), root+current)
}

func kubeconfig(server, tlsName string, user map[string]any) ([]byte, error) {
	cluster := map[string]any{"server": server, "certificate-authority": caFile}
	if tlsName != "" {
		cluster["tls-server-name"] = tlsName
	}
	return yaml.Marshal(map[string]any{
		"apiVersion":      "v1",
		"kind":            "Config",
		"clusters":        []any{map[string]any{"name": "local", "cluster": cluster}},
		"users":           []any{map[string]any{"name": "kubelet", "user": user}},
		"contexts":        []any{map[string]any{"name": "local", "context": map[string]any{"cluster": "local", "user": "kubelet"}}},
		"current-context": "local",
	})
}

func joinCAs(list []*respem.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range list {
		out.WriteString(strings.TrimSpace(string(c.Crt)) + "\n")
	}
	return out.Bytes()
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
