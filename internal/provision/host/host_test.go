package host

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestChoose(t *testing.T) {
	p := netip.MustParsePrefix
	taken := []netip.Prefix{p("10.5.0.0/24"), p("10.5.1.128/25"), p("192.168.0.0/16")}
	for _, tc := range []struct{ want, got, err string }{
		{"", "10.5.2.0/24", ""},
		{"10.7.0.0/16", "10.7.0.0/16", ""},
		{"10.5.0.0/16", "", "in use"},
		{"192.168.3.0/24", "", "in use"},
		{"10.244.7.0/24", "", "Kubernetes"},
		{"10.100.0.0/24", "", "Kubernetes"},
		{"10.7.0.1/24", "", "first address"},
		{"10.7.0.0/30", "", "size"},
		{"10.0.0.0/8", "", "size"},
		{"fd00::/64", "", "IPv4"},
	} {
		var want netip.Prefix
		if tc.want != "" {
			want = p(tc.want)
		}
		got, err := choose(want, taken)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("choose(%s) = %v, %v, want an error with %q", tc.want, got, err, tc.err)
			}
			continue
		}
		if err != nil || got.String() != tc.got {
			t.Errorf("choose(%s) = %v, %v, want %s", tc.want, got, err, tc.got)
		}
	}
}

// fakeHost has settings and a book of its own.
func fakeHost(t *testing.T, values map[string]string) (read func() map[string]string) {
	t.Helper()
	oldSys, oldRun := procSys, runDir
	procSys, runDir = filepath.Join(t.TempDir(), "sys"), filepath.Join(t.TempDir(), "run")
	t.Cleanup(func() { procSys, runDir = oldSys, oldRun })
	for name, v := range values {
		path := filepath.Join(procSys, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(v+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return func() map[string]string {
		out := map[string]string{}
		for name := range values {
			data, err := os.ReadFile(filepath.Join(procSys, name))
			if err != nil {
				t.Fatal(err)
			}
			out[name] = strings.TrimSpace(string(data))
		}
		return out
	}
}

func TestHoldAndRelease(t *testing.T) {
	before := map[string]string{
		"net/ipv4/ip_forward": "0", "fs/inotify/max_user_instances": "128", "fs/inotify/max_user_watches": "2000000",
		"kernel/panic": "1", "vm/overcommit_memory": "0",
	}
	read := fakeHost(t, before)
	hold := func(id string) {
		t.Helper()
		dir := t.TempDir()
		if err := Hold(id, func(map[string]Claim) (Claim, error) { return Claim{Dir: dir, CIDR: "10.5.0.0/24"}, nil }); err != nil {
			t.Fatal(err)
		}
	}
	hold("a")
	if got := read(); got["net/ipv4/ip_forward"] != "1" || got["fs/inotify/max_user_instances"] != "8192" || got["fs/inotify/max_user_watches"] != "2000000" {
		t.Errorf("while held: %v, want forwarding, and no number lowered", got)
	}
	os.WriteFile(filepath.Join(procSys, "kernel/panic"), []byte("10"), 0) // a node does
	hold("b")
	hold("a") // again, as a supervisor that starts anew
	if err := Release("a"); err != nil {
		t.Fatal(err)
	}
	if got := read()["kernel/panic"]; got != "10" {
		t.Errorf("kernel/panic = %s with a cluster left, want it untouched", got)
	}
	if err := Release("b"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, read()); diff != "" {
		t.Errorf("after the last release (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(runDir); err == nil {
		t.Errorf("%s is left", runDir)
	}
	if err := Release("b"); err != nil {
		t.Errorf("Release again = %v", err)
	}
}

func TestClaimWithoutStateIsVoid(t *testing.T) {
	read := fakeHost(t, map[string]string{"net/ipv4/ip_forward": "0"})
	gone := t.TempDir()
	claim := func(dir string) func(map[string]Claim) (Claim, error) {
		return func(others map[string]Claim) (Claim, error) {
			if len(others) != 0 {
				t.Errorf("others = %v, want none", others)
			}
			return Claim{Dir: dir}, nil
		}
	}
	if err := Hold("a", claim(gone)); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(gone)
	if err := Hold("b", claim(t.TempDir())); err != nil {
		t.Fatal(err)
	}
	if err := Release("b"); err != nil {
		t.Fatal(err)
	}
	if got := read()["net/ipv4/ip_forward"]; got != "0" {
		t.Errorf("ip_forward = %s, want what it was before the cluster that is gone", got)
	}
}

// TestNetwork makes and removes a network twice, in a namespace of its own.
func TestNetwork(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread dies with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("new network namespace: %v", err)
	}
	n := Network{
		Bridge: "talostest", Table: "talos-test", Prefix: netip.MustParsePrefix("10.99.0.0/24"), Gateway: netip.MustParseAddr("10.99.0.1"),
		Port: 50001, Nodes: []netip.Addr{netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("10.99.0.3")},
		Cuts: []Cut{{Port: "port0", ToIt: true}},
	}
	n.Backends = n.Nodes
	for range 2 { // the second time changes nothing
		if err := n.Ensure(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Choose(n.Prefix, nil); err == nil {
		t.Errorf("Choose(%s) = %s, want an error: it is in use", n.Prefix, got)
	}
	for range 2 { // as after a restart of the node
		ns, err := n.Attach("port0", MAC(netip.MustParseAddr("10.99.0.2")))
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
	}
	port, err := netlink.LinkByName("port0")
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := netlink.LinkByName(n.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	if port.Attrs().MasterIndex != bridge.Attrs().Index {
		t.Errorf("port0 is not a port of %s", n.Bridge)
	}
	checkTap(t, n, bridge)
	for range 2 {
		if err := errors.Join(RemoveLink("port0"), RemoveLink("tap0")); err != nil {
			t.Fatal(err)
		}
		if err := n.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	links, err := netlink.LinkList()
	if err != nil || len(links) != 1 {
		t.Errorf("links left: %v, %v, want lo alone", links, err)
	}
	tables, err := (&nftables.Conn{}).ListTables()
	if err != nil || len(tables) != 0 {
		t.Errorf("tables left: %v, %v", tables, err)
	}
}

// checkTap makes a tap twice: the second time changes nothing, because a machine
// may have it open.
func checkTap(t *testing.T, n Network, bridge netlink.Link) {
	t.Helper()
	var index []int
	for range 2 {
		if err := n.AttachTap("tap0"); err != nil {
			t.Fatal(err)
		}
		tap, err := netlink.LinkByName("tap0")
		if err != nil {
			t.Fatal(err)
		}
		if tap.Type() != "tuntap" || tap.Attrs().MasterIndex != bridge.Attrs().Index || tap.Attrs().Flags&net.FlagUp == 0 {
			t.Errorf("tap0 is a %s, port of link %d, %v; want a tap, port of %d, up", tap.Type(), tap.Attrs().MasterIndex, tap.Attrs().Flags, bridge.Attrs().Index)
		}
		index = append(index, tap.Attrs().Index)
	}
	if index[0] != index[1] {
		t.Error("the tap was replaced")
	}
}

// within runs fn in a network namespace, on a thread that dies with it.
func within(t *testing.T, ns *os.File, fn func() error) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// TestClustersAreApart: a node reaches its own gateway, and neither another
// cluster's nor its nodes, although the machine forwards.
func TestClustersAreApart(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread dies with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("new network namespace: %v", err)
	}
	// Of this thread's namespace: proc(5) shows that of who looks.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	var gateways, addresses []netip.Addr
	var nodes []*os.File
	for i := range 2 {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(i), 0}), 24)
		gateway := prefix.Addr().Next()
		n := Network{Bridge: fmt.Sprint("talostest", i), Table: fmt.Sprint("talos-test", i), Prefix: prefix, Gateway: gateway}
		if err := n.Ensure(); err != nil {
			t.Fatal(err)
		}
		node := gateway.Next()
		ns, err := n.Attach(fmt.Sprint("port", i), MAC(node))
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		if err := within(t, ns, func() error { return configure(node, gateway) }); err != nil {
			t.Fatal(err)
		}
		gateways, addresses, nodes = append(gateways, gateway), append(addresses, node), append(nodes, ns)
	}
	serve := func(addr netip.Addr) error {
		l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 5000).String())
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}
	if err := errors.Join(serve(gateways[1]), within(t, nodes[1], func() error { return serve(addresses[1]) })); err != nil {
		t.Fatal(err)
	}
	dial := func(to netip.Addr, patience time.Duration) error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 5000).String(), patience)
		if err == nil {
			conn.Close()
		}
		return err
	}
	for _, to := range []netip.Addr{gateways[1], addresses[1]} {
		if err := dial(to, 30*time.Second); err != nil {
			t.Errorf("this machine to %s: %v", to, err)
		}
		if err := within(t, nodes[0], func() error { return dial(to, time.Second) }); err == nil {
			t.Errorf("a node of another cluster reaches %s", to)
		}
	}
	if err := within(t, nodes[1], func() error { return dial(gateways[1], 30*time.Second) }); err != nil {
		t.Errorf("a node to its own gateway: %v", err)
	}
}

// TestForwardAndCut: what is sent to the gateway's port gets to a backend that is not the
// sender, from the sender's address; a cut loses what goes one way, and no more.
func TestForwardAndCut(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread dies with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("new network namespace: %v", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	n := Network{Bridge: "talostest", Table: "talos-test", Prefix: netip.MustParsePrefix("10.99.0.0/24"), Gateway: netip.MustParseAddr("10.99.0.1"), Port: 50001}
	addresses := []netip.Addr{netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("10.99.0.3"), netip.MustParseAddr("10.99.0.4")}
	n.Nodes = addresses[:2]
	n.Backends = n.Nodes
	if err := n.Ensure(); err != nil {
		t.Fatal(err)
	}
	var nodes []*os.File
	for i, a := range addresses {
		ns, err := n.Attach(fmt.Sprint("port", i), MAC(a))
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		if err := within(t, ns, func() error { return errors.Join(configure(a, n.Gateway), tellCaller(t, a)) }); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, ns)
	}
	// ask returns who answered, and who that took the caller for.
	ask := func(from int, to netip.Addr, patience time.Duration) (string, error) {
		var text string
		err := within(t, nodes[from], func() error {
			conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, n.Port).String(), patience)
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			data, err := io.ReadAll(conn)
			text = string(data)
			return err
		})
		return text, err
	}
	check := func(what string, from int, want ...string) {
		t.Helper()
		for range 8 {
			got, err := ask(from, n.Gateway, 30*time.Second)
			if err != nil || !slices.Contains(want, got) {
				t.Errorf("%s: node %d through the gateway: %q, %v; want one of %q", what, from, got, err, want)
			}
		}
	}
	check("all well", 0, "10.99.0.3 called by 10.99.0.2")
	check("all well", 1, "10.99.0.2 called by 10.99.0.3")
	check("all well", 2, "10.99.0.2 called by 10.99.0.4", "10.99.0.3 called by 10.99.0.4")
	if err := n.Forward(addresses[1:2]); err != nil {
		t.Fatal(err)
	}
	check("one well", 2, "10.99.0.3 called by 10.99.0.4")
	if got, err := ask(1, n.Gateway, time.Second); err == nil {
		t.Errorf("the only one that is well got through to %q", got)
	}
	for _, tc := range []struct {
		cut       Cut
		from, out bool // the cut node, and another to it
	}{
		{Cut{Port: "port1", FromIt: true, ToIt: true}, false, false},
		{Cut{Port: "port1", FromIt: true}, false, false}, // TCP needs both ways
		{Cut{Port: "port1", ToIt: true}, false, false},
		{Cut{Port: "port0", FromIt: true, ToIt: true}, true, true},
		{Cut{}, true, true},
	} {
		if n.Cuts = nil; tc.cut.Port != "" {
			n.Cuts = []Cut{tc.cut}
		}
		if err := n.EnsureCuts(); err != nil {
			t.Fatal(err)
		}
		patience := 30 * time.Second
		if !tc.from {
			patience = 300 * time.Millisecond
		}
		if _, err := ask(1, addresses[2], patience); (err == nil) != tc.from {
			t.Errorf("with %+v, node 1 to node 2: %v", tc.cut, err)
		}
		if _, err := ask(2, addresses[1], patience); (err == nil) != tc.out {
			t.Errorf("with %+v, node 2 to node 1: %v", tc.cut, err)
		}
	}
	oneWay(t, n, nodes)
}

// oneWay: with what a node sends cut off, it still hears the others.
func oneWay(t *testing.T, n Network, nodes []*os.File) {
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.99.0.3:7"))
	var l *net.UDPConn
	if err := within(t, nodes[1], func() (err error) { l, err = net.ListenUDP("udp", to); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, toIt := range []bool{false, true} {
		n.Cuts = []Cut{{Port: "port1", FromIt: !toIt, ToIt: toIt}}
		if err := n.EnsureCuts(); err != nil {
			t.Fatal(err)
		}
		err := within(t, nodes[2], func() error { // neighbours know each other from before
			conn, err := net.DialUDP("udp", nil, to)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("x"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		patience := 30 * time.Second
		if toIt {
			patience = 300 * time.Millisecond
		}
		if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.ReadFromUDP(make([]byte, 1)); (err == nil) == toIt {
			t.Errorf("with %+v, what is sent to the node: %v", n.Cuts[0], err)
		}
	}
}

// tellCaller serves, in the namespace of this thread, who called whom.
func tellCaller(t *testing.T, self netip.Addr) error {
	l, err := net.Listen("tcp", netip.AddrPortFrom(self, 50001).String())
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%s called by %s", self, netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr())
			conn.Close()
		}
	}()
	return nil
}

// configure gives a node's interface its address and the way out.
func configure(node, gateway netip.Addr) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: node.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	return errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link), netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}))
}
