// Package containers is a thin client of the node's two containerds: it lists
// and ends containers, reads their logs and their use of memory and
// processor, and pulls images through the node's registry configuration.
//
// It owns no container: services are run by package service, pods by the
// kubelet. A Client is safe for concurrent use.
package containers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"talos/internal/layout"
)

// Instance names a containerd of this node.
type Instance int

// The two containerds.
const (
	System Instance = iota // the OS's own daemons, on tmpfs
	CRI                    // pods in k8s.io, etcd and kubelet in system
)

// String names the instance as users write it.
func (i Instance) String() string {
	if i == CRI {
		return "cri"
	}
	return "containerd"
}

// Socket is where the instance listens.
func (i Instance) Socket() string {
	if i == CRI {
		return layout.CRISocket
	}
	return layout.ContainerdSocket
}

// HostsDir holds a folder with a hosts.toml for each configured registry.
const HostsDir = "/system/etc/cri/hosts"

// ErrNotFound is returned for a container that does not exist.
var ErrNotFound = errors.New("container not found")

// Container is what is known of one container.
type Container struct {
	Instance  Instance
	Namespace string
	ID        string
	Image     string
	PID       uint32 // of its first process as machined sees it; 0 when it doesn't run
	Status    string // CREATED, RUNNING, STOPPED, PAUSED, or "" without a task
	Labels    map[string]string

	// Of a container of Kubernetes. A sandbox has no Name.
	PodNamespace, PodName, PodUID, Name string
	Sandbox                             bool
	SandboxID                           string
}

// DisplayName is the name that users see: the id, or namespace/pod[:container].
func (c Container) DisplayName() string {
	switch {
	case c.PodName == "":
		return c.ID
	case c.Sandbox:
		return c.PodNamespace + "/" + c.PodName
	default:
		return c.PodNamespace + "/" + c.PodName + ":" + c.Name
	}
}

// Client talks to both containerds; it connects when first asked.
type Client struct {
	mu    sync.Mutex // guards conns
	conns map[Instance]*client.Client
}

// New makes a client.
func New() *Client { return &Client{conns: map[Instance]*client.Client{}} }

// Close ends the connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for i, conn := range c.conns {
		errs = append(errs, conn.Close())
		delete(c.conns, i)
	}
	return errors.Join(errs...)
}

// Connection returns the connection to an instance, which need not be up: calls
// on it fail until it is.
func (c *Client) Connection(i Instance) (*client.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.conns[i]; conn != nil {
		return conn, nil
	}
	conn, err := Connect(i)
	if err != nil {
		return nil, err
	}
	c.conns[i] = conn
	return conn, nil
}

// Connect makes a connection of the caller's own. It does not wait for the
// instance: calls fail until it is up, and work again after it was away.
func Connect(i Instance) (*client.Client, error) {
	retry := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}
	conn, err := grpc.NewClient("unix://"+i.Socket(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", i, err)
	}
	ctrd, err := client.NewWithConn(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", i, err)
	}
	return ctrd, nil
}

// Namespaced marks calls as meant for a namespace of containerd.
func Namespaced(ctx context.Context, namespace string) context.Context {
	return namespaces.WithNamespace(ctx, namespace)
}

// Ready says whether an instance answers and all its plugins are loaded.
func Ready(ctx context.Context, conn *client.Client) error {
	serving, err := conn.IsServing(ctx)
	if err != nil {
		return err
	}
	if !serving {
		return errors.New("containerd is not serving yet")
	}
	return nil
}
