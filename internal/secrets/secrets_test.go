package secrets

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"

	"talos/config"
	"talos/internal/pki"
	configres "talos/internal/resources/config"
	"talos/internal/resources/network"
	runtimeres "talos/internal/resources/runtime"
	"talos/internal/resources/secrets"
	"talos/internal/resources/timesync"
	"talos/internal/store"
)

// testNode runs the controllers over a store with a control plane's configuration.
type testNode struct {
	state.State
	mu  sync.Mutex // guards now
	now time.Time

	worker []byte // the configuration of a worker of the same cluster
}

func newNode(t *testing.T) *testNode {
	t.Helper()
	n := boot(t, io.Discard)
	n.configure(t)
	return n
}

// boot runs the controllers over a store without a configuration.
func boot(t *testing.T, log io.Writer) *testNode {
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
	for _, c := range Controllers(Options{Now: n.time, Log: slog.New(slog.NewTextHandler(log, nil))}) {
		if err := rt.RegisterController(c); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return n
}

func (n *testNode) time() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

func (n *testNode) configure(t *testing.T) {
	t.Helper()
	bundle, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: bundle, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	document, err := made.ControlPlane.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if n.worker, err = made.Worker.Bytes(); err != nil {
		t.Fatal(err)
	}
	mc := configres.NewMachineConfig(configres.ActiveID)
	mc.TypedSpec().Document = document
	if err := n.Create(t.Context(), mc); err != nil {
		t.Fatal(err)
	}
	n.named(t)
}

// named gives the node a host name and an address.
func (n *testNode) named(t *testing.T) {
	t.Helper()
	hostname := network.NewHostnameStatus("hostname")
	hostname.TypedSpec().Hostname = "node-1"
	addresses := network.NewNodeAddress("routed")
	addresses.TypedSpec().Addresses = []netip.Prefix{netip.MustParsePrefix("10.5.0.2/24")}
	for _, res := range []resource.Resource{hostname, addresses} {
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

// TestWhatIsIssuedIsKept: events that change nothing that certificates say, and
// a node address that is gone for a moment, leave every secret as it was.
func TestWhatIsIssuedIsKept(t *testing.T) {
	n := newNode(t)
	all := []resource.Resource{
		await(t, n, secrets.NewApiCertificate(APIID)), await(t, n, secrets.NewTrustdCertificate(TrustdID)), await(t, n, secrets.NewEtcdSecrets(EtcdID)),
		await(t, n, secrets.NewKubernetesDynamicCerts(KubeCertsID)), await(t, n, secrets.NewKubernetesSecrets(KubeconfigID)),
	}
	change(t, n, network.NewHostnameStatus(network.HostnameID), func(s *network.HostnameStatusSpec) { s.Domainname = "example.org" })
	addresses := network.NewNodeAddress(network.NodeAddressRoutedID)
	change(t, n, addresses, func(s *network.NodeAddressSpec) { s.Addresses = nil })
	if err := n.Destroy(t.Context(), addresses.Metadata()); err != nil {
		t.Fatal(err)
	}
	addresses.TypedSpec().Addresses = []netip.Prefix{netip.MustParsePrefix("10.5.0.2/16")} // the same address
	if err := n.Create(t.Context(), addresses); err != nil {
		t.Fatal(err)
	}
	// Then a new name: what carries it is written once more, and only once.
	rename(t, n, "node-2")
	for i, was := range all {
		want := was.Metadata().Version().Next()
		if i == len(all)-1 {
			want = was.Metadata().Version() // kubeconfigs name no node
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		is, err := n.WatchFor(ctx, was.Metadata(), state.WithCondition(func(res resource.Resource) (bool, error) {
			return res != nil && res.Metadata().Version().Value() >= want.Value(), nil
		}))
		cancel()
		if err != nil {
			t.Errorf("%s: %v", was.Metadata(), err)
		} else if !is.Metadata().Version().Equal(want) || !is.Metadata().Created().Equal(was.Metadata().Created()) {
			t.Errorf("%s was written without need: version %s, want %s", was.Metadata(), is.Metadata().Version(), want)
		}
	}
}

// TestCertificatesAreRenewed: a new name is in the certificates; half a life
// later an event renews them.
func TestCertificatesAreRenewed(t *testing.T) {
	n := newNode(t)
	first := await(t, n, secrets.NewApiCertificate(APIID)).TypedSpec().Server.Crt
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
	change(t, n, network.NewHostnameStatus(network.HostnameID), func(s *network.HostnameStatusSpec) { s.Domainname = "x" })
	awaitOther(t, n, second)
}

// TestClockIsSet: a machine that started in 1970 has certificates of today as
// soon as its clock is right.
func TestClockIsSet(t *testing.T) {
	n := boot(t, io.Discard)
	today := n.time()
	set := func(now time.Time) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.now = now
	}
	set(time.Unix(0, 0)) // before anything is issued: a step has the time of its start
	n.configure(t)
	ends := func(when func(time.Time) bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := n.WatchFor(ctx, secrets.NewApiCertificate(APIID).Metadata(), state.WithCondition(func(res resource.Resource) (bool, error) {
			crt, ok := res.(*secrets.ApiCertificate)
			if !ok || crt.TypedSpec().Server == nil {
				return false, nil
			}
			parsed, err := pki.ParseCertificate(crt.TypedSpec().Server.Crt)
			return err == nil && when(parsed.NotAfter), err
		})); err != nil {
			t.Fatalf("no such certificate: %v", err)
		}
	}
	ends(today.After)
	set(today)
	status := timesync.NewTimeStatus(timesync.StatusID)
	status.TypedSpec().Synced = true
	if err := n.Create(t.Context(), status); err != nil {
		t.Fatal(err)
	}
	ends(today.Before)
}

// TestKubeconfigs: each lets its user in, and is laid out as users expect.
func TestKubeconfigs(t *testing.T) {
	n := newNode(t)
	spec := await(t, n, secrets.NewKubernetesSecrets(KubeconfigID)).TypedSpec()
	for _, test := range []struct{ text, server, user, name, group string }{
		{spec.AdminKubeconfig, "https://10.5.0.1:6443", "admin@test", "admin", "system:masters"},
		{spec.LocalhostAdminKubeconfig, "https://127.0.0.1:6443", "admin@test", "talos:admin", "system:masters"},
		{spec.SchedulerKubeconfig, "https://127.0.0.1:6443", "kube-scheduler@test", "system:kube-scheduler", ""},
		{spec.ControllerManagerKubeconfig, "https://127.0.0.1:6443", "kube-controller-manager@test", "system:kube-controller-manager", ""},
	} {
		var k kubeconfig
		if err := yaml.Unmarshal([]byte(test.text), &k); err != nil {
			t.Fatal(err)
		}
		if k.Clusters[0].Name != "test" || k.Clusters[0].Cluster.Server != test.server || k.CurrentContext != test.user || k.Users[0].Name != test.user ||
			k.Contexts[0].Context.Cluster != "test" || k.Contexts[0].Context.Namespace != "default" {
			t.Errorf("kubeconfig = %s %s %s", k.CurrentContext, k.Clusters[0].Name, k.Clusters[0].Cluster.Server)
		}
		crtPEM, err := base64.StdEncoding.DecodeString(k.Users[0].User.Crt)
		if err != nil {
			t.Fatal(err)
		}
		crt, err := pki.ParseCertificate(crtPEM)
		if err != nil {
			t.Fatal(err)
		}
		if crt.Subject.CommonName != test.name || strings.Join(crt.Subject.Organization, ",") != test.group {
			t.Errorf("%s: subject = %v, want %s of %q", test.user, crt.Subject, test.name, test.group)
		}
	}
}

// TestLeastPrivilege: who may do what is in the certificate's subject.
func TestLeastPrivilege(t *testing.T) {
	n := newNode(t)
	kube := await(t, n, secrets.NewKubernetesDynamicCerts(KubeCertsID)).TypedSpec()
	api := await(t, n, secrets.NewApiCertificate(APIID)).TypedSpec()
	for want, data := range map[string][]byte{
		"CN=kube-apiserver-kubelet-client": kube.APIServerKubeletClient.Crt,
		"CN=front-proxy-client":            kube.FrontProxy.Crt,
		"CN=node-1":                        api.Server.Crt,
		"CN=node-1,O=os:impersonator":      api.Client.Crt,
	} {
		crt, err := pki.ParseCertificate(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := crt.Subject.String(); got != want {
			t.Errorf("subject = %s, want %s", got, want)
		}
	}
}

// TestWorkerHoldsNoAuthority: a worker issues nothing.
func TestWorkerHoldsNoAuthority(t *testing.T) {
	n := newNode(t)
	await(t, n, secrets.NewApiCertificate(APIID))
	await(t, n, secrets.NewKubernetesSecrets(KubeconfigID))
	change(t, n, configres.NewMachineConfig(configres.ActiveID), func(s *configres.MachineConfigSpec) { s.Document = n.worker })
	for _, gone := range []resource.Resource{
		secrets.NewApiCertificate(APIID), secrets.NewTrustdCertificate(TrustdID), secrets.NewEtcdRootSecrets(EtcdID), secrets.NewEtcdSecrets(EtcdID),
		secrets.NewKubernetesRootSecrets(KubeRootID), secrets.NewKubernetesDynamicCerts(KubeCertsID), secrets.NewKubernetesSecrets(KubeconfigID),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if _, err := n.WatchFor(ctx, gone.Metadata(), state.WithEventTypes(state.Destroyed)); err != nil {
			t.Errorf("%s is still there on a worker: %v", gone.Metadata(), err)
		}
		cancel()
	}
	if root := await(t, n, secrets.NewOSRootSecrets(OSRootID)).TypedSpec(); len(root.IssuingCA.Key) > 0 {
		t.Error("the worker has the key of the operating system's authority")
	}
	await(t, n, secrets.NewKubeletSecrets(KubeletID))
}

// change updates the spec of a resource.
func change[S any, R interface {
	resource.Resource
	TypedSpec() *S
}](t *testing.T, n *testNode, r R, by func(*S)) {
	t.Helper()
	if _, err := safe.StateUpdateWithConflicts(t.Context(), n.State, r.Metadata(), func(res R) error {
		by(res.TypedSpec())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, n *testNode, name string) {
	t.Helper()
	change(t, n, network.NewHostnameStatus(network.HostnameID), func(s *network.HostnameStatusSpec) { s.Hostname = name })
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

// TestExpiryShows: whoever may read finds out what expires when, also after a
// renewal, and no key with it.
func TestExpiryShows(t *testing.T) {
	n := newNode(t)
	for _, id := range []string{
		"apid-server", "apid-client", "trustd-server", "etcd-server", "etcd-peer", "etcd-admin", "etcd-kube-apiserver", "kube-apiserver",
		"kube-apiserver-kubelet-client", "kube-front-proxy", "kubeconfig-admin", "kubeconfig-scheduler", "ca-os", "ca-etcd", "ca-kubernetes", "ca-aggregator",
	} {
		spec := await(t, n, runtimeres.NewCertificateStatus(id)).TypedSpec()
		if _, err := time.Parse(time.RFC3339, spec.NotAfter); err != nil || spec.Subject == "" || spec.Issuer == "" {
			t.Errorf("%s = %+v", id, spec)
		}
	}
	api := await(t, n, secrets.NewApiCertificate(APIID)).TypedSpec().Server
	crt, err := pki.ParseCertificate(api.Crt)
	if err != nil {
		t.Fatal(err)
	}
	status := await(t, n, runtimeres.NewCertificateStatus("apid-server")).TypedSpec()
	if status.NotAfter != crt.NotAfter.UTC().Format(time.RFC3339) || !slices.Contains(status.Names, "node-1") {
		t.Errorf("status = %+v, of a certificate until %v", status, crt.NotAfter)
	}
	rename(t, n, "node-2")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := safe.StateWatchFor[*runtimeres.CertificateStatus](ctx, n.State, runtimeres.NewCertificateStatus("apid-server").Metadata(),
		state.WithCondition(func(res resource.Resource) (bool, error) {
			s, ok := res.(*runtimeres.CertificateStatus)
			return ok && s.TypedSpec().Fingerprint != status.Fingerprint && slices.Contains(s.TypedSpec().Names, "node-2"), nil
		})); err != nil {
		t.Errorf("the status does not follow the certificate: %v", err)
	}
}
