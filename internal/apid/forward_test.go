package apid

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/cosi-project/runtime/pkg/safe"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
	"talos/internal/authz"
	"talos/internal/layout"
	"talos/internal/resources/cluster"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
)

// loopback is an address that no other test process uses at the same time.
func loopback(n int) netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(64 + pid%128), byte(pid / 128), byte(n)})
}

func (a *authority) serverFor(t testing.TB, name string, addr netip.Addr) *respem.CertificateAndKey {
	return a.issue(t, name, nil, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.IPAddresses, c.DNSNames = []net.IP{addr.AsSlice()}, []string{name}
		if strings.HasPrefix(name, "cp-") {
			c.DNSNames = append(c.DNSNames, layout.APIName)
		}
	})
}

func (a *authority) impersonator(t testing.TB, name string) *respem.CertificateAndKey {
	return a.issue(t, name, []string{"os:impersonator"}, nil)
}

// newNodes starts control plane nodes cp-1, cp-2 …, and a worker behind them,
// that know each other; what they answer to Version is their name.
func newNodes(t testing.TB, controlPlanes int) (nodes []*node, worker *node) {
	t.Helper()
	ca := newAuthority(t, "os")
	var ids []identity
	var specs []*cluster.MemberSpec
	for i := range controlPlanes + 1 {
		addr := loopback(i + 1)
		id := identity{
			ca: ca, hostname: fmt.Sprint("cp-", i+1), listen: apiAddress(addr),
			addresses: []netip.Prefix{netip.PrefixFrom(addr, 8)},
		}
		kind := cluster.TypeControlPlane
		if i == controlPlanes {
			id.hostname, kind = "worker-1", cluster.TypeWorker
		} else {
			id.client = ca.impersonator(t, id.hostname)
		}
		id.server = ca.serverFor(t, id.hostname, addr)
		ids = append(ids, id)
		specs = append(specs, &cluster.MemberSpec{Hostname: id.hostname, Addresses: []netip.Addr{addr}, MachineType: kind})
	}
	for _, id := range ids {
		id.members = specs
		n := startNode(t, id)
		n.machined.tag = id.hostname
		n.ip = id.addresses[0].Addr().String()
		nodes = append(nodes, n)
	}
	return nodes[:controlPlanes], nodes[controlPlanes]
}

func toNode(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "node", name)
}

func toNodes(ctx context.Context, names ...string) context.Context {
	for _, name := range names {
		ctx = metadata.AppendToOutgoingContext(ctx, "nodes", name)
	}
	return ctx
}

// answers asks for the version and returns what each node said: a tag, or an
// error.
func answers(ctx context.Context, client machine.MachineServiceClient) (map[string]string, error) {
	r, err := client.Version(ctx, &emptypb.Empty{})
	said := map[string]string{}
	for _, m := range r.GetMessages() {
		md := m.GetMetadata()
		said[md.GetHostname()] = m.GetVersion().GetTag()
		if md.GetError() != "" {
			said[md.GetHostname()] = codes.Code(md.GetStatus().GetCode()).String() + ": " + md.GetError()
		}
	}
	return said, err
}

func TestForwardsToOne(t *testing.T) {
	nodes, worker := newNodes(t, 2)
	client := nodes[0].client(t, "os:reader")
	for name, want := range map[string]string{
		nodes[1].ip: "cp-2", "cp-2": "cp-2", "CP-2.": "cp-2", worker.ip: "worker-1", "worker-1": "worker-1", "cp-1": "cp-1", nodes[0].ip: "cp-1", "127.0.0.1": "cp-1",
	} {
		r, err := client.Version(toNode(t.Context(), name), &emptypb.Empty{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m := r.GetMessages()[0]; m.GetVersion().GetTag() != want || m.GetMetadata() != nil {
			t.Errorf("%s answers %v, want %s without metadata", name, m, want)
		}
	}
	for name, want := range map[string]codes.Code{
		"nobody": codes.NotFound, "0.0.0.0": codes.InvalidArgument, "::": codes.InvalidArgument, "224.0.0.1": codes.InvalidArgument, "255.255.255.255": codes.InvalidArgument,
	} {
		if _, err := client.Version(toNode(t.Context(), name), &emptypb.Empty{}); status.Code(err) != want {
			t.Errorf("%s = %v, want %v", name, err, want)
		}
	}
	_, err := worker.client(t, "os:admin").Version(toNode(t.Context(), "cp-1"), &emptypb.Empty{})
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "no request forwarding") {
		t.Errorf("through a worker = %v, want a refusal", err)
	}
}

func TestForwardsToMany(t *testing.T) {
	nodes, _ := newNodes(t, 2)
	conn := nodes[0].dial(t, nodes[0].ca.issue(t, "alice", []string{"os:admin"}, nil))
	client := machine.NewMachineServiceClient(conn)
	names := []string{"cp-1", nodes[1].ip, "Worker-1", "nobody"}
	got, err := answers(toNodes(t.Context(), names...), client)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got["cp-1"] != "cp-1" || got[nodes[1].ip] != "cp-2" || got["Worker-1"] != "worker-1" || !strings.HasPrefix(got["nobody"], "NotFound: ") {
		t.Errorf("answers = %v", got)
	}

	stream, err := client.Events(toNodes(t.Context(), names...), &machine.EventsRequest{TailEvents: 300})
	if err != nil {
		t.Fatal(err)
	}
	items, errs := map[string]int{}, map[string]codes.Code{}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := event.GetMetadata().GetHostname()
		if code := event.GetMetadata().GetStatus().GetCode(); code != 0 {
			errs[name] = codes.Code(code)
			continue
		}
		items[name]++
	}
	for _, name := range names[:3] {
		if items[name] != 300 || errs[name] != codes.DataLoss { // how the stand-in ends its streams
			t.Errorf("%s streamed %d items and ended with %v, want 300 and DataLoss", name, items[name], errs[name])
		}
	}
	if errs["nobody"] != codes.NotFound {
		t.Errorf("nobody = %v", errs["nobody"])
	}

	// Services whose answers do not say which node they are from.
	list, err := cosi.NewStateClient(conn).List(toNodes(t.Context(), "cp-1", "cp-2"), &cosi.ListRequest{})
	if err == nil {
		_, err = list.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("resources of two nodes in one call = %v, want InvalidArgument", err)
	}
}

// TestForwardsUploads sends a stream of the caller's to one node and to two.
func TestForwardsUploads(t *testing.T) {
	nodes, _ := newNodes(t, 2)
	client := nodes[0].client(t, "os:admin")
	for _, ctx := range []context.Context{toNode(t.Context(), "cp-2"), toNodes(t.Context(), "cp-1", "cp-2")} {
		up, err := client.EtcdRecover(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := up.Send(&common.Data{Bytes: make([]byte, 50<<10)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := up.CloseSend(); err != nil {
			t.Fatal(err)
		}
		// The merged answers of two nodes are two messages, as a stream has them.
		for {
			var r machine.EtcdRecoverResponse
			if err := up.RecvMsg(&r); errors.Is(err, io.EOF) || status.Code(err) == codes.Internal {
				break // the generated client expects one message and says so at the second
			} else if err != nil {
				t.Fatal(err)
			}
			if got := r.GetMessages()[0].GetMetadata().GetError(); got != fmt.Sprint(100*50<<10) {
				t.Errorf("the server received %s bytes", got)
			}
		}
	}
}

// TestIdentityTravels holds that the target knows and writes down the person,
// and the node that spoke for him.
func TestIdentityTravels(t *testing.T) {
	nodes, worker := newNodes(t, 1)
	crt := nodes[0].ca.issue(t, "carol", []string{"os:operator", "os:reader"}, nil)
	client := machine.NewMachineServiceClient(nodes[0].dial(t, crt))
	ctx := metadata.AppendToOutgoingContext(toNode(t.Context(), "worker-1"),
		"talos-role", "os:admin", "talos-subject", "root", "talos-serial", "1", "talos-peer", "1.1.1.1:1", "proxyfrom", "elsewhere", "x-mine", "kept")
	if _, err := client.Version(ctx, &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	got := worker.machined.identity
	if got.Roles != authz.NewRoles("os:operator", "os:reader") || got.Subject != "carol" || got.Serial == "" || got.Serial == "1" || !strings.HasPrefix(got.Peer, "127.") {
		t.Errorf("machined of the target saw %+v", got)
	}
	if in := worker.machined.incoming; len(in["proxyfrom"])+len(in["node"]) > 0 || !slices.Equal(in["x-mine"], []string{"kept"}) {
		t.Errorf("machined of the target got %v", in)
	}
	here, there := nodes[0].record(t, "Version", "OK"), worker.record(t, "Version", "OK")
	if here["subject"] != "carol" || fmt.Sprint(here["nodes"]) != "[worker-1]" || here["via"] != nil {
		t.Errorf("record of the endpoint = %v", here)
	}
	if there["subject"] != "carol" || there["serial"] != here["serial"] || fmt.Sprint(there["roles"]) != "[os:operator os:reader]" ||
		!strings.HasPrefix(fmt.Sprint(there["via"]), "cp-1 ") || there["from"] != here["peer"] || there["peer"] == here["peer"] {
		t.Errorf("record of the target = %v, that of the endpoint %v", there, here)
	}
	if _, err := client.ApplyConfiguration(ctx, &machine.ApplyConfigurationRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("an operator writes configuration over there = %v, want PermissionDenied", err)
	}
}

// TestImpersonatorsAreNoPersons uses a control plane node's certificate by
// hand.
func TestImpersonatorsAreNoPersons(t *testing.T) {
	nodes, worker := newNodes(t, 2)
	for _, roles := range [][]string{{"os:impersonator"}, {"os:impersonator", "os:admin"}} {
		client := machine.NewMachineServiceClient(worker.dial(t, worker.ca.issue(t, "cp-1", roles, nil)))
		for name, ctx := range map[string]context.Context{
			"no role":            t.Context(),
			"forwarded, no role": metadata.AppendToOutgoingContext(t.Context(), "proxyfrom", "cp-1", "talos-subject", "root"),
			"only impersonator":  metadata.AppendToOutgoingContext(t.Context(), "talos-role", "os:impersonator"),
		} {
			if _, err := client.Version(ctx, &emptypb.Empty{}); status.Code(err) != codes.PermissionDenied {
				t.Errorf("%v, %s = %v, want PermissionDenied", roles, name, err)
			}
		}
	}
	// A call that was forwarded goes no further, whatever it says.
	client := machine.NewMachineServiceClient(nodes[0].dial(t, nodes[0].ca.impersonator(t, "cp-2")))
	said := metadata.AppendToOutgoingContext(t.Context(), "talos-role", "os:reader")
	for _, ctx := range []context.Context{toNode(said, "worker-1"), toNodes(said, "worker-1", "cp-2")} {
		r, err := client.Version(ctx, &emptypb.Empty{})
		if err != nil || len(r.GetMessages()) != 1 || r.GetMessages()[0].GetVersion().GetTag() != "cp-1" {
			t.Errorf("forwarded twice: %v, %v; want cp-1 itself", r, err)
		}
	}
	if calls := worker.audit.String(); strings.Contains(calls, `"via":"cp-1 `) && strings.Contains(calls, `"code":"OK"`) {
		t.Errorf("the worker was called: %s", calls)
	}
}

// bad starts what pretends to be a node, or is none at all.
type bad struct{ name, address, want string }

func badNodes(t *testing.T, ca *authority, first int) []bad {
	t.Helper()
	listen := func(addr netip.Addr) net.Listener {
		l, err := net.Listen("tcp", apiAddress(addr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	dead, frozen, stranger, liar := loopback(first), loopback(first+1), loopback(first+2), loopback(first+3)
	listen(frozen) // the kernel takes connections, nobody answers
	other := newAuthority(t, "os")
	for addr, crt := range map[netip.Addr]*respem.CertificateAndKey{
		stranger: other.serverFor(t, "stranger", stranger), liar: ca.serverFor(t, "cp-1", loopback(1)),
	} {
		k, err := newKeys(&secrets.ApiCertificateSpec{Server: crt, AcceptedCAs: []*respem.Certificate{{Crt: ca.pem}}})
		if err != nil {
			t.Fatal(err)
		}
		ring := &keyring{}
		ring.now.Store(k)
		server := newServer(newDoorman(ring, (&node{log: &lines{}}).logger()), func(any, grpc.ServerStream) error {
			t.Errorf("%v got a call", addr)
			return nil
		})
		l := listen(addr)
		start(t, func(context.Context) error { return server.Serve(l) })
		t.Cleanup(server.Stop)
	}
	return []bad{
		{"dead", dead.String(), "Unavailable: .*connection refused"},
		{"frozen", frozen.String(), "no answer within|does not take the connection"},
		{"stranger", stranger.String(), "Unavailable: .*unknown authority"},
		{"liar", liar.String(), "Unavailable: .*certificate is valid for"},
	}
}

// TestBadNodesCostTheirOwnAnswer asks nodes that do not answer, or that are
// not who they should be, beside good ones.
func TestBadNodesCostTheirOwnAnswer(t *testing.T) {
	nodes, worker := newNodes(t, 2)
	worker.machined.slow = true
	all := badNodes(t, nodes[0].ca, 20)
	names := []string{"cp-1", "cp-2"}
	for _, b := range all {
		names = append(names, b.address)
	}
	client := nodes[0].client(t, "os:reader")
	check := func(ctx context.Context, within time.Duration) map[string]string {
		t.Helper()
		began := time.Now()
		got, err := answers(ctx, client)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > within {
			t.Errorf("the answer took %v, want at most %v", took, within)
		}
		if got["cp-1"] != "cp-1" || got["cp-2"] != "cp-2" {
			t.Errorf("good nodes: %v", got)
		}
		for _, b := range all {
			if !regexp.MustCompile(b.want).MatchString(got[b.address]) {
				t.Errorf("%s = %q, want %s", b.name, got[b.address], b.want)
			}
		}
		return got
	}
	check(toNodes(t.Context(), names...), connectBound) // without any deadline
	// Of three seconds half of one is left for the answer to come back.
	const limit = 3 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	got := check(toNodes(ctx, append(names, "worker-1")...), limit)
	if got["worker-1"] != "DeadlineExceeded: no answer within the caller's deadline" {
		t.Errorf("slow = %q", got["worker-1"])
	}

	// The same for streams.
	ctx, cancel = context.WithTimeout(t.Context(), limit)
	defer cancel()
	stream, err := client.Logs(toNodes(ctx, names...), &machine.LogsRequest{TailLines: 10})
	if err != nil {
		t.Fatal(err)
	}
	good, failed := 0, 0
	for {
		data, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if data.GetMetadata().GetError() != "" {
			failed++
		} else {
			good++
		}
	}
	if good != 2 || failed != len(all) {
		t.Errorf("stream: %d answered and %d failed, want 2 and %d", good, failed, len(all))
	}
	for _, b := range all {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err := client.Version(toNode(ctx, b.address), &emptypb.Empty{})
		cancel()
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "node "+b.address+" cannot be reached") {
			t.Errorf("%s alone = %v, want Unavailable", b.name, err)
		}
	}
}

// connectBound is what a node that does not answer may cost a caller without
// a deadline: three seconds, where nothing else runs.
const connectBound = 12 * time.Second

// TestReturningNode: a node that was away answers soon after it is back, on a
// connection that was there before and to a caller who kept asking.
func TestReturningNode(t *testing.T) {
	nodes, worker := newNodes(t, 1)
	client := nodes[0].client(t, "os:reader")
	ask := func() error {
		_, err := client.Version(toNode(t.Context(), "worker-1"), &emptypb.Empty{})
		return err
	}
	for round := range 2 {
		if err := ask(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		worker.stopAPI()
		for range 3 {
			if err := ask(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "node worker-1") {
				t.Fatalf("round %d: node away = %v, want Unavailable and its name", round, err)
			}
		}
		worker.startAPI(t)
		began := time.Now()
		eventually(t, ask)
		if took := time.Since(began); took > 10*time.Second { // a second, where nothing else runs
			t.Errorf("round %d: it answers %v after it returned", round, took)
		}
	}
	worker.stopAPI()
	worker.startAPI(t) // nobody called in between: the first call finds the new one
	if err := ask(); err != nil {
		t.Errorf("first call after a restart = %v", err)
	}
}

// TestRenewedCertificates: new ones are used from the next call on, and
// streams go on with the old.
func TestRenewedCertificates(t *testing.T) {
	nodes, worker := newNodes(t, 1)
	client := nodes[0].client(t, "os:reader")
	ctx, cancel := context.WithCancel(toNode(t.Context(), "worker-1"))
	defer cancel()
	stream, err := client.Events(ctx, &machine.EventsRequest{TailEvents: 1, TailId: "follow"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	next := newAuthority(t, "next")
	both := []*respem.Certificate{{Crt: nodes[0].ca.pem}, {Crt: next.pem}}
	for _, n := range []*node{nodes[0], worker} {
		n.certify(t, func(s *secrets.ApiCertificateSpec) { s.AcceptedCAs = both })
	}
	worker.certify(t, func(s *secrets.ApiCertificateSpec) { s.Server = next.serverFor(t, "worker-1", loopback(2)) })
	nodes[0].certify(t, func(s *secrets.ApiCertificateSpec) { s.Client = next.impersonator(t, "renewed") })
	eventually(t, func() error {
		if _, err := client.Version(toNode(t.Context(), "worker-1"), &emptypb.Empty{}); err != nil {
			return err
		}
		if !strings.Contains(worker.audit.String(), `"via":"renewed `) {
			return errors.New("no call came with the new certificate")
		}
		return nil
	})
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("the stream ended with %v before it was cancelled", err)
	}
	worker.record(t, "Events", "Canceled")

	// A node that loses its certificate forwards no longer.
	nodes[0].certify(t, func(s *secrets.ApiCertificateSpec) { s.Client = nil })
	eventually(t, func() error {
		_, err := client.Version(toNode(t.Context(), "worker-1"), &emptypb.Empty{})
		if status.Code(err) != codes.PermissionDenied {
			return fmt.Errorf("without a certificate = %w, want PermissionDenied", err)
		}
		return nil
	})
}

// TestSquatter: a worker that was certified under a name, and at an address,
// before a control plane node announced itself there, is not called for it any
// more; neither over a connection that was there before.
func TestSquatter(t *testing.T) {
	ca := newAuthority(t, "os")
	home, there := loopback(1), loopback(2)
	squatted := ca.issue(t, "cp-2", nil, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.IPAddresses, c.DNSNames = []net.IP{there.AsSlice()}, []string{"cp-2"}
	})
	squatter := startNode(t, identity{ca: ca, hostname: "cp-2", listen: apiAddress(there), server: squatted})
	n := startNode(t, identity{
		ca: ca, hostname: "cp-1", listen: apiAddress(home), addresses: []netip.Prefix{netip.PrefixFrom(home, 8)},
		server: ca.serverFor(t, "cp-1", home), client: ca.impersonator(t, "cp-1"),
		members: []*cluster.MemberSpec{{Hostname: "cp-2", Addresses: []netip.Addr{there}, MachineType: cluster.TypeWorker}},
	})
	client := n.client(t, "os:reader")
	ways := []string{"cp-2", there.String()}
	ask := func(name string) error {
		_, err := client.Version(toNode(t.Context(), name), &emptypb.Empty{})
		return err
	}
	for _, name := range ways {
		if err := ask(name); err != nil {
			t.Fatalf("before, %s: %v", name, err)
		}
	}
	// The control plane node comes, and the squatter holds on to its address.
	md := cluster.NewMember("member-0").Metadata()
	if _, err := safe.StateUpdateWithConflicts(t.Context(), n.store, md, func(m *cluster.Member) error {
		m.TypedSpec().MachineType = cluster.TypeControlPlane
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range ways {
		eventually(t, func() error {
			if err := ask(name); err == nil || !strings.Contains(err.Error(), "not that of a control plane node, which "+name+" is") {
				return fmt.Errorf("%s = %w, want that it is no control plane node", name, err)
			}
			return nil
		})
	}
	squatter.certify(t, func(s *secrets.ApiCertificateSpec) { s.Server = ca.serverFor(t, "cp-2", there) })
	for _, name := range ways {
		eventually(t, func() error { return ask(name) })
	}
}

func TestMembers(t *testing.T) {
	var m members
	if _, err := m.find("a"); status.Code(err) != codes.NotFound {
		t.Errorf("before there are any = %v, want NotFound", err)
	}
	addr := netip.MustParseAddr("10.0.0.1")
	m.set([]*cluster.MemberSpec{
		{Hostname: "A", Addresses: []netip.Addr{addr, netip.MustParseAddr("fd00::1")}}, {Hostname: "silent"}, {Addresses: []netip.Addr{addr}},
		{Hostname: "twin", Addresses: []netip.Addr{addr}}, {Hostname: "Twin", Addresses: []netip.Addr{addr}},
	})
	got, err := m.find("a.")
	if want := []string{"10.0.0.1:50000", "[fd00::1]:50000"}; err != nil || got.hostname != "a" || !slices.Equal(got.addresses, want) {
		t.Errorf("find(a.) = %+v, %v; want %v", got, err, want)
	}
	for name, want := range map[string]codes.Code{"silent": codes.NotFound, "": codes.NotFound, "a.example.org": codes.NotFound, "twin": codes.FailedPrecondition} {
		if _, err := m.find(name); status.Code(err) != want {
			t.Errorf("find(%q) = %v, want %v", name, err, want)
		}
	}
}

// TestChangedMembers: what is meant by a name or an address, and when that is
// another than before.
func TestChangedMembers(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	worker := func(name string, at ...netip.Addr) *cluster.MemberSpec {
		return &cluster.MemberSpec{Hostname: name, Addresses: at, MachineType: cluster.TypeWorker}
	}
	control := func(name string, at ...netip.Addr) *cluster.MemberSpec {
		m := worker(name, at...)
		m.MachineType = cluster.TypeControlPlane
		return m
	}
	var m members
	for _, step := range []struct {
		list    []*cluster.MemberSpec
		changed []string
		control []string
	}{
		{list: []*cluster.MemberSpec{worker("x", a)}},
		{list: []*cluster.MemberSpec{worker("x", a)}},
		{list: []*cluster.MemberSpec{worker("x", a), control("y", b)}, changed: []string{"10.0.0.2"}, control: []string{"10.0.0.2", "y"}},
		{list: []*cluster.MemberSpec{control("x", a), control("y", b)}, changed: []string{"10.0.0.1", "x"}, control: []string{"10.0.0.1", "10.0.0.2", "x", "y"}},
		{list: []*cluster.MemberSpec{control("x", b)}, changed: []string{"10.0.0.1", "x", "y"}, control: []string{"10.0.0.2", "x"}},
		{changed: []string{"10.0.0.2", "x"}},
	} {
		changed := m.set(step.list)
		slices.Sort(changed)
		var control []string
		for _, name := range []string{"10.0.0.1", "10.0.0.2", "x", "y"} {
			if m.controlPlane(name) {
				control = append(control, name)
			}
		}
		if !slices.Equal(changed, step.changed) || !slices.Equal(control, step.control) {
			t.Errorf("set(%v): changed %q, control plane %q; want %q, %q", step.list, changed, control, step.changed, step.control)
		}
	}
}

// TestRace dials a node with several addresses.
func TestRace(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	try := func(ctx context.Context, address string) (net.Conn, error) {
		switch address {
		case "good":
			return client, nil
		case "silent":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, errors.New(address)
	}
	for _, addresses := range [][]string{{"good"}, {"refused", "good"}, {"silent", "good"}, {"silent", "refused", "silent", "good", "silent"}} {
		conn, err := race(t.Context(), addresses, try)
		if err != nil || conn != client {
			t.Errorf("race(%v) = %v, %v", addresses, conn, err)
		}
	}
	if _, err := race(t.Context(), []string{"one", "two"}, try); err == nil || err.Error() != "one\ntwo" {
		t.Errorf("race of bad ones = %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := race(ctx, []string{"silent", "silent"}, try); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("race of silent ones = %v", err)
	}
}
