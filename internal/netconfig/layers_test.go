package netconfig

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"talos/config"
	"talos/internal/cmdline"
	"talos/internal/netsetup"
	"talos/internal/netsetup/netargs"
	"talos/internal/resources/network"
)

// machineLinks are those of a machine: two cards, one in a bond already.
var machineLinks = []link{
	{name: "lo", status: network.LinkStatusSpec{Index: 1, Type: network.LinkLoopback}},
	indexed(ether("enp2s0", "02:00:00:00:00:02", "", 0), 3), indexed(ether("enp1s0", "02:00:00:00:00:01", "", 0), 2),
	indexed(ether("bond0", "02:00:00:00:00:01", "bond", 0), 9), indexed(ether("enp1s0.5", "02:00:00:00:00:01", "vlan", 0), 10),
	slaveOf(indexed(ether("enp3s0", "02:00:00:00:00:01", "", 9), 4), "02:00:00:00:00:03"),
}

func indexed(l link, index uint32) link {
	l.status.Index = index
	return l
}

// slaveOf is a link with the hardware address of its bond.
func slaveOf(l link, own string) link {
	l.status.SlaveKind = network.KindBond
	if err := l.status.PermanentAddr.UnmarshalText([]byte(own)); err != nil {
		panic(err)
	}
	return l
}

func configured(t *testing.T, text string) *config.Config {
	t.Helper()
	if text == "" {
		return nil
	}
	cfg := &config.Config{Machine: &config.Machine{Network: &config.Network{}}}
	if err := yaml.Unmarshal([]byte(text), cfg.Machine.Network); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestLayers: who says something of a link decides about its addresses, the
// highest layer first; links that nobody speaks of get theirs by DHCP.
func TestLayers(t *testing.T) {
	always := []string{"default/resolvers", "default/timeservers", "default/lo/127.0.0.1/8", "link default/lo"}
	byDefault := func(names ...string) []string {
		var out []string
		for _, n := range names {
			out = append(out, "default/dhcp4/"+n, "link default/"+n)
		}
		return out
	}
	join := slices.Concat[[]string]
	said := func(text string) netsetup.Network {
		n, problems := netargs.Read(cmdline.Parse(text))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return n
	}
	for _, tt := range []struct {
		name, cmdline, platform, config string // the platform says it in the words of the command line
		want                            []string
		problem                         string
	}{
		{name: "nothing", want: byDefault("enp1s0", "enp2s0")},
		{name: "dhcp", cmdline: "ip=dhcp", want: byDefault("enp1s0", "enp2s0")},
		{name: "no dhcp", cmdline: "ip=off", want: []string{"link default/enp1s0", "link default/enp2s0"}},
		{name: "ignored", cmdline: "talos.network.interface.ignore=enp2*", want: byDefault("enp1s0")},
		{name: "the first link", cmdline: "ip=10.0.0.2/24::10.0.0.1", want: join(byDefault("enp2s0"),
			[]string{"cmdline/enp1s0/10.0.0.2/24", "cmdline/enp1s0//10.0.0.1/1024", "link cmdline/enp1s0"})},
		{name: "a link by name", cmdline: "ip=10.0.0.2/24::10.0.0.1:::enp2s0:off:9.9.9.9::10.0.0.3", want: join(byDefault("enp1s0"), []string{
			"cmdline/enp2s0/10.0.0.2/24", "cmdline/enp2s0//10.0.0.1/1024", "link cmdline/enp2s0", "cmdline/resolvers", "cmdline/timeservers"})},
		{name: "a link that is not there yet", cmdline: "ip=10.0.0.2/24:::::enp7s0", want: join(byDefault("enp1s0", "enp2s0"),
			[]string{"cmdline/enp7s0/10.0.0.2/24", "link cmdline/enp7s0"})},
		{name: "a link by hardware address", cmdline: "ip=enx020000000002:dhcp", want: join(byDefault("enp1s0"),
			[]string{"cmdline/dhcp4/enp2s0", "link cmdline/enp2s0"})},
		{name: "by its own address in a bond", cmdline: "ip=enx020000000003:off", want: join(byDefault("enp1s0", "enp2s0"), []string{"link cmdline/enp3s0"})},
		{name: "a hardware address that no link has", cmdline: "ip=enx020000000009:dhcp", want: byDefault("enp1s0", "enp2s0"),
			problem: "cmdline: there is no such link: enx020000000009 (02:00:00:00:00:09)"},
		{name: "gateway out of reach", cmdline: "ip=10.0.0.2/32::10.0.9.1:::enp1s0", want: join(byDefault("enp2s0"), []string{
			"cmdline/enp1s0/10.0.0.2/32", "cmdline/enp1s0//10.0.9.1/1024", "cmdline/enp1s0/10.0.9.1/32//1024", "link cmdline/enp1s0"})},
		{name: "platform over command line", cmdline: "ip=enp1s0:dhcp ip=10.0.0.3/24:::::enp2s0", platform: "ip=10.0.0.2/24:::::enp1s0", want: []string{
			"platform/enp1s0/10.0.0.2/24", "link platform/enp1s0", "link cmdline/enp1s0", "cmdline/enp2s0/10.0.0.3/24", "link cmdline/enp2s0"}},
		{name: "configuration over both", cmdline: "ip=enp1s0:dhcp", platform: "ip=10.0.0.2/24:::::enp1s0",
			config: "interfaces: [{interface: enp1s0, addresses: [10.9.0.2/24]}]", want: join(byDefault("enp2s0"), []string{
				"configuration/enp1s0/10.9.0.2/24", "link configuration/enp1s0", "link platform/enp1s0", "link cmdline/enp1s0"})},
		{name: "configuration without addresses", cmdline: "ip=10.0.0.2/24:::::enp1s0", config: "interfaces: [{interface: enp1s0, mtu: 1400}]",
			want: join(byDefault("enp2s0"), []string{"cmdline/enp1s0/10.0.0.2/24", "link configuration/enp1s0", "link cmdline/enp1s0"})},
		{name: "configuration that says no DHCP", cmdline: "ip=enp1s0:dhcp", config: "interfaces: [{interface: enp1s0, dhcp: false}]",
			want: join(byDefault("enp2s0"), []string{"link configuration/enp1s0", "link cmdline/enp1s0"})},
		{name: "configuration that ignores", cmdline: "ip=10.0.0.2/24:::::enp1s0", config: "interfaces: [{interface: enp1s0, ignore: true}]", want: byDefault("enp2s0")},
		{name: "VLAN", cmdline: "vlan=enp1s0.5:enp1s0 ip=10.0.0.2/24:::::enp1s0.5", want: join(byDefault("enp1s0", "enp2s0"), []string{
			"link cmdline/enp1s0.5", "link cmdline/enp1s0", "cmdline/enp1s0.5/10.0.0.2/24"})},
		{name: "bond", cmdline: "bond=bond0:enp1s0,enp2s0:mode=active-backup ip=bond0:dhcp", want: []string{
			"link cmdline/bond0", "link cmdline/enp1s0", "link cmdline/enp2s0", "cmdline/dhcp4/bond0"}},
		{name: "bond whose link has addresses above", cmdline: "bond=bond0:enp1s0,enp2s0", config: "interfaces: [{interface: enp1s0, dhcp: true}]", want: []string{
			"link cmdline/bond0", "link cmdline/enp2s0", "configuration/dhcp4/enp1s0", "link configuration/enp1s0"}},
		{name: "configured VLAN", config: "interfaces: [{interface: enp1s0, vlans: [{vlanId: 7, addresses: [10.7.0.2/24], routes: [{network: 10.8.0.0/16, gateway: 10.7.0.1}], mtu: 1400}, {vlanId: 8, dhcp: true}]}]",
			want: join(byDefault("enp2s0"), []string{"link configuration/enp1s0", "link configuration/enp1s0.7", "configuration/enp1s0.7/10.7.0.2/24",
				"configuration/enp1s0.7/10.8.0.0/16/10.7.0.1/1024", "link configuration/enp1s0.8", "configuration/dhcp4/enp1s0.8"})},
		{name: "configured bond", config: "interfaces: [{interface: bond0, dhcp: true, bond: {mode: active-backup, interfaces: [enp1s0], deviceSelectors: [{hardwareAddr: '02:00:00:00:00:0[13]'}]}}]",
			want: join(byDefault("enp2s0"), []string{"link configuration/bond0", "configuration/dhcp4/bond0", "link configuration/enp1s0", "link configuration/enp3s0"})},
		{name: "configured bond over the command line's", cmdline: "bond=bond0:enp1s0,enp2s0 ip=bond0:dhcp", config: "interfaces: [{interface: bond0, addresses: [10.0.0.2/24]}]",
			want: []string{"link configuration/bond0", "configuration/bond0/10.0.0.2/24", "link cmdline/bond0", "link cmdline/enp1s0", "link cmdline/enp2s0"}},
		{name: "configured bond of nothing", config: "interfaces: [{interface: bond0, bond: {deviceSelectors: [{driver: none}]}}]",
			want: join(byDefault("enp1s0", "enp2s0"), []string{"link configuration/bond0"}), problem: "bond bond0: there are none of the links that it is made of"},
		{name: "VLAN with too long a name", config: "interfaces: [{interface: averylongname0, vlans: [{vlanId: 7}]}]", want: join(byDefault("enp1s0", "enp2s0"), []string{"link configuration/averylongname0"}),
			problem: "VLAN 7 on averylongname0: the name averylongname0.7 is longer than 15 bytes"},
	} {
		in := sources{config: configured(t, tt.config), cmdline: said(tt.cmdline), platform: said(tt.platform), links: machineLinks}
		got, problems := in.want()
		want := slices.Sorted(slices.Values(append(tt.want, always...)))
		if diff := cmp.Diff(want, ids(got)); diff != "" {
			t.Errorf("%s: want() = problems %v, (-want +got)\n%s", tt.name, problems, diff)
		}
		var texts []string
		for _, p := range problems {
			texts = append(texts, p.Error())
		}
		if got := strings.Join(texts, "\n"); got != tt.problem {
			t.Errorf("%s: problems = %q, want %q", tt.name, got, tt.problem)
		}
	}
}

// TestLogicalLinks: what makes a VLAN and a bond.
func TestLogicalLinks(t *testing.T) {
	n, problems := netargs.Read(cmdline.Parse("bond=bond0:enp1s0,enp2s0:mode=802.3ad:9000 vlan=bond0.7:bond0"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got := newSpecs()
	if _, problems := got.setup(n, network.LayerCmdline, machineLinks); len(problems) > 0 {
		t.Fatal(problems)
	}
	link := func(l network.LinkSpecSpec) network.LinkSpecSpec {
		l.Up, l.Layer = true, network.LayerCmdline
		return l
	}
	want := map[string]network.LinkSpecSpec{
		"cmdline/bond0": link(network.LinkSpecSpec{
			Name: "bond0", Logical: true, Kind: "bond", Type: network.LinkEther, MTU: 9000,
			BondMaster: network.BondMasterSpec{Mode: network.Bond8023AD, MIIMon: 100, UseCarrier: true},
		}),
		"cmdline/enp1s0": link(network.LinkSpecSpec{Name: "enp1s0", BondSlave: network.BondSlave{MasterName: "bond0"}}),
		"cmdline/enp2s0": link(network.LinkSpecSpec{Name: "enp2s0", BondSlave: network.BondSlave{MasterName: "bond0", SlaveIndex: 1}}),
		"cmdline/bond0.7": link(network.LinkSpecSpec{
			Name: "bond0.7", Logical: true, Kind: "vlan", Type: network.LinkEther, ParentName: "bond0",
			VLAN: network.VLANSpec{VID: 7, Protocol: network.VLAN8021Q},
		}),
	}
	if diff := cmp.Diff(want, got.links); diff != "" {
		t.Errorf("setup() (-want +got)\n%s", diff)
	}
}

// TestConfiguredBond: the configuration's settings of a bond, by the kernel's names.
func TestConfiguredBond(t *testing.T) {
	cfg := configured(t, `interfaces: [{interface: bond0, mtu: 9000, vlans: [{vlanId: 7}], bond: {interfaces: [enp1s0, enp2s0], mode: 802.3ad, xmitHashPolicy: layer3+4,
		lacpRate: fast, miimon: 50, updelay: 100, downdelay: 200, minLinks: 1, adSelect: count, adActorSysPrio: 5, adUserPortKey: 6, numPeerNotif: 2, useCarrier: false}}]`)
	got, _, problems := fromConfig(cfg, machineLinks)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := network.BondMasterSpec{
		Mode: network.Bond8023AD, HashPolicy: 1, LACPRate: 1, MIIMon: 50, UpDelay: 100, DownDelay: 200, MinLinks: 1, ADSelect: 2, ADActorSysPrio: 5, ADUserPortKey: 6, NumPeerNotif: 2,
	}
	if diff := cmp.Diff(want, got.links["configuration/bond0"].BondMaster); diff != "" {
		t.Errorf("bond (-want +got)\n%s", diff)
	}
	if l := got.links["configuration/bond0"]; l.MTU != 9000 || l.Kind != network.KindBond || !l.Logical {
		t.Errorf("bond0 = %+v", l)
	}
	if l := got.links["configuration/bond0.7"]; l.ParentName != "bond0" || l.VLAN.VID != 7 || !l.Up {
		t.Errorf("bond0.7 = %+v", l)
	}
	if l := got.links["configuration/enp2s0"]; l.BondSlave.MasterName != "bond0" || l.BondSlave.SlaveIndex != 1 {
		t.Errorf("enp2s0 = %+v", l)
	}
}

// TestPlatform: what was set first is not seen by who reads after the second.
func TestPlatform(t *testing.T) {
	p := NewPlatform()
	p.Set(netsetup.Network{Hostname: "one"})
	p.Set(netsetup.Network{Hostname: "two"}) // nobody has taken the first notice: this must not block
	<-p.news
	if got := p.get().Hostname; got != "two" {
		t.Errorf("host name = %q, want two", got)
	}
}
