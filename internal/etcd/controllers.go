package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/linux/atomicfile"
	"talos/internal/loop"
	"talos/internal/reconcile"
	"talos/internal/resources/etcd"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
	"talos/internal/resources/v1alpha1"
)

// Ids of the resources that this package makes.
const (
	SpecID      = "etcd"
	PKIStatusID = "etcd"
	MemberID    = "local"
)

// Names of the files of the member's PKI.
const (
	fileCA     = "ca.crt"
	fileServer = "server"
	filePeer   = "peer"
)

// Controllers are what machined runs for the member.
func (m *Member) Controllers() []controller.Controller {
	return []controller.Controller{
		// The configuration and the node's name and addresses become what the
		// member runs with.
		&reconcile.Controller{
			ID: "etcd.SpecController", Log: m.log,
			In:   []controller.Input{active.Input(), reconcile.Input[*network.NodeAddress](), reconcile.Input[*network.HostnameStatus]()},
			Out:  []resource.Kind{reconcile.Kind[*etcd.EtcdSpec]()},
			Step: m.specStep,
		},
		// The member's certificates go where the program reads them, at each
		// handshake: a renewal needs no restart.
		&reconcile.Controller{
			ID: "etcd.PKIController", Log: m.log,
			In:   []controller.Input{reconcile.Input[*secrets.EtcdSecrets](), reconcile.Input[*secrets.EtcdRootSecrets]()},
			Out:  []resource.Kind{reconcile.Kind[*etcd.PKIStatus]()},
			Step: m.pkiStep,
		},
		// A learner becomes a voter; then it is told which member this node is.
		&reconcile.Controller{
			ID: "etcd.MemberController", Log: m.log,
			In:   []controller.Input{reconcile.InputID[*v1alpha1.Service](ServiceID), reconcile.InputID[*etcd.EtcdSpec](SpecID)},
			Out:  []resource.Kind{reconcile.Kind[*etcd.EtcdMember]()},
			Step: m.memberStep,
		},
	}
}

// specStep keeps the last spec while something that it follows from is away.
func (m *Member) specStep(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	cfg, err := active.Config(ctx, r)
	if err != nil {
		return err
	}
	if cfg == nil || cfg.Machine.Type == "worker" {
		return reconcile.ErrKeep
	}
	addresses, err := reconcile.Get[*network.NodeAddress](ctx, r, network.NodeAddressRoutedID)
	if err != nil {
		return err
	}
	hostname, err := reconcile.Get[*network.HostnameStatus](ctx, r, network.HostnameID)
	if err != nil {
		return err
	}
	if hostname == nil || addresses == nil || len(addresses.TypedSpec().Addresses) == 0 {
		return reconcile.ErrKeep
	}
	spec, err := Spec(cfg.Cluster.Etcd, hostname.TypedSpec().Hostname, addresses.TypedSpec().Addresses)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	if local := netip.MustParseAddr(m.local); !slices.Contains(spec.ListenClientAddresses, local) {
		spec.ListenClientAddresses = append(spec.ListenClientAddresses, local)
	}
	return reconcile.Put(ctx, r, etcd.NewEtcdSpec(SpecID), spec)
}

// Spec decides what the member runs with. It advertises the node's first
// address in advertisedSubnets (any, when there are none) and listens on that,
// or on all in listenSubnets.
func Spec(cfg *config.Etcd, hostname string, addresses []netip.Prefix) (etcd.EtcdSpecSpec, error) {
	if cfg == nil {
		cfg = &config.Etcd{}
	}
	advertised, err := within(addresses, cfg.AdvertisedSubnets)
	if err != nil {
		return etcd.EtcdSpecSpec{}, fmt.Errorf("advertisedSubnets: %w", err)
	}
	if len(advertised) == 0 {
		return etcd.EtcdSpecSpec{}, fmt.Errorf("none of the node's addresses %v is in advertisedSubnets %v", addresses, cfg.AdvertisedSubnets)
	}
	listen := advertised[:1]
	if len(cfg.ListenSubnets) > 0 {
		if listen, err = within(addresses, cfg.ListenSubnets); err != nil {
			return etcd.EtcdSpecSpec{}, fmt.Errorf("listenSubnets: %w", err)
		}
	}
	spec := etcd.EtcdSpecSpec{
		Name: hostname, AdvertisedAddresses: advertised[:1],
		ListenPeerAddresses:   listen,
		ListenClientAddresses: slices.Clone(listen),
		Image:                 cmp.Or(cfg.Image, config.EtcdImage()),
		ExtraArgs:             map[string]etcd.ArgValues{},
	}
	for flag, value := range cfg.ExtraArgs {
		spec.ExtraArgs[flag] = etcd.ArgValues{Values: []string{value}}
	}
	return spec, nil
}

// within keeps the addresses that lie in one of subnets; a subnet that starts
// with "!" leaves its addresses out.
func within(addresses []netip.Prefix, subnets []string) ([]netip.Addr, error) {
	var in, out []netip.Prefix
	for _, s := range subnets {
		text, excluded := strings.CutPrefix(s, "!")
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		if excluded {
			out = append(out, prefix)
		} else {
			in = append(in, prefix)
		}
	}
	var kept []netip.Addr
	for _, a := range addresses {
		has := func(p netip.Prefix) bool { return p.Contains(a.Addr()) }
		if (len(in) == 0 || slices.ContainsFunc(in, has)) && !slices.ContainsFunc(out, has) {
			kept = append(kept, a.Addr())
		}
	}
	return kept, nil
}

func (m *Member) pkiStep(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	root, err := reconcile.Get[*secrets.EtcdRootSecrets](ctx, r, "etcd")
	if err != nil {
		return err
	}
	certs, err := reconcile.Get[*secrets.EtcdSecrets](ctx, r, "etcd")
	if err != nil {
		return err
	}
	if root == nil || certs == nil {
		return reconcile.ErrKeep
	}
	if err := m.writePKI(*root.TypedSpec(), *certs.TypedSpec()); err != nil {
		return fmt.Errorf("write etcd's certificates: %w", err)
	}
	return reconcile.Put(ctx, r, etcd.NewPKIStatus(PKIStatusID), etcd.PKIStatusSpec{Ready: true, Version: certs.Metadata().Version().String()})
}

func (m *Member) writePKI(root secrets.EtcdRootSecretsSpec, certs secrets.EtcdSecretsSpec) error {
	if err := os.MkdirAll(m.pkiDir, 0o700); err != nil {
		return err
	}
	if err := os.Chown(m.pkiDir, m.uid, m.uid); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		fileCA:              root.EtcdCA.Crt,
		fileServer + ".crt": certs.Etcd.Crt, fileServer + ".key": certs.Etcd.Key,
		filePeer + ".crt": certs.EtcdPeer.Crt, filePeer + ".key": certs.EtcdPeer.Key,
	} {
		if err := atomicfile.UpdateAs(filepath.Join(m.pkiDir, name), content, 0o400, m.uid); err != nil {
			return err
		}
	}
	return nil
}

// memberStep lets a member that has just started take its place. What is known
// of the member stays while it is down, and goes when it has left.
func (m *Member) memberStep(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	svc, err := reconcile.Get[*v1alpha1.Service](ctx, r, ServiceID)
	if err != nil {
		return err
	}
	spec, err := reconcile.Get[*etcd.EtcdSpec](ctx, r, SpecID)
	switch {
	case err != nil:
		return err
	case svc == nil || spec == nil || !svc.TypedSpec().Running:
		if m.hasLeft() {
			return nil
		}
		return reconcile.ErrKeep
	}
	for end := time.Now().Add(settleLimit); ; {
		id, err := m.settle(ctx, spec.TypedSpec())
		if id != 0 {
			return errors.Join(err, reconcile.Put(ctx, r, etcd.NewEtcdMember(MemberID), etcd.EtcdMemberSpec{MemberID: fmt.Sprintf("%016x", id)}))
		}
		if time.Now().After(end) || !loop.Sleep(ctx, settlePause) {
			return err
		}
	}
}

// Times of a member that has just started: between tries to let it vote, and
// until the controller looks again whether it runs.
const (
	settlePause = 100 * time.Millisecond
	settleLimit = 5 * time.Second
)
