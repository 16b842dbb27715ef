package fit

import (
	"net/netip"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"talos/config"
	"talos/internal/resources/network"
)

// machine is one with two cards, the first by DHCP, and a pod network.
func machine() Machine {
	route := func(dst, gateway, link string) network.RouteStatusSpec {
		r := network.RouteStatusSpec{Family: network.FamilyInet4, OutLinkName: link, Table: network.TableMain}
		if dst != "" {
			r.Dst = netip.MustParsePrefix(dst)
		}
		if gateway != "" {
			r.Gateway = netip.MustParseAddr(gateway)
		}
		return r
	}
	address := func(link, text string) Address { return Address{link, netip.MustParsePrefix(text)} }
	card := network.LinkStatusSpec{Type: network.LinkEther}
	card2 := card
	card2.Driver = "e1000"
	return Machine{
		Links: map[string]network.LinkStatusSpec{
			"eth0": card, "eth1": card2, "cni0": {Type: network.LinkEther, Kind: "bridge"}, "lo": {Type: network.LinkLoopback},
		},
		Addresses: []Address{
			address("eth0", "10.5.0.2/24"), address("eth1", "192.168.7.2/24"), address("cni0", "10.244.0.1/24"), address("lo", "127.0.0.1/8"),
		},
		Routes: []network.RouteStatusSpec{
			route("", "10.5.0.1", "eth0"), route("10.5.0.0/24", "", "eth0"), route("192.168.7.0/24", "", "eth1"), route("10.244.0.0/24", "", "cni0"),
		},
		Caller: netip.MustParseAddr("10.5.0.1"),
	}
}

// load makes a configuration of parts of one: all that Check looks at.
func load(t *testing.T, text string) *config.Config {
	t.Helper()
	const rest = "cluster: {controlPlane: {endpoint: 'https://10.5.0.1:6443'}}\nmachine: {type: controlplane}\n"
	p, err := config.LoadPatch([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := config.ApplyPatches([]byte(rest), []config.Patch{p})
	if err != nil {
		t.Fatal(err)
	}
	var cfg config.Config
	if err := yaml.Unmarshal(doc, &cfg); err != nil { // not Load: it asks for all the rest
		t.Fatal(err)
	}
	return &cfg
}

const nothing = "machine: {type: controlplane}"

func interfaces(text string) string { return "machine: {network: {interfaces: [" + text + "]}}" }

func TestCheck(t *testing.T) {
	static := interfaces("{interface: eth0, addresses: [10.5.0.2/24], routes: [{gateway: 10.5.0.1}]}")
	for name, c := range map[string]struct {
		before, after string
		change        func(*Machine)
		want          []string // grade and a part of the text of each, in order
	}{
		"nothing changes":           {nothing, nothing, nil, nil},
		"the same by hand":          {nothing, static, nil, nil},
		"back to DHCP":              {static, nothing, nil, nil},
		"a card that is not there":  {nothing, interfaces("{interface: eth7, dhcp: true}"), nil, []string{"misfit this machine has no link eth7; it has eth0, eth1"}},
		"it was missing before":     {interfaces("{interface: eth7, dhcp: true}"), interfaces("{interface: eth7, dhcp: true, mtu: 1400}"), nil, nil},
		"an ignored card":           {nothing, interfaces("{interface: eth7, ignore: true}"), nil, nil},
		"a bond is made":            {nothing, interfaces("{interface: bond0, addresses: [10.5.0.2/24], bond: {interfaces: [eth0]}}"), nil, nil},
		"a bond of another card":    {nothing, interfaces("{interface: bond0, bond: {interfaces: [eth1]}}"), nil, nil},
		"a bond without addresses":  {nothing, interfaces("{interface: bond0, bond: {interfaces: [eth0]}}"), nil, []string{"lockout eth0 loses 10.5.0.2/24"}},
		"a bond of no card":         {nothing, interfaces("{interface: bond0, bond: {interfaces: [eth1, eth7]}}"), nil, []string{"misfit this machine has no link eth7; it has eth0, eth1"}},
		"a bond selected of none":   {nothing, interfaces("{interface: bond0, bond: {deviceSelectors: [{driver: virtio}]}}"), nil, []string{"misfit no link of this machine is what the bond is made of"}},
		"a VLAN instead":            {nothing, interfaces("{interface: eth0, vlans: [{vlanId: 5, addresses: [10.5.0.2/24]}]}"), nil, nil},
		"a selector of nothing":     {nothing, interfaces("{deviceSelector: {driver: virtio}, dhcp: true}"), nil, []string{"misfit no link of this machine is like {driver: virtio}"}},
		"a selector of one":         {nothing, interfaces("{deviceSelector: {driver: e1000}, dhcp: true}"), nil, nil},
		"links not known yet":       {nothing, interfaces("{interface: eth7, dhcp: true}"), func(m *Machine) { m.Links = nil }, nil},
		"an address twice":          {nothing, interfaces("{interface: eth0, dhcp: true, addresses: [10.9.0.2/24]}, {interface: eth1, addresses: [10.9.0.2/24]}"), nil, []string{"misfit 10.9.0.2 of eth0 is an address of eth1 too", "misfit 10.9.0.2 of eth1 is an address of eth0 too"}},
		"the address of a bridge":   {nothing, interfaces("{interface: eth1, addresses: [10.244.0.1/24]}"), nil, []string{"misfit 10.244.0.0/16 holds this machine's own address 10.244.0.1", "misfit 10.244.0.1 of eth1 is an address of cni0 too"}},
		"the network's address":     {nothing, interfaces("{interface: eth1, addresses: [10.9.0.0/24]}"), nil, []string{"misfit 10.9.0.0/24 of eth1 is the address of the network itself"}},
		"the broadcast address":     {nothing, interfaces("{interface: eth1, addresses: [10.9.0.255/24]}"), nil, []string{"misfit 10.9.0.255/24 of eth1 is the broadcast address of its network"}},
		"another prefix length":     {nothing, interfaces("{interface: eth0, dhcp: true, addresses: [10.5.0.2/16]}"), nil, []string{"misfit 10.5.0.2/16 of eth0 is there with another prefix length: 10.5.0.2/24"}},
		"a gateway elsewhere":       {nothing, interfaces("{interface: eth1, addresses: [10.9.0.2/24], routes: [{network: 10.0.0.0/8, gateway: 10.8.0.1}]}"), nil, []string{"misfit gateway 10.8.0.1 is in no network of eth1, which has 10.9.0.2/24"}},
		"a gateway that is itself":  {nothing, interfaces("{interface: eth1, addresses: [10.9.0.2/24], routes: [{network: 10.0.0.0/8, gateway: 10.9.0.2}]}"), nil, []string{"misfit gateway 10.9.0.2 is this machine itself"}},
		"another address":           {nothing, interfaces("{interface: eth0, addresses: [10.5.0.3/24]}"), nil, []string{"lockout eth0 loses 10.5.0.2/24, and with it the way by which you (10.5.0.1) reach this machine"}},
		"a second address":          {static, interfaces("{interface: eth0, addresses: [10.5.0.2/24, 10.5.0.3/24], routes: [{gateway: 10.5.0.1}]}"), nil, nil},
		"no address":                {nothing, interfaces("{interface: eth0}"), nil, []string{"lockout eth0 loses 10.5.0.2/24"}},
		"the other card loses its":  {nothing, interfaces("{interface: eth1}"), nil, nil},
		"no route to afar":          {nothing, interfaces("{interface: eth0, addresses: [10.5.0.2/24]}"), func(m *Machine) { m.Caller = netip.MustParseAddr("8.8.8.8") }, []string{"lockout no route leads back to you (8.8.8.8) any more"}},
		"a route to afar":           {nothing, static, func(m *Machine) { m.Caller = netip.MustParseAddr("8.8.8.8") }, nil},
		"from a pod":                {nothing, interfaces("{interface: eth0, addresses: [10.5.0.3/24]}"), func(m *Machine) { m.Caller = netip.MustParseAddr("10.244.0.9") }, nil},
		"from nowhere known":        {nothing, interfaces("{interface: eth0, addresses: [10.5.0.3/24]}"), func(m *Machine) { m.Caller = netip.Addr{} }, nil},
		"mapped into IPv6":          {nothing, interfaces("{interface: eth0}"), func(m *Machine) { m.Caller = netip.MustParseAddr("::ffff:10.5.0.1") }, []string{"lockout eth0 loses"}},
		"the endpoint's address":    {"cluster: {controlPlane: {endpoint: 'https://192.168.7.2:6443'}}", "cluster: {controlPlane: {endpoint: 'https://192.168.7.2:6443'}}\n" + interfaces("{interface: eth1}"), nil, []string{"lockout 192.168.7.2 is an address that this machine loses"}},
		"another endpoint":          {nothing, "cluster: {controlPlane: {endpoint: 'https://k.example'}}", nil, []string{"note kubeconfigs made before lead to 10.5.0.1:6443, not to k.example:443"}},
		"no address for kubelet":    {nothing, "machine: {kubelet: {nodeIP: {validSubnets: [172.16.0.0/12]}}}", nil, []string{"misfit no address of this machine is in 172.16.0.0/12; it has 10.5.0.2, 192.168.7.2"}},
		"an address for kubelet":    {nothing, "machine: {kubelet: {nodeIP: {validSubnets: [10.5.0.0/16, '!10.5.0.9/32']}}}", nil, nil},
		"all but those for kubelet": {nothing, "machine: {kubelet: {nodeIP: {validSubnets: ['!10.5.0.0/16', '!192.168.0.0/16']}}}", nil, []string{"misfit no address of this machine is in !10.5.0.0/16"}},
		"no address for etcd":       {nothing, "cluster: {etcd: {advertisedSubnets: [172.16.0.0/12]}}", nil, []string{"misfit no address of this machine is in 172.16.0.0/12"}},
		"pods where machines are":   {nothing, "cluster: {network: {podSubnets: [10.0.0.0/8]}}", nil, []string{"misfit 10.0.0.0/8 holds this machine's own address 10.5.0.2"}},
		"a name less":               {"machine: {certSANs: [a.example, b.example]}", "machine: {certSANs: [b.example]}", nil, []string{"note clients that reach this machine as a.example will not trust it any more"}},
		"a disk that is not there":  {nothing, "machine: {install: {disk: /dev/sdb}}", func(m *Machine) { m.Disks = []string{"sda", "vda"} }, []string{"misfit this machine has no disk /dev/sdb; it has sda, vda"}},
		"a disk that is there":      {nothing, "machine: {install: {disk: /dev/vda}}", func(m *Machine) { m.Disks = []string{"sda", "vda"} }, nil},
		"a disk by its id":          {nothing, "machine: {install: {disk: /dev/disk/by-id/x}}", func(m *Machine) { m.Disks = []string{"sda"} }, nil},
		"disks not known":           {nothing, "machine: {install: {disk: /dev/sdb}}", nil, nil},
		"another authority":         {"machine: {ca: {crt: b2xk}}", "machine: {ca: {crt: bmV3}}", nil, []string{"lockout the present authority is replaced"}},
		"the old one accepted":      {"machine: {ca: {crt: b2xk}}", "machine: {ca: {crt: bmV3}, acceptedCAs: [{crt: b2xk}]}", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine()
			if c.change != nil {
				c.change(&m)
			}
			got := Check(load(t, c.after), load(t, c.before), m)
			var texts []string
			for _, f := range got {
				texts = append(texts, [...]string{"note", "lockout", "misfit"}[f.Grade]+" "+f.Text)
			}
			ok := len(texts) == len(c.want)
			for i := range texts {
				ok = ok && strings.HasPrefix(texts[i], c.want[i])
			}
			if !ok {
				t.Errorf("Check =\n%s\nwant\n%s", strings.Join(texts, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestFirstConfiguration: there is none in force.
func TestFirstConfiguration(t *testing.T) {
	if got := Check(load(t, nothing), nil, machine()); len(got) != 0 {
		t.Errorf("Check = %v", got)
	}
	got := Check(load(t, interfaces("{interface: eth7}, {interface: eth0, addresses: [10.5.0.9/24]}")), nil, machine())
	if len(got) != 2 || got[0].Grade != Lockout || got[1].Grade != Misfit || got[1].Key != "machine.network.interfaces.interface" {
		t.Errorf("Check = %v, want the address that is lost and the link that is missing", got)
	}
}
