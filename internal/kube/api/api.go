// Package api talks to the Kubernetes API with little: rest and the dynamic
// client, a kubeconfig reader that knows the fields our own files use, a
// mapper from kind to resource that asks for one group at a time, and a watch
// without a cache. The typed clientset and discovery would cost machined
// several megabytes.
//
// It decides nothing. A Client is safe for concurrent use.
package api

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// Client is a connection to the API.
type Client struct {
	dynamic.Interface
	mapper mapper
	rest   rest.Interface
}

// kubeconfig is as much of a kubeconfig as we write ourselves.
type kubeconfig struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Clusters []struct {
		Name    string `json:"name"`
		Cluster struct {
			Server        string `json:"server"`
			TLSServerName string `json:"tls-server-name"`
			CAFile        string `json:"certificate-authority"`
			CAData        []byte `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User struct {
			CertFile string `json:"client-certificate"`
			KeyFile  string `json:"client-key"`
			CertData []byte `json:"client-certificate-data"`
			KeyData  []byte `json:"client-key-data"`
			Token    string `json:"token"`
		} `json:"user"`
	} `json:"users"`
}

// Config reads a kubeconfig; relative file names in it are below dir.
func Config(data []byte, dir string) (*rest.Config, error) {
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		return nil, fmt.Errorf("decode kubeconfig: %w", err)
	}
	file := func(name string) string {
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	var cluster, user string
	for _, c := range k.Contexts {
		if c.Name == k.CurrentContext {
			cluster, user = c.Context.Cluster, c.Context.User
		}
	}
	out := &rest.Config{QPS: -1, UserAgent: "talos"} // the API server's own fairness is limit enough
	for _, c := range k.Clusters {
		if c.Name == cluster {
			out.Host, out.ServerName = c.Cluster.Server, c.Cluster.TLSServerName
			out.CAFile, out.CAData = file(c.Cluster.CAFile), c.Cluster.CAData
		}
	}
	for _, u := range k.Users {
		if u.Name == user {
			out.CertFile, out.KeyFile = file(u.User.CertFile), file(u.User.KeyFile)
			out.CertData, out.KeyData, out.BearerToken = u.User.CertData, u.User.KeyData, u.User.Token
		}
	}
	if out.Host == "" {
		return nil, fmt.Errorf("kubeconfig: context %q names no cluster that is there", k.CurrentContext)
	}
	return out, nil
}

// New makes a client of a kubeconfig's content.
func New(kubeconfig []byte) (*Client, error) {
	c, err := Config(kubeconfig, "/")
	if err != nil {
		return nil, err
	}
	return ForConfig(c)
}

// ForConfig makes a client.
func ForConfig(c *rest.Config) (*Client, error) {
	hc, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", c.Host, err)
	}
	dyn, err := dynamic.NewForConfigAndClient(c, hc)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", c.Host, err)
	}
	plain := dynamic.ConfigFor(c)
	plain.GroupVersion = &coreV1
	raw, err := rest.UnversionedRESTClientForConfigAndClient(plain, hc)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", c.Host, err)
	}
	return &Client{Interface: dyn, rest: raw, mapper: mapper{rest: raw}}, nil
}

// Pauses between two questions whether the API is ready: short while a node
// starts, longer when something is amiss. Where a question takes long because
// the machine is slow, the API server needs the time more than who asks: then
// the pause is share times as long as the question took.
const (
	readyPause = 100 * time.Millisecond
	slowPause  = time.Second
	startTime  = 2 * time.Minute
	share      = 50
)

// AwaitReady returns when the API server is ready or ctx ends.
func (c *Client) AwaitReady(ctx context.Context) error {
	for began, asked := time.Now(), time.Now(); c.Ready(ctx) != nil; asked = time.Now() {
		pause := min(max(readyPause, share*time.Since(asked)), slowPause)
		if time.Since(began) > startTime {
			pause = slowPause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	return ctx.Err()
}

// Ready asks the API server whether it is ready.
func (c *Client) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := c.rest.Get().AbsPath("/readyz").DoRaw(ctx)
	return err
}
