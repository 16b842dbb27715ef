// Package store makes the resource store: every fact about the machine, in
// memory, rebuilt at each start from the configuration and from reality.
//
// It owns the list of types that exist and how the store is served over a
// unix socket with a view per caller. It owns no resource and no controller.
// A store is safe for concurrent use.
package store

import (
	"context"
	"fmt"

	"github.com/cosi-project/runtime/pkg/resource/meta"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/cosi-project/runtime/pkg/state/impl/inmem"
	"github.com/cosi-project/runtime/pkg/state/impl/namespaced"
	"github.com/cosi-project/runtime/pkg/state/registry"

	"talos/internal/resources/block"
	"talos/internal/resources/cluster"
	"talos/internal/resources/config"
	"talos/internal/resources/cri"
	"talos/internal/resources/etcd"
	"talos/internal/resources/files"
	"talos/internal/resources/hardware"
	"talos/internal/resources/k8s"
	"talos/internal/resources/kubeaccess"
	"talos/internal/resources/network"
	"talos/internal/resources/object"
	"talos/internal/resources/runtime"
	"talos/internal/resources/secrets"
	"talos/internal/resources/timesync"
	"talos/internal/resources/v1alpha1"
)

// namespaces are what exists, with what a person reading `get namespaces` learns.
var namespaces = map[string]string{
	cluster.Namespace:         "who belongs to the cluster",
	config.Namespace:          "the machine configuration",
	cri.Namespace:             "the container runtime",
	etcd.Namespace:            "the etcd member on this node",
	files.Namespace:           "files that are made from resources",
	hardware.Namespace:        "what the machine is made of",
	k8s.Namespace:             "Kubernetes on this node",
	k8s.ControlPlaneNamespace: "the Kubernetes control plane on this node",
	network.Namespace:         "links, addresses, routes, names",
	network.ConfigNamespace:   "what each layer wants of the network",
	runtime.Namespace:         "the machine and its services",
	secrets.Namespace:         "keys and certificates",
}

// Types lists every resource type there is.
func Types() []object.Definition {
	var all []object.Definition
	for _, family := range [][]object.Definition{
		block.Types(), cluster.Types(), config.Types(), cri.Types(), etcd.Types(), files.Types(), hardware.Types(), k8s.Types(), kubeaccess.Types(),
		network.Types(), runtime.Types(), secrets.Types(), timesync.Types(), v1alpha1.Types(),
	} {
		all = append(all, family...)
	}
	return all
}

// RegisterTypes teaches the protobuf codec every type; a process that reads a
// store over a socket needs it too.
func RegisterTypes() error {
	for _, t := range Types() {
		if err := t.Register(); err != nil {
			return err
		}
	}
	return nil
}

// New makes an empty store that knows every namespace and type.
func New(ctx context.Context) (state.State, error) {
	if err := RegisterTypes(); err != nil {
		return nil, err
	}
	st := state.WrapCore(namespaced.NewState(inmem.Build))
	ns := registry.NewNamespaceRegistry(st)
	if err := ns.RegisterDefault(ctx); err != nil {
		return nil, fmt.Errorf("register namespaces: %w", err)
	}
	for name, text := range namespaces {
		if err := ns.Register(ctx, name, text); err != nil {
			return nil, fmt.Errorf("register namespace %s: %w", name, err)
		}
	}
	rd := registry.NewResourceRegistry(st)
	if err := rd.RegisterDefault(ctx); err != nil {
		return nil, fmt.Errorf("register types: %w", err)
	}
	for _, t := range Types() {
		if err := rd.Register(ctx, t.Provider.(meta.ResourceWithRD)); err != nil {
			return nil, fmt.Errorf("register %s: %w", t.Provider.ResourceDefinition().Type, err)
		}
	}
	return st, nil
}
