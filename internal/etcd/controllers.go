package etcd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.uber.org/zap"

	"talos/config"
	"talos/internal/layout"
	configres "talos/internal/resources/config"
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
	return []controller.Controller{&specController{}, &pkiController{m}, &memberController{m}}
}

// specController turns the configuration and the node's name and addresses
// into what the member runs with.
type specController struct{}

func (*specController) Name() string { return "etcd.SpecController" }

func (*specController) Inputs() []controller.Input {
	return []controller.Input{
		{Namespace: configres.Namespace, Type: configres.MachineConfigType, Kind: controller.InputWeak},
		{Namespace: network.Namespace, Type: network.NodeAddressType, Kind: controller.InputWeak},
		{Namespace: network.Namespace, Type: network.HostnameStatusType, Kind: controller.InputWeak},
	}
}

func (*specController) Outputs() []controller.Output {
	return []controller.Output{{Type: etcd.EtcdSpecType, Kind: controller.OutputExclusive}}
}

func (c *specController) Run(ctx context.Context, r controller.Runtime, _ *zap.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.EventCh():
		}
		if err := c.reconcile(ctx, r); err != nil {
			return err
		}
		r.ResetRestartBackoff()
	}
}

func (c *specController) reconcile(ctx context.Context, r controller.Runtime) error {
	cfg, err := safe.ReaderGetByID[*configres.MachineConfig](ctx, r, configres.ActiveID)
	if state.IsNotFoundError(err) {
		return nil
	} else if err != nil {
		return err
	}
	parsed, _, err := config.Load("machine configuration", cfg.TypedSpec().Document)
	if err != nil {
		return err
	}
	if parsed.Machine.Type == "worker" {
		return nil
	}
	addresses, err := safe.ReaderGetByID[*network.NodeAddress](ctx, r, "routed")
	if state.IsNotFoundError(err) || err == nil && len(addresses.TypedSpec().Addresses) == 0 {
		return nil
	} else if err != nil {
		return err
	}
	hostname, err := safe.ReaderGetByID[*network.HostnameStatus](ctx, r, "hostname")
	if state.IsNotFoundError(err) {
		return nil
	} else if err != nil {
		return err
	}
	spec, err := Spec(parsed.Cluster.Etcd, hostname.TypedSpec().Hostname, addresses.TypedSpec().Addresses)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	return safe.WriterModify(ctx, r, etcd.NewEtcdSpec(SpecID), func(res *etcd.EtcdSpec) error {
		*res.TypedSpec() = spec
		return nil
	})
}

// Spec decides what the member runs with. It advertises the node's first
// address in advertisedSubnets (any, when there are none) and listens on that
// and on the loopback address, or on all in listenSubnets.
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
		ListenClientAddresses: append(slices.Clone(listen), netip.MustParseAddr("127.0.0.1")),
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

// pkiController writes the member's certificates where the program reads
// them. etcd reads them at each handshake, so a renewal needs no restart.
type pkiController struct{ *Member }

func (*pkiController) Name() string { return "etcd.PKIController" }

func (*pkiController) Inputs() []controller.Input {
	return []controller.Input{
		{Namespace: secrets.Namespace, Type: secrets.EtcdSecretsType, Kind: controller.InputWeak},
		{Namespace: secrets.Namespace, Type: secrets.EtcdRootSecretsType, Kind: controller.InputWeak},
	}
}

func (*pkiController) Outputs() []controller.Output {
	return []controller.Output{{Type: etcd.PKIStatusType, Kind: controller.OutputExclusive}}
}

func (c *pkiController) Run(ctx context.Context, r controller.Runtime, _ *zap.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.EventCh():
		}
		root, err := safe.ReaderGetByID[*secrets.EtcdRootSecrets](ctx, r, "etcd")
		if state.IsNotFoundError(err) {
			continue
		} else if err != nil {
			return err
		}
		certs, err := safe.ReaderGetByID[*secrets.EtcdSecrets](ctx, r, "etcd")
		if state.IsNotFoundError(err) {
			continue
		} else if err != nil {
			return err
		}
		if err := c.writePKI(*root.TypedSpec(), *certs.TypedSpec()); err != nil {
			return fmt.Errorf("write etcd's certificates: %w", err)
		}
		if err := safe.WriterModify(ctx, r, etcd.NewPKIStatus(PKIStatusID), func(res *etcd.PKIStatus) error {
			res.TypedSpec().Ready = true
			res.TypedSpec().Version = certs.Metadata().Version().String()
			return nil
		}); err != nil {
			return err
		}
		r.ResetRestartBackoff()
	}
}

func (c *pkiController) writePKI(root secrets.EtcdRootSecretsSpec, certs secrets.EtcdSecretsSpec) error {
	if err := os.MkdirAll(c.pkiDir, 0o700); err != nil {
		return err
	}
	if err := c.chown(c.pkiDir, layout.EtcdUID, layout.EtcdUID); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		fileCA:              root.EtcdCA.Crt,
		fileServer + ".crt": certs.Etcd.Crt, fileServer + ".key": certs.Etcd.Key,
		filePeer + ".crt": certs.EtcdPeer.Crt, filePeer + ".key": certs.EtcdPeer.Key,
	} {
		if err := c.writeFile(filepath.Join(c.pkiDir, name), content); err != nil {
			return err
		}
	}
	return nil
}

// writeFile replaces a file at once; one that is as it should be stays.
func (c *pkiController) writeFile(path string, content []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, content) {
		return nil
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, content, 0o400); err != nil {
		return err
	}
	return errors.Join(c.chown(temp, layout.EtcdUID, layout.EtcdUID), os.Rename(temp, path))
}

// memberController tells which member this node is.
type memberController struct{ *Member }

func (*memberController) Name() string { return "etcd.MemberController" }

func (*memberController) Inputs() []controller.Input {
	return []controller.Input{{Namespace: v1alpha1.Namespace, Type: v1alpha1.ServiceType, Kind: controller.InputWeak}}
}

func (*memberController) Outputs() []controller.Output {
	return []controller.Output{{Type: etcd.EtcdMemberType, Kind: controller.OutputExclusive}}
}

func (c *memberController) Run(ctx context.Context, r controller.Runtime, _ *zap.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.EventCh():
		}
		svc, err := safe.ReaderGetByID[*v1alpha1.Service](ctx, r, ServiceID)
		if state.IsNotFoundError(err) || (err == nil && !svc.TypedSpec().Healthy) {
			continue
		} else if err != nil {
			return err
		}
		id, err := c.localID(ctx)
		if err != nil {
			return err
		}
		if err := safe.WriterModify(ctx, r, etcd.NewEtcdMember(MemberID), func(res *etcd.EtcdMember) error {
			res.TypedSpec().MemberID = fmt.Sprintf("%016x", id)
			return nil
		}); err != nil {
			return err
		}
		r.ResetRestartBackoff()
	}
}

func (c *memberController) localID(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client, err := c.Client(ctx)
	if err != nil {
		return 0, err
	}
	status, err := client.Status(ctx, client.Endpoints()[0])
	if err != nil {
		return 0, fmt.Errorf("etcd status: %w", err)
	}
	return status.Header.MemberId, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func join(items []string) string { return strings.Join(items, ",") }
