package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/siderolabs/protoenc"
	"go.yaml.in/yaml/v3"
)

// TestLinkSpecForms: a bond, a VLAN and a plain link come back from the wire as
// they went, and people see of each only what it is.
func TestLinkSpecForms(t *testing.T) {
	for _, d := range Types() {
		if err := d.Register(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		spec LinkSpecSpec
		has  string
		not  []string
	}{
		{LinkSpecSpec{Name: "eth0", Up: true, MTU: 1400}, "mtu: 1400", []string{"vlan:", "bondMaster:", "masterName"}},
		{LinkSpecSpec{Name: "eth0", BondSlave: BondSlave{MasterName: "bond0", SlaveIndex: 1}}, "masterName: bond0", []string{"vlan:", "bondMaster:"}},
		{LinkSpecSpec{Name: "eth0.5", Logical: true, Kind: KindVLAN, ParentName: "eth0", VLAN: VLANSpec{VID: 5, Protocol: VLAN8021AD}}, "vlanProtocol: 802.1ad", []string{"bondMaster:"}},
		{LinkSpecSpec{Name: "bond0", Logical: true, Kind: KindBond, BondMaster: BondMasterSpec{
			Mode: Bond8023AD, HashPolicy: 1, LACPRate: 1, MIIMon: 100, UpDelay: 200, NumPeerNotif: 3, UseCarrier: true, ADActorSysPrio: 65535,
			ARPIPTargets: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Primary: "eth0",
		}}, "mode: 802.3ad", []string{"vlan:"}},
	} {
		data, err := protoenc.Marshal(&tt.spec)
		if err != nil {
			t.Fatal(err)
		}
		var back LinkSpecSpec
		if err := protoenc.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.spec, back, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s after a round trip (-in +out):\n%s", tt.spec.Name, diff)
		}
		shown, err := yaml.Marshal(tt.spec)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(shown), tt.has) {
			t.Errorf("%s is shown without %q:\n%s", tt.spec.Name, tt.has, shown)
		}
		for _, text := range tt.not {
			if strings.Contains(string(shown), text) {
				t.Errorf("%s is shown with %q:\n%s", tt.spec.Name, text, shown)
			}
		}
	}
}
