package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func networkChecks() []check {
	checks := []check{
		{"cards", cards},
		{"nftables", rules},
		{"ipvs", exist("/proc/net/ip_vs", "/proc/sys/net/ipv4/vs/conntrack")},
		{"connection tracking", exist("/proc/net/nf_conntrack", "/proc/sys/net/netfilter/nf_conntrack_max")},
		{"policy routing", policyRouting},
		{"queues", queues},
		{"congestion control", holds("/proc/sys/net/ipv4/tcp_available_congestion_control", "cubic", "bbr")},
	}
	for _, kind := range kinds() {
		name := kind(netlink.NewLinkAttrs()).Type()
		checks = append(checks, check{"link " + name, func() error { return addLink(name, kind) }})
	}
	return checks
}

// cards looks for one behind each driver of "want.cards".
func cards() error {
	found, err := filepath.Glob("/sys/class/net/*/device/driver")
	if err != nil {
		return err
	}
	var drivers []string
	for _, name := range found {
		driver, err := os.Readlink(name)
		if err != nil {
			return err
		}
		drivers = append(drivers, filepath.Base(driver))
	}
	return wanted("want.cards", drivers)
}

// kinds are the links that a node, a pod or a network plugin makes, each of its
// own name. Those that lie on another are made after it.
func kinds() []func(netlink.LinkAttrs) netlink.Link {
	local, remote := net.IPv4(192, 0, 2, 2), net.IPv4(192, 0, 2, 1)
	type attrs = netlink.LinkAttrs
	return []func(attrs) netlink.Link{
		func(a attrs) netlink.Link { return &netlink.Dummy{LinkAttrs: a} },
		func(a attrs) netlink.Link { return &netlink.Veth{LinkAttrs: a, PeerName: "peer"} },
		func(a attrs) netlink.Link { return &netlink.Bridge{LinkAttrs: a} },
		func(a attrs) netlink.Link { return netlink.NewLinkBond(a) },
		func(a attrs) netlink.Link { return &netlink.Vrf{LinkAttrs: a, Table: 100} },
		func(a attrs) netlink.Link { return &netlink.Wireguard{LinkAttrs: a} },
		func(a attrs) netlink.Link { return &netlink.Vxlan{LinkAttrs: a, VxlanId: 1, Port: 4789} },
		func(a attrs) netlink.Link { return &netlink.Geneve{LinkAttrs: a, ID: 1, Remote: remote} },
		func(a attrs) netlink.Link { return &netlink.Tuntap{LinkAttrs: a, Mode: netlink.TUNTAP_MODE_TUN} },
		func(a attrs) netlink.Link { return &netlink.Ifb{LinkAttrs: a} },
		func(a attrs) netlink.Link { return &netlink.Iptun{LinkAttrs: a, Local: local, Remote: remote} },
		func(a attrs) netlink.Link { return &netlink.Sittun{LinkAttrs: a, Local: local, Remote: remote} },
		func(a attrs) netlink.Link { return &netlink.Gretun{LinkAttrs: a, Local: local, Remote: remote} },
		func(a attrs) netlink.Link { return &netlink.Vlan{LinkAttrs: on(a, "dummy"), VlanId: 100} },
		func(a attrs) netlink.Link {
			return &netlink.Macvlan{LinkAttrs: on(a, "dummy"), Mode: netlink.MACVLAN_MODE_BRIDGE}
		},
		func(a attrs) netlink.Link {
			return &netlink.IPVlan{LinkAttrs: on(a, "peer"), Mode: netlink.IPVLAN_MODE_L2}
		},
	}
}

// on sets the link below. If it is missing, the kernel says so.
func on(a netlink.LinkAttrs, below string) netlink.LinkAttrs {
	if link, err := netlink.LinkByName(below); err == nil {
		a.ParentIndex = link.Attrs().Index
	}
	return a
}

// addLink makes a link of the kind that is its name, and looks at what came of it.
func addLink(name string, kind func(netlink.LinkAttrs) netlink.Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(kind(attrs)); err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if link.Type() != kind(attrs).Type() {
		return fmt.Errorf("it is a %s", link.Type())
	}
	return netlink.LinkSetUp(link)
}

// rules sets a table with what kube-proxy, flannel and portmap write into theirs:
// a masquerade, a choice by random number, a mark by what the routes say, a state.
func rules() error {
	var conn nftables.Conn
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "try"})
	post := conn.AddChain(&nftables.Chain{Table: table, Name: "post", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	pre := conn.AddChain(&nftables.Chain{Table: table, Name: "pre", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter})
	for chain, exprs := range map[*nftables.Chain][][]expr.Any{
		post: {{&expr.Masq{}}},
		pre: {
			{&expr.Numgen{Register: 1, Modulus: 3, Type: unix.NFT_NG_RANDOM}},
			{&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}},
			{&expr.Ct{Register: 1, Key: expr.CtKeySTATE}},
			{&expr.Limit{Rate: 5, Unit: expr.LimitTimeSecond}, &expr.Log{}},
			{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0x4000)},
				&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}},
		},
	} {
		for _, e := range exprs {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: e})
		}
	}
	flow := &nftables.Flowtable{Table: table, Name: "fast", Hooknum: nftables.FlowtableHookIngress,
		Priority: nftables.FlowtablePriorityFilter, Devices: []string{"lo"}}
	conn.AddFlowtable(flow)
	if err := conn.AddSet(&nftables.Set{Table: table, Name: "services", IsMap: true, KeyType: nftables.TypeIPAddr,
		DataType: nftables.TypeVerdict}, nil); err != nil {
		return err
	}
	bridge := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "try"})
	conn.AddChain(&nftables.Chain{Table: bridge, Name: "pre", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter})
	if err := conn.Flush(); err != nil {
		return err
	}
	got, err := conn.GetRules(table, pre)
	if err != nil {
		return err
	}
	if len(got) != 5 {
		return fmt.Errorf("%d rules of 5 are there", len(got))
	}
	return nil
}

func policyRouting() error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rule := netlink.NewRule()
		rule.Family, rule.Table, rule.Mark = family, 100, 0x51
		errs = append(errs, netlink.RuleAdd(rule))
	}
	return errors.Join(errs...)
}

// queues delays, shapes and filters on the loopback.
func queues() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	at := netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	for _, qdisc := range []netlink.Qdisc{
		netlink.NewNetem(at, netlink.NetemQdiscAttrs{Latency: 1000}), netlink.NewFqCodel(at), netlink.NewFq(at), netlink.NewHtb(at),
	} {
		if err := errors.Join(netlink.QdiscAdd(qdisc), netlink.QdiscDel(qdisc)); err != nil {
			return fmt.Errorf("%s: %w", qdisc.Type(), err)
		}
	}
	at.Handle, at.Parent = netlink.MakeHandle(0xffff, 0), netlink.HANDLE_CLSACT
	if err := netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: at}); err != nil {
		return fmt.Errorf("clsact: %w", err)
	}
	return nil
}
