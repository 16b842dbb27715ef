package platform

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"talos/internal/cmdline"
	"talos/internal/netsetup"
	"talos/internal/resources/network"
	"talos/internal/resources/runtime"
)

var equal = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

const metaText = "instance-id: 1234\nlocal-hostname: one.example.org\nhostname: other\navailability-zone: z1\nregion: r1\nunknown: [1]\n"

func TestNoCloudVolume(t *testing.T) {
	b := newBench(t, "")
	answers(t, b.platform(t, NoCloud), "", "", "volume cidata: there is no such volume")
	b.volume(t, "iso9660", map[string]string{"user-data": "version: v1alpha1\n", "meta-data": metaText, "vendor-data": "#cloud-config\n"})
	p := b.platform(t, NoCloud)
	answers(t, p, "version: v1alpha1\n", "the volume cidata, user-data", "")
	got, err := p.Metadata(t.Context())
	want := runtime.PlatformMetadataSpec{Platform: "nocloud", Hostname: "one.example.org", InstanceID: "1234", Region: "r1", Zone: "z1"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Metadata (-want +got), %v:\n%s", err, diff)
	}
	n, err := p.Network(t.Context())
	if diff := cmp.Diff(netsetup.Network{Hostname: "one.example.org"}, n, equal); diff != "" || err != nil {
		t.Errorf("Network (-want +got), %v:\n%s", err, diff)
	}

	// What is on the volume now is what counts.
	b.write(t, "iso9660/user-data", " \n")
	answers(t, p, "", "the volume cidata", "")
	b.write(t, "iso9660/user-data", "version: v2\n")
	answers(t, p, "version: v2\n", "the volume cidata", "")

	b.write(t, "iso9660/meta-data", "local-hostname: a_b\n")
	b.write(t, "iso9660/network-config", "version: 2\nethernets: {eth0: {dhcp4: true}}\n")
	p = b.platform(t, NoCloud)
	n, err = p.Network(t.Context())
	if err != nil || n.Hostname != "" || len(n.Links) != 1 || len(n.Problems) != 1 || !strings.Contains(n.Problems[0], `"a_b" is not a host name`) {
		t.Errorf("Network with a bad name = %+v, %v", n, err)
	}
	b.write(t, "iso9660/meta-data", "[")
	b.write(t, "iso9660/network-config", "version: 3\n")
	p = b.platform(t, NoCloud)
	if _, err := p.Metadata(t.Context()); err == nil || !strings.Contains(err.Error(), "the volume cidata, meta-data: yaml") {
		t.Errorf("Metadata of no YAML = %v", err)
	}
	if _, err := p.Network(t.Context()); err == nil || !strings.Contains(err.Error(), "network-config: version 3: want 1 or 2") {
		t.Errorf("Network of version 3 = %v", err)
	}
}

func TestNoCloudServer(t *testing.T) {
	files := map[string]string{"user-data": "version: v1alpha1\n", "meta-data": metaText}
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(r.URL.Path, "/seed/")
		text, there := files[name[strings.LastIndexByte(name, '/')+1:]]
		if !ok || !there {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, text)
	})
	for _, tt := range []struct{ ds, serial, from, hostname, problem string }{
		{ds: "nocloud;s=" + url + "/seed/", from: url + "/seed/, user-data", hostname: "one.example.org"},
		{ds: "nocloud-net;seedfrom=" + url + "/seed", from: url + "/seed, user-data", hostname: "one.example.org"},
		{ds: "nocloud;h=two;i=5;s=" + url + "/seed/", from: url, hostname: "two"},
		{ds: "nocloud;s=" + url + "/seed/__dmi.system-uuid__/", from: url + "/seed/4C4C4544-0042-3510-8051-B8C04F4A4E32/", hostname: "one.example.org"},
		{serial: "ds=nocloud-net;s=" + url + "/seed/", from: url, hostname: "one.example.org"},
		{ds: "nocloud;s=" + url + "/seed/", serial: "ds=nocloud;s=http://127.0.0.1:1/", from: url, hostname: "one.example.org"},
		{ds: "nocloud;s=" + url + "/nowhere/", problem: "configuration server " + url + "/nowhere/user-data: answered 404"},
		{ds: "nocloud;s=/var/lib/seed/", problem: `kernel argument ds=nocloud;s=/var/lib/seed/: "/var/lib/seed/": want http:// or https://`},
		{ds: "nocloud;s=" + url + "/__dmi.nonsense__/", problem: "the firmware tells no nonsense"},
		{ds: "nocloud;s=" + url + "/__dmi.nonsense", problem: "has no end"},
		{serial: "ds=nocloud;s=x", problem: "the machine's serial number nocloud;s=x"},
		{ds: "ec2", problem: "volume cidata: there is no such volume"},
		{ds: "nocloud", problem: "volume cidata: there is no such volume"},
		{serial: "ABC123", problem: "volume cidata: there is no such volume"},
	} {
		b := newBench(t, "")
		if tt.ds != "" {
			b.Cmdline = cmdline.Parse("ds=" + tt.ds)
		}
		b.write(t, "dmi/product_serial", tt.serial+"\n")
		p := b.platform(t, NoCloud)
		answers(t, p, "version: v1alpha1\n", tt.from, tt.problem)
		if tt.problem != "" {
			if _, _, err := p.Configuration(t.Context()); permanent(err) == strings.Contains(tt.problem, "volume") && !strings.Contains(tt.problem, "404") {
				t.Errorf("%v: permanent %v", err, permanent(err))
			}
			continue
		}
		m, err := p.Metadata(t.Context())
		if err != nil || m.Hostname != tt.hostname || (m.InstanceID == "5") != strings.Contains(tt.ds, "i=5") {
			t.Errorf("%s%s: Metadata = %+v, %v", tt.ds, tt.serial, m, err)
		}
	}
	// The kernel's own argument comes before the platform's data.
	b := newBench(t, "talos.config="+url+"/seed/user-data")
	b.volume(t, "iso9660", map[string]string{"user-data": "version: other\n"})
	answers(t, b.platform(t, NoCloud), "version: v1alpha1\n", url, "")
}

// TestNetworkConfig: both versions, as people and virtualisation platforms
// write them.
func TestNetworkConfig(t *testing.T) {
	name := func(s string) netsetup.Match { return netsetup.Match{Name: s} }
	mac := func(last byte) network.HardwareAddr { return network.HardwareAddr{2, 0, 0, 0, 0, last} }
	watched := network.BondMasterSpec{UseCarrier: true, MIIMon: 100}
	for _, tt := range []struct {
		about, text string
		want        netsetup.Network
	}{
		{about: "nothing", text: ""},
		{about: "switched off", text: "network: {config: disabled}"},
		{about: "v2, DHCP", text: "network: {version: 2, ethernets: {eth0: {dhcp4: true, dhcp4-overrides: {route-metric: 50}}}}",
			want: netsetup.Network{Links: []netsetup.Link{{Match: name("eth0"), DHCP: true, Metric: 50}}}},
		{about: "v2, a pattern", text: "{version: 2, ethernets: {all: {match: {name: 'en*'}, dhcp4: yes}}}",
			want: netsetup.Network{Links: []netsetup.Link{{Match: name("en*"), DHCP: true}}}},
		{about: "v2, static", text: `
version: 2
renderer: networkd
ethernets:
  id0:
    match: {macaddress: "02:00:00:00:00:01"}
    set-name: lan0
    wakeonlan: true
    addresses: [10.5.0.2/24, "fd00::2/64": {lifetime: 0}]
    gateway4: 10.5.0.1
    gateway6: fe80::1
    mtu: "1400"
    macaddress: "02:00:00:00:00:09"
    nameservers: {addresses: [9.9.9.9, "2620:fe::fe"], search: [example.org]}
    routes:
    - {to: 10.6.0.0/16, via: 10.5.0.9, metric: 7, mtu: 1300}
    - {to: default, via: 192.0.2.1, on-link: true}
    - {to: 0.0.0.0/0, via: 10.9.0.1, from: 10.5.0.2}
`, want: netsetup.Network{
			Nameservers: []netip.Addr{addr("9.9.9.9"), addr("2620:fe::fe")}, Search: []string{"example.org"},
			Links: []netsetup.Link{{
				Match: netsetup.Match{HardwareAddr: mac(1)}, MTU: 1400, HardwareAddr: mac(9), Addresses: []netip.Prefix{prefix("10.5.0.2/24"), prefix("fd00::2/64")},
				Routes: []netsetup.Route{
					{Gateway: addr("10.5.0.1")}, {Gateway: addr("fe80::1")}, {Network: prefix("10.6.0.0/16"), Gateway: addr("10.5.0.9"), Metric: 7, MTU: 1300},
					{Gateway: addr("192.0.2.1"), OnLink: true}, {Network: prefix("0.0.0.0/0"), Gateway: addr("10.9.0.1"), Source: addr("10.5.0.2"), OnLink: true},
				},
			}},
		}},
		{about: "v2, bond and VLAN", text: `
version: 2
ethernets:
  a: {match: {macaddress: "02:00:00:00:00:01"}}
  eth1: {}
bonds:
  bond0:
    interfaces: [a, eth1]
    addresses: [10.5.0.2/24]
    parameters: {mode: active-backup, primary: a, mii-monitor-interval: 50ms, up-delay: 200, all-members-active: true, arp-ip-targets: [10.0.0.1, 10.0.0.2]}
vlans:
  v5: {id: 5, link: bond0, dhcp4: true}
`, want: netsetup.Network{Links: []netsetup.Link{
			{Match: netsetup.Match{HardwareAddr: mac(1)}}, {Match: name("eth1")},
			{Match: name("bond0"), Addresses: []netip.Prefix{prefix("10.5.0.2/24")}, Bond: &netsetup.Bond{
				Links: []netsetup.Match{{HardwareAddr: mac(1)}, name("eth1")}, Primary: netsetup.Match{HardwareAddr: mac(1)},
				How: network.BondMasterSpec{
					Mode: network.BondActiveBackup, MIIMon: 50, UpDelay: 200, AllSlavesActive: 1, UseCarrier: true, Primary: "a",
					ARPIPTargets: []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2")},
				},
			}},
			{Match: name("v5"), DHCP: true, VLAN: &netsetup.VLAN{ID: 5, Parent: name("bond0")}},
		}}},
		{about: "v2, what can't be done", text: `
version: 2
ethernets:
  eth0: {dhcp6: true, addresses: [nonsense], gateway4: nonsense, mtu: 5, macaddress: zz, nameservers: {addresses: [nonsense]}, routes: [{metric: 1}, {to: x, via: 10.0.0.1}]}
  eth1: {match: {name: eth1, driver: virtio}}
bonds: {bond0: {interfaces: []}, bond1: {interfaces: [eth1], parameters: {mode: fast, speed: 1}}}
vlans: {v0: {id: 5000, link: eth0}}
bridges: {br0: {}}
`, want: netsetup.Network{
			Links: []netsetup.Link{{Match: name("eth0")}, {Match: name("eth1")}, {Match: name("bond1"), Bond: &netsetup.Bond{Links: []netsetup.Match{name("eth1")}, How: watched}}},
			Problems: []string{
				"eth1: links are not found by their driver", "eth0: MTU 5: want 68 to 65535", `eth0: "zz" is not a hardware address`, "eth0: this system does not do DHCPv6",
				`eth0: address "nonsense" is none`, `eth0: gateway "nonsense" is not an address`, "eth0: a route has neither network nor gateway", `eth0: route to "x" is none`,
				`eth0: name server "nonsense" is not an address`, "bond0: a bond of no links", `bond1: bond option mode=fast: "fast" is not a known network.BondMode`,
				`bond1: bond option "speed" is not known`, `v0: VLAN 5000 over "eth0": want a number from 1 to 4094 and a link`, "br0: this system makes bonds and VLANs only",
			},
		}},
		{about: "v1, as Proxmox writes it", text: `
version: 1
config:
    - type: physical
      name: eth0
      mac_address: '02:00:00:00:00:01'
      subnets:
      - type: static
        address: '192.168.86.24'
        netmask: '255.255.255.0'
        gateway: '192.168.86.1'
    - type: physical
      name: eth1
      mac_address: '02:00:00:00:00:02'
      subnets:
      - type: dhcp4
    - type: nameserver
      address:
      - '192.168.86.1'
      search:
      - 'lan'
`, want: netsetup.Network{
			Nameservers: []netip.Addr{addr("192.168.86.1")}, Search: []string{"lan"},
			Links: []netsetup.Link{
				{Match: netsetup.Match{Name: "eth0", HardwareAddr: mac(1)}, Addresses: []netip.Prefix{prefix("192.168.86.24/24")}, Routes: []netsetup.Route{{Gateway: addr("192.168.86.1")}}},
				{Match: netsetup.Match{Name: "eth1", HardwareAddr: mac(2)}, DHCP: true},
			},
		}},
		{about: "v1, everything else", text: `
network:
  version: 1
  config:
  - {type: loopback, name: lo}
  - {type: physical, name: eth0, mtu: 1400}
  - {type: physical, name: eth1, mac_address: "02:00:00:00:00:02", subnets: [{type: manual}]}
  - {type: bond, name: bond0, bond_interfaces: [eth0, eth1], params: {bond-mode: 802.3ad, bond_xmit_hash_policy: layer3+4, bond-miimon: 50}}
  - type: vlan
    name: bond0.5
    vlan_link: bond0
    vlan_id: "5"
    subnets:
    - {type: static, address: 10.5.0.2/24, dns_nameservers: 9.9.9.9 8.8.8.8, dns_search: [example.org], routes: [{network: 10.6.0.0, netmask: 255.255.0.0, gateway: 10.5.0.9}]}
  - {type: route, destination: 10.7.0.0/16, gateway: 10.5.0.8, metric: 3}
`, want: netsetup.Network{
			Nameservers: []netip.Addr{addr("9.9.9.9"), addr("8.8.8.8")}, Search: []string{"example.org"},
			Links: []netsetup.Link{
				{Match: name("eth0"), MTU: 1400}, {Match: netsetup.Match{Name: "eth1", HardwareAddr: mac(2)}},
				{Match: name("bond0"), Bond: &netsetup.Bond{
					Links: []netsetup.Match{name("eth0"), {Name: "eth1", HardwareAddr: mac(2)}},
					How:   network.BondMasterSpec{Mode: network.Bond8023AD, HashPolicy: 1, MIIMon: 50, UseCarrier: true},
				}},
				{Match: name("bond0.5"), VLAN: &netsetup.VLAN{ID: 5, Parent: name("bond0")}, Addresses: []netip.Prefix{prefix("10.5.0.2/24")}, Routes: []netsetup.Route{
					{Network: prefix("10.6.0.0/16"), Gateway: addr("10.5.0.9")}, {Network: prefix("10.7.0.0/16"), Gateway: addr("10.5.0.8"), Metric: 3}}},
			},
		}},
		{about: "v1, what can't be done", text: `
version: 1
config:
- {type: physical}
- {type: bridge, name: br0}
- {type: vlan, name: v, vlan_id: 5}
- {type: bond, name: b}
- {type: physical, name: eth0, subnets: [{type: dhcp6}, {type: static, address: 10.0.0.2, netmask: 255.0.255.0}]}
- {type: route, destination: 10.7.0.0/16, gateway: 10.5.0.8}
`, want: netsetup.Network{Links: []netsetup.Link{{Match: name("eth0")}}, Problems: []string{
			"entry 1: a physical link without name", `br0: type "bridge": this system makes bonds and VLANs only`,
			`v: VLAN 5 over "": want a number from 1 to 4094 and a link`, "b: a bond of no links",
			`eth0: subnet of type "dhcp6": this system knows dhcp, static and manual`, "eth0: address 10.0.0.2 has no netmask 255.0.255.0",
			`route: no address leads to the gateway "10.5.0.8"`,
		}}},
	} {
		got, err := parseNetworkConfig([]byte(tt.text))
		if diff := cmp.Diff(tt.want, got, equal); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", tt.about, err, diff)
		}
	}
	for text, want := range map[string]string{"[": "yaml", "[1]": "cannot unmarshal", "version: 3": "version 3", "{version: 2, ethernets: [1]}": "cannot unmarshal", "{version: 1, config: {a: 1}}": "cannot unmarshal"} {
		if _, err := parseNetworkConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseNetworkConfig(%q) = %v, want %q", text, err, want)
		}
	}
}

func FuzzNetworkConfig(f *testing.F) {
	f.Add([]byte("{version: 2, ethernets: {a: {match: {macaddress: '02:00:00:00:00:01'}, addresses: [10.0.0.2/24], routes: [{to: default, via: 10.0.0.1}]}}, bonds: {b: {interfaces: [a]}}}"))
	f.Add([]byte("{version: 1, config: [{type: physical, name: eth0, subnets: [{type: static, address: 10.0.0.2, netmask: 255.255.255.0}]}, {type: route, gateway: 10.0.0.1}]}"))
	f.Add([]byte("network: {version: 2, vlans: {v: {id: 5, link: a}}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseNetworkConfig(data)
		if err != nil {
			return
		}
		for _, l := range n.Links {
			if l.Match.First() {
				t.Errorf("a link that nobody named: %+v", l)
			}
			for _, p := range l.Addresses {
				if !p.IsValid() {
					t.Errorf("address of %s: %v", l.Match, p)
				}
			}
			for _, r := range l.Routes {
				if !r.Network.IsValid() && !r.Gateway.IsValid() {
					t.Errorf("route of %s: %+v", l.Match, r)
				}
			}
			if l.VLAN != nil && l.VLAN.Parent.First() || l.Bond != nil && len(l.Bond.Links) == 0 {
				t.Errorf("link %+v", l)
			}
		}
	})
}

func FuzzDataSource(f *testing.F) {
	f.Add("nocloud;s=http://a/__dmi.system-uuid__/;h=b;i=c")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := New(NoCloud, Options{DMI: "testdata"})
		if err != nil {
			t.Fatal(err)
		}
		ds, ours, err := p.own.(*noCloud).parseSource(text)
		if err == nil && ds.from != nil && (!ours || ds.from.Host == "") {
			t.Errorf("parseSource(%q) = %+v, %v", text, ds, ours)
		}
	})
}
