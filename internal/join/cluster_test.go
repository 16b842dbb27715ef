package join_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	signerapi "talos/api/signer"
	"talos/config"
	"talos/internal/identity"
	"talos/internal/join"
	"talos/internal/members"
	"talos/internal/pki"
	configres "talos/internal/resources/config"
	"talos/internal/resources/network"
	"talos/internal/resources/v1alpha1"
	"talos/internal/secrets"
	"talos/internal/store"
	"talos/internal/trustd"
	"talos/internal/trustd/signer"
)

const endpoint = "10.5.0.1"

// world is a cluster of real parts: etcd, a control plane node's controllers,
// its signer and its trustd; nodes call it from addresses that they choose.
type world struct {
	t      *testing.T
	offset atomic.Int64 // of the clock, in seconds
	down   atomic.Bool  // nobody reaches trustd

	control, worker []byte // configurations
	cfg             *config.Config
	facts           *members.Facts
	trustd          string // address
	signerList      *members.List
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load()) * time.Second) }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	bundle, err := config.NewSecrets(time.Now)
	must(t, err)
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://" + endpoint + ":6443", Secrets: bundle})
	must(t, err)
	w.control, err = made.ControlPlane.Bytes()
	must(t, err)
	w.worker, err = made.Worker.Bytes()
	must(t, err)
	w.cfg = made.Worker
	w.facts = members.NewFacts(startEtcd(t))

	cp := w.node("cp-1", w.control, "10.5.0.2")
	w.signerList = cp.others.List
	healthy := v1alpha1.NewService("etcd")
	healthy.TypedSpec().Running, healthy.TypedSpec().Healthy = true, true
	must(t, cp.st.Create(t.Context(), healthy))
	w.serveTrust(cp)
	return w
}

// serveTrust runs the control plane node's signer and trustd.
func (w *world) serveTrust(cp *node) {
	t := w.t
	socket := filepath.Join(t.TempDir(), "s.sock")
	unix, err := net.Listen("unix", socket)
	must(t, err)
	signing := grpc.NewServer()
	signerapi.RegisterSignerServer(signing, signer.New(signer.Options{State: cp.st, Registry: w.facts, List: cp.others.List, Log: quiet(), Now: w.now}))
	go signing.Serve(unix)
	t.Cleanup(signing.Stop)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w.trustd = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- trustd.Serve(ctx, quiet(), trustd.Config{Listener: mapped{listener}, Store: cp.st, Signer: socket})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("trustd: %v", err)
		}
	})
}

// dial is the network: a node at 10.x.y.z calls from 127.x.y.z.
func (w *world) dial(ctx context.Context, from netip.Addr, _ string) (net.Conn, error) {
	if w.down.Load() {
		return nil, errors.New("the network is down")
	}
	raw := from.As4()
	raw[0] = 127
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: raw[:]}}
	return d.DialContext(ctx, "tcp", w.trustd)
}

// mapped makes connections come from where dial said.
type mapped struct{ net.Listener }

func (l mapped) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return caller{conn}, err
}

type caller struct{ net.Conn }

func (c caller) RemoteAddr() net.Addr {
	at := *c.Conn.RemoteAddr().(*net.TCPAddr)
	at.IP = append(net.IP{}, at.IP.To4()...)
	if at.IP[1] != 0 { // 127.0.x.y stays what it is
		at.IP[0] = 10
	}
	return &at
}

// node is one machine: its store with the controllers for certificates and members.
type node struct {
	st     state.State
	others *members.Options
	stop   func()
}

// node starts a machine; its STATE is new.
func (w *world) node(hostname string, document []byte, addresses ...string) *node {
	return w.nodeOn(w.t.TempDir(), hostname, document, addresses...)
}

// nodeOn starts a machine with its STATE in a folder.
func (w *world) nodeOn(dir, hostname string, document []byte, addresses ...string) *node {
	t := w.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	st, err := store.New(ctx)
	must(t, err)
	who, err := identity.Load(filepath.Join(dir, "identity.key"))
	must(t, err)
	primary := netip.MustParseAddr(addresses[0])
	n := &node{st: st, others: &members.Options{
		Log: quiet(), Identity: who, Facts: w.facts, List: members.NewList(filepath.Join(dir, "members.json"), quiet()),
		Ask: &join.Client{Identity: who, Dial: func(ctx context.Context, from netip.Addr, host string) (net.Conn, error) {
			if !from.IsValid() {
				from = primary
			}
			return w.dial(ctx, from, host)
		}},
	}}
	rt, err := runtime.NewRuntime(st, zap.NewNop())
	must(t, err)
	for _, family := range [][]controller.Controller{
		secrets.Controllers(secrets.Options{Now: w.now, Log: quiet(), Ask: n.others.Certificate, Keep: filepath.Join(dir, "apid.pem")}), members.Controllers(*n.others),
	} {
		for _, c := range family {
			must(t, rt.RegisterController(c))
		}
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	n.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(n.stop)

	mc := configres.NewMachineConfig(configres.ActiveID)
	mc.TypedSpec().Document = document
	name := network.NewHostnameStatus(network.HostnameID)
	name.TypedSpec().Hostname = hostname
	at := network.NewNodeAddress(network.NodeAddressRoutedID)
	for _, a := range addresses {
		at.TypedSpec().Addresses = append(at.TypedSpec().Addresses, netip.PrefixFrom(netip.MustParseAddr(a), 24))
	}
	for _, res := range []resource.Resource{mc, name, at} {
		must(t, st.Create(t.Context(), res))
	}
	return n
}

// cluster is how a worker of this world asks.
func (w *world) cluster() join.Cluster {
	c, err := join.ClusterOf(w.cfg, nil)
	must(w.t, err)
	return c
}

// await waits until a resource is as it should be.
func await[R interface {
	resource.Resource
	comparable
}](t *testing.T, st state.State, probe R, ok func(R) bool) R {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := safe.StateWatchFor[R](ctx, st, probe.Metadata(), state.WithCondition(func(r resource.Resource) (bool, error) {
		typed, is := r.(R)
		return is && ok(typed), nil
	}))
	if err != nil {
		t.Fatalf("no such %s: %v", probe.Metadata(), err)
	}
	return res
}

// nudge lets the controllers look again, as the clock does by itself now and
// then: the same addresses, in another network.
func (n *node) nudge(t *testing.T) {
	t.Helper()
	_, err := safe.StateUpdateWithConflicts(t.Context(), n.st, network.NewNodeAddress(network.NodeAddressRoutedID).Metadata(), func(r *network.NodeAddress) error {
		for i, p := range r.TypedSpec().Addresses {
			r.TypedSpec().Addresses[i] = netip.PrefixFrom(p.Addr(), p.Bits()-1)
		}
		return nil
	})
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// startEtcd starts a real one, or skips the test where there is none.
func startEtcd(t *testing.T) func(context.Context) (*clientv3.Client, error) {
	t.Helper()
	cache, err := os.UserCacheDir()
	must(t, err)
	found, _ := filepath.Glob(filepath.Join(cache, "talos/components/etcd/*/etcd")) // the pattern is right
	if len(found) == 0 {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal("needs etcd built: make components")
		}
		t.Skip("needs etcd built: make components")
	}
	// An address that no other test process uses at the same time.
	pid := os.Getpid()
	addr := netip.AddrFrom4([4]byte{127, byte(64 + pid%128), byte(pid / 128), 1}).String()
	clients, peers := "http://"+addr+":2379", "http://"+addr+":2380"
	cmd := exec.Command(found[len(found)-1], "--name=one", "--data-dir="+t.TempDir(), "--listen-client-urls="+clients, "--advertise-client-urls="+clients,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=one="+peers, "--log-level=error", "--unsafe-no-fsync")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it holds nothing of value
		_ = cmd.Wait()         // says that it was killed
	})
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{clients}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { client.Close() })
	// A client that nobody answers gives up after some seconds.
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err = client.Get(t.Context(), "up"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	return func(context.Context) (*clientv3.Client, error) { return client, nil }
}

// presented is the certificate that a server shows.
func (w *world) presented(address, name string) (serial string, err error) {
	roots, err := pki.Pool(w.cfg.Machine.CA.Crt)
	must(w.t, err)
	d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: name, Time: w.now, NextProtos: []string{"h2"}}}
	conn, err := d.DialContext(w.t.Context(), "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}
