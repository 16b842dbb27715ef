package secrets

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.uber.org/zap"

	"talos/config"
	"talos/internal/pki"
	configres "talos/internal/resources/config"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
	"talos/internal/store"
)

// node runs the controllers over a store with a control plane's configuration.
type testNode struct {
	state.State
	mu  sync.Mutex // guards now
	now time.Time
}

func newNode(t *testing.T) *testNode {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{State: st, now: time.Now()}
	rt, err := runtime.NewRuntime(st, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Controllers(Options{Now: n.time, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}) {
		if err := rt.RegisterController(c); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	n.configure(t)
	return n
}

func (n *testNode) time() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

func (n *testNode) configure(t *testing.T) {
	t.Helper()
	bundle, err := config.NewSecrets(n.time)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: bundle, Clock: n.time})
	if err != nil {
		t.Fatal(err)
	}
	document, err := made.ControlPlane.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	mc := configres.NewMachineConfig(configres.ActiveID)
	mc.TypedSpec().Document = document
	hostname := network.NewHostnameStatus("hostname")
	hostname.TypedSpec().Hostname = "node-1"
	addresses := network.NewNodeAddress("routed")
	addresses.TypedSpec().Addresses = []netip.Prefix{netip.MustParsePrefix("10.5.0.2/24")}
	for _, res := range []resource.Resource{mc, hostname, addresses} {
		if err := n.Create(t.Context(), res); err != nil {
			t.Fatal(err)
		}
	}
}

func await[R interface {
	resource.Resource
	comparable
}](t *testing.T, st state.State, probe R) R {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	res, err := safe.StateWatchFor[R](ctx, st, probe.Metadata(), state.WithEventTypes(state.Created, state.Updated))
	if err != nil {
		t.Fatalf("no %s: %v", probe.Metadata(), err)
	}
	return res
}

func TestEverySecretIsMade(t *testing.T) {
	n := newNode(t)
	os := await(t, n, secrets.NewOSRootSecrets(OSRootID)).TypedSpec()
	api := await(t, n, secrets.NewApiCertificate(APIID)).TypedSpec()
	trustd := await(t, n, secrets.NewTrustdCertificate(TrustdID)).TypedSpec()
	etcdRoot := await(t, n, secrets.NewEtcdRootSecrets(EtcdID)).TypedSpec()
	etcd := await(t, n, secrets.NewEtcdSecrets(EtcdID)).TypedSpec()
	kubeRoot := await(t, n, secrets.NewKubernetesRootSecrets(KubeRootID)).TypedSpec()
	kube := await(t, n, secrets.NewKubernetesDynamicCerts(KubeCertsID)).TypedSpec()
	await(t, n, secrets.NewKubernetesSecrets(KubeconfigID))
	await(t, n, secrets.NewKubeletSecrets(KubeletID))

	roots := map[string][]byte{
		"os": os.IssuingCA.Crt, "etcd": etcdRoot.EtcdCA.Crt, "kubernetes": kubeRoot.IssuingCA.Crt, "aggregator": kubeRoot.AggregatorCA.Crt,
	}
	for name, leaf := range map[string]struct {
		pki string
		crt []byte
		use x509.ExtKeyUsage
	}{
		"apid server": {"os", api.Server.Crt, x509.ExtKeyUsageServerAuth}, "apid client": {"os", api.Client.Crt, x509.ExtKeyUsageClientAuth},
		"trustd":      {"os", trustd.Server.Crt, x509.ExtKeyUsageServerAuth},
		"etcd server": {"etcd", etcd.Etcd.Crt, x509.ExtKeyUsageServerAuth}, "etcd peer": {"etcd", etcd.EtcdPeer.Crt, x509.ExtKeyUsageClientAuth},
		"etcd admin": {"etcd", etcd.EtcdAdmin.Crt, x509.ExtKeyUsageClientAuth}, "etcd apiserver": {"etcd", etcd.EtcdAPIServer.Crt, x509.ExtKeyUsageClientAuth},
		"apiserver": {"kubernetes", kube.APIServer.Crt, x509.ExtKeyUsageServerAuth}, "kubelet client": {"kubernetes", kube.APIServerKubeletClient.Crt, x509.ExtKeyUsageClientAuth},
		"front proxy": {"aggregator", kube.FrontProxy.Crt, x509.ExtKeyUsageClientAuth},
	} {
		for rootName, root := range roots {
			pool, err := pki.Pool(root)
			if err != nil {
				t.Fatal(err)
			}
			err = pki.Verify(leaf.crt, pool, leaf.use, n.time())
			if accepted := err == nil; accepted != (rootName == leaf.pki) {
				t.Errorf("%s verified by the %s PKI: %v, want accepted %v", name, rootName, err, rootName == leaf.pki)
			}
		}
	}
	checkNames(t, kube.APIServer.Crt)
}

func checkNames(t *testing.T, crt []byte) {
	t.Helper()
	parsed, err := pki.ParseCertificate(crt)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node-1", "localhost", "kubernetes.default.svc.cluster.local", "10.5.0.1", "10.5.0.2", "10.96.0.1", "127.0.0.1"} {
		if err := parsed.VerifyHostname(name); err != nil {
			t.Errorf("the API server's certificate: %v", err)
		}
	}
}

// TestCertificatesAreKeptAndRenewed: an event that changes nothing keeps the
// certificate; half a life later an event renews it.
func TestCertificatesAreKeptAndRenewed(t *testing.T) {
	n := newNode(t)
	first := await(t, n, secrets.NewApiCertificate(APIID)).TypedSpec().Server.Crt
	touch := func() {
		_, err := safe.StateUpdateWithConflicts(t.Context(), n.State, network.NewHostnameStatus("hostname").Metadata(), func(res *network.HostnameStatus) error {
			res.TypedSpec().Domainname += "x"
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	touch()
	// The SANs follow a change of name; wait for that, then nothing else moved.
	rename(t, n, "node-2")
	second := awaitOther(t, n, first)
	parsed, err := pki.ParseCertificate(second)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(parsed.DNSNames, "node-2") {
		t.Errorf("DNS names = %v, want node-2 among them", parsed.DNSNames)
	}
	n.mu.Lock()
	n.now = n.now.Add(DaemonLifetime/2 + time.Hour)
	n.mu.Unlock()
	touch()
	awaitOther(t, n, second)
}

func rename(t *testing.T, n *testNode, name string) {
	t.Helper()
	if _, err := safe.StateUpdateWithConflicts(t.Context(), n.State, network.NewHostnameStatus("hostname").Metadata(), func(res *network.HostnameStatus) error {
		res.TypedSpec().Hostname = name
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// awaitOther waits until apid's certificate is not the one given.
func awaitOther(t *testing.T, n *testNode, crt []byte) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	res, err := safe.StateWatchFor[*secrets.ApiCertificate](ctx, n.State, secrets.NewApiCertificate(APIID).Metadata(),
		state.WithCondition(func(res resource.Resource) (bool, error) {
			api, ok := res.(*secrets.ApiCertificate)
			return ok && !slices.Equal(api.TypedSpec().Server.Crt, crt), nil
		}))
	if err != nil {
		t.Fatalf("the certificate was not issued anew: %v", err)
	}
	return res.TypedSpec().Server.Crt
}
