package netargs

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"talos/internal/cmdline"
	"talos/internal/netsetup"
	"talos/internal/resources/network"
)

var equal = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// one is a network of one link.
func one(l netsetup.Link) netsetup.Network { return netsetup.Network{Links: []netsetup.Link{l}} }

func via(gateway string) []netsetup.Route { return []netsetup.Route{{Gateway: addr(gateway)}} }

func TestNetwork(t *testing.T) {
	name := func(s string) netsetup.Match { return netsetup.Match{Name: s} }
	for _, tt := range []struct {
		text string
		want netsetup.Network
	}{
		{"ip=dhcp", netsetup.Network{}},
		{"ip=on", netsetup.Network{}},
		{"ip=off", netsetup.Network{Static: true}},
		{"ip=none", netsetup.Network{Static: true}},
		{"ip=eth0:dhcp", one(netsetup.Link{Match: name("eth0"), DHCP: true})},
		{"ip=eth0:off", one(netsetup.Link{Match: name("eth0")})},
		{"ip=eth0:dhcp:1400", one(netsetup.Link{Match: name("eth0"), DHCP: true, MTU: 1400})},
		{"ip=eth0:on::02:00:00:00:00:01", one(netsetup.Link{Match: name("eth0"), DHCP: true, HardwareAddr: network.HardwareAddr{2, 0, 0, 0, 0, 1}})},
		{"ip=:::::eth1:dhcp", one(netsetup.Link{Match: name("eth1"), DHCP: true})},
		{"ip=:::::eth1", one(netsetup.Link{Match: name("eth1"), DHCP: true})},
		{"ip=:::::eth1:off", one(netsetup.Link{Match: name("eth1")})},
		{"ip=enx020000000001:dhcp", one(netsetup.Link{
			Match: netsetup.Match{Name: "enx020000000001", HardwareAddr: network.HardwareAddr{2, 0, 0, 0, 0, 1}}, DHCP: true})},
		{"ip=10.0.0.2", one(netsetup.Link{Addresses: []netip.Prefix{prefix("10.0.0.2/8")}})},
		{"ip=172.16.0.2:::::eth0", one(netsetup.Link{Match: name("eth0"), Addresses: []netip.Prefix{prefix("172.16.0.2/16")}})},
		{"ip=192.168.0.2::192.168.0.1", one(netsetup.Link{Addresses: []netip.Prefix{prefix("192.168.0.2/24")}, Routes: via("192.168.0.1")})},
		{"ip=10.5.0.2/24::10.5.0.1:::eth0:off", one(netsetup.Link{
			Match: name("eth0"), Addresses: []netip.Prefix{prefix("10.5.0.2/24")}, Routes: via("10.5.0.1")})},
		{"ip=10.5.0.2::10.5.0.1:26::eth0:none", one(netsetup.Link{
			Match: name("eth0"), Addresses: []netip.Prefix{prefix("10.5.0.2/26")}, Routes: via("10.5.0.1")})},
		{"ip=10.5.0.2/32::10.0.0.1:::eth0", one(netsetup.Link{
			Match: name("eth0"), Addresses: []netip.Prefix{prefix("10.5.0.2/32")}, Routes: []netsetup.Route{{Gateway: addr("10.0.0.1"), OnLink: true}}})},
		{"ip=10.5.0.2/24:::::eth0:dhcp", one(netsetup.Link{Match: name("eth0"), Addresses: []netip.Prefix{prefix("10.5.0.2/24")}, DHCP: true})},
		{"ip=10.5.0.2/24:::::eth0:any", one(netsetup.Link{Match: name("eth0"), Addresses: []netip.Prefix{prefix("10.5.0.2/24")}})},
		{"ip=10.5.0.2/24:::::eth0:off:1400:02:00:00:00:00:01", one(netsetup.Link{
			Match: name("eth0"), Addresses: []netip.Prefix{prefix("10.5.0.2/24")}, MTU: 1400, HardwareAddr: network.HardwareAddr{2, 0, 0, 0, 0, 1}})},
		{"ip=10.0.0.2:10.0.0.9:10.0.0.1:255.255.255.0:three:eth1:off:9.9.9.9:8.8.8.8:10.0.0.3", netsetup.Network{
			Hostname: "three", Nameservers: []netip.Addr{addr("9.9.9.9"), addr("8.8.8.8")}, TimeServers: []string{"10.0.0.3"},
			Links: []netsetup.Link{{Match: name("eth1"), Addresses: []netip.Prefix{prefix("10.0.0.2/24")}, Routes: via("10.0.0.1")}},
		}},
		{"ip=[fd00::2]/64::[fd00::1]::six:eth0:off:[2620:fe::fe]", netsetup.Network{
			Hostname: "six", Nameservers: []netip.Addr{addr("2620:fe::fe")},
			Links: []netsetup.Link{{Match: name("eth0"), Addresses: []netip.Prefix{prefix("fd00::2/64")}, Routes: via("fd00::1")}},
		}},
		{"ip=[fd00::2/64]::[fe80::1]:::eth0:off", one(netsetup.Link{
			Match: name("eth0"), Addresses: []netip.Prefix{prefix("fd00::2/64")}, Routes: via("fe80::1")})},
		{"ip=[fd00::2]:::64::eth0:off", one(netsetup.Link{Match: name("eth0"), Addresses: []netip.Prefix{prefix("fd00::2/64")}})},
		{"ip=eth0:dhcp ip=10.0.0.2/24:::::eth1:off", netsetup.Network{Links: []netsetup.Link{
			{Match: name("eth0"), DHCP: true}, {Match: name("eth1"), Addresses: []netip.Prefix{prefix("10.0.0.2/24")}}}}},
		{"nameserver=9.9.9.9 nameserver=[2620:fe::fe] nameserver=fd00::53", netsetup.Network{Nameservers: []netip.Addr{addr("9.9.9.9"), addr("2620:fe::fe"), addr("fd00::53")}}},
		{"talos.network.interface.ignore=eth1 talos.network.interface.ignore=enp*", netsetup.Network{Ignore: []string{"eth1", "enp*"}}},
		{"ip=::::four:: talos.hostname=five.example.org", netsetup.Network{Hostname: "five.example.org", Links: []netsetup.Link{{DHCP: true}}}},
		{"vlan=eth0.0005:eth0 vlan=vlan6:eth1", netsetup.Network{Links: []netsetup.Link{
			{Match: name("eth0.0005"), VLAN: &netsetup.VLAN{ID: 5, Parent: name("eth0")}}, {Match: name("vlan6"), VLAN: &netsetup.VLAN{ID: 6, Parent: name("eth1")}}}}},
		{"bond=", one(netsetup.Link{Match: name("bond0"), Bond: &netsetup.Bond{
			Links: []netsetup.Match{name("eth0"), name("eth1")}, How: network.BondMasterSpec{MIIMon: 100, UseCarrier: true}}})},
		{"bond=bond1:ens1,ens2:mode=802.3ad,lacp_rate=fast,xmit_hash_policy=layer3+4,miimon=50:9000", one(netsetup.Link{
			Match: name("bond1"), MTU: 9000, Bond: &netsetup.Bond{
				Links: []netsetup.Match{name("ens1"), name("ens2")},
				How:   network.BondMasterSpec{Mode: network.Bond8023AD, LACPRate: 1, HashPolicy: 1, MIIMon: 50, UseCarrier: true},
			}})},
		{"bond=bond0:eth0:mode=1,arp_interval=100,arp_ip_target=10.0.0.1;10.0.0.2,primary=eth0,use_carrier=0", one(netsetup.Link{
			Match: name("bond0"), Bond: &netsetup.Bond{
				Links: []netsetup.Match{name("eth0")},
				How: network.BondMasterSpec{
					Mode: network.BondActiveBackup, ARPInterval: 100, ARPIPTargets: []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2")}, Primary: "eth0"},
			}})},
	} {
		got, problems := Read(cmdline.Parse(tt.text))
		if diff := cmp.Diff(tt.want, got, equal); diff != "" || len(problems) > 0 {
			t.Errorf("Network(%q) = problems %v, (-want +got)\n%s", tt.text, problems, diff)
		}
	}
}

// TestProblems: what is wrong is told with its part, and counts for nothing.
func TestProblems(t *testing.T) {
	for text, want := range map[string]string{
		"ip=":                                   "nothing is said",
		"ip=nonsense":                           `method "nonsense" is not known`,
		"ip=dhcp6":                              "does not do DHCPv6",
		"ip=eth0:bootp":                         "does not do BOOTP",
		"ip=fd00::2":                            `client: "fd00" is not an address`,
		"ip=10.0.0.256::10.0.0.1":               `client: "10.0.0.256" is not an address`,
		"ip=10.0.0.2::nonsense":                 `gateway: "nonsense" is not an address`,
		"ip=10.0.0.2::[fd00::1]":                "different families",
		"ip=10.0.0.2:::255.0.255.0":             "netmask 255.0.255.0 has holes",
		"ip=10.0.0.2:::33":                      `netmask "33"`,
		"ip=10.0.0.2/-1":                        `netmask "-1"`,
		"ip=[fd00::2]:::255.255.255.0":          `netmask "255.255.255.0" is none`,
		"ip=10.0.0.2::::-bad-:eth0":             `host name: "-bad-" is not a host name`,
		"ip=10.0.0.2:::::a/b":                   `"a/b" is not a name of a link`,
		"ip=10.0.0.2:::::averylonglinkname:off": "is not a name of a link",
		"ip=10.0.0.2:::::eth0:off:x":            `name server: "x" is not an address`,
		"ip=10.0.0.2:::::eth0:off:9":            `MTU "9"`,
		"ip=eth0:dhcp:1400:zz":                  `hardware address "zz" is none`,
		"ip=[fd00::2":                           "brackets do not match",
		"ip=fd00::2]:":                          "brackets do not match",
		"nameserver=[::1":                       "bracket without its other",
		"nameserver=fe80::1%eth0":               "is not an address",
		"vlan=eth0.5":                           "want name:device",
		"vlan=lan:eth0":                         "tells no number of a VLAN",
		"vlan=eth0.4095:eth0":                   "1 to 4094",
		"bond=bond0:eth0:mode":                  `bond option "mode": want key=value`,
		"bond=bond0:eth0:mode=fast":             "bond option mode=fast",
		"bond=bond0:eth0:mode=9":                "bond option mode=9: 9 is not known",
		"bond=bond0:eth0:speed=1":               `bond option "speed" is not known`,
		"bond=bond0:eth0:miimon=-1":             "bond option miimon=-1",
		"bond=bond0:eth0::1:2":                  "got 5 parts",
		"bond=bond0:eth0,:":                     `"" is not a name of a link`,
		"talos.hostname=a_b":                    `"a_b" is not a host name`,
		"talos.network.interface.ignore=[":      "syntax error",
	} {
		got, problems := Read(cmdline.Parse(text))
		if len(problems) != 1 || !strings.Contains(problems[0].Error(), want) || !strings.Contains(problems[0].Error(), "kernel argument "+text) {
			t.Errorf("Network(%q) = problems %v, want %q", text, problems, want)
		}
		if diff := cmp.Diff(netsetup.Network{}, got, equal); diff != "" {
			t.Errorf("Network(%q) has something all the same:\n%s", text, diff)
		}
	}
}

// FuzzRead: whatever is on a command line is settings that can be applied, or
// told by the argument's name.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		`a="b c" d -- e`, "ip=10.0.0.2::10.0.0.1:255.255.255.0:three:eth1:off:9.9.9.9::10.0.0.3", "ip=[fd00::2]/64::[fd00::1]", "vlan=eth0.5:eth0",
		"bond=bond0:eth0,eth1:mode=802.3ad,miimon=100:9000", "ip=eth0:dhcp:1400:02:00:00:00:00:01", "nameserver=[::1] talos.hostname=a.b",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, problems := Read(cmdline.Parse(text))
		for _, link := range n.Links {
			for _, a := range link.Addresses {
				if !a.IsValid() {
					t.Errorf("address %v of %s", a, link.Match)
				}
			}
			if link.VLAN != nil && (link.VLAN.ID < 1 || link.VLAN.ID > 4094) || link.Bond != nil && len(link.Bond.Links) == 0 {
				t.Errorf("link %+v", link)
			}
		}
		for _, p := range problems {
			if !strings.HasPrefix(p.Error(), "kernel argument ") {
				t.Errorf("problem %q does not name the argument", p)
			}
		}
	})
}
