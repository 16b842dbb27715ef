package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.uber.org/zap"

	"talos/config"
	"talos/internal/logs"
	"talos/internal/resources/cluster"
	configres "talos/internal/resources/config"
	"talos/internal/resources/etcd"
	"talos/internal/resources/network"
	"talos/internal/secrets"
	"talos/internal/service"
	"talos/internal/store"
)

// program is the etcd that components/build has made; without one the test is
// skipped, except where everything must be tested.
func program(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../_out/components/etcd/etcd")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		if os.Getenv("REQUIRE_IMAGE") != "" {
			t.Fatalf("needs etcd: %v", err)
		}
		t.Skipf("needs etcd, see components/build: %v", err)
	}
	return path
}

// realm is a cluster whose nodes are loopback addresses of this machine: each
// has a store, the controllers, a supervisor and a real etcd of its own.
type realm struct {
	*testing.T
	etcd  string
	cfg   *config.Config
	nodes []*realNode
}

// realNode is a node; what it has on disk outlives its boots.
type realNode struct {
	*realm
	name    string
	address netip.Addr
	disk    string

	// Of one boot:
	m        *Member
	st       state.State
	services *service.Supervisor
	down     func()

	mu      sync.Mutex // guards the fields below
	process *os.Process
	before  func() // called once, before the next start of the program
}

func newRealm(t *testing.T, size int) *realm {
	w := &realm{T: t, etcd: program(t)}
	pid := os.Getpid()
	for i := range size {
		address := netip.AddrFrom4([4]byte{127, byte(1 + pid>>8&0x7f), byte(pid), byte(11 + i)})
		w.nodes = append(w.nodes, &realNode{realm: w, name: fmt.Sprintf("n%d", i+1), address: address, disk: t.TempDir()})
	}
	bundle, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://" + w.nodes[0].address.String() + ":6443", Secrets: bundle})
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = made.ControlPlane
	w.cfg.Cluster.Etcd.ExtraArgs = map[string]string{"unsafe-no-fsync": "true"}
	return w
}

// boot starts the node as machined does. It knows the others, as far as told.
func (n *realNode) boot(known ...*realNode) {
	n.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	st, err := store.New(ctx)
	if err != nil {
		n.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(n.Output(), nil)).With("node", n.name)
	n.st = st
	n.services = service.New(log, st, logs.New(filepath.Join(n.disk, "log")))
	n.m = New(st, log, n.services)
	n.m.run, n.m.fetch = n.runTool, func(context.Context, string) error { return nil }
	n.m.local, n.m.uid = n.address.String(), os.Getuid()
	n.m.dataDir, n.m.pkiDir = filepath.Join(n.disk, "etcd"), filepath.Join(n.disk, "pki")
	n.m.marker = n.m.dataDir + ".bootstrap"
	for _, r := range n.facts(known) {
		if err := st.Create(ctx, r); err != nil {
			n.Fatal(err)
		}
	}
	rt, err := runtime.NewRuntime(st, zap.NewNop())
	if err != nil {
		n.Fatal(err)
	}
	for _, c := range append(secrets.Controllers(secrets.Options{Log: log}), n.m.Controllers()...) {
		if err := rt.RegisterController(c); err != nil {
			n.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	def := n.m.Service()
	def.DependsOn, def.Runner = nil, n
	n.services.Add(def)
	if err := n.services.Start(ctx, ServiceID); err != nil {
		n.Fatal(err)
	}
	n.down = sync.OnceFunc(func() {
		if err := n.services.StopAll(ctx); err != nil {
			n.Error(err)
		}
		cancel()
		<-done
		n.m.Close()
	})
	n.Cleanup(n.down)
}

// facts are the resources that others make on a node.
func (n *realNode) facts(known []*realNode) []resource.Resource {
	mc := configres.NewMachineConfig(configres.ActiveID)
	document, err := n.cfg.Bytes()
	if err != nil {
		n.Fatal(err)
	}
	mc.TypedSpec().Document = document
	hostname := network.NewHostnameStatus(network.HostnameID)
	hostname.TypedSpec().Hostname = n.name
	addresses := network.NewNodeAddress(network.NodeAddressRoutedID)
	addresses.TypedSpec().Addresses = []netip.Prefix{netip.PrefixFrom(n.address, 8)}
	out := []resource.Resource{mc, hostname, addresses}
	for _, other := range append([]*realNode{n}, known...) {
		if other == n && len(out) > 3 {
			continue
		}
		member := cluster.NewMember(other.name)
		*member.TypedSpec() = cluster.MemberSpec{Hostname: other.name, Addresses: []netip.Addr{other.address}, MachineType: cluster.TypeControlPlane, ControlPlane: &cluster.ControlPlane{Port: 6443}}
		out = append(out, member)
	}
	return out
}

// Run is the service's Runner: the program with our arguments, without a
// container around it.
func (n *realNode) Run(ctx context.Context, out io.Writer, started func(pid int)) error {
	spec, err := n.m.spec(ctx)
	if err != nil {
		return err
	}
	n.mu.Lock()
	before := n.before
	n.before = nil
	n.mu.Unlock()
	if before != nil {
		before()
		return errors.New("killed before it started")
	}
	cmd := exec.Command(n.etcd, spec.Args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.mu.Lock()
	n.process = cmd.Process
	n.mu.Unlock()
	started(cmd.Process.Pid)
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) }) // it may have ended
	defer stop()
	return cmd.Wait()
}

// kill is a power cut for the program.
func (n *realNode) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		_ = n.process.Kill() // it may have ended
	}
}

// erase wipes the disk of a node that is down.
func (n *realNode) erase() {
	if err := os.RemoveAll(n.disk); err != nil {
		n.Fatal(err)
	}
}

// voting waits until the node's member votes and is healthy.
func (n *realNode) voting() {
	n.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := safe.StateWatchFor[*etcd.EtcdMember](ctx, n.st, etcd.NewEtcdMember(MemberID).Metadata(), state.WithEventTypes(state.Created, state.Updated)); err != nil {
		n.Fatalf("%s does not vote: %v; %s", n.name, err, n.reason())
	}
	if err := n.services.WaitReady(ctx, ServiceID); err != nil {
		n.Fatalf("%s: %v; %s", n.name, err, n.reason())
	}
}

func (n *realNode) reason() string {
	status, err := n.services.Get(ServiceID)
	if err != nil || len(status.Events) == 0 {
		return "no events"
	}
	return status.Events[len(status.Events)-1].Message + " " + status.Health.Message
}

// waitsFor waits until the service gives a reason that holds text.
func (n *realNode) waitsFor(text string) {
	n.Helper()
	end := time.After(time.Minute)
	for {
		changed := n.services.Changed()
		if strings.Contains(n.reason(), text) {
			return
		}
		select {
		case <-changed:
		case <-end:
			n.Fatalf("%s says %q, want %q", n.name, n.reason(), text)
		}
	}
}

// first makes a cluster of the first node.
func (w *realm) first() *realNode {
	w.Helper()
	n := w.nodes[0]
	n.boot()
	n.bootstrap()
	n.voting()
	return n
}

func (n *realNode) bootstrap() {
	n.Helper()
	if err := n.m.Bootstrap(context.Background()); err != nil {
		n.Fatal(err)
	}
}

// members are the names of the voters as the node sees them; a learner has a ?
// and one that is not up a !.
func (n *realNode) members() []string {
	n.Helper()
	v, err := n.m.View(context.Background())
	if err != nil {
		n.Fatal(err)
	}
	var names []string
	for _, p := range v.Peers {
		name := p.Name
		if p.Learner {
			name += "?"
		}
		if !p.Up {
			name += "!"
		}
		names = append(names, name)
	}
	return names
}

// wants holds who the members are. One that is slow to answer counts as down: who
// is up shows a moment later.
func (n *realNode) wants(names ...string) {
	n.Helper()
	who := func(names []string) string { return strings.ReplaceAll(strings.Join(names, " "), "!", "") }
	got := n.members()
	for end := time.Now().Add(30 * time.Second); !slices.Equal(got, names) && who(got) == who(names) && time.Now().Before(end); got = n.members() {
		time.Sleep(100 * time.Millisecond)
	}
	if !slices.Equal(got, names) {
		n.Errorf("%s sees the members %v, want %v", n.name, got, names)
	}
}

func (n *realNode) put(key, value string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := n.m.Client(ctx)
	if err == nil {
		_, err = client.Put(ctx, key, value)
	}
	if err != nil {
		n.Fatalf("%s: put: %v", n.name, err)
	}
}

func (n *realNode) has(key, value string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := n.m.Client(ctx)
	if err != nil {
		n.Fatal(err)
	}
	got, err := client.Get(ctx, key)
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value {
		n.Errorf("%s: %s = %v, %v, want %q", n.name, key, got, err, value)
	}
}

// TestOne: a cluster of one may stop, has nobody to lead it but itself, and
// takes its data along when it leaves.
func TestOne(t *testing.T) {
	n := newRealm(t, 1).first()
	ctx := t.Context()
	if err := n.m.MayStop(ctx); err != nil {
		t.Errorf("MayStop = %v, want nil", err)
	}
	if name, err := n.m.ForfeitLeadership(ctx); name != "" || err != nil {
		t.Errorf("ForfeitLeadership = %q, %v, want nobody", name, err)
	}
	if err := n.m.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	if n.m.hasFiles() {
		t.Error("Leave keeps the data")
	}
	if err := n.m.MayStop(ctx); err != nil {
		t.Errorf("MayStop without a member = %v, want nil", err)
	}
}

// TestThreeTogether: two nodes that join at once both end as voters.
func TestThreeTogether(t *testing.T) {
	w := newRealm(t, 3)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	b.boot(w.nodes...)
	c.boot(w.nodes...)
	b.waitsFor("bootstrap: run `talosctl bootstrap -n n2` once")
	a.first()
	a.put("k", "v")
	began := time.Now()
	b.voting()
	c.voting()
	t.Logf("two members joined %v after the first was healthy", time.Since(began))
	for _, n := range w.nodes {
		n.wants("n1", "n2", "n3")
		n.has("k", "v")
	}
	if err := b.m.Bootstrap(t.Context()); !errors.Is(err, ErrAlreadyBootstrapped) {
		t.Errorf("Bootstrap of a member = %v, want ErrAlreadyBootstrapped", err)
	}
}

// TestNodesComeBack: a node killed between being added and its first start, one
// killed just after that, and one whose disk was erased end as voters again.
func TestNodesComeBack(t *testing.T) {
	w := newRealm(t, 3)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	a.first()

	b.before = func() { a.wants("?!", "n1") } // added, never started
	b.boot(w.nodes...)
	b.waitsFor("killed before it started")
	b.down()
	b.boot(w.nodes...)
	b.voting()

	c.boot(w.nodes...)
	c.waitsFor("started with process id")
	c.kill()
	c.down()
	c.boot(w.nodes...)
	c.voting()
	a.wants("n1", "n2", "n3")

	a.put("k", "v")
	before := a.memberID("n2")
	b.down()
	b.erase()
	b.boot(w.nodes...)
	b.voting()
	a.wants("n1", "n2", "n3")
	b.has("k", "v")
	if again := a.memberID("n2"); again == before {
		t.Errorf("n2 came back with an empty disk as the same member %016x", before)
	}

	// The founder too: it does not found a second time.
	a.down()
	a.erase()
	a.boot(w.nodes...)
	a.voting()
	a.has("k", "v")
	b.wants("n1", "n2", "n3")
}

func (n *realNode) memberID(name string) uint64 {
	n.Helper()
	v, err := n.m.View(context.Background())
	if err != nil {
		n.Fatal(err)
	}
	i := slices.IndexFunc(v.Peers, func(p Peer) bool { return p.Name == name })
	if i < 0 {
		n.Fatalf("%s knows no member %s", n.name, name)
	}
	return v.Peers[i].ID
}

// TestBelowQuorum: what would take the majority away is refused and changes
// nothing; one of two that lost its disk waits, and says for what.
func TestBelowQuorum(t *testing.T) {
	w := newRealm(t, 3)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	ctx := t.Context()
	a.first()
	b.boot(w.nodes...)
	b.voting()
	for _, n := range []*realNode{a, b} {
		if err := n.m.MayStop(ctx); !errors.Is(err, ErrQuorum) {
			t.Errorf("MayStop of %s, one of two = %v, want ErrQuorum", n.name, err)
		}
	}
	c.boot(w.nodes...)
	c.voting()
	if err := b.m.MayStop(ctx); err != nil {
		t.Errorf("MayStop of one of three = %v, want nil", err)
	}
	name, err := a.m.ForfeitLeadership(ctx)
	if err != nil || name == "" || name == "n1" {
		t.Errorf("ForfeitLeadership = %q, %v, want another", name, err)
	}
	c.down()
	for what, do := range map[string]func(context.Context) error{"MayStop": b.m.MayStop, "Leave": b.m.Leave} {
		if err := do(ctx); !errors.Is(err, ErrQuorum) || !strings.Contains(err.Error(), "n3: connection refused") {
			t.Errorf("%s with n3 down = %v, want ErrQuorum that names n3", what, err)
		}
	}
	a.put("k", "v") // nothing has happened
	a.wants("n1", "n2", "n3!")

	if err := a.m.Remove(ctx, a.memberID("n3")); err != nil {
		t.Errorf("remove the one that is down: %v", err)
	}
	a.wants("n1", "n2")
	b.down()
	b.erase()
	b.boot(w.nodes...)
	b.waitsFor("for the cluster to have a majority again: ")
	if err := a.m.MayLeave(ctx); !errors.Is(err, ErrQuorum) {
		t.Errorf("MayLeave of the last that is up = %v, want ErrQuorum", err)
	}
	if err := a.m.Abandon(ctx); err != nil || a.m.hasFiles() {
		t.Errorf("Abandon = %v, data is there: %t", err, a.m.hasFiles())
	}
}

// TestLeave: the leader leaves, the others go on; started anew, it joins.
func TestLeave(t *testing.T) {
	w := newRealm(t, 3)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	a.first()
	for _, n := range []*realNode{b, c} {
		n.boot(w.nodes...)
		n.voting()
	}
	a.put("k", "v")
	if err := a.m.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.wants("n2", "n3")
	b.has("k", "v")
	if a.m.hasFiles() {
		t.Error("Leave keeps the data")
	}
	gone, err := safe.ReaderListAll[*etcd.EtcdMember](t.Context(), a.st)
	if err != nil || gone.Len() != 0 {
		t.Errorf("after Leave there are %d EtcdMembers, %v, want none", gone.Len(), err)
	}
	a.down()
	a.boot(w.nodes...)
	a.voting()
	a.has("k", "v")

	// A member that others removed while it had data waits for a decision.
	if err := b.m.Remove(t.Context(), b.memberID("n3")); err != nil {
		t.Fatal(err)
	}
	c.waitsFor("was removed from the cluster while it had data")
	if err := c.m.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.down()
	c.boot(w.nodes...)
	c.voting()
	b.wants("n1", "n2", "n3")
}
