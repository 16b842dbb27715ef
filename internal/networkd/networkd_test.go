package networkd

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"golang.org/x/sys/unix"

	"talos/internal/layout"
	"talos/internal/linux/netns"
	"talos/internal/resources/cluster"
	"talos/internal/resources/network"
	"talos/internal/store"
)

// daemonEnv makes the test binary networkd itself, with the store in that folder.
const daemonEnv = "TALOS_TEST_NETWORKD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(daemonEnv); dir != "" {
		os.Exit(daemon(dir))
	}
	os.Exit(m.Run())
}

func daemon(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	st, err := store.DialSocket(filepath.Join(dir, "store.sock"))
	if err == nil {
		err = run(ctx, st, filepath.Join(dir, "networkd", "networkd.sock"), log)
	}
	if err != nil {
		log.Error("networkd", "err", err)
		return 1
	}
	return 0
}

// node is a machine in a namespace: a store, networkd, a link eth0 to a
// network with a DHCP server.
type node struct {
	t    *testing.T
	dir  string
	st   state.State
	peer *netns.Peer
	cmd  *exec.Cmd
	logs *buffer
	dhcp *buffer
}

// buffer is what a process wrote so far.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) count(s string) int { return strings.Count(b.String(), s) }

func newNode(t *testing.T) *node {
	t.Helper()
	netns.Need(t, "ip", "nsenter", "dnsmasq")
	dir, err := os.MkdirTemp("", "networkd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{t: t, dir: dir, peer: netns.NewPeer(t), logs: &buffer{}, dhcp: &buffer{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("networkd:\n%s\ndnsmasq:\n%s", n.logs, n.dhcp)
		}
	})
	for path, mode := range map[string]os.FileMode{dir: 0o755, filepath.Join(dir, "networkd"): 0o755} {
		if err := os.MkdirAll(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(dir, "networkd"), layout.NetworkUID, layout.NetworkUID); err != nil {
		t.Fatal(err)
	}
	netns.Run(t, "ip link add eth0 type veth peer name lan0 netns "+n.peer.PID())
	n.peer.Run(t, "ip link set lo up")
	n.peer.Run(t, "ip link set lan0 up")
	n.peer.Run(t, "ip addr add 10.99.0.1/24 dev lan0")
	if n.st, err = store.New(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.copyBinary()
	t.Cleanup(func() {
		if n.cmd != nil {
			n.kill()
		}
	})
	return n
}

// serve offers the store to networkd, until stop.
func (n *node) serve() (stop func()) {
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		store.Serve(ctx, n.st, filepath.Join(n.dir, "store.sock"), slog.New(slog.NewTextHandler(n.logs, nil)))
	}()
	return func() {
		cancel()
		<-done
	}
}

// copyBinary puts the test binary where networkd's user can read it.
func (n *node) copyBinary() {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		n.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Join(n.dir, "networkd.test"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		n.t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		n.t.Fatal(err)
	}
}

// start runs networkd as on a node: its own user, three capabilities.
func (n *node) start() {
	n.t.Helper()
	n.cmd = exec.Command(filepath.Join(n.dir, "networkd.test"))
	n.cmd.Env = append(os.Environ(), daemonEnv+"="+n.dir)
	n.cmd.Stderr = n.logs
	n.cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: layout.NetworkUID, Gid: layout.NetworkUID},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// kill ends networkd as a crash would.
func (n *node) kill() {
	n.cmd.Process.Kill()
	n.cmd.Wait()
}

func (n *node) dnsmasq(args ...string) {
	n.t.Helper()
	args = append([]string{
		"--keep-in-foreground", "--no-daemon", "--conf-file=/dev/null", "--interface=lan0", "--bind-interfaces", "--no-ping",
		"--dhcp-authoritative", "--dhcp-range=10.99.0.50,10.99.0.59,255.255.255.0,120", "--dhcp-leasefile=" + filepath.Join(n.dir, "leases"),
		"--dhcp-option=option:router,10.99.0.1", "--dhcp-option=option:dns-server,10.99.0.1", "--dhcp-option=option:ntp-server,10.99.0.2",
		"--dhcp-option=option:mtu,1400", "--dhcp-option=option:domain-name,example.org", "--log-dhcp",
	}, args...)
	cmd := n.peer.Command(n.t.Context(), "dnsmasq", args...)
	cmd.Stderr = n.dhcp
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

func put[R interface {
	resource.Resource
	TypedSpec() *S
}, S any](n *node, r R, spec S) {
	n.t.Helper()
	if err := safe.StateModify(n.t.Context(), n.st, r, func(r R) error {
		*r.TypedSpec() = spec
		return nil
	}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) remove(r resource.Resource) {
	n.t.Helper()
	if err := n.st.Destroy(n.t.Context(), r.Metadata()); err != nil {
		n.t.Fatal(err)
	}
}

// wantDHCP writes the default layer, as netconfig does.
func (n *node) wantDHCP() {
	put(n, network.NewLinkSpec(network.ConfigNamespace, "default/lo"), network.LinkSpecSpec{Name: "lo", Up: true})
	put(n, network.NewAddressSpec(network.ConfigNamespace, "default/lo/127.0.0.1/8"), network.AddressSpecSpec{
		Address: netip.MustParsePrefix("127.0.0.1/8"), LinkName: "lo", Scope: network.ScopeHost,
	})
	put(n, network.NewLinkSpec(network.ConfigNamespace, "default/eth0"), network.LinkSpecSpec{Name: "eth0", Up: true})
	put(n, network.NewOperatorSpec(network.ConfigNamespace, "default/dhcp4/eth0"), network.OperatorSpecSpec{
		Operator: network.OperatorDHCP4, LinkName: "eth0", RequireUp: true,
	})
}

// patience is for a busy machine. Nothing here is done by a clock that comes by
// in that time but for what asks again where there was no answer.
const patience = 30 * time.Second

// eventually waits until ok, and says how long it took.
func (n *node) eventually(what string, ok func() bool) {
	n.t.Helper()
	started := time.Now()
	for !ok() {
		if time.Since(started) > patience {
			n.t.Fatalf("%s: not within %v\n%s", what, patience, n.shown())
		}
		time.Sleep(5 * time.Millisecond)
	}
	n.t.Logf("%s: after %v", what, time.Since(started).Round(time.Millisecond))
}

func (n *node) shown() string {
	return netns.Run(n.t, "ip addr") + netns.Run(n.t, "ip route show table main")
}

func (n *node) has(command, text string) func() bool {
	return func() bool { return strings.Contains(netns.Run(n.t, command), text) }
}

func (n *node) hasNot(command, text string) func() bool {
	return func() bool { return !n.has(command, text)() }
}

// spec reads a resource; ok decides on its spec.
func spec[R interface {
	resource.Resource
	TypedSpec() *S
}, S any](n *node, r R, ok func(S) bool) func() bool {
	return func() bool {
		got, err := safe.StateGet[R](n.t.Context(), n.st, r.Metadata())
		return err == nil && ok(*got.TypedSpec())
	}
}

const (
	addressText = "inet 10.99.0.5" // of the pool
	defaultText = "default via 10.99.0.1 dev eth0 proto dhcp"
)

func TestDHCP(t *testing.T) {
	if !netns.Enter(t) {
		return
	}
	n := newNode(t)
	n.serve()
	n.dnsmasq("--port=0")
	n.start()
	n.eventually("links told", spec(n, network.NewLinkStatus("eth0"), func(s network.LinkStatusSpec) bool { return s.Kind == "veth" }))
	n.wantDHCP()
	n.eventually("loopback", n.has("ip addr show lo", "inet 127.0.0.1/8"))
	n.eventually("address leased", n.has("ip addr show eth0", addressText))
	n.eventually("default route", n.has("ip route", defaultText))
	n.eventually("mtu", n.has("ip link show eth0", "mtu 1400"))
	n.eventually("resolvers", spec(n, network.NewResolverStatus(network.ResolverID), func(s network.ResolverStatusSpec) bool {
		return len(s.DNSServers) == 1 && s.DNSServers[0] == netip.MustParseAddr("10.99.0.1") && strings.Join(s.SearchDomains, " ") == "example.org"
	}))
	n.eventually("time servers", spec(n, network.NewTimeServerStatus(network.TimeServerID), func(s network.TimeServerStatusSpec) bool {
		return strings.Join(s.TimeServers, " ") == "10.99.0.2"
	}))
	n.eventually("node address", spec(n, network.NewNodeAddress(network.NodeAddressDefaultID), func(s network.NodeAddressSpec) bool {
		return len(s.Addresses) == 1 && strings.HasPrefix(s.Addresses[0].String(), "10.99.0.5")
	}))
	n.eventually("summary", spec(n, network.NewNetworkStatus(network.StatusID), func(s network.NetworkStatusSpec) bool {
		return s.AddressReady && s.ConnectivityReady && !s.HostnameReady
	}))

	n.run(t, "restored", n.restored)
	n.run(t, "foreign", n.foreign)
	n.run(t, "killed", n.killed)
	n.run(t, "renewed after a flap", n.flapped)
	n.run(t, "static", n.static)
}

// run makes fn's failures those of the subtest.
func (n *node) run(t *testing.T, name string, fn func(*testing.T)) {
	t.Run(name, func(t *testing.T) {
		defer func(outer *testing.T) { n.t = outer }(n.t)
		n.t = t
		fn(t)
	})
}

// restored: what somebody takes away comes back at once.
func (n *node) restored(t *testing.T) {
	address := strings.Fields(netns.Run(t, "ip -4 -o addr show dev eth0"))[3]
	netns.Run(t, "ip addr del "+address+" dev eth0")
	n.eventually("address restored", n.has("ip addr show eth0", address))
	n.eventually("its route restored", n.has("ip route", defaultText))
	netns.Run(t, "ip route del default")
	n.eventually("route restored", n.has("ip route", defaultText))
	netns.Run(t, "ip link set eth0 down")
	n.eventually("link restored", n.has("ip link show eth0", ",UP"))
	n.eventually("route restored after the link", n.has("ip route", defaultText))
	netns.Run(t, "ip link set eth0 mtu 1300")
	n.eventually("mtu restored", n.has("ip link show eth0", "mtu 1400"))
	netns.Run(t, "ip addr flush dev eth0")
	n.eventually("all restored", n.has("ip route", defaultText))
}

// foreign: what others made stays, over changes of ours and over a restart.
func (n *node) foreign(t *testing.T) {
	for _, line := range []string{
		"ip link add cni0 type bridge", "ip link set cni0 up", "ip addr add 10.244.0.1/24 dev cni0",
		"ip link add vethpod type veth peer name podeth", "ip link set vethpod master cni0", "ip link set vethpod up", "ip link set podeth up",
		"ip addr add 10.244.7.7/32 dev podeth", "ip addr add 192.168.77.1/24 dev eth0", "ip route add 10.245.0.0/16 via 10.244.0.9 dev cni0 onlink",
		"ip route add 10.246.0.0/16 dev podeth proto 80",
	} {
		netns.Run(t, line)
	}
	put(n, network.NewAddressSpec(network.ConfigNamespace, "configuration/eth0/extra"), network.AddressSpecSpec{
		Address: netip.MustParsePrefix("172.31.9.9/24"), LinkName: "eth0", Layer: network.LayerConfiguration,
	})
	n.eventually("own address added", n.has("ip addr show eth0", "172.31.9.9/24"))
	n.eventually("routed tells only ours", spec(n, network.NewNodeAddress(network.NodeAddressRoutedID), func(s network.NodeAddressSpec) bool {
		all := ""
		for _, a := range s.Addresses {
			all += a.String() + " "
		}
		return strings.Contains(all, "172.31.9.9") && strings.Contains(all, "192.168.77.1") && !strings.Contains(all, "10.244.")
	}))
	n.remove(network.NewAddressSpec(network.ConfigNamespace, "configuration/eth0/extra"))
	n.eventually("own address removed", n.hasNot("ip addr show eth0", "172.31.9.9/24"))
	n.foreignThere(t)
}

func (n *node) foreignThere(t *testing.T) {
	t.Helper()
	shown := n.shown()
	for _, text := range []string{
		"inet 10.244.0.1/24", "inet 10.244.7.7/32", "inet 192.168.77.1/24", "10.245.0.0/16 via 10.244.0.9 dev cni0", "10.246.0.0/16 dev podeth proto 80",
	} {
		if !strings.Contains(shown, text) {
			t.Errorf("of what others made, %q is gone:\n%s", text, shown)
		}
	}
}

// killed: a restart adopts everything, drops nothing and changes nothing.
func (n *node) killed(t *testing.T) {
	address := strings.Fields(netns.Run(t, "ip -4 -o addr show dev eth0 to 10.99.0.0/24"))[3]
	monitor := exec.CommandContext(t.Context(), "ip", "-o", "monitor", "address", "route", "link")
	seen := &buffer{}
	monitor.Stdout = seen
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		monitor.Process.Kill()
		monitor.Wait()
	}()
	time.Sleep(100 * time.Millisecond)
	n.kill()
	changes, confirmed := n.logs.count("network changed"), n.dhcp.count("DHCPACK")
	n.start()
	n.eventually("lease confirmed", func() bool { return n.dhcp.count("DHCPACK") > confirmed })
	time.Sleep(500 * time.Millisecond) // for what should not come
	if got := n.logs.count("network changed"); got != changes {
		t.Errorf("a restart changed the network %d times, want none", got-changes)
	}
	if strings.Contains(seen.String(), "Deleted") {
		t.Errorf("a restart dropped something:\n%s", seen)
	}
	if !n.has("ip addr show eth0", address)() {
		t.Errorf("address %s is gone", address)
	}
	n.foreignThere(t)

	// What nobody wants any more when networkd comes back goes then.
	n.kill()
	netns.Run(t, "ip addr del "+address+" dev eth0")
	n.start()
	n.eventually("address restored after a restart", n.has("ip addr show eth0", address))
}

// flapped: a carrier that comes back has the lease confirmed.
func (n *node) flapped(t *testing.T) {
	n.eventually("lease confirmed", n.has("ip route", defaultText))
	confirmed := n.dhcp.count("DHCPACK")
	n.peer.Run(t, "ip link set lan0 down")
	n.eventually("carrier lost", spec(n, network.NewLinkStatus("eth0"), func(s network.LinkStatusSpec) bool { return !s.LinkState }))
	n.peer.Run(t, "ip link set lan0 up")
	n.eventually("lease confirmed after the flap", func() bool { return n.dhcp.count("DHCPACK") > confirmed })
	n.eventually("route there after the flap", n.has("ip route", defaultText))
}

// static: a static configuration replaces the lease, and back.
func (n *node) static(t *testing.T) {
	n.remove(network.NewOperatorSpec(network.ConfigNamespace, "default/dhcp4/eth0"))
	put(n, network.NewAddressSpec(network.ConfigNamespace, "configuration/eth0/10.99.0.9/24"), network.AddressSpecSpec{
		Address: netip.MustParsePrefix("10.99.0.9/24"), LinkName: "eth0", Layer: network.LayerConfiguration,
	})
	put(n, network.NewRouteSpec(network.ConfigNamespace, "configuration/eth0/default"), network.RouteSpecSpec{
		Gateway: netip.MustParseAddr("10.99.0.1"), OutLinkName: "eth0", Priority: 512, Protocol: network.ProtocolStatic,
		Family: network.FamilyInet4, Layer: network.LayerConfiguration,
	})
	put(n, network.NewHostnameSpec(network.ConfigNamespace, "configuration/hostname"), network.HostnameSpecSpec{Hostname: "one", Layer: network.LayerConfiguration})
	n.eventually("static address", n.has("ip addr show eth0", "inet 10.99.0.9/24"))
	n.eventually("static route", n.has("ip route", "default via 10.99.0.1 dev eth0 proto static metric 512"))
	n.eventually("lease gone", n.hasNot("ip addr show eth0", addressText))
	n.eventually("its route gone", n.hasNot("ip route", "proto dhcp"))
	n.eventually("address survives the lease's end", n.has("ip addr show eth0", "inet 10.99.0.9/24"))
	n.eventually("hostname", spec(n, network.NewHostnameStatus(network.HostnameID), func(s network.HostnameStatusSpec) bool { return s.Hostname == "one" }))
	n.remove(network.NewAddressSpec(network.ConfigNamespace, "configuration/eth0/10.99.0.9/24"))
	n.remove(network.NewRouteSpec(network.ConfigNamespace, "configuration/eth0/default"))
	n.wantDHCP()
	n.eventually("leased again", n.has("ip route", defaultText))
	n.eventually("static address gone", n.hasNot("ip addr show eth0", "inet 10.99.0.9/24"))
	n.foreignThere(t)
}

// TestStoreAway starts networkd before the store and takes the store away.
func TestStoreAway(t *testing.T) {
	if !netns.Enter(t) {
		return
	}
	n := newNode(t)
	n.start()
	time.Sleep(200 * time.Millisecond)
	stop := n.serve()
	there := func(link string) func() bool {
		return spec(n, network.NewLinkStatus(link), func(network.LinkStatusSpec) bool { return true })
	}
	n.eventually("links told once the store is there", there("eth0"))
	stop()
	netns.Run(t, "ip link add other0 type bridge")
	n.serve()
	n.eventually("links told after the store was away", there("other0"))
}

// TestHostDNS asks the node's name server, on both of its addresses, while
// upstreams and members come and go.
func TestHostDNS(t *testing.T) {
	if !netns.Enter(t) {
		return
	}
	n := newNode(t)
	n.serve()
	n.dnsmasq("--port=53", "--no-hosts", "--no-resolv", "--host-record=far.example,192.0.2.7")
	n.start()
	n.wantDHCP()
	pods := netip.MustParsePrefix("169.254.116.108/32")
	put(n, network.NewAddressSpec(network.ConfigNamespace, "configuration/lo/"+pods.String()), network.AddressSpecSpec{Address: pods, LinkName: "lo", Scope: network.ScopeHost})
	n.eventually("upstream known", spec(n, network.NewResolverStatus(network.ResolverID), func(s network.ResolverStatusSpec) bool { return len(s.DNSServers) == 1 }))
	listen := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53"), netip.MustParseAddrPort("169.254.116.108:53")}
	put(n, network.NewHostDNSConfig(network.HostDNSID), network.HostDNSConfigSpec{Enabled: true, ListenAddresses: listen, ServiceHostDNSAddress: pods.Addr(), ResolveMemberNames: true})
	for _, a := range listen {
		for _, protocol := range []string{"udp", "tcp"} {
			n.eventually("answers on "+protocol+" "+a.String(), spec(n, network.NewDNSResolveCache(protocol+"-"+a.String()), func(s network.DNSResolveCacheSpec) bool { return s.Status == "running" }))
			n.eventually("far.example by "+protocol+" "+a.String(), lookup(t, a, protocol, "far.example", "192.0.2.7"))
		}
	}
	n.eventually("upstream told", spec(n, network.NewDNSUpstream("10.99.0.1"), func(s network.DNSUpstreamSpec) bool { return s.Healthy && s.Addr == "10.99.0.1:53" }))
	n.eventually("pods' address is none of the node's", spec(n, network.NewNodeAddress(network.NodeAddressCurrentID), func(s network.NodeAddressSpec) bool { return !slices.Contains(s.Addresses, pods) }))

	put(n, cluster.NewMember("m"), cluster.MemberSpec{Hostname: "node-2.example.org", Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.77")}})
	for _, name := range []string{"node-2", "node-2.example.org"} {
		n.eventually("member "+name, lookup(t, listen[1], "udp", name, "10.99.0.77"))
	}
	n.kill()
	n.start()
	n.eventually("answers after it was killed", lookup(t, listen[0], "udp", "far.example", "192.0.2.7"))

	put(n, network.NewHostDNSConfig(network.HostDNSID), network.HostDNSConfigSpec{})
	n.eventually("switched off", func() bool { return !lookup(t, listen[0], "tcp", "far.example", "192.0.2.7")() })
	n.eventually("says so", func() bool {
		list, err := safe.StateListAll[*network.DNSResolveCache](t.Context(), n.st)
		return err == nil && list.Len() == 0
	})
}

// lookup asks one name server for one name.
func lookup(t *testing.T, at netip.AddrPort, protocol, name, want string) func() bool {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, protocol, at.String())
	}}
	return func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		got, err := r.LookupHost(ctx, name+".")
		return err == nil && slices.Equal(got, []string{want})
	}
}
