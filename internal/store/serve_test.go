package store

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"talos/internal/layout"
	"talos/internal/resources/cluster"
	"talos/internal/resources/config"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
	"talos/internal/resources/timesync"
)

func TestMayAccess(t *testing.T) {
	for _, c := range []struct {
		name string
		uid  uint32
		kind resource.Type
		verb state.Verb
		id   string
		ns   string
		want bool
	}{
		{"root writes all", 0, secrets.OSRootSecretsType, state.Update, "", secrets.Namespace, true},
		{"apid reads its certificate", layout.APIUID, secrets.ApiCertificateType, state.Get, "", secrets.Namespace, true},
		{"apid writes its certificate", layout.APIUID, secrets.ApiCertificateType, state.Update, "", secrets.Namespace, false},
		{"apid reads the CA's key", layout.APIUID, secrets.OSRootSecretsType, state.Get, "", secrets.Namespace, false},
		{"apid watches the configuration", layout.APIUID, config.MachineConfigType, state.Watch, "", config.Namespace, false},
		{"apid watches the members", layout.APIUID, cluster.MemberType, state.Watch, "", cluster.Namespace, true},
		{"apid writes a member", layout.APIUID, cluster.MemberType, state.Create, "x", cluster.Namespace, false},
		{"trustd reads apid's certificate", layout.TrustUID, secrets.ApiCertificateType, state.Get, "", secrets.Namespace, false},
		{"networkd writes a status", layout.NetworkUID, network.AddressStatusType, state.Create, "x", network.Namespace, true},
		{"networkd writes its lease", layout.NetworkUID, network.AddressSpecType, state.Create, "operator/eth0", network.ConfigNamespace, true},
		{"networkd writes configuration", layout.NetworkUID, network.AddressSpecType, state.Create, "configuration/eth0", network.ConfigNamespace, false},
		{"networkd reads configuration", layout.NetworkUID, config.MachineConfigType, state.Get, "", config.Namespace, false},
		{"networkd reads the members", layout.NetworkUID, cluster.MemberType, state.Watch, "", cluster.Namespace, true},
		{"networkd writes a member", layout.NetworkUID, cluster.MemberType, state.Create, "x", cluster.Namespace, false},
		{"networkd writes what its name server asks", layout.NetworkUID, network.DNSUpstreamType, state.Create, "x", network.Namespace, true},
		{"networkd writes how its name server is set", layout.NetworkUID, network.HostDNSConfigType, state.Update, "x", network.Namespace, false},
		{"timed writes an address", layout.TimeUID, network.AddressSpecType, state.Create, "", network.Namespace, false},
		{"timed writes time", layout.TimeUID, timesync.TimeStatusType, state.Update, "", "runtime", true},
		{"routerd reads addresses", layout.RouterUID, network.NodeAddressType, state.Get, "", network.Namespace, false},
		{"a stranger reads addresses", 1000, network.NodeAddressType, state.List, "", network.Namespace, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := mayAccess(c.uid, state.Access{ResourceType: c.kind, ResourceID: c.id, ResourceNamespace: c.ns, Verb: c.verb})
			if got := err == nil; got != c.want {
				t.Errorf("mayAccess = %v, want allowed %v", err, c.want)
			}
		})
	}
}

// TestRoundTrip shows that every type survives the wire and that a value with
// addresses comes back as it was.
func TestRoundTrip(t *testing.T) {
	needRoot(t) // who else may write a status
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	st, err := New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s.sock")
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, st, socket, slog.New(slog.NewTextHandler(io.Discard, nil))) }()

	remote, err := DialSocket(socket)
	if err != nil {
		t.Fatal(err)
	}
	want := network.NewAddressStatus("eth0/10.5.0.2/24")
	want.TypedSpec().Address = netip.MustParsePrefix("10.5.0.2/24")
	want.TypedSpec().Local = netip.MustParseAddr("fd00::1")
	want.TypedSpec().LinkName = "eth0"
	want.TypedSpec().Family = network.FamilyInet4
	if err := remote.Create(ctx, want); err != nil {
		t.Fatal(err)
	}
	got, err := safe.StateGetByID[*network.AddressStatus](ctx, remote, want.Metadata().ID())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.TypedSpec(), got.TypedSpec(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("address status over the wire (-want +got):\n%s", diff)
	}
	for _, definition := range Types() {
		kind := definition.Provider.ResourceDefinition()
		if _, err := remote.List(ctx, resource.NewMetadata(kind.DefaultNamespace, kind.Type, "", resource.VersionUndefined)); err != nil {
			t.Errorf("list %s: %v", kind.Type, err)
		}
	}
	cancel()
	<-served
}
