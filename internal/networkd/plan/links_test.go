package plan

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/networkd/rtnl"
	"talos/internal/resources/network"
)

// made is a link that we made.
func made(name string, index uint32, kind string, change func(*network.LinkStatusSpec)) rtnl.Link {
	l := rtnl.Link{Name: name, Up: true, Ours: true, Status: network.LinkStatusSpec{Index: index, MTU: 1500, Kind: kind}}
	if change != nil {
		change(&l.Status)
	}
	return l
}

func vlanOn(parent uint32, id uint16) func(*network.LinkStatusSpec) {
	return func(s *network.LinkStatusSpec) {
		s.LinkIndex, s.VLAN = parent, network.VLANSpec{VID: id, Protocol: network.VLAN8021Q}
	}
}

func bonding(how network.BondMasterSpec) func(*network.LinkStatusSpec) {
	return func(s *network.LinkStatusSpec) { s.BondMaster = how }
}

func TestLogicalLinks(t *testing.T) {
	card := func(name string, index, master uint32) rtnl.Link {
		l := rtnl.Link{Name: name, Up: true, Status: network.LinkStatusSpec{Index: index, MTU: 1500, MasterIndex: master}}
		if master != 0 {
			l.Status.SlaveKind = network.KindBond
		}
		return l
	}
	plain := func(name, master string) network.LinkSpecSpec {
		return network.LinkSpecSpec{Name: name, Up: true, BondSlave: network.BondSlave{MasterName: master}}
	}
	vlan := func(name, parent string, id uint16) network.LinkSpecSpec {
		return network.LinkSpecSpec{Name: name, Up: true, Logical: true, Kind: network.KindVLAN, ParentName: parent, VLAN: network.VLANSpec{VID: id, Protocol: network.VLAN8021Q}}
	}
	bond := func(how network.BondMasterSpec) network.LinkSpecSpec {
		return network.LinkSpecSpec{Name: "bond0", Up: true, Logical: true, Kind: network.KindBond, BondMaster: how}
	}
	backup := network.BondMasterSpec{Mode: network.BondActiveBackup, MIIMon: 100, UseCarrier: true}
	reported := backup // by the kernel, with what it chose
	reported.NumPeerNotif, reported.ResendIGMP, reported.LPInterval, reported.PacketsPerSlave, reported.TLBLogicalLB = 1, 1, 1, 1, 1
	primary := func(name string) network.BondMasterSpec {
		s := reported
		s.Primary = name
		return s
	}
	other := backup
	other.Mode = network.BondXOR
	type specs = []network.LinkSpecSpec
	type links = []rtnl.Link
	for _, tt := range []struct {
		name string
		want specs
		have links
		plan []string
	}{
		{"vlan", specs{vlan("eth0.5", "eth0", 5)}, links{card("eth0", 2, 0)}, []string{"create vlan eth0.5 (5) on eth0"}},
		{"vlan whose parent is missing", specs{vlan("eth0.5", "eth0", 5)}, nil, nil},
		{"vlan there", specs{vlan("eth0.5", "eth0", 5)}, links{card("eth0", 2, 0), made("eth0.5", 3, "vlan", vlanOn(2, 5))}, nil},
		{"vlan of another number", specs{vlan("eth0.5", "eth0", 6)}, links{card("eth0", 2, 0), made("eth0.5", 3, "vlan", vlanOn(2, 5))},
			[]string{"delete eth0.5", "create vlan eth0.5 (6) on eth0"}},
		{"vlan over another link", specs{vlan("v5", "eth1", 5)}, links{card("eth0", 2, 0), card("eth1", 4, 0), made("v5", 3, "vlan", vlanOn(2, 5))},
			[]string{"delete v5", "create vlan v5 (5) on eth1"}},
		{"vlan that nobody wants", nil, links{card("eth0", 2, 0), made("eth0.5", 3, "vlan", vlanOn(2, 5))}, []string{"delete eth0.5"}},
		{"vlan that others made", nil, links{{Name: "eth0.5", Status: network.LinkStatusSpec{Index: 3, Kind: "vlan"}}}, nil},
		{"a name that others took", specs{vlan("eth0.5", "eth0", 5)}, links{card("eth0", 2, 0), {Name: "eth0.5", Status: network.LinkStatusSpec{Index: 3, Kind: "dummy"}}},
			[]string{"set up eth0.5"}},
		{"bond, first", specs{bond(backup), plain("eth0", "bond0"), plain("eth1", "bond0")}, links{card("eth0", 2, 0), card("eth1", 3, 0)}, []string{"create bond bond0"}},
		{"bond, then its links", specs{bond(backup), plain("eth0", "bond0"), plain("eth1", "bond0")},
			links{card("eth0", 2, 0), card("eth1", 3, 0), made("bond0", 4, "bond", bonding(reported))}, []string{"enslave eth0 to bond0", "enslave eth1 to bond0"}},
		{"bond there", specs{bond(backup), plain("eth0", "bond0")}, links{card("eth0", 2, 4), made("bond0", 4, "bond", bonding(reported))}, nil},
		{"bond with settings that its mode ignores", specs{bond(func() network.BondMasterSpec { s := backup; s.LACPRate, s.HashPolicy, s.UpDelay = 1, 1, 50; return s }())},
			links{made("bond0", 4, "bond", bonding(reported))}, nil},
		{"bond whose primary link is not in it yet", specs{bond(primary("eth0"))}, links{card("eth0", 2, 0), made("bond0", 4, "bond", bonding(reported))}, nil},
		{"bond with another primary link", specs{bond(primary("eth0"))}, links{card("eth0", 2, 4), made("bond0", 4, "bond", bonding(primary("eth1")))},
			[]string{"set primary eth0 of bond0"}},
		{"bond with its primary link", specs{bond(primary("eth0"))}, links{card("eth0", 2, 4), made("bond0", 4, "bond", bonding(primary("eth0")))}, nil},
		{"bond without a primary link", specs{bond(backup)}, links{card("eth0", 2, 4), made("bond0", 4, "bond", bonding(primary("eth0")))},
			[]string{"set primary none of bond0"}},
		{"bond of another mode", specs{bond(other), plain("eth0", "bond0")}, links{card("eth0", 2, 4), made("bond0", 4, "bond", bonding(reported))},
			[]string{"delete bond0", "create bond bond0"}},
		{"bond that nobody wants", specs{plain("eth0", "")}, links{card("eth0", 2, 4), made("bond0", 4, "bond", bonding(reported))}, []string{"delete bond0"}},
		{"link that leaves its bond", specs{bond(backup), plain("eth0", "")}, links{card("eth0", 2, 4), made("bond0", 4, "bond", bonding(reported))},
			[]string{"release eth0 from its bond"}},
		{"link of another's bond", specs{plain("eth0", "")}, links{card("eth0", 2, 4), {Name: "bond0", Status: network.LinkStatusSpec{Index: 4, Kind: "bond"}}}, nil},
		{"port of a bridge", specs{plain("eth0", "br0")}, links{card("eth0", 2, 0), {Name: "br0", Status: network.LinkStatusSpec{Index: 4, Kind: "bridge"}}}, nil},
		{"hardware address", specs{{Name: "eth0", HardwareAddr: network.HardwareAddr{2, 0, 0, 0, 0, 1}}}, links{card("eth0", 2, 0)},
			[]string{"set hardware address 02:00:00:00:00:01 on eth0"}},
		{"hardware address in a bond", specs{{Name: "eth0", HardwareAddr: network.HardwareAddr{2, 0, 0, 0, 0, 1}, BondSlave: network.BondSlave{MasterName: "bond0"}}, bond(backup)},
			links{card("eth0", 2, 4), made("bond0", 4, "bond", bonding(reported))}, nil},
		{"a kind that we don't make", specs{{Name: "br0", Logical: true, Kind: "bridge"}}, nil, nil},
	} {
		if diff := cmp.Diff(tt.plan, texts(Links(tt.want, tt.have))); diff != "" {
			t.Errorf("%s: Links() (-want +got)\n%s", tt.name, diff)
		}
	}
}

// TestBondSettings: what the driver would refuse, or forget, is not asked for.
func TestBondSettings(t *testing.T) {
	all := network.BondMasterSpec{
		HashPolicy: 1, LACPRate: 1, ARPValidate: 3, ARPAllTargets: 1, PrimaryReselect: 1, FailOverMac: 1, ADSelect: 1, UpDelay: 250, DownDelay: 150,
		ARPInterval: 100, MinLinks: 1, LPInterval: 2, PacketsPerSlave: 2, TLBLogicalLB: 1, ADActorSysPrio: 5, ADUserPortKey: 6,
		ARPIPTargets: []netip.Addr{addr("10.0.0.1")}, Primary: "eth0",
	}
	for mode := network.BondRoundRobin; mode <= network.BondALB; mode++ {
		s := all
		s.Mode = mode
		got := rtnl.BondSettings(s)
		mii := mode == network.Bond8023AD || mode == network.BondTLB || mode == network.BondALB
		if (got.MIIMon > 0) != mii || (got.ARPInterval > 0) == mii || (len(got.ARPIPTargets) > 0) == mii {
			t.Errorf("%s: links are watched by MII every %d ms and by ARP every %d ms, want MII: %v", mode, got.MIIMon, got.ARPInterval, mii)
		}
		if mii && (got.UpDelay != 200 || got.DownDelay != 100) || !mii && got.UpDelay+got.DownDelay != 0 {
			t.Errorf("%s: delays %d and %d", mode, got.UpDelay, got.DownDelay)
		}
		if (got.LACPRate != 0) != (mode == network.Bond8023AD) || (got.Primary != "") != (mode == network.BondActiveBackup || mode == network.BondTLB || mode == network.BondALB) {
			t.Errorf("%s: LACP rate %s, primary %q", mode, got.LACPRate, got.Primary)
		}
	}
}

func TestMergeLogicalLinks(t *testing.T) {
	got := MergeLinks([]network.LinkSpecSpec{
		{Name: "bond0", Up: true, MTU: 1400, Layer: network.LayerConfiguration},
		{Name: "bond0", Logical: true, Kind: "bond", BondMaster: network.BondMasterSpec{MIIMon: 100}, Layer: network.LayerCmdline},
		{Name: "eth0", Up: true, Layer: network.LayerConfiguration}, {Name: "eth0", BondSlave: network.BondSlave{MasterName: "bond0"}, Layer: network.LayerCmdline},
	})
	if b := got["bond0"]; !b.Logical || b.Kind != "bond" || b.BondMaster.MIIMon != 100 || b.MTU != 1400 || b.Layer != network.LayerConfiguration {
		t.Errorf("bond0 = %+v, want the command line's bond with the configuration's MTU", b)
	}
	if e := got["eth0"]; e.BondSlave.MasterName != "bond0" {
		t.Errorf("eth0 = %+v, want it in bond0", e)
	}
}
