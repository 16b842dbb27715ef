package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"talos/api/cluster"
	"talos/client"
	"talos/internal/health"
)

// checkFromHere runs the checks at the client, where no control plane node can
// be trusted to: it asks each node through the endpoints, and Kubernetes itself.
func checkFromHere(ctx context.Context, c *client.Client, checks *checkWriter, timeout time.Duration, info *cluster.ClusterInfo) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	kubernetes := &lazyKubernetes{c: c, endpoint: info.GetForceEndpoint()}
	defer kubernetes.close()
	all := &health.Cluster{MayLack: true, Kubernetes: kubernetes.get, Nodes: func(ctx context.Context) ([]health.Node, error) {
		members, err := membersOf(ctx, c, info)
		if err != nil {
			return nil, err
		}
		var nodes []health.Node
		for _, m := range members {
			nodes = append(nodes, health.Node{
				Name: m.Hostname, ControlPlane: m.ControlPlane, Addresses: m.Addresses, Machine: c.Machine, Resources: c.Resources,
				Target: func(ctx context.Context) context.Context { return client.WithNode(ctx, m.Addresses[0]) },
			})
		}
		return nodes, nil
	}}
	return health.Run(ctx, all.Checks(), func(check, state string) error {
		return checks.progress("waiting for " + check + ": " + state)
	})
}

// membersOf are the nodes that the user names, else those that the cluster knows.
func membersOf(ctx context.Context, c *client.Client, info *cluster.ClusterInfo) ([]health.Member, error) {
	var out []health.Member
	for _, name := range info.GetControlPlaneNodes() {
		out = append(out, health.Member{Hostname: name, Addresses: []string{name}, ControlPlane: true})
	}
	for _, name := range info.GetWorkerNodes() {
		out = append(out, health.Member{Hostname: name, Addresses: []string{name}})
	}
	if len(out) > 0 {
		return out, nil
	}
	if nodes := c.Nodes(); len(nodes) > 0 {
		ctx = client.WithNode(ctx, nodes[0])
	}
	return health.Members(ctx, c.Resources)
}

// lazyKubernetes fetches the kubeconfig when it is needed first. It is safe for
// concurrent use.
type lazyKubernetes struct {
	c        *client.Client
	endpoint string

	mu   sync.Mutex // guards the fields below
	ask  func(ctx context.Context, path string, into any) error
	done func()
}

func (k *lazyKubernetes) get(ctx context.Context, path string, into any) error {
	k.mu.Lock()
	if k.ask == nil {
		file, err := Kubeconfig(ctx, k.c)
		if err == nil {
			k.ask, k.done, err = health.Access(file, k.endpoint)
		}
		if err != nil {
			k.mu.Unlock()
			return fmt.Errorf("kubeconfig: %w", err)
		}
	}
	ask := k.ask
	k.mu.Unlock()
	return ask(ctx, path, into)
}

func (k *lazyKubernetes) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done != nil {
		k.done()
	}
}
