// Package secrets makes the certificates that a node serves and speaks with:
// of the operating system, of etcd, of Kubernetes and of its aggregation
// layer. Four PKIs, apart: a certificate of one is worth nothing to another.
//
// It reads the authorities from the machine configuration and the names from
// the network's resources, and writes the secrets family. A certificate is
// kept as long as it says what it should and is not past half its life, so
// that nothing restarts without need. Control plane nodes hold the authorities
// and issue for themselves; a worker asks one of them (internal/join). A machine
// that waits for its first configuration has a self-signed certificate for the
// API, made anew at each boot. Keys stay in the store, which only
// machined reads whole; how they reach a service is that service's matter.
package secrets

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/pki"
	"talos/internal/reconcile"
	"talos/internal/resources/network"
	"talos/internal/resources/object"
	"talos/internal/resources/pem"
	"talos/internal/resources/runtime"
	"talos/internal/resources/secrets"
	"talos/internal/resources/timesync"
)

// Ids of the resources that this package makes.
const (
	OSRootID     = "os"
	APIID        = "api"
	TrustdID     = "trustd"
	EtcdID       = "etcd"
	KubeRootID   = "k8s"
	KubeCertsID  = "k8s-certs"
	KubeconfigID = "k8s-secrets"
	KubeletID    = "kubelet"
)

// Lifetimes of what is issued.
const (
	DaemonLifetime     = 24 * time.Hour
	KubeLifetime       = 365 * 24 * time.Hour
	KubeconfigLifetime = 365 * 24 * time.Hour
)

// Options are what the package works with, and what a test bends.
type Options struct {
	Now func() time.Time
	Log *slog.Logger
	Ask Ask // on a worker; nil: it gets no certificates
	// Keep is a file on STATE for a worker's certificate and key, so that it
	// can start while nobody answers; empty: none.
	Keep string
}

// Controllers makes the package's controllers.
func Controllers(opts Options) []controller.Controller {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	all := []controller.Controller{statusController(opts.Log, kubeletPKI)}
	api := &worker{ask: opts.Ask, log: opts.Log, file: opts.Keep}
	for _, c := range []struct {
		id   string
		step step
		out  []resource.Kind
	}{
		{"Root", rootStep, []resource.Kind{
			reconcile.Kind[*secrets.OSRootSecrets](), reconcile.Kind[*secrets.EtcdRootSecrets](),
			reconcile.Kind[*secrets.KubernetesRootSecrets](), reconcile.Kind[*secrets.KubeletSecrets](),
		}},
		{"API", api.apiStep, []resource.Kind{
			reconcile.Kind[*secrets.ApiCertificate](), reconcile.Kind[*secrets.TrustdCertificate](), reconcile.Kind[*secrets.CertSAN](),
		}},
		{"Etcd", etcdStep, []resource.Kind{reconcile.Kind[*secrets.EtcdSecrets]()}},
		{"Kubernetes", kubeStep, []resource.Kind{reconcile.Kind[*secrets.KubernetesDynamicCerts](), reconcile.Kind[*secrets.KubernetesSecrets]()}},
	} {
		all = append(all, &reconcile.Controller{
			ID: "secrets." + c.id + "Controller", Log: opts.Log, Out: c.out,
			In: []controller.Input{
				active.Input(), reconcile.Input[*network.NodeAddress](), reconcile.Input[*network.HostnameStatus](),
				reconcile.Input[*runtime.MaintenanceServiceRequest](), // which the API's alone asks for
				reconcile.Input[*timesync.TimeStatus](),               // what was issued by a wrong clock is no good by the right one
			},
			Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
				return c.step(ctx, r, opts.Now())
			},
		})
	}
	return all
}

// step writes all that should exist at a time. It is taken with every event,
// and every reconcile.Resync besides, because time alone makes certificates
// due; that is often enough for the shortest life.
type step func(ctx context.Context, r controller.Runtime, now time.Time) error

// errWait says that a name of the node is not known. It may be gone for a
// moment only, so what was issued stays as it is.
var errWait = fmt.Errorf("%w: a name or an address of the node is missing", reconcile.ErrKeep)

// node is what certificates of a node name.
type node struct {
	hostname  string
	domain    string
	addresses []netip.Addr
}

// inputs reads the configuration and the node's names. Without configuration
// cfg is nil; while a name is missing the error is errWait.
func inputs(ctx context.Context, r controller.Reader) (cfg *config.Config, n node, err error) {
	if cfg, err = active.Config(ctx, r); err != nil || cfg == nil {
		return nil, n, err
	}
	hostname, err := safe.ReaderGetByID[*network.HostnameStatus](ctx, r, network.HostnameID)
	if err != nil {
		return nil, n, missing(err)
	}
	addresses, err := safe.ReaderGetByID[*network.NodeAddress](ctx, r, network.NodeAddressRoutedID)
	if err != nil {
		return nil, n, missing(err)
	}
	if len(addresses.TypedSpec().Addresses) == 0 || hostname.TypedSpec().Hostname == "" {
		return nil, n, errWait
	}
	n.hostname, n.domain = hostname.TypedSpec().Hostname, hostname.TypedSpec().Domainname
	for _, prefix := range addresses.TypedSpec().Addresses {
		n.addresses = append(n.addresses, prefix.Addr())
	}
	return cfg, n, nil
}

// missing makes of a resource that is not there a reason to wait.
func missing(err error) error {
	if state.IsNotFoundError(err) {
		return errWait
	}
	return err
}

// issue keeps have if it still serves, else makes a new certificate.
func issue(ca *pki.CA, have *pem.CertificateAndKey, t pki.Template, now time.Time) (*pem.CertificateAndKey, error) {
	if have != nil && ca.Serves(pki.Pair{Crt: have.Crt, Key: have.Key}, t, now) {
		return have, nil
	}
	made, err := ca.Issue(t, now)
	if err != nil {
		return nil, fmt.Errorf("issue certificate %q: %w", t.CommonName, err)
	}
	return &pem.CertificateAndKey{Crt: made.Crt, Key: made.Key}, nil
}

func authority(name string, ca *config.CertificateAndKey) (*pki.CA, error) {
	parsed, err := pki.ParseCA(ca.Crt, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return parsed, nil
}

func certAndKey(c *config.CertificateAndKey) *pem.CertificateAndKey {
	if c == nil {
		return nil
	}
	return &pem.CertificateAndKey{Crt: c.Crt, Key: c.Key}
}

// bundle joins authorities into one PEM text, as kubeconfigs carry them.
func bundle(list []*pem.Certificate) []byte {
	var out []byte
	for _, c := range list {
		out = append(append(out, bytes.TrimSpace(c.Crt)...), '\n')
	}
	return out
}

// accepted is the issuing authority and those that are trusted beside it.
func accepted(ca *config.CertificateAndKey, more []config.Certificate) []*pem.Certificate {
	out := []*pem.Certificate{{Crt: ca.Crt}}
	for _, c := range more {
		out = append(out, &pem.Certificate{Crt: c.Crt})
	}
	return out
}

// rootStep hands on what the configuration holds.
func rootStep(ctx context.Context, r controller.Runtime, _ time.Time) error {
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil {
		return err
	}
	ips, names := split(cfg.Machine.CertSANs)
	if err := safe.WriterModify(ctx, r, secrets.NewOSRootSecrets(OSRootID), func(res *secrets.OSRootSecrets) error {
		*res.TypedSpec() = secrets.OSRootSecretsSpec{
			IssuingCA: certAndKey(cfg.Machine.CA), AcceptedCAs: accepted(cfg.Machine.CA, cfg.Machine.AcceptedCAs),
			CertSANIPs: ips, CertSANDNSNames: names, Token: cfg.Machine.Token,
		}
		return nil
	}); err != nil {
		return err
	}
	if err := writeKubelet(ctx, r, cfg); err != nil {
		return err
	}
	if !cfg.IsControlPlane() {
		return nil
	}
	if err := safe.WriterModify(ctx, r, secrets.NewEtcdRootSecrets(EtcdID), func(res *secrets.EtcdRootSecrets) error {
		res.TypedSpec().EtcdCA = certAndKey(cfg.Cluster.Etcd.CA)
		return nil
	}); err != nil {
		return err
	}
	root, err := kubeRoot(cfg)
	if err != nil {
		return err
	}
	return safe.WriterModify(ctx, r, secrets.NewKubernetesRootSecrets(KubeRootID), func(res *secrets.KubernetesRootSecrets) error {
		*res.TypedSpec() = root
		return nil
	})
}

func writeKubelet(ctx context.Context, r controller.Runtime, cfg *config.Config) error {
	endpoint, err := object.ParseURL(cfg.Cluster.ControlPlane.Endpoint)
	if err != nil {
		return fmt.Errorf("cluster.controlPlane.endpoint: %w", err)
	}
	id, secret, _ := strings.Cut(cfg.Cluster.Token, ".")
	return safe.WriterModify(ctx, r, secrets.NewKubeletSecrets(KubeletID), func(res *secrets.KubeletSecrets) error {
		*res.TypedSpec() = secrets.KubeletSecretsSpec{
			Endpoint: endpoint, AcceptedCAs: accepted(cfg.Cluster.CA, cfg.Cluster.AcceptedCAs),
			BootstrapTokenID: id, BootstrapTokenSecret: secret,
		}
		return nil
	})
}

func kubeRoot(cfg *config.Config) (secrets.KubernetesRootSecretsSpec, error) {
	endpoint, err := object.ParseURL(cfg.Cluster.ControlPlane.Endpoint)
	if err != nil {
		return secrets.KubernetesRootSecretsSpec{}, fmt.Errorf("cluster.controlPlane.endpoint: %w", err)
	}
	id, secret, _ := strings.Cut(cfg.Cluster.Token, ".")
	spec := secrets.KubernetesRootSecretsSpec{
		Name: cfg.ClusterName(), Endpoint: endpoint, LocalEndpoint: object.URL{URL: *cfg.LocalEndpoint()},
		APIServerIPs: cfg.KubernetesServiceIPs(), DNSDomain: cfg.DNSDomain(),
		IssuingCA: certAndKey(cfg.Cluster.CA), AcceptedCAs: accepted(cfg.Cluster.CA, cfg.Cluster.AcceptedCAs),
		AggregatorCA: certAndKey(cfg.Cluster.AggregatorCA), AcceptedAggregatorCAs: accepted(cfg.Cluster.AggregatorCA, nil),
		ServiceAccount: &pem.Key{Key: cfg.Cluster.ServiceAccount.Key}, ServiceAccountAcceptedKeys: []*pem.Key{{Key: cfg.Cluster.ServiceAccount.Key}},
		IssuerURL: endpoint.String(), AcceptedIssuers: []string{endpoint.String()}, APIAudiences: []string{endpoint.String()},
		AesCBCEncryptionSecret: cfg.Cluster.AescbcEncryptionSecret, SecretboxEncryptionSecret: cfg.Cluster.SecretboxEncryptionSecret,
		BootstrapTokenID: id, BootstrapTokenSecret: secret,
	}
	if cfg.Cluster.APIServer != nil {
		spec.CertSANs = cfg.Cluster.APIServer.CertSANs
		if own := cfg.Cluster.APIServer.EncryptionConfig; len(own) > 0 {
			spec.EtcdEncryptionConfig.Values = map[string]any{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration"}
			maps.Copy(spec.EtcdEncryptionConfig.Values, own)
		}
	}
	return spec, nil
}

// split parts addresses from names.
func split(sans []string) (ips []netip.Addr, names []string) {
	for _, san := range sans {
		if ip, err := netip.ParseAddr(san); err == nil {
			ips = append(ips, ip)
		} else if san != "" {
			names = append(names, san)
		}
	}
	return ips, names
}

// unique keeps the first of equal items.
func unique[T comparable](items []T) []T {
	var out []T
	for _, item := range items {
		if !slices.Contains(out, item) {
			out = append(out, item)
		}
	}
	return out
}
