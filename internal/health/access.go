package health

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
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"
)

const maxAnswer = 64 << 20 // of the Kubernetes API

// errNotFound is wrapped when Kubernetes has no such object.
var errNotFound = errors.New("not there")

// ErrEndpoint is wrapped when an endpoint is not a host.
var ErrEndpoint = errors.New("endpoint of Kubernetes")

// Access asks a Kubernetes API with what a kubeconfig of ours holds; endpoint, if
// set, takes the place of its server's host. Close it with the second result.
//
// Who may name the endpoint need not be one who may use the kubeconfig: nothing
// but the host is theirs to choose, and an answer does not lead elsewhere.
func Access(kubeconfig []byte, endpoint string) (get func(ctx context.Context, path string, into any) error, done func(), err error) {
	server, conf, err := parseKubeconfig(kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	if endpoint != "" {
		if server, err = hostOnly(endpoint); err != nil {
			return nil, nil, err
		}
	}
	transport := &http.Transport{TLSClientConfig: conf}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get = func(ctx context.Context, path string, into any) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(server, "/")+path, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		switch {
		case err != nil:
			return fmt.Errorf("read %s: %w", path, err)
		case resp.StatusCode == http.StatusNotFound:
			return fmt.Errorf("%w: %s", errNotFound, said(resp.Status, body))
		case resp.StatusCode != http.StatusOK:
			return errors.New(said(resp.Status, body))
		case into == nil:
			return nil
		}
		if err := json.Unmarshal(body, into); err != nil {
			return fmt.Errorf("decode %s: %w", path, err)
		}
		return nil
	}
	return get, transport.CloseIdleConnections, nil
}

// hostOnly is the URL of a host, with a port or without, that is reached over TLS.
func hostOnly(endpoint string) (string, error) {
	text := endpoint
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrEndpoint, err)
	}
	plain := url.URL{Scheme: "https", Host: u.Host}
	if u.Host == "" || strings.TrimSuffix(text, "/") != plain.String() {
		return "", fmt.Errorf("%w: got %.80q, want https://, a host and, maybe, a port", ErrEndpoint, endpoint)
	}
	return plain.String(), nil
}

// said is what the API says of a failure.
func said(status string, body []byte) string {
	var text struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &text) == nil && text.Message != "" {
		return text.Message
	}
	return "the Kubernetes API answers " + status
}

func parseKubeconfig(data []byte) (server string, conf *tls.Config, err error) {
	var k struct {
		Clusters []struct {
			Cluster struct {
				Server string `yaml:"server"`
				Name   string `yaml:"tls-server-name"`
				CA     string `yaml:"certificate-authority-data"`
			} `yaml:"cluster"`
		} `yaml:"clusters"`
		Users []struct {
			User struct {
				Crt string `yaml:"client-certificate-data"`
				Key string `yaml:"client-key-data"`
			} `yaml:"user"`
		} `yaml:"users"`
	}
	if err := yaml.Unmarshal(data, &k); err != nil {
		return "", nil, fmt.Errorf("decode kubeconfig: %w", err)
	}
	if len(k.Clusters) == 0 || len(k.Users) == 0 {
		return "", nil, errors.New("kubeconfig: names no cluster or no user")
	}
	decode := func(text string) []byte {
		out, failed := base64.StdEncoding.DecodeString(text)
		err = errors.Join(err, failed)
		return out
	}
	c, u := k.Clusters[0].Cluster, k.Users[0].User
	ca, crt, key := decode(c.CA), decode(u.Crt), decode(u.Key)
	if err != nil {
		return "", nil, fmt.Errorf("kubeconfig: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return "", nil, errors.New("kubeconfig: holds no CA")
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return "", nil, fmt.Errorf("kubeconfig: client certificate: %w", err)
	}
	return c.Server, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: c.Name, Certificates: []tls.Certificate{pair}}, nil
}
