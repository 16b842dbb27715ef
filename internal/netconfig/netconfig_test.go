package netconfig

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.uber.org/zap/zaptest"

	"talos/internal/cmdline"
	"talos/internal/netsetup"
	"talos/internal/resources/files"
	"talos/internal/resources/network"
	runtimeres "talos/internal/resources/runtime"
	"talos/internal/store"
)

// TestControllers runs all controllers over a store and plays networkd's part.
func TestControllers(t *testing.T) {
	platform, etc := NewPlatform(), t.TempDir()
	writeTest(t, filepath.Join(etc, "machine-id"), "0123456789abcdef0123456789abcdef\n")
	var mu sync.Mutex
	var names []string
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	engine, err := runtime.NewRuntime(st, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Controllers(Options{Cmdline: cmdline.Parse("ip=nonsense nameserver=10.0.0.9"), Wrong: []error{errors.New("talos.disks")}, Platform: platform, EtcDir: etc, SetHostname: func(name []byte) error {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, string(name))
		return nil
	}}) {
		if err := engine.RegisterController(c); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	set(t, st, network.NewLinkStatus("eth0"), network.LinkStatusSpec{Type: network.LinkEther, Kind: "veth"})
	eventually(t, "default DHCP", func() bool {
		_, err := safe.StateGet[*network.OperatorSpec](ctx, st, network.NewOperatorSpec(network.ConfigNamespace, "default/dhcp4/eth0").Metadata())
		return err == nil
	})
	eventually(t, "resolver of the command line", func() bool {
		r, err := safe.StateGet[*network.ResolverSpec](ctx, st, network.NewResolverSpec(network.ConfigNamespace, "cmdline/resolvers").Metadata())
		return err == nil && r.TypedSpec().Layer == network.LayerCmdline
	})
	eventually(t, "what is wrong with the command line", func() bool {
		d, err := safe.StateGet[*runtimeres.Diagnostic](ctx, st, runtimeres.NewDiagnostic("kernel-arguments").Metadata())
		return err == nil && len(d.TypedSpec().Details) == 2 && d.TypedSpec().Details[0] == "talos.disks" && strings.Contains(d.TypedSpec().Details[1], "ip=nonsense")
	})
	platform.Set(netsetup.Network{Hostname: "demo-controlplane-1"}) // it may take a while to know
	eventually(t, "host names of platform and default", func() bool {
		p, err := safe.StateGet[*network.HostnameSpec](ctx, st, network.NewHostnameSpec(network.ConfigNamespace, "platform/hostname").Metadata())
		d, err2 := safe.StateGet[*network.HostnameSpec](ctx, st, network.NewHostnameSpec(network.ConfigNamespace, "default/hostname").Metadata())
		return err == nil && err2 == nil && p.TypedSpec().Hostname == "demo-controlplane-1" && p.TypedSpec().Layer == network.LayerPlatform && d.TypedSpec().Hostname != ""
	})

	set(t, st, network.NewHostnameStatus(network.HostnameID), network.HostnameStatusSpec{Hostname: "one"})
	set(t, st, network.NewResolverStatus(network.ResolverID), network.ResolverStatusSpec{DNSServers: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	set(t, st, network.NewNodeAddress(network.NodeAddressDefaultID), network.NodeAddressSpec{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}})
	for name, want := range map[string]string{
		"hostname": "one\n", "resolv.conf": "nameserver 10.0.0.1\n", "pod-resolv.conf": "nameserver 10.0.0.1\n",
		"hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.0.0.2 one\n",
	} {
		eventually(t, name, func() bool {
			got, err := os.ReadFile(filepath.Join(etc, name))
			return err == nil && string(got) == want
		})
		eventually(t, name+" told", func() bool {
			_, err := safe.StateGet[*files.EtcFileStatus](ctx, st, files.NewEtcFileStatus(name).Metadata())
			return err == nil
		})
	}
	set(t, st, network.NewHostnameStatus(network.HostnameID), network.HostnameStatusSpec{Hostname: "two"})
	eventually(t, "host name set each time once", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(names, []string{"one", "two"})
	})

	st.Destroy(ctx, network.NewLinkStatus("eth0").Metadata())
	eventually(t, "no DHCP without the link", func() bool {
		_, err := st.Get(ctx, network.NewOperatorSpec(network.ConfigNamespace, "default/dhcp4/eth0").Metadata())
		return state.IsNotFoundError(err)
	})
}

func writeTest(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func set[R interface {
	resource.Resource
	TypedSpec() *S
}, S any](t *testing.T, st state.State, r R, spec S) {
	t.Helper()
	if err := safe.StateModify(t.Context(), st, r, func(r R) error {
		*r.TypedSpec() = spec
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30s", what)
		}
	}
}
