package networkd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"talos/internal/linux/netns"
	"talos/internal/networkd/plan"
	"talos/internal/networkd/rtnl"
	"talos/internal/resources/network"
)

// enterLogical is netns.Enter on a kernel that makes VLANs and bonds. One that
// does not is a reason to skip, but for a virtual machine under our own kernel.
func enterLogical(t *testing.T) bool {
	t.Helper()
	if !netns.Enter(t) {
		return false
	}
	probe := netlink.NewLinkBond(netlink.LinkAttrs{Name: "probe0"})
	switch err := netlink.LinkAdd(probe); {
	case err == nil:
		if err := netlink.LinkDel(probe); err != nil {
			t.Fatal(err)
		}
	case errors.Is(err, unix.EOPNOTSUPP) && os.Getenv("TALOS_IN_VM") != "1":
		t.Skipf("this kernel makes no bonds: %v", err)
	default:
		t.Fatalf("make a bond: %v", err)
	}
	for i := range 3 {
		name := fmt.Sprintf("eth%d", i)
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: fmt.Sprintf("peer%d", i)}
		if err := netlink.LinkAdd(pair); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: pair.PeerName}}); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

// converge does what is planned until nothing is, which must be soon.
func converge(t *testing.T, want ...network.LinkSpecSpec) []rtnl.Link {
	t.Helper()
	var done []string
	for range 6 {
		have, err := rtnl.Links()
		if err != nil {
			t.Fatal(err)
		}
		steps := plan.Links(want, have)
		if len(steps) == 0 {
			return have
		}
		for _, s := range steps {
			if err := do(s); err != nil {
				t.Fatalf("%v: %v", s, err)
			}
			done = append(done, s.String())
		}
	}
	have, err := rtnl.Links()
	t.Fatalf("still not as wanted after %s:\nwant %+v\nhave %+v, %v", strings.Join(done, ", "), want, have, err)
	return nil
}

func named(t *testing.T, links []rtnl.Link, name string) rtnl.Link {
	t.Helper()
	i := slices.IndexFunc(links, func(l rtnl.Link) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("there is no link %s", name)
	}
	return links[i]
}

func isThere(links []rtnl.Link, name string) bool {
	return slices.ContainsFunc(links, func(l rtnl.Link) bool { return l.Name == name })
}

func vlanSpec(name, parent string, id uint16) network.LinkSpecSpec {
	return network.LinkSpecSpec{
		Name: name, Up: true, Logical: true, Kind: network.KindVLAN, ParentName: parent, VLAN: network.VLANSpec{VID: id, Protocol: network.VLAN8021Q},
	}
}

func partOf(name, bond string) network.LinkSpecSpec {
	return network.LinkSpecSpec{Name: name, Up: true, BondSlave: network.BondSlave{MasterName: bond}}
}

// TestVLANs: made, changed, moved and taken away; others' stay.
func TestVLANs(t *testing.T) {
	if !enterLogical(t) {
		return
	}
	eth0, eth1 := network.LinkSpecSpec{Name: "eth0", Up: true}, network.LinkSpecSpec{Name: "eth1", Up: true}
	foreign := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "other.9", ParentIndex: int(linkIndex(t, "eth0"))}, VlanId: 9}
	if err := netlink.LinkAdd(foreign); err != nil {
		t.Fatal(err)
	}
	links := converge(t, eth0, eth1, vlanSpec("eth0.5", "eth0", 5), network.LinkSpecSpec{
		Name: "v6", Up: true, MTU: 1400, HardwareAddr: network.HardwareAddr{2, 0, 0, 0, 0, 6}, Logical: true, Kind: network.KindVLAN, ParentName: "eth0",
		VLAN: network.VLANSpec{VID: 6, Protocol: network.VLAN8021AD},
	})
	five, six := named(t, links, "eth0.5"), named(t, links, "v6")
	if five.Status.VLAN.VID != 5 || five.Status.VLAN.Protocol != network.VLAN8021Q || five.Status.Kind != network.KindVLAN || !five.Ours || !five.Up {
		t.Errorf("eth0.5 = %+v", five)
	}
	if six.Status.VLAN.Protocol != network.VLAN8021AD || six.Status.MTU != 1400 || six.Status.HardwareAddr.String() != "02:00:00:00:00:06" {
		t.Errorf("v6 = %+v", six)
	}
	links = converge(t, eth0, eth1, vlanSpec("eth0.5", "eth1", 7))
	if l := named(t, links, "eth0.5"); l.Status.VLAN.VID != 7 || l.Status.LinkIndex != named(t, links, "eth1").Status.Index || l.Status.Index == five.Status.Index {
		t.Errorf("eth0.5 after it was moved = %+v", l)
	}
	if isThere(links, "v6") {
		t.Error("v6 is still there")
	}
	links = converge(t, eth0, eth1)
	if isThere(links, "eth0.5") || !isThere(links, "other.9") {
		t.Error("ours is still there, or another's is gone")
	}
}

func linkIndex(t *testing.T, name string) uint32 {
	t.Helper()
	links, err := rtnl.Links()
	if err != nil {
		t.Fatal(err)
	}
	return named(t, links, name).Status.Index
}

// TestBonds: in every mode, with all settings that it has, the kernel shows what
// was asked for, so that nothing is made again.
func TestBonds(t *testing.T) {
	if !enterLogical(t) {
		return
	}
	bond := func(how network.BondMasterSpec) network.LinkSpecSpec {
		return network.LinkSpecSpec{Name: "bond0", Up: true, Logical: true, Kind: network.KindBond, BondMaster: how}
	}
	full := network.BondMasterSpec{
		HashPolicy: 1, LACPRate: 1, ADSelect: 2, MIIMon: 50, UpDelay: 130, DownDelay: 220, ResendIGMP: 3, MinLinks: 1, LPInterval: 2, PacketsPerSlave: 3,
		NumPeerNotif: 2, AllSlavesActive: 1, UseCarrier: true, ADActorSysPrio: 7, ADUserPortKey: 8, Primary: "eth1", PrimaryReselect: 1, FailOverMac: 1,
	}
	var last rtnl.Link
	for mode := network.BondRoundRobin; mode <= network.BondALB; mode++ {
		for about, how := range map[string]network.BondMasterSpec{"plain": {MIIMon: 100, UseCarrier: true}, "full": full} {
			how.Mode = mode
			links := converge(t, bond(how), partOf("eth0", "bond0"), partOf("eth1", "bond0"))
			b := named(t, links, "bond0")
			if b.Status.BondMaster.Mode != mode || b.Status.BondMaster.MIIMon != how.MIIMon || !b.Up || !b.Ours {
				t.Errorf("%s, %s: bond0 = %+v", mode, about, b)
			}
			if b.Status.Index == last.Status.Index {
				t.Errorf("%s, %s: the bond was not made anew", mode, about)
			}
			for _, name := range []string{"eth0", "eth1"} {
				if l := named(t, links, name); l.Status.MasterIndex != b.Status.Index || l.Status.SlaveKind != network.KindBond || !l.Up {
					t.Errorf("%s, %s: %s = %+v, want it in bond0", mode, about, name, l)
				}
			}
			if want := rtnl.BondSettings(how).Primary; b.Status.BondMaster.Primary != want {
				t.Errorf("%s, %s: primary link %q, want %q", mode, about, b.Status.BondMaster.Primary, want)
			}
			last = b
		}
	}
	byARP := network.BondMasterSpec{Mode: network.BondActiveBackup, ARPInterval: 200, ARPValidate: 3, ARPAllTargets: 1, UseCarrier: true, ARPIPTargets: []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}}
	links := converge(t, bond(byARP), partOf("eth0", "bond0"), partOf("eth2", "bond0"), network.LinkSpecSpec{Name: "eth1", Up: true}, vlanSpec("bond0.7", "bond0", 7))
	if b := named(t, links, "bond0").Status.BondMaster; b.ARPInterval != 200 || len(b.ARPIPTargets) != 2 {
		t.Errorf("bond0 by ARP = %+v", b)
	}
	if l := named(t, links, "eth1"); l.Status.MasterIndex != 0 {
		t.Errorf("eth1 has not left the bond: %+v", l)
	}
	links = converge(t, bond(byARP), partOf("eth2", "bond0"), network.LinkSpecSpec{Name: "eth0", Up: true}, network.LinkSpecSpec{Name: "eth1", Up: true})
	if l := named(t, links, "eth0"); l.Status.MasterIndex != 0 || isThere(links, "bond0.7") {
		t.Errorf("eth0 = %+v, and bond0.7 is there: %v", l, isThere(links, "bond0.7"))
	}
	links = converge(t, network.LinkSpecSpec{Name: "eth0", Up: true}, network.LinkSpecSpec{Name: "eth2", Up: true})
	if isThere(links, "bond0") || named(t, links, "eth2").Status.MasterIndex != 0 {
		t.Error("bond0 is still there")
	}
}

// TestBondCarries: packets go through a VLAN on a bond whose links fail in turn.
func TestBondCarries(t *testing.T) {
	if !enterLogical(t) {
		return
	}
	how := network.BondMasterSpec{Mode: network.BondActiveBackup, MIIMon: 50, UseCarrier: true}
	links := converge(t, network.LinkSpecSpec{Name: "bond0", Up: true, Logical: true, Kind: network.KindBond, BondMaster: how},
		partOf("eth0", "bond0"), partOf("eth1", "bond0"), vlanSpec("bond0.7", "bond0", 7), network.LinkSpecSpec{Name: "lo", Up: true})
	if err := rtnl.AddAddress(rtnl.Address{LinkIndex: named(t, links, "bond0.7").Status.Index, Prefix: netip.MustParsePrefix("10.7.0.2/24")}); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 64)
	var sniffers sync.WaitGroup
	for _, peer := range []string{"peer0", "peer1"} {
		index := named(t, links, peer).Status.Index
		sniffers.Go(func() { sniff(t, peer, index, seen) })
	}
	t.Cleanup(sniffers.Wait)
	for _, tt := range []struct{ down, want string }{{"", ""}, {"peer0", "peer1"}, {"peer1", "peer0"}} {
		if tt.down != "" {
			for _, peer := range []string{"peer0", "peer1"} {
				set := netlink.LinkSetUp
				if peer == tt.down {
					set = netlink.LinkSetDown
				}
				if err := set(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: peer}}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(300 * time.Millisecond) // for the bond to see it
		}
		if !arrives(t, seen, tt.want) {
			t.Errorf("with %q down no tagged packet came out at %q", tt.down, tt.want)
		}
	}
}

// arrives sends into the VLAN until a packet comes out, at a link if one is named.
func arrives(t *testing.T, seen <-chan string, want string) bool {
	t.Helper()
	conn, err := net.Dial("udp4", "10.7.0.9:9") // nobody is there: the question who has it is what travels
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for len(seen) > 0 {
		<-seen
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		_, _ = conn.Write([]byte("x")) // that nobody answers is no matter
		select {
		case peer := <-seen:
			if want == "" || peer == want {
				return true
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
	return false
}

// sniff tells of each packet of VLAN 7 that comes in at a link.
func sniff(t *testing.T, name string, index uint32, seen chan<- string) {
	const all = 0x0300 // ETH_P_ALL, in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		t.Error(err)
		return
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(index)}); err != nil {
		t.Error(err)
		return
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
		t.Error(err)
		return
	}
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for t.Context().Err() == nil {
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
		if err != nil || n < 14 {
			continue // nothing for a while, or the link is down
		}
		if tag(oob[:oobn]) == 7 {
			select {
			case seen <- name:
			default:
			}
		}
	}
}

// tag is the number of the VLAN that the kernel took off a packet.
func tag(oob []byte) uint16 {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 20 {
			return uint16(m.Data[16]) | uint16(m.Data[17])<<8 // tpacket_auxdata.tp_vlan_tci
		}
	}
	return 0
}
