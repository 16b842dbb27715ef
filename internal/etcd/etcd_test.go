package etcd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"talos/config"
	configres "talos/internal/resources/config"
	"talos/internal/store"
)

var addresses = []netip.Prefix{netip.MustParsePrefix("10.5.0.2/24"), netip.MustParsePrefix("192.0.2.7/24")}

func TestSpec(t *testing.T) {
	first, second := addresses[0].Addr(), addresses[1].Addr()
	for _, c := range []struct {
		name       string
		cfg        *config.Etcd
		advertised netip.Addr
		listen     []netip.Addr
		fails      bool
	}{
		{"nothing said", nil, first, []netip.Addr{first}, false},
		{"advertise the second", &config.Etcd{AdvertisedSubnets: []string{"192.0.2.0/24"}}, second, []netip.Addr{second}, false},
		{"advertise all but the first", &config.Etcd{AdvertisedSubnets: []string{"!10.5.0.0/24"}}, second, []netip.Addr{second}, false},
		{"listen on both", &config.Etcd{ListenSubnets: []string{"0.0.0.0/0"}}, first, []netip.Addr{first, second}, false},
		{"no address fits", &config.Etcd{AdvertisedSubnets: []string{"198.51.100.0/24"}}, netip.Addr{}, nil, true},
		{"bad subnet", &config.Etcd{AdvertisedSubnets: []string{"ten"}}, netip.Addr{}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Spec(c.cfg, "node", addresses)
			if c.fails {
				if err == nil {
					t.Fatalf("Spec = %v, want an error", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := []netip.Addr{c.advertised}
			equal := cmpopts.EquateComparable(netip.Addr{})
			if diff := cmp.Diff(want, got.AdvertisedAddresses, equal); diff != "" {
				t.Errorf("advertised (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.listen, got.ListenClientAddresses, equal); diff != "" {
				t.Errorf("listen (-want +got):\n%s", diff)
			}
		})
	}
}

func TestArgs(t *testing.T) {
	spec, err := Spec(&config.Etcd{ExtraArgs: map[string]string{"log-level": "debug", "data-dir": "/elsewhere", "quota-backend-bytes": "1"}}, "node", addresses)
	if err != nil {
		t.Fatal(err)
	}
	args := arguments(spec, start{founds: true}, "cluster-id", "/data", "/pki")
	for _, want := range []string{
		"--name=node", "--client-cert-auth=true", "--peer-client-cert-auth=true", "--tls-min-version=TLS1.3",
		"--initial-cluster=node=https://10.5.0.2:2380", "--initial-cluster-token=cluster-id",
		"--listen-client-urls=https://10.5.0.2:2379",
		"--log-level=debug", "--quota-backend-bytes=1", // the user's
		"--data-dir=/data", // not the user's to change
	} {
		if !slices.Contains(args, want) {
			t.Errorf("Args lacks %s: %v", want, args)
		}
	}
	if slices.Contains(args, "--data-dir=/elsewhere") {
		t.Error("Args lets extraArgs move the data")
	}
}

// TestMarkerKeepsThePromise: what Bootstrap accepted is known after a restart
// of machined, and forgotten once etcd works.
func TestMarker(t *testing.T) {
	st, err := store.New(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	m := New(st, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	m.dataDir = filepath.Join(t.TempDir(), "etcd")
	m.marker = m.dataDir + ".bootstrap"
	if m.hasData() || exists(m.marker) {
		t.Fatal("a new node has data")
	}
	if err := writeMarker(m.marker); err != nil {
		t.Fatal(err)
	}
	if !exists(m.marker) {
		t.Error("the marker is not on disk")
	}
	wal := filepath.Join(m.dataDir, "member", "wal")
	if err := os.MkdirAll(wal, 0o700); err != nil {
		t.Fatal(err)
	}
	if m.hasData() {
		t.Error("a folder without a log is taken for a member")
	}
	if err := os.WriteFile(filepath.Join(wal, "0000000000000000-0000000000000000.wal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !m.hasData() {
		t.Error("a member's log is not seen")
	}
	if err := m.Bootstrap(t.Context()); err == nil {
		t.Error("Bootstrap without configuration succeeded")
	}
}

// TestBootstrap: once, and on a control plane node only.
func TestBootstrap(t *testing.T) {
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  *config.Config
		data bool    // of an earlier life
		want []error // of the calls in turn
	}{
		"worker":                     {made.Worker, false, []error{ErrNotControlPlane, ErrNotControlPlane}},
		"control plane":              {made.ControlPlane, false, []error{nil, ErrAlreadyBootstrapped}},
		"control plane that has run": {made.ControlPlane, true, []error{ErrAlreadyBootstrapped}},
	} {
		t.Run(name, func(t *testing.T) {
			m := configured(t, c.cfg)
			if c.data {
				if err := os.MkdirAll(filepath.Join(m.dataDir, "member"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for i, want := range c.want {
				if got := m.Bootstrap(t.Context()); !errors.Is(got, want) {
					t.Errorf("call %d: Bootstrap = %v, want %v", i+1, got, want)
				}
			}
			if got, want := exists(m.marker), slices.Contains(c.want, nil); got != want {
				t.Errorf("marked for bootstrap = %t, want %t", got, want)
			}
		})
	}
}

// TestBootstrapTogether: of many callers at once, one is told that it was.
func TestBootstrapTogether(t *testing.T) {
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	m := configured(t, made.ControlPlane)
	const callers = 16
	answers := make(chan error, callers)
	start := make(chan struct{})
	for range callers {
		go func() {
			<-start
			answers <- m.Bootstrap(t.Context())
		}()
	}
	close(start)
	accepted := 0
	for range callers {
		switch err := <-answers; {
		case err == nil:
			accepted++
		case !errors.Is(err, ErrAlreadyBootstrapped):
			t.Errorf("Bootstrap = %v, want %v", err, ErrAlreadyBootstrapped)
		}
	}
	if accepted != 1 {
		t.Errorf("%d callers were told that they bootstrapped the cluster, want 1", accepted)
	}
}

// configured is a member on a node with that configuration.
func configured(t *testing.T, cfg *config.Config) *Member {
	t.Helper()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mc := configres.NewMachineConfig(configres.ActiveID)
	if mc.TypedSpec().Document, err = cfg.Bytes(); err != nil {
		t.Fatal(err)
	}
	if err := st.Create(t.Context(), mc); err != nil {
		t.Fatal(err)
	}
	m := New(st, slog.New(slog.DiscardHandler), nil)
	m.dataDir = filepath.Join(t.TempDir(), "etcd")
	m.marker = m.dataDir + ".bootstrap"
	return m
}
