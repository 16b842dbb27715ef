package kube

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"talos/config"
	"talos/internal/kube/api"
	"talos/internal/layout"
	"talos/internal/pki"
	"talos/internal/resources/cluster"
	configres "talos/internal/resources/config"
	"talos/internal/resources/etcd"
	"talos/internal/resources/k8s"
	"talos/internal/resources/network"
	secretres "talos/internal/resources/secrets"
	"talos/internal/secrets"
	"talos/internal/store"
)

const (
	nodeName = "node-1"
	nodeIP   = "10.5.0.2"
	inside   = "TALOS_TEST_NETNS"
)

// TestRealControlPlane runs etcd and the three components by hand, as our
// static pods say, in a network of their own, with all our controllers at work.
func TestRealControlPlane(t *testing.T) {
	if os.Getenv(inside) == "" {
		inNetns(t)
		return
	}
	linkUp(t)
	w := newWorld(t)
	early := w.earlyRequest(t) // before there is an API server
	w.startEtcd(t)
	for _, c := range []struct {
		name string
		uid  uint32
	}{{"kube-apiserver", layout.APIServerUID}, {"kube-controller-manager", layout.ManagerUID}, {"kube-scheduler", layout.SchedulerUID}} {
		w.startPod(t, c.name, c.uid)
	}
	if err := <-early; err != nil {
		t.Errorf("a request made before the API server started: %v, want it to wait", err)
	}
	w.manifests(t)
	t.Run("anonymous", w.anonymous)
	t.Run("encrypted", w.encrypted)
	t.Run("podSecurity", w.podSecurity)
	t.Run("components", w.components)
	t.Run("node", w.node)
	t.Run("drain", w.drain)
	t.Run("servingCertificate", w.servingCertificate)
	t.Run("editsStay", w.editsStay)
	t.Run("access", w.access)
	t.Run("leaseIsExclusive", w.leaseIsExclusive)
}

// inNetns runs this test again in a network namespace of its own.
func inNetns(t *testing.T) {
	if os.Geteuid() != 0 || component("kubernetes", "kubernetes") == "" || component("etcd", "etcd") == "" {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal("needs root, and the components built")
		}
		t.Skip("needs root, and the components built")
	}
	self := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=15m")
	self.Env = append(os.Environ(), inside+"=1")
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := self.CombinedOutput()
	if err != nil {
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func linkUp(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(nodeIP + "/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		t.Fatal(err)
	}
}

// component is the newest build of a program, "" if there is none.
func component(name, file string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	found, _ := filepath.Glob(filepath.Join(cache, "talos/components", name, "*", file)) // the pattern is right
	var newest string
	var at time.Time
	for _, f := range found {
		if info, err := os.Stat(f); err == nil && info.ModTime().After(at) {
			newest, at = f, info.ModTime()
		}
	}
	return newest
}

type world struct {
	state.State
	root string
	cfg  *config.Config
}

func newWorld(t *testing.T) *world {
	root, err := os.MkdirTemp("", "kube-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil { // the components run as others
		t.Fatal(err)
	}
	for _, p := range [][2]string{{"kubernetes", "kubernetes"}, {"etcd", "etcd"}} {
		copyFile(t, component(p[0], p[1]), filepath.Join(root, p[1]))
	}
	ctx, cancel := context.WithCancel(t.Context())
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{State: st, root: root}
	w.configure(t)
	rt, err := runtime.NewRuntime(st, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	for _, c := range append(secrets.Controllers(secrets.Options{Log: log}), Controllers(Options{Log: log, Root: root, Services: noServices{}, Boot: "now"})...) {
		if err := rt.RegisterController(c); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

type noServices struct{}

func (noServices) Restart(context.Context, string) error { return errors.New("not here") }

func (w *world) configure(t *testing.T) {
	bundle, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://" + nodeIP + ":6443", Secrets: bundle})
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = made.ControlPlane
	w.cfg.Machine.NodeLabels = map[string]string{"example.com/rack": "7"}
	w.cfg.Cluster.InlineManifests = []config.InlineManifest{{Name: "own", Contents: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine, namespace: mine}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: mine}\n"}}
	document, err := w.cfg.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	mc := configres.NewMachineConfig(configres.ActiveID)
	mc.TypedSpec().Document = document
	hostname := network.NewHostnameStatus("hostname")
	hostname.TypedSpec().Hostname = nodeName
	addresses := network.NewNodeAddress("routed")
	addresses.TypedSpec().Addresses = []netip.Prefix{netip.MustParsePrefix(nodeIP + "/24")}
	member := etcd.NewEtcdMember("local")
	self := cluster.NewMember(nodeName)
	*self.TypedSpec() = cluster.MemberSpec{Hostname: nodeName, Addresses: []netip.Addr{netip.MustParseAddr(nodeIP)}, MachineType: cluster.TypeControlPlane}
	for _, r := range []resource.Resource{mc, hostname, addresses, member, self} {
		if err := w.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func await[R resource.Resource](t *testing.T, st state.State, probe R, ok func(R) bool) R {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := safe.StateWatchFor[R](ctx, st, probe.Metadata(), state.WithCondition(func(r resource.Resource) (bool, error) {
		got, is := r.(R)
		return is && ok(got), nil
	}))
	if err != nil {
		t.Fatalf("%s: %v", probe.Metadata(), err)
	}
	return r
}

func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func copyFile(t *testing.T, from, to string) {
	if os.Link(from, to) == nil && os.Chmod(to, 0o755) == nil {
		return
	}
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) start(t *testing.T, name string, uid uint32, argv []string) {
	out, err := os.Create(filepath.Join(w.root, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Args[0] = name
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		out.Close()
		if t.Failed() {
			data, _ := os.ReadFile(out.Name())
			t.Logf("%s: %s", name, data[max(0, len(data)-6000):])
		}
	})
}

func (w *world) startEtcd(t *testing.T) {
	sec := await(t, w, secretres.NewEtcdSecrets("etcd"), func(r *secretres.EtcdSecrets) bool { return r.TypedSpec().EtcdAdmin != nil }).TypedSpec()
	root := await(t, w, secretres.NewEtcdRootSecrets("etcd"), func(*secretres.EtcdRootSecrets) bool { return true }).TypedSpec()
	dir := filepath.Join(w.root, "etcd-files")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"ca.crt": root.EtcdCA.Crt, "server.crt": sec.Etcd.Crt, "server.key": sec.Etcd.Key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.start(t, "etcd", 0, []string{
		filepath.Join(w.root, "etcd"), "--data-dir=" + filepath.Join(dir, "data"), "--client-cert-auth", "--trusted-ca-file=" + dir + "/ca.crt",
		"--cert-file=" + dir + "/server.crt", "--key-file=" + dir + "/server.key", "--unsafe-no-fsync",
		"--listen-client-urls=https://127.0.0.1:2379", "--advertise-client-urls=https://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380",
	})
}

// startPod runs what a static pod says.
func (w *world) startPod(t *testing.T, name string, uid uint32) {
	file := w.root + layout.ManifestsDir + "/talos-" + name + ".yaml"
	eventually(t, name+"'s manifest", func() error { _, err := os.Stat(file); return err })
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, want 0600", file, info.Mode())
	}
	w.modes(t, name, uid)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pod struct {
		Spec struct{ Containers []struct{ Command []string } }
	}
	if err := yaml.Unmarshal(data, &pod); err != nil {
		t.Fatal(err)
	}
	argv := []string{filepath.Join(w.root, "kubernetes")}
	for _, a := range pod.Spec.Containers[0].Command[1:] {
		argv = append(argv, w.relocate(a))
	}
	if name == "kube-scheduler" {
		w.relocateFile(t, layout.SecretsDir+"/kube-scheduler/scheduler.yaml", uid)
		argv = append(argv, "--config="+w.root+"/scheduler.yaml")
	}
	w.start(t, name, uid, argv)
}

func (w *world) relocate(text string) string {
	for _, dir := range []string{layout.SecretsDir, "/var/log/audit"} {
		text = strings.ReplaceAll(text, "="+dir, "="+w.root+dir)
	}
	return text
}

func (w *world) relocateFile(t *testing.T, path string, uid uint32) {
	data, err := os.ReadFile(w.root + path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(w.root, filepath.Base(path))
	data = bytes.ReplaceAll(data, []byte(layout.SecretsDir), []byte(w.root+layout.SecretsDir))
	if err := errors.Join(os.WriteFile(to, data, 0o400), os.Chown(to, int(uid), int(uid))); err != nil {
		t.Fatal(err)
	}
}

// modes checks that nobody but the component can read its files.
func (w *world) modes(t *testing.T, name string, uid uint32) {
	folder := w.root + layout.SecretsDir + "/" + name
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o400)
		if d.IsDir() {
			want = 0o700
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm() != want || owner != uid {
			t.Errorf("%s: mode %v of %d, want %v of %d", path, info.Mode().Perm(), owner, want, uid)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// earlyRequest asks the local address for /readyz. It may be told to come again
// on a busy machine, but only after a long wait.
func (w *world) earlyRequest(t *testing.T) <-chan error {
	eventually(t, "the local address", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:7446")
		if err == nil {
			c.Close()
		}
		return err
	})
	out := make(chan error, 1)
	go func() {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.pool()}}
		defer tr.CloseIdleConnections()
		client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
		resp, err := client.Get("https://127.0.0.1:7446/readyz")
		for again := 0; err != nil && again < 12; again++ {
			resp, err = client.Get("https://127.0.0.1:7446/readyz")
		}
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
		}
		out <- err
	}()
	return out
}

func (w *world) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.cfg.Cluster.CA.Crt)
	return pool
}

func (w *world) admin(t *testing.T) *api.Client {
	sec := await(t, w, secretres.NewKubernetesSecrets("k8s-secrets"), func(r *secretres.KubernetesSecrets) bool { return r.TypedSpec().AdminKubeconfig != "" })
	c, err := api.New([]byte(sec.TypedSpec().LocalhostAdminKubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func gvr(group, version, name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: name}
}

func (w *world) manifests(t *testing.T) {
	want := []string{"00-bootstrap-token", "01-node-bootstrap", "02-kubelet-access", "05-flannel", "10-kube-proxy", "11-coredns", "99-inline-0-own"}
	began := time.Now()
	await(t, w, k8s.NewManifestStatus("manifests"), func(r *k8s.ManifestStatus) bool { return slices.Equal(r.TypedSpec().ManifestsApplied, want) })
	t.Logf("all manifests applied %v after the components were started", time.Since(began))
	c := w.admin(t)
	for _, o := range []struct {
		at       schema.GroupVersionResource
		ns, name string
	}{
		{gvr("apps", "v1", "daemonsets"), "kube-system", "kube-flannel"},
		{gvr("apps", "v1", "daemonsets"), "kube-system", "kube-proxy"},
		{gvr("apps", "v1", "deployments"), "kube-system", "coredns"},
		{gvr("", "v1", "services"), "kube-system", "kube-dns"},
		{gvr("", "v1", "configmaps"), "mine", "mine"},
	} {
		if _, err := c.Resource(o.at).Namespace(o.ns).Get(t.Context(), o.name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
}

func (w *world) anonymous(t *testing.T) {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.pool()}}
	defer tr.CloseIdleConnections()
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/healthz": 200, "/version": 401, "/api": 401, "/metrics": 401} {
		resp, err := (&http.Client{Transport: tr}).Get("https://127.0.0.1:6443" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("anonymous %s = %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func (w *world) encrypted(t *testing.T) {
	sec := await(t, w, secretres.NewEtcdSecrets("etcd"), func(*secretres.EtcdSecrets) bool { return true }).TypedSpec()
	pair, err := tls.X509KeyPair(sec.EtcdAdmin.Crt, sec.EtcdAdmin.Key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.cfg.Cluster.Etcd.CA.Crt)
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://127.0.0.1:2379"}, TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, DialTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id, secret, _ := strings.Cut(w.cfg.Cluster.Token, ".")
	got, err := c.Get(t.Context(), "/registry/secrets/kube-system/bootstrap-token-"+id)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != 1 || !bytes.HasPrefix(got.Kvs[0].Value, []byte("k8s:enc:secretbox:v1:")) || bytes.Contains(got.Kvs[0].Value, []byte(secret)) {
		t.Errorf("bootstrap token in etcd = %.80q, want it encrypted", got.Kvs)
	}
}

func (w *world) podSecurity(t *testing.T) {
	pods := w.admin(t).Resource(gvr("", "v1", "pods")).Namespace("default")
	pod := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "bad"},
		"spec": map[string]any{"hostPID": true, "containers": []any{map[string]any{"name": "x", "image": "x"}}},
	}}
	eventually(t, "a pod with the host's processes", func() error {
		_, err := pods.Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{"All"}})
		if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "baseline:latest"`) {
			return fmt.Errorf("got %v, want it refused by PodSecurity", err)
		}
		return nil
	})
}

// components checks that the two others run with their flags and lead.
func (w *world) components(t *testing.T) {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // their certificates are made by themselves
	defer tr.CloseIdleConnections()
	for _, url := range []string{"https://127.0.0.1:10257/healthz", "https://127.0.0.1:10259/readyz", "https://127.0.0.1:10259/livez"} {
		eventually(t, url, func() error {
			resp, err := (&http.Client{Transport: tr}).Get(url)
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return errors.New(resp.Status)
			}
			return nil
		})
	}
	leases := w.admin(t).Resource(gvr("coordination.k8s.io", "v1", "leases")).Namespace("kube-system")
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		eventually(t, "lease of "+name, func() error {
			l, err := leases.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if holder, _, _ := unstructured.NestedString(l.Object, "spec", "holderIdentity"); holder == "" {
				return errors.New("nobody holds it")
			}
			return nil
		})
	}
}

// kubelet is a client with the credentials of this node.
func (w *world) kubelet(t *testing.T) *api.Client {
	ca, err := pki.ParseCA(w.cfg.Cluster.CA.Crt, w.cfg.Cluster.CA.Key)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Template{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}, Client: true, Lifetime: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := secrets.Kubeconfig("test", "https://127.0.0.1:6443", "node", w.cfg.Cluster.CA.Crt, pair)
	if err != nil {
		t.Fatal(err)
	}
	c, err := api.New([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) node(t *testing.T) {
	nodes := w.kubelet(t).Resource(gvr("", "v1", "nodes"))
	node, err := nodes.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": nodeName, "labels": map[string]any{"kubernetes.io/hostname": nodeName}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Object["status"] = map[string]any{
		"addresses":  []any{map[string]any{"type": "InternalIP", "address": nodeIP}, map[string]any{"type": "Hostname", "address": nodeName}},
		"conditions": []any{map[string]any{"type": "Ready", "status": "True", "reason": "x", "message": "x"}},
	}
	eventually(t, "status of the node", func() error {
		cur, err := nodes.Get(t.Context(), nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		cur.Object["status"] = node.Object["status"]
		_, err = nodes.UpdateStatus(t.Context(), cur, metav1.UpdateOptions{})
		return err
	})
	st := await(t, w, k8s.NewNodeStatus(nodeName), func(r *k8s.NodeStatus) bool {
		s := r.TypedSpec()
		_, role := s.Labels["node-role.kubernetes.io/control-plane"]
		return role && s.Labels["example.com/rack"] == "7" && s.NodeReady && len(s.PodCIDRs) == 1
	})
	t.Logf("node: %v", st.TypedSpec().PodCIDRs)
	eventually(t, "taint of the node", func() error {
		cur, err := nodes.Get(t.Context(), nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		taints, _, _ := unstructured.NestedSlice(cur.Object, "spec", "taints")
		if !strings.Contains(fmt.Sprint(taints), "node-role.kubernetes.io/control-plane") {
			return fmt.Errorf("got %v", taints)
		}
		return nil
	})
}

func (w *world) servingCertificate(t *testing.T) {
	csrs := w.kubelet(t).Resource(gvr("certificates.k8s.io", "v1", "certificatesigningrequests"))
	create := func(name string, ip string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject:  pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}},
			DNSNames: []string{nodeName}, IPAddresses: []net.IP{net.ParseIP(ip)},
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		_, err = csrs.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": map[string]any{"name": name},
			"spec": map[string]any{
				"request": base64.StdEncoding.EncodeToString(text), "signerName": "kubernetes.io/kubelet-serving",
				"usages": []any{"digital signature", "server auth"},
			},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	admin := w.admin(t).Resource(gvr("certificates.k8s.io", "v1", "certificatesigningrequests"))
	signed := func(name string) error {
		o, err := admin.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if crt, _, _ := unstructured.NestedString(o.Object, "status", "certificate"); crt == "" {
			return fmt.Errorf("no certificate: %v", o.Object["status"])
		}
		return nil
	}
	create("stranger", "10.5.0.99")
	create("own", nodeIP)
	eventually(t, "the node's own request", func() error { return signed("own") })
	if signed("stranger") == nil {
		t.Error("a request for an address of another was signed")
	}
}

// editsStay changes an object of ours and another part of the configuration:
// what somebody edited stays as it is.
func (w *world) editsStay(t *testing.T) {
	c := w.admin(t)
	cms := c.Resource(gvr("", "v1", "configmaps")).Namespace("kube-system")
	cm, err := cms.Get(t.Context(), "coredns", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Object["data"] = map[string]any{"Corefile": "# edited"}
	if _, err := cms.Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.cfg.Cluster.InlineManifests = append(w.cfg.Cluster.InlineManifests, config.InlineManifest{Name: "two", Contents: "apiVersion: v1\nkind: Namespace\nmetadata: {name: two}\n"})
	document, err := w.cfg.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	_, err = safe.StateUpdateWithConflicts(t.Context(), w.State, configres.NewMachineConfig(configres.ActiveID).Metadata(), func(r *configres.MachineConfig) error {
		r.TypedSpec().Document = document
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new namespace", func() error {
		_, err := c.Resource(gvr("", "v1", "namespaces")).Get(t.Context(), "two", metav1.GetOptions{})
		return err
	})
	cm, err = cms.Get(t.Context(), "coredns", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := unstructured.NestedString(cm.Object, "data", "Corefile"); got != "# edited" {
		t.Errorf("Corefile = %q, want somebody's edit", got)
	}
}
