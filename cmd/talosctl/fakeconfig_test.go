package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/configuration"
	"talos/api/machine"
	"talos/config"
	"talos/internal/authz"
	"talos/internal/configstore"
	machineapi "talos/internal/machine"
	"talos/internal/store"
)

// configNodes are the nodes conf-…, each with a real store of configurations; a
// script takes a name of its own. They reboot by reading theirs anew. A node
// whose configuration names it "unreachable" answers to nobody.
type configNodes struct {
	configuration.UnimplementedConfigurationServiceServer
	dir  string
	log  *slog.Logger
	base []byte

	mu    sync.Mutex // guards the field below
	nodes map[string]*configNode
}

type configNode struct {
	cfg  *configstore.Store
	off  context.CancelFunc
	done chan struct{}
}

func newConfigNodes(t *testing.T) *configNodes {
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "demo", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	base, err := made.ControlPlane.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	n := &configNodes{dir: t.TempDir(), log: slog.New(slog.DiscardHandler), base: base, nodes: map[string]*configNode{}}
	t.Cleanup(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, node := range n.nodes {
			node.stop()
		}
	})
	return n
}

func (n *configNode) stop() {
	n.off()
	<-n.done
}

// of is the store of the node that a call is for.
func (n *configNodes) of(ctx context.Context) (*configstore.Store, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := target(ctx)
	if !strings.HasPrefix(name, "conf-") {
		return nil, status.Error(codes.Unimplemented, "not one of the nodes conf-…")
	}
	node := n.nodes[name]
	if node == nil {
		dir := filepath.Join(n.dir, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		var err error
		if node, err = n.boot(name, dir); err != nil {
			return nil, err
		}
		if err := node.cfg.Offer(ctx, n.base, "the platform"); err != nil {
			return nil, err
		}
		n.nodes[name] = node
	}
	if c := node.cfg.Active(); c != nil && config.Of(c.Machine.Network).Hostname == "unreachable" {
		return nil, status.Errorf(codes.Unavailable, "node %s: no route to host", name)
	}
	return node.cfg, nil
}

func (n *configNodes) boot(name, dir string) (*configNode, error) {
	st, err := store.New(context.Background())
	if err != nil {
		return nil, err
	}
	node := &configNode{done: make(chan struct{})}
	node.cfg = configstore.New(configstore.Options{
		State: st, Log: n.log, Dir: filepath.Join(dir, "history"), File: filepath.Join(dir, "config.yaml"),
		Reboot: func(context.Context) error {
			go n.reboot(name, dir, node)
			return nil
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	node.off = cancel
	go func() {
		defer close(node.done)
		if err := node.cfg.Run(ctx); err != nil {
			n.log.Error("configuration", "err", err)
		}
	}()
	brief, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	if _, err := node.cfg.Loaded(brief); err != nil { // what it has is in force when somebody asks
		node.stop()
		return nil, err
	}
	return node, nil
}

// reboot replaces a node, while nobody gets an answer.
func (n *configNodes) reboot(name, dir string, old *configNode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old.stop()
	if node, err := n.boot(name, dir); err == nil {
		n.nodes[name] = node
	}
}

func (n *configNodes) service(ctx context.Context) (*machineapi.Configurations, context.Context, error) {
	cfg, err := n.of(ctx)
	if err != nil {
		return nil, ctx, err
	}
	return machineapi.NewConfigurations(cfg), authz.NewContext(ctx, authz.Identity{Subject: "alice"}), nil
}

// apply is the real handler.
func (n *configNodes) apply(ctx context.Context, r *machine.ApplyConfigurationRequest) (*machine.ApplyConfigurationResponse, error) {
	cfg, err := n.of(ctx)
	if err != nil {
		return nil, err
	}
	srv := &machineapi.Server{Options: machineapi.Options{Config: cfg}}
	return srv.ApplyConfiguration(authz.NewContext(ctx, authz.Identity{Subject: "alice"}), r)
}

func (n *configNodes) History(ctx context.Context, r *configuration.ConfigurationHistoryRequest) (*configuration.ConfigurationHistoryResponse, error) {
	s, ctx, err := n.service(ctx)
	if err != nil {
		return nil, err
	}
	return s.History(ctx, r)
}

func (n *configNodes) Get(ctx context.Context, r *configuration.ConfigurationGetRequest) (*configuration.ConfigurationGetResponse, error) {
	s, ctx, err := n.service(ctx)
	if err != nil {
		return nil, err
	}
	return s.Get(ctx, r)
}

func (n *configNodes) Confirm(ctx context.Context, r *configuration.ConfigurationConfirmRequest) (*configuration.ConfigurationConfirmResponse, error) {
	s, ctx, err := n.service(ctx)
	if err != nil {
		return nil, err
	}
	return s.Confirm(ctx, r)
}

func (n *configNodes) Rollback(ctx context.Context, r *configuration.ConfigurationRollbackRequest) (*machine.ApplyConfigurationResponse, error) {
	s, ctx, err := n.service(ctx)
	if err != nil {
		return nil, err
	}
	return s.Rollback(ctx, r)
}
