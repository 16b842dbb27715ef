package maintenance

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/controller/runtime/options"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/cosi-project/runtime/pkg/state/protobuf/server"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"talos/config"
	"talos/internal/apid"
	"talos/internal/audit"
	"talos/internal/authz"
	"talos/internal/configstore"
	"talos/internal/linux/peercred"
	"talos/internal/logs"
	"talos/internal/machine"
	"talos/internal/resources/network"
	runtimeres "talos/internal/resources/runtime"
	"talos/internal/routerd"
	"talos/internal/secrets"
	"talos/internal/service"
	"talos/internal/status"
	"talos/internal/store"
)

// own is a loopback address of this process alone. The machine is turned off and
// on at one port: on 127.0.0.1 somebody else could take it meanwhile, and who asks
// for it would now and then reach himself.
var own = netip.AddrFrom4([4]byte{127, 128 | byte(os.Getpid()>>8), byte(os.Getpid()), 1})

// box is a machine: what is on its disk, and what runs while it is on.
type box struct {
	dir     string // with STATE in it
	address string
	state   state.State
	off     func()
}

func newBox(t *testing.T) *box {
	t.Helper()
	return &box{dir: t.TempDir(), address: netip.AddrPortFrom(own, 0).String()}
}

// on boots the machine, on a network that gives it an address and a name.
func (b *box) on(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.off = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(b.off)
	run := func(name string, fn func(context.Context) error) {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.state = st
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	keeper := status.New()
	rt, err := runtime.NewRuntime(st, zap.NewNop(), options.WithMetrics(false))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append([]controller.Controller{keeper.Controller(log)}, secrets.Controllers(secrets.Options{Log: log})...) {
		if err := rt.RegisterController(c); err != nil {
			t.Fatal(err)
		}
	}
	b.network(t)
	cfg := configstore.New(configstore.Options{
		State: st, Log: log, Reboot: func(context.Context) error { return nil },
		Dir: filepath.Join(b.stateDir(), "config"), File: filepath.Join(b.stateDir(), "config.yaml"),
	})
	sockets := t.TempDir()
	machined, router := filepath.Join(sockets, "machine.sock"), filepath.Join(sockets, "router.sock")
	run("controllers", rt.Run)
	b.serveMachine(t, ctx, run, machined, cfg, log)
	listener, err := peercred.Listen(router)
	if err != nil {
		t.Fatal(err)
	}
	run("routerd", func(ctx context.Context) error {
		return routerd.Serve(ctx, log, listener, routerd.Config{
			Credentials: peercred.Credentials(uint32(os.Getuid())), Machine: machined, Network: "/nonexistent/n.sock", Time: "/nonexistent/t.sock",
		})
	})
	front, err := new(net.ListenConfig).Listen(ctx, "tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	b.address = front.Addr().String()
	run("apid", func(ctx context.Context) error {
		records := audit.New(io.Discard)
		defer records.Close()
		return apid.Serve(ctx, log, apid.Config{Listener: front, Store: st, Router: router, Audit: records})
	})
	run("configuration", cfg.Run)
}

func (b *box) stateDir() string { return filepath.Join(b.dir, "state") }

// network is what networkd finds on a network that gives an address and a name.
func (b *box) network(t *testing.T) {
	t.Helper()
	hostname := network.NewHostnameStatus(network.HostnameID)
	hostname.TypedSpec().Hostname = "box"
	addresses := network.NewNodeAddress(network.NodeAddressRoutedID)
	addresses.TypedSpec().Addresses = []netip.Prefix{netip.PrefixFrom(own, 8)}
	ready := network.NewNetworkStatus("status")
	ready.TypedSpec().AddressReady, ready.TypedSpec().HostnameReady = true, true
	link := network.NewLinkStatus("eth0")
	for _, r := range []resource.Resource{hostname, addresses, ready, link} {
		if err := b.state.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// serveMachine is machined's API, behind the same checks as in machined.
func (b *box) serveMachine(t *testing.T, ctx context.Context, run func(string, func(context.Context) error), socket string, cfg *configstore.Store, log *slog.Logger) {
	t.Helper()
	keep := logs.New(t.TempDir())
	if _, err := fmt.Fprintln(keep.Writer("machined"), "machined starts"); err != nil {
		t.Fatal(err)
	}
	api, err := machine.New(machine.Options{
		State: b.state, Services: service.New(log, b.state, keep).External(), Logs: keep, Config: cfg,
		Events: machine.NewEvents(), Platform: "metal", Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	unconfigured := authz.WithMaintenance(cfg.Unconfigured)
	srv := grpc.NewServer(grpc.Creds(peercred.Credentials(uint32(os.Getuid()))),
		grpc.ChainUnaryInterceptor(authz.UnaryServerInterceptor(unconfigured)), grpc.ChainStreamInterceptor(authz.StreamServerInterceptor(unconfigured)))
	api.Register(srv)
	v1alpha1.RegisterStateServer(srv, server.NewState(state.Filter(b.state, authz.ResourceRule(store.Types(), unconfigured))))
	listener, err := peercred.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, srv.Stop)
	run("machined", func(context.Context) error { return srv.Serve(listener) })
}

// wipe is what a reset does to STATE.
func (b *box) wipe(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(b.stateDir()); err != nil {
		t.Fatal(err)
	}
}

// stage waits for a stage of the machine.
func (b *box) stage(t *testing.T, want runtimeres.MachineStage) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := b.state.WatchFor(ctx, runtimeres.NewMachineStatus(status.MachineID).Metadata(), state.WithCondition(func(r resource.Resource) (bool, error) {
		m, ok := r.(*runtimeres.MachineStatus)
		return ok && m.TypedSpec().Stage == want, nil
	})); err != nil {
		t.Fatalf("the stage is not %v: %v", want, err)
	}
}

// fingerprint waits for the one that the console shows.
func (b *box) fingerprint(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := safe.StateWatchFor[*runtimeres.CertificateStatus](ctx, b.state, runtimeres.NewCertificateStatus("apid-server").Metadata(),
		state.WithEventTypes(state.Created, state.Updated))
	if err != nil {
		t.Fatalf("no fingerprint: %v", err)
	}
	return res.TypedSpec().KeyFingerprint
}

// bundle makes the configurations of a cluster.
func bundle(t *testing.T) *config.Bundle {
	t.Helper()
	all, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: all})
	if err != nil {
		t.Fatal(err)
	}
	return made
}
