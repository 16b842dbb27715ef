// Package access lets pods use the machines' API: for every object
// ServiceAccount of group talos.dev, which somebody makes in a namespace that
// machine.features.kubernetesTalosAPIAccess allows, it keeps a Secret of the
// same name with a talosconfig that has the roles asked for, and it keeps the
// Service "talos" in namespace default, which leads to the control plane nodes.
//
// It owns what it made, known by a label, and takes all of it away when the
// feature is switched off. One control plane node at a time acts, which holds a
// lease. Decisions are pure; the controllers are run by the store's runtime.
package access

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/kube/api"
	"talos/internal/kube/lease"
	"talos/internal/pki"
	"talos/internal/reconcile"
	"talos/internal/resources/cluster"
	"talos/internal/resources/kubeaccess"
	"talos/internal/resources/network"
	"talos/internal/resources/pem"
	"talos/internal/resources/secrets"
)

const (
	leaseName = "talos-api-access"
	// patience is how long the lease must be free before it is used to remove
	// everything: another node, where the feature is on, would take it sooner.
	patience = 10 * time.Second
)

// Controllers are the controllers of this package.
func Controllers(log *slog.Logger) []controller.Controller {
	return []controller.Controller{configController(log), accessController(log)}
}

func configController(log *slog.Logger) controller.Controller {
	return &reconcile.Controller{
		ID:  "kubeaccess.ConfigController",
		Log: log,
		In:  []controller.Input{active.Input()},
		Out: []resource.Kind{reconcile.Kind[*kubeaccess.Config]()},
		Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil || !cfg.IsControlPlane() {
				return err
			}
			a := config.Of(config.Of(config.Of(cfg.Machine).Features).KubernetesTalosAPIAccess)
			return reconcile.Put(ctx, r, kubeaccess.NewConfig(kubeaccess.ConfigID), kubeaccess.ConfigSpec{
				Enabled: config.Of(a.Enabled), AllowedAPIRoles: a.AllowedRoles, AllowedKubernetesNamespaces: a.AllowedKubernetesNamespaces,
			})
		},
	}
}

func accessController(log *slog.Logger) controller.Controller {
	var task reconcile.Task
	return &reconcile.Controller{
		ID:  "kubeaccess.ServiceAccountController",
		Log: log,
		In: []controller.Input{
			reconcile.Input[*kubeaccess.Config](), reconcile.Input[*secrets.KubernetesSecrets](), reconcile.Input[*secrets.OSRootSecrets](),
			reconcile.Input[*cluster.Member](), reconcile.Input[*network.NodeAddress](),
		},
		Close: task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			in, err := gather(ctx, r)
			if err != nil || in == nil {
				task.Stop()
				return err
			}
			task.Ensure(ctx, log, in.fingerprint(), func(ctx context.Context) error { return in.run(ctx, log) })
			return nil
		},
	}
}

// input is everything that the objects in the cluster are made of.
type input struct {
	kubeconfig string
	settings   kubeaccess.ConfigSpec
	issuing    *pem.CertificateAndKey
	accepted   []*pem.Certificate
	addresses  []netip.Addr // of the control plane nodes
}

// gather reads the input; nil without an error means that something is missing
// yet, or that this node has no part in it.
func gather(ctx context.Context, r controller.Reader) (*input, error) {
	cfg, err := reconcile.Get[*kubeaccess.Config](ctx, r, kubeaccess.ConfigID)
	if err != nil || cfg == nil {
		return nil, err
	}
	kube, err := reconcile.Get[*secrets.KubernetesSecrets](ctx, r, "k8s-secrets")
	if err != nil || kube == nil || kube.TypedSpec().LocalhostAdminKubeconfig == "" {
		return nil, err
	}
	root, err := reconcile.Get[*secrets.OSRootSecrets](ctx, r, "os")
	if err != nil || root == nil || root.TypedSpec().IssuingCA == nil {
		return nil, err
	}
	in := &input{
		kubeconfig: kube.TypedSpec().LocalhostAdminKubeconfig, settings: *cfg.TypedSpec(),
		issuing: root.TypedSpec().IssuingCA, accepted: root.TypedSpec().AcceptedCAs,
	}
	if !in.settings.Enabled {
		return in, nil
	}
	in.addresses, err = addresses(ctx, r)
	return in, err
}

// addresses are where the control plane nodes' API is: the first of each node
// and family. While no member is known, it is this node's own.
func addresses(ctx context.Context, r controller.Reader) ([]netip.Addr, error) {
	members, err := reconcile.Specs[*cluster.Member](ctx, r, cluster.NewMember("").Metadata())
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, m := range members {
		if m.MachineType == cluster.TypeControlPlane {
			out = append(out, firsts(m.Addresses)...)
		}
	}
	if len(out) == 0 {
		own, err := reconcile.Get[*network.NodeAddress](ctx, r, network.NodeAddressRoutedID)
		if err != nil || own == nil {
			return nil, err
		}
		var all []netip.Addr
		for _, p := range own.TypedSpec().Addresses {
			all = append(all, p.Addr())
		}
		out = firsts(all)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// firsts are the first address of each family.
func firsts(list []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		if !slices.ContainsFunc(out, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			out = append(out, a)
		}
	}
	return out
}

// fingerprint changes with the input. Keys go into it only as a digest.
func (in *input) fingerprint() string {
	data, _ := json.Marshal([]any{in.kubeconfig, in.settings, in.issuing, in.accepted, in.addresses}) // plain values always encode
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// run acts while this node holds the lease, until ctx ends.
func (in *input) run(ctx context.Context, log *slog.Logger) error {
	client, err := api.New([]byte(in.kubeconfig))
	if err != nil {
		return err
	}
	if err := client.AwaitReady(ctx); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	claim := lease.Claim{Client: client, Log: log, Name: leaseName, Identity: host}
	if !in.settings.Enabled {
		there, err := anything(ctx, client)
		if err != nil || !there {
			return err
		}
		claim.Patience = patience
		return lease.Hold(ctx, claim, func(ctx context.Context) error { return remove(ctx, log, client) })
	}
	ca, err := pki.ParseCA(in.issuing.Crt, in.issuing.Key)
	if err != nil {
		return fmt.Errorf("machine.ca: %w", err)
	}
	k := &keeper{client: client, log: log, in: in, ca: ca, now: time.Now}
	return lease.Hold(ctx, claim, k.run)
}
