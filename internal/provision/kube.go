package provision

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	kubeTimeout = 5 * time.Second // of one request
	maxAnswer   = 32 << 20
)

// kube asks the few questions of Kubernetes's API that tell whether a cluster
// works; a whole client library would be most of this program.
type kube struct {
	server string
	roots  *x509.CertPool // of the API servers' certificates
	http   *http.Client
}

func newKube(kubeconfig string) (*kube, error) {
	data, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	var k struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     string `yaml:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Crt string `yaml:"client-certificate-data"`
				Key string `yaml:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(data, &k); err != nil || len(k.Clusters) != 1 || len(k.Users) != 1 {
		return nil, fmt.Errorf("decode %s: want one cluster and one user (%v)", kubeconfig, err)
	}
	var parts [3][]byte
	for i, text := range []string{k.Clusters[0].Cluster.CA, k.Users[0].User.Crt, k.Users[0].User.Key} {
		if parts[i], err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, fmt.Errorf("decode %s: %w", kubeconfig, err)
		}
	}
	pair, err := tls.X509KeyPair(parts[1], parts[2])
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", kubeconfig, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(parts[0])
	return &kube{server: k.Clusters[0].Cluster.Server, roots: roots, http: &http.Client{
		Timeout: kubeTimeout,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12,
		}},
	}}, nil
}

func (k *kube) close() { k.http.CloseIdleConnections() }

func (k *kube) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.server+path, nil)
	if err != nil {
		return err
	}
	resp, err := k.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

func (k *kube) ready(ctx context.Context) error { return k.get(ctx, "/readyz", nil) }

type condition struct{ Type, Status, Message string }

type list struct {
	Items []struct {
		Metadata struct {
			Name   string
			Labels map[string]string
		}
		Status struct {
			Phase      string
			Conditions []condition
		}
	}
}

func isReady(conditions []condition) (bool, string) {
	for _, c := range conditions {
		if c.Type == "Ready" {
			return c.Status == "True", c.Message
		}
	}
	return false, "not seen yet"
}

// nodes are the conditions of each Node there is.
func (k *kube) nodes(ctx context.Context) (map[string][]condition, error) {
	var nodes list
	if err := k.get(ctx, "/api/v1/nodes?resourceVersion=0", &nodes); err != nil {
		return nil, err
	}
	out := map[string][]condition{}
	for _, n := range nodes.Items {
		out[n.Metadata.Name] = n.Status.Conditions
	}
	return out, nil
}

// podsReady looks at the pods of kube-system. The cluster's DNS must be among
// them, unless the configuration has none.
func (k *kube) podsReady(ctx context.Context, dns bool) error {
	var pods list
	if err := k.get(ctx, "/api/v1/namespaces/kube-system/pods?resourceVersion=0", &pods); err != nil {
		return err
	}
	var waiting []string
	for _, p := range pods.Items {
		if p.Metadata.Labels["k8s-app"] == "kube-dns" {
			dns = false // seen
		}
		if ok, _ := isReady(p.Status.Conditions); !ok && p.Status.Phase != "Succeeded" {
			waiting = append(waiting, p.Metadata.Name)
		}
	}
	switch {
	case len(waiting) > 0:
		return fmt.Errorf("not ready: %s", strings.Join(waiting, ", "))
	case dns:
		return errors.New("no pod of the cluster's DNS yet")
	}
	return nil
}
