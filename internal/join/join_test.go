package join_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/api/membership"
	"talos/api/security"
	"talos/config"
	"talos/internal/apid"
	"talos/internal/audit"
	"talos/internal/identity"
	"talos/internal/join"
	"talos/internal/layout"
	"talos/internal/pki"
	"talos/internal/resources/cluster"
	"talos/internal/resources/runtime"
	secretres "talos/internal/resources/secrets"
	"talos/internal/resources/v1alpha1"
	"talos/internal/secrets"
)

// TestWorkerJoins: a worker gets its certificate for all its addresses, both
// sides know each other, and a renewed certificate is served by the same apid;
// while no control plane node answers, the old one is.
func TestWorkerJoins(t *testing.T) {
	w := newWorld(t)
	worker := w.node("worker-1", w.worker, "10.5.0.7", "10.6.0.7")
	crt := await(t, worker.st, secretres.NewApiCertificate(secrets.APIID), func(r *secretres.ApiCertificate) bool { return r.TypedSpec().Server != nil }).TypedSpec()
	leaf, err := pki.ParseCertificate(crt.Server.Crt)
	must(t, err)
	for _, name := range []string{"worker-1", "10.5.0.7", "10.6.0.7"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if crt.Client != nil || len(leaf.Subject.Organization) > 0 || leaf.IsCA || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("certificate of %v, CA %v, for %v, client %v", leaf.Subject, leaf.IsCA, leaf.ExtKeyUsage, crt.Client != nil)
	}
	for _, id := range []string{"cp-1", "worker-1"} {
		m := await(t, worker.st, cluster.NewMember(id), func(*cluster.Member) bool { return true }).TypedSpec()
		if port := m.ControlPlane; (port != nil) != (id == "cp-1") || m.Hostname != id || m.NodeID == "" {
			t.Errorf("member %s = %+v", id, m)
		}
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	records := audit.New(discard{})
	go func() {
		served <- apid.Serve(ctx, quiet(), apid.Config{Listener: listener, Store: worker.st, Router: filepath.Join(t.TempDir(), "none"), Audit: records})
	}()
	defer func() { cancel(); must(t, <-served); records.Close() }()
	address := listener.Addr().String()
	first := w.awaitSerial(address, "")

	w.down.Store(true)
	w.offset.Store(int64((13 * time.Hour).Seconds()))
	worker.nudge(t)
	if got := w.awaitSerial(address, ""); got != first {
		t.Errorf("without trustd apid shows %s, want %s still", got, first)
	}
	w.down.Store(false)
	second := w.awaitSerial(address, first)
	if second == first {
		t.Error("the certificate was not renewed")
	}
	if again, err := identity.Load(filepath.Join(t.TempDir(), "other")); err != nil || again.ID == worker.others.Identity.ID {
		t.Errorf("two nodes are one: %v, %v", again, err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// awaitSerial waits until the node at address shows another certificate than
// the one given.
func (w *world) awaitSerial(address, other string) string {
	w.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		serial, err := w.presented(address, "worker-1")
		if err == nil && serial != other {
			return serial
		}
		if time.Since(began) > time.Minute {
			w.t.Fatalf("%s shows %s, %v", address, serial, err)
		}
	}
}

// TestStartWithoutTrustd: a worker that starts while no control plane node
// answers serves with what it had, knows whom it knew, and is itself; with an
// address that the certificate lacks it asks for another when it can.
func TestStartWithoutTrustd(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	served := func(r *secretres.ApiCertificate) bool { return r.TypedSpec().Server != nil }
	before := w.nodeOn(dir, "worker-1", w.worker, "10.5.0.7")
	first := await(t, before.st, secretres.NewApiCertificate(secrets.APIID), served).TypedSpec().Server
	await(t, before.st, cluster.NewMember("cp-1"), func(*cluster.Member) bool { return true })
	before.stop()
	w.down.Store(true)
	after := w.nodeOn(dir, "worker-1", w.worker, "10.5.0.7")
	again := await(t, after.st, secretres.NewApiCertificate(secrets.APIID), served).TypedSpec().Server
	if !slices.Equal(again.Crt, first.Crt) || !slices.Equal(again.Key, first.Key) {
		t.Error("it has another certificate than before, with nobody to ask")
	}
	await(t, after.st, cluster.NewMember("cp-1"), func(m *cluster.Member) bool { return m.TypedSpec().ControlPlane != nil })
	if after.others.Identity.ID != before.others.Identity.ID {
		t.Error("it is another node than before")
	}
	after.stop()
	moved := w.nodeOn(dir, "worker-1", w.worker, "10.5.0.7", "10.6.0.7")
	await(t, moved.st, secretres.NewApiCertificate(secrets.APIID), served)
	w.down.Store(false)
	await(t, moved.st, secretres.NewApiCertificate(secrets.APIID), func(r *secretres.ApiCertificate) bool {
		leaf, err := pki.ParseCertificate(r.TypedSpec().Server.Crt)
		return err == nil && leaf.VerifyHostname("10.6.0.7") == nil
	})
}

// TestWipedNodeComesBack: a machine whose STATE is new gets its name again at
// its address; at another it does not, and what it was before can't return.
func TestWipedNodeComesBack(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	before := w.nodeOn(dir, "worker-1", w.worker, "10.5.0.7")
	served := func(r *secretres.ApiCertificate) bool { return r.TypedSpec().Server != nil }
	await(t, before.st, secretres.NewApiCertificate(secrets.APIID), served)
	before.stop()
	after := w.node("worker-1", w.worker, "10.5.0.7")
	await(t, after.st, secretres.NewApiCertificate(secrets.APIID), served)
	cp := w.node("cp-2", w.worker, "10.5.0.9") // any that watches
	m := await(t, cp.st, cluster.NewMember("worker-1"), func(m *cluster.Member) bool { return m.TypedSpec().NodeID == string(after.others.Identity.ID) })
	if got := m.TypedSpec().Addresses; len(got) != 1 || got[0].String() != "10.5.0.7" {
		t.Errorf("worker-1 is at %v", got)
	}
	_, err := (&join.Client{Identity: mustIdentity(t), Dial: w.dial}).Certificate(t.Context(), w.cluster(), want("worker-1", "10.5.0.8"), w.now())
	if status.Code(rootOf(err)) != codes.PermissionDenied || !strings.Contains(err.Error(), "talosctl forget worker-1") {
		t.Errorf("another at another address = %v, want a refusal that says what to do", err)
	}
	// One that leaves sets its name free.
	must(t, after.others.Leave(t.Context(), after.st))
	if _, err = (&join.Client{Identity: mustIdentity(t), Dial: w.dial}).Certificate(t.Context(), w.cluster(), want("worker-1", "10.5.0.8"), w.now()); err != nil {
		t.Errorf("after it has left: %v", err)
	}
}

func want(name string, addresses ...string) join.Want {
	out := join.Want{Names: []string{name}, OperatingSystem: "Talos (v0)"}
	for _, a := range addresses {
		out.Addresses = append(out.Addresses, netip.MustParseAddr(a))
	}
	return out
}

func mustIdentity(t *testing.T) *identity.Identity {
	t.Helper()
	made, err := identity.New()
	must(t, err)
	return made
}

// rootOf finds the error that carries a status.
func rootOf(err error) error {
	for err != nil {
		if _, ok := status.FromError(err); ok && status.Code(err) != codes.Unknown {
			return err
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			err = e.Unwrap()[0]
		default:
			return err
		}
	}
	return nil
}

// thief has the token and the secret, and an address; he tries for more.
type thief struct {
	*world
	*identity.Identity
	t    *testing.T
	from string
}

// call is one attempt: what a thief sends and what he makes of it.
type call struct {
	names     []string
	addresses []string
	subject   pkix.Name
	extra     []pkix.Extension
	token     string // empty: the right one
	secret    string // empty: the right one
	proofs    [][]byte
	change    func(*security.CertificateRequest)
}

func (th *thief) dialFrom(from string) *grpc.ClientConn {
	th.t.Helper()
	conn, err := grpc.NewClient("passthrough:///x",
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: th.cluster().Roots, ServerName: layout.TrustName})),
		grpc.WithContextDialer(func(ctx context.Context, host string) (net.Conn, error) {
			return th.dial(ctx, netip.MustParseAddr(from), host)
		}))
	must(th.t, err)
	th.t.Cleanup(func() { conn.Close() })
	return conn
}

func (th *thief) try(c call) (*x509.Certificate, error) {
	th.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(th.t, err)
	template := &x509.CertificateRequest{Subject: c.subject, DNSNames: c.names, ExtraExtensions: c.extra}
	for _, a := range c.addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(a))
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	must(th.t, err)
	r := identity.Request{CSR: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), Identity: th.Public, Proofs: c.proofs}
	cl := th.cluster()
	token, secret := cl.Token, cl.Secret
	if c.token != "" {
		token = c.token
	}
	if c.secret != "" {
		secret = c.secret
	}
	request := &security.CertificateRequest{
		Csr: r.CSR, Identity: r.Identity, Proofs: r.Proofs, Signature: th.Sign(r.Statement()), Mac: join.MAC(secret, r.Statement()),
	}
	if c.change != nil {
		c.change(request)
	}
	ctx := metadata.AppendToOutgoingContext(th.t.Context(), "token", token)
	answer, err := security.NewSecurityServiceClient(th.dialFrom(th.from)).Certificate(ctx, request)
	if err != nil {
		return nil, err
	}
	crt, err := pki.ParseCertificate(answer.GetCrt())
	must(th.t, err)
	return crt, nil
}

func (th *thief) proof(from string, of *identity.Identity) []byte {
	th.t.Helper()
	ctx := metadata.AppendToOutgoingContext(th.t.Context(), "token", th.cluster().Token)
	answer, err := membership.NewMembershipServiceClient(th.dialFrom(from)).Prove(ctx, &membership.ProveRequest{Identity: of.Public})
	must(th.t, err)
	return answer.GetProof()
}

// TestThief tries, with everything that a worker's configuration holds, to be
// certified as what is not his.
func TestThief(t *testing.T) {
	w := newWorld(t)
	victim := w.node("worker-1", w.worker, "10.5.0.7")
	await(t, victim.st, secretres.NewApiCertificate(secrets.APIID), func(r *secretres.ApiCertificate) bool { return r.TypedSpec().Server != nil })
	th := &thief{world: w, Identity: mustIdentity(t), t: t, from: "10.5.3.1"}
	second := th.proof("10.5.3.2", th.Identity)
	bent := slices.Clone(second)
	bent[15] ^= 1
	for i, c := range []struct {
		what  string
		call  call
		want  codes.Code
		words string
	}{
		{what: "another's name", call: call{names: []string{"worker-1"}}, want: codes.PermissionDenied, words: "worker-1"},
		{what: "in other letters", call: call{names: []string{"WORKER-1"}}, want: codes.PermissionDenied, words: "worker-1"},
		{what: "another's address", call: call{names: []string{"evil"}, addresses: []string{"10.5.0.7"}}, want: codes.PermissionDenied, words: "10.5.0.7"},
		{what: "a control plane node's name", call: call{names: []string{"cp-1"}}, want: codes.PermissionDenied, words: "control plane"},
		{what: "a control plane node's address", call: call{names: []string{"evil"}, addresses: []string{"10.5.0.2"}}, want: codes.PermissionDenied, words: "10.5.0.2"},
		{what: "the endpoint", call: call{names: []string{"evil"}, addresses: []string{endpoint}}, want: codes.PermissionDenied, words: endpoint},
		{what: "localhost", call: call{names: []string{"localhost"}}, want: codes.PermissionDenied, words: "not a node's"},
		{what: "localhost's address", call: call{names: []string{"evil"}, addresses: []string{"127.0.0.1"}}, want: codes.PermissionDenied, words: "127.0.0.1"},
		{what: "a trustd's name", call: call{names: []string{layout.TrustName}}, want: codes.PermissionDenied, words: "not a node's"},
		{what: "a control plane node's API's name", call: call{names: []string{layout.APIName}}, want: codes.PermissionDenied, words: "not a node's"},
		{what: "it beside a name", call: call{names: []string{"api", layout.APIName}}, want: codes.PermissionDenied, words: "not a node's"},
		{what: "a member of etcd's name", call: call{names: []string{"one"}}, want: codes.PermissionDenied, words: "control plane"},
		{what: "no name", call: call{}, want: codes.PermissionDenied, words: "no host"},
		{what: "wrong token", call: call{names: []string{"evil"}, token: "aaaaaa.0123456789abcdef"}, want: codes.PermissionDenied, words: "token"},
		{what: "wrong secret", call: call{names: []string{"evil"}, secret: "guess"}, want: codes.PermissionDenied, words: "cluster.secret"},
		{what: "a CA", call: call{names: []string{"evil"}, extra: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}}, want: codes.InvalidArgument, words: "2.5.29.19"},
		{what: "too long", call: call{names: []string{"evil"}, extra: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: make([]byte, 32<<10)}}}, want: codes.InvalidArgument, words: "bytes"},
		{what: "a proof of nothing", call: call{names: []string{"evil"}, addresses: []string{"10.5.3.2"}, proofs: [][]byte{{1}}}, want: codes.PermissionDenied, words: "bytes"},
		{what: "a bent proof", call: call{names: []string{"evil"}, addresses: []string{"10.5.3.3"}, proofs: [][]byte{bent}}, want: codes.PermissionDenied, words: "not one that this cluster gave"},
		{what: "another's proof", call: call{names: []string{"evil"}, addresses: []string{"10.5.0.7"}, proofs: [][]byte{th.proof("10.5.0.7", victim.others.Identity)}}, want: codes.PermissionDenied, words: "not one that this cluster gave"},
		{what: "another's identity", call: call{names: []string{"evil"}, change: func(r *security.CertificateRequest) { r.Identity = victim.others.Identity.Public; r.Mac = nil }}, want: codes.PermissionDenied, words: "secret"},
		{what: "a changed statement", call: call{names: []string{"evil"}, change: func(r *security.CertificateRequest) { r.OperatingSystem = "Windows" }}, want: codes.PermissionDenied, words: "secret"},
	} {
		th.from = "10.5.3." + string(rune('1'+i%2*3)) // paced by address
		if i%2 == 1 {
			th.from = "10.5.3.4"
		}
		if crt, err := th.try(c.call); status.Code(err) != c.want || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, %v; want %v with %q", c.what, crt, err, c.want, c.words)
		}
	}

	// With what is his, he gets what is his: roles that he asks for are not there.
	th.from = "10.5.3.5"
	crt, err := th.try(call{names: []string{"evil"}, addresses: []string{"10.5.3.5", "10.5.3.2"}, proofs: [][]byte{second}, subject: pkix.Name{CommonName: "os:admin", Organization: []string{"os:admin", "os:impersonator"}}})
	must(t, err)
	if len(crt.Subject.Organization) > 0 || crt.Subject.CommonName != "evil" || slices.Contains(crt.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || crt.IsCA {
		t.Errorf("certificate of %v, CA %v, for %v", crt.Subject, crt.IsCA, crt.ExtKeyUsage)
	}
	// A proof gets old.
	w.offset.Store(180)
	if _, err := th.try(call{names: []string{"evil"}, addresses: []string{"10.5.3.5", "10.5.3.2"}, proofs: [][]byte{second}}); !strings.Contains(err.Error(), "too old") {
		t.Errorf("an old proof = %v", err)
	}
	// He is one who asks too often; in the midst of it he becomes a member.
	client := security.NewSecurityServiceClient(th.dialFrom(th.from))
	for n := 0; n < 120 || n < 1000 && status.Code(err) != codes.ResourceExhausted; n++ { // now and then one is let through
		_, err = client.Certificate(metadata.AppendToOutgoingContext(t.Context(), "token", "guess"), &security.CertificateRequest{})
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("asking on = %v, want ResourceExhausted", err)
	}
	// He can't send others away.
	th.leave("10.5.3.6", victim.others.Identity.Public, th.Sign(identity.LeaveStatement(victim.others.Identity.Public, w.now().Unix())), "not the identity's")
	th.leave("10.5.3.6", victim.others.Identity.Public, victim.others.Identity.Sign(identity.LeaveStatement(victim.others.Identity.Public, w.now().Unix())), "not at")
}

// TestUnannounced: who was certified under a name before the control plane node
// of that name came loses it when it comes: the list has the control plane node,
// renewal is refused, a diagnostic says until when the certificate is good, and
// what it lacks is what other nodes look for.
func TestUnannounced(t *testing.T) {
	w := newWorld(t)
	th := &thief{world: w, Identity: mustIdentity(t), t: t, from: "10.5.3.1"}
	squat := call{names: []string{"cp-2"}, addresses: []string{"10.5.3.1"}}
	crt, err := th.try(squat)
	for end := time.Now().Add(time.Minute); status.Code(err) == codes.Unavailable && time.Now().Before(end); crt, err = th.try(squat) {
		time.Sleep(10 * time.Millisecond) // who issues certificates starts just now
	}
	must(t, err)
	watcher := w.node("worker-1", w.worker, "10.5.0.7")
	await(t, watcher.st, cluster.NewMember("cp-2"), func(m *cluster.Member) bool { return m.TypedSpec().MachineType == cluster.TypeWorker })

	cp := w.node("cp-2", w.control, "10.5.0.3")
	healthy := v1alpha1.NewService("etcd")
	healthy.TypedSpec().Running, healthy.TypedSpec().Healthy = true, true
	must(t, cp.st.Create(t.Context(), healthy))
	m := await(t, watcher.st, cluster.NewMember("cp-2"), func(m *cluster.Member) bool { return m.TypedSpec().MachineType == cluster.TypeControlPlane })
	if got := m.TypedSpec(); len(got.Addresses) != 1 || got.Addresses[0].String() != "10.5.0.3" {
		t.Errorf("cp-2 is at %v", got.Addresses)
	}
	d := await(t, cp.st, runtime.NewDiagnostic("name-conflict-cp-2"), func(*runtime.Diagnostic) bool { return true }).TypedSpec()
	if len(d.Details) != 1 || !strings.Contains(d.Details[0], "10.5.3.1") || !strings.Contains(d.Details[0], string(identity.Of(th.Public))) {
		t.Errorf("diagnostic %+v, want who it was and where", d)
	}
	for _, names := range [][]string{{"cp-2"}, {"cp-2", "cp-2.evil.org"}} {
		if _, err := th.try(call{names: names, addresses: []string{"10.5.3.1"}}); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "control plane") {
			t.Errorf("renewal for %q = %v, want a refusal", names, err)
		}
	}
	own := await(t, cp.st, secretres.NewApiCertificate(secrets.APIID), func(r *secretres.ApiCertificate) bool { return r.TypedSpec().Server != nil }).TypedSpec()
	leaf, err := pki.ParseCertificate(own.Server.Crt)
	must(t, err)
	if err := leaf.VerifyHostname(layout.APIName); err != nil {
		t.Errorf("the control plane node's certificate: %v", err)
	}
	if crt.VerifyHostname(layout.APIName) == nil {
		t.Error("the thief's certificate passes for that of a control plane node")
	}
}

func (th *thief) leave(from string, public, signature []byte, words string) {
	th.t.Helper()
	ctx := metadata.AppendToOutgoingContext(th.t.Context(), "token", th.cluster().Token)
	_, err := membership.NewMembershipServiceClient(th.dialFrom(from)).Leave(ctx, &membership.LeaveRequest{Identity: public, Time: th.now().Unix(), Signature: signature})
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), words) {
		th.t.Errorf("Leave for another = %v, want a refusal with %q", err, words)
	}
}

// TestNoEtcd: a control plane node without etcd says so, and the worker goes
// on asking until it has.
func TestNoEtcd(t *testing.T) {
	w := newWorld(t)
	probe := &join.Client{Identity: mustIdentity(t), Dial: w.dial}
	for live := false; !live; {
		var changed <-chan struct{}
		if _, live, changed = w.signerList.Now(); !live {
			<-changed
		}
	}
	w.signerList.Stale()
	_, err := probe.Certificate(t.Context(), w.cluster(), want("worker-2", "10.5.0.8"), w.now())
	if err == nil || !strings.Contains(err.Error(), "no part in etcd") {
		t.Fatalf("Certificate = %v, want that there is no etcd", err)
	}
	worker := w.node("worker-2", w.worker, "10.5.0.8")
	records, _, _ := w.signerList.Now()
	w.signerList.Set(records, true)
	await(t, worker.st, secretres.NewApiCertificate(secrets.APIID), func(r *secretres.ApiCertificate) bool { return r.TypedSpec().Server != nil })
}

// TestUnlisted: a worker that wants no discovery gets its certificate, and is
// on nobody's list but its own.
func TestUnlisted(t *testing.T) {
	w := newWorld(t)
	off := false
	hidden := *w.cfg
	hiddenCluster := *hidden.Cluster
	hiddenCluster.Discovery = &config.Discovery{Enabled: &off}
	hidden.Cluster = &hiddenCluster
	document, err := hidden.Bytes()
	must(t, err)
	served := func(r *secretres.ApiCertificate) bool { return r.TypedSpec().Server != nil }
	there := func(*cluster.Member) bool { return true }
	alone := w.node("hidden", document, "10.5.0.8")
	await(t, alone.st, secretres.NewApiCertificate(secrets.APIID), served)
	await(t, alone.st, cluster.NewMember("hidden"), there)
	other := w.node("worker-1", w.worker, "10.5.0.7") // comes after it on every list
	await(t, other.st, secretres.NewApiCertificate(secrets.APIID), served)
	await(t, alone.st, cluster.NewMember("worker-1"), there)
	await(t, other.st, cluster.NewMember("cp-1"), there)
	if _, err := other.st.Get(t.Context(), cluster.NewMember("hidden").Metadata()); !state.IsNotFoundError(err) {
		t.Errorf("others see it: %v", err)
	}
}
