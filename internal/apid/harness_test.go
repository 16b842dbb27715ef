package apid

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
	"talos/internal/audit"
	"talos/internal/authz"
	"talos/internal/door"
	"talos/internal/linux/peercred"
	"talos/internal/resources/cluster"
	"talos/internal/resources/network"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
	"talos/internal/routerd"
	"talos/internal/store"
)

// authority signs certificates for tests.
type authority struct {
	crt *x509.Certificate
	key ed25519.PrivateKey
	pem []byte
}

var serials int64

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{crt: crt, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue signs a certificate, after change had its way with it.
func (a *authority) issue(t testing.TB, name string, roles []string, change func(*x509.Certificate)) *respem.CertificateAndKey {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serials++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x1000 + serials), Subject: pkix.Name{CommonName: name, Organization: roles},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.crt, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &respem.CertificateAndKey{
		Crt: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "ED25519 PRIVATE KEY", Bytes: pkcs8}),
	}
}

func (a *authority) server(t testing.TB) *respem.CertificateAndKey {
	return a.issue(t, "node", nil, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	})
}

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// wait returns once the log has a line with all the words.
func (l *lines) wait(t testing.TB, words ...string) string {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
	next:
		for line := range strings.Lines(l.String()) {
			for _, word := range words {
				if !strings.Contains(line, word) {
					continue next
				}
			}
			return line
		}
	}
	t.Fatalf("no line with %q in\n%s", words, l)
	return ""
}

// machined is a daemon behind routerd, with the interceptors of a real one.
type machined struct {
	machine.UnimplementedMachineServiceServer
	mu       sync.Mutex // guards the fields below
	identity authz.Identity
	incoming metadata.MD
	deadline time.Time
	block    chan struct{} // Reboot waits for it
	tag      string        // what Version says; v1.2.3 if empty
	slow     bool          // Version waits until the caller has gone

	maintenance bool // it has no configuration either
}

func (m *machined) note(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.identity = authz.FromContext(ctx)
	m.incoming, _ = metadata.FromIncomingContext(ctx)
	m.deadline, _ = ctx.Deadline()
}

func (m *machined) Version(ctx context.Context, _ *emptypb.Empty) (*machine.VersionResponse, error) {
	m.note(ctx)
	if m.slow {
		<-ctx.Done()
	}
	return &machine.VersionResponse{Messages: []*machine.Version{{Version: &machine.VersionInfo{Tag: cmp.Or(m.tag, "v1.2.3")}}}}, nil
}

func (m *machined) Hostname(ctx context.Context, _ *emptypb.Empty) (*machine.HostnameResponse, error) {
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-head", "1")); err != nil {
		return nil, err
	}
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "2")) // after SetHeader it cannot fail
	return &machine.HostnameResponse{}, nil
}

func (m *machined) Reboot(ctx context.Context, _ *machine.RebootRequest) (*machine.RebootResponse, error) {
	m.note(ctx)
	if m.block != nil {
		<-m.block
	}
	return &machine.RebootResponse{}, nil
}

func (m *machined) ApplyConfiguration(ctx context.Context, _ *machine.ApplyConfigurationRequest) (*machine.ApplyConfigurationResponse, error) {
	m.note(ctx)
	if m.block != nil {
		<-m.block
	}
	return &machine.ApplyConfigurationResponse{Messages: []*machine.ApplyConfiguration{{ModeDetails: "applied"}}}, nil
}

func (m *machined) Events(r *machine.EventsRequest, stream grpc.ServerStreamingServer[machine.Event]) error {
	for i := range r.GetTailEvents() {
		if err := stream.Send(&machine.Event{Id: fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	if r.GetTailId() == "follow" {
		<-stream.Context().Done()
	}
	return status.Error(codes.DataLoss, "the end")
}

func (m *machined) Logs(r *machine.LogsRequest, stream grpc.ServerStreamingServer[common.Data]) error {
	return stream.Send(&common.Data{Bytes: make([]byte, r.GetTailLines())})
}

func (m *machined) EtcdRecover(stream grpc.ClientStreamingServer[common.Data, machine.EtcdRecoverResponse]) error {
	var total int
	for {
		chunk, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&machine.EtcdRecoverResponse{Messages: []*machine.EtcdRecover{{Metadata: &common.Metadata{Error: fmt.Sprint(total)}}}})
		} else if err != nil {
			return err
		}
		total += len(chunk.GetBytes())
	}
}

// serve answers on a socket until the returned function is called.
func (m *machined) serve(t testing.TB, socket string) (stop func()) {
	t.Helper()
	_ = os.Remove(socket) // of one that was stopped
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	unconfigured := authz.WithMaintenance(func() bool { return m.maintenance })
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(64<<20),
		grpc.InitialWindowSize(door.Window), grpc.InitialConnWindowSize(door.Window),
		grpc.UnaryInterceptor(authz.UnaryServerInterceptor(unconfigured)), grpc.StreamInterceptor(authz.StreamServerInterceptor(unconfigured)))
	machine.RegisterMachineServiceServer(server, m)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return server.Stop
}

// node is apid, routerd and a machined, on sockets of their own.
type node struct {
	store    state.State
	machined *machined
	log      *lines
	audit    *lines
	address  string
	ip       string // of a node that others know
	ca       *authority

	machineSocket, routerSocket string
	stopMachined, stopRouter    func()
	stopAPI                     func()
}

// identity is what a node of a test is called and how it proves it.
type identity struct {
	ca               *authority
	listen           string // host and port
	hostname, domain string
	addresses        []netip.Prefix
	server, client   *respem.CertificateAndKey
	members          []*cluster.MemberSpec
	maintenance      bool // the node has no configuration
}

// newNode is a worker: it has no certificate to speak to others.
func newNode(t testing.TB) *node {
	t.Helper()
	ca := newAuthority(t, "os")
	return startNode(t, identity{
		ca: ca, listen: "127.0.0.1:0", hostname: "cp-1", domain: "example.org", server: ca.server(t),
		addresses: []netip.Prefix{netip.MustParsePrefix("10.5.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
	})
}

func startNode(t testing.TB, id identity) *node {
	t.Helper()
	n := &node{machined: &machined{maintenance: id.maintenance}, log: &lines{}, audit: &lines{}, ca: id.ca}
	dir := t.TempDir()
	n.machineSocket, n.routerSocket = filepath.Join(dir, "m.sock"), filepath.Join(dir, "r.sock")
	n.stopMachined = n.machined.serve(t, n.machineSocket)
	n.startRouter(t)

	var err error
	if n.store, err = store.New(t.Context()); err != nil {
		t.Fatal(err)
	}
	certificate := secrets.NewApiCertificate("api")
	*certificate.TypedSpec() = secrets.ApiCertificateSpec{Server: id.server, Client: id.client, AcceptedCAs: []*respem.Certificate{{Crt: n.ca.pem}}}
	if id.maintenance {
		*certificate.TypedSpec() = secrets.ApiCertificateSpec{Server: id.server, SkipVerifyingClientCert: true}
	}
	addresses := network.NewNodeAddress("current")
	addresses.TypedSpec().Addresses = id.addresses
	hostname := network.NewHostnameStatus("hostname")
	hostname.TypedSpec().Hostname, hostname.TypedSpec().Domainname = id.hostname, id.domain
	all := []resource.Resource{certificate, addresses, hostname}
	for i, spec := range id.members {
		member := cluster.NewMember(fmt.Sprint("member-", i))
		*member.TypedSpec() = *spec
		all = append(all, member)
	}
	for _, r := range all {
		if err := n.store.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	n.address = id.listen
	n.startAPI(t)
	return n
}

// startAPI serves at the node's address; with port 0 it gets one.
func (n *node) startAPI(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	n.address = listener.Addr().String()
	records := audit.New(n.audit)
	serving := strings.Count(n.log.String(), "msg=serving")
	n.stopAPI = start(t, func(ctx context.Context) error {
		defer records.Close()
		return Serve(ctx, n.logger(), Config{Listener: listener, Store: n.store, Router: n.routerSocket, Audit: records})
	})
	eventually(t, func() error {
		if strings.Count(n.log.String(), "msg=serving") == serving {
			return errors.New("apid does not serve")
		}
		return nil
	})
}

func (n *node) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (n *node) startRouter(t testing.TB) {
	t.Helper()
	listener, err := peercred.Listen(n.routerSocket)
	if err != nil {
		t.Fatal(err)
	}
	n.stopRouter = start(t, func(ctx context.Context) error {
		return routerd.Serve(ctx, slog.New(slog.DiscardHandler), listener, routerd.Config{
			Credentials: peercred.Credentials(uint32(os.Getuid())),
			Machine:     n.machineSocket, Network: "/nonexistent/n.sock", Time: "/nonexistent/t.sock",
		})
	})
}

// start runs a daemon; the function it returns stops it and waits.
func start(t testing.TB, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			t.Errorf("daemon ended: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// dial connects with a client certificate, or none.
func (n *node) dial(t testing.TB, client *respem.CertificateAndKey) *grpc.ClientConn {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(n.ca.crt)
	if client != nil {
		pair, err := tls.X509KeyPair(client.Crt, client.Key)
		if err != nil {
			t.Fatal(err)
		}
		// Sent even when the server would not accept it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	conn, err := grpc.NewClient("passthrough:///"+n.address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)),
		grpc.WithInitialWindowSize(2*door.Window), grpc.WithInitialConnWindowSize(2*door.Window))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (n *node) client(t testing.TB, roles ...string) machine.MachineServiceClient {
	return machine.NewMachineServiceClient(n.dial(t, n.ca.issue(t, "alice", roles, nil)))
}

// certify changes the node's certificates.
func (n *node) certify(t testing.TB, change func(*secrets.ApiCertificateSpec)) {
	t.Helper()
	md := secrets.NewApiCertificate("api").Metadata()
	if _, err := safe.StateUpdateWithConflicts(t.Context(), n.store, md, func(r *secrets.ApiCertificate) error {
		change(r.TypedSpec())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// record waits for the audit line of a method with an outcome.
func (n *node) record(t testing.TB, method, code string) map[string]any {
	t.Helper()
	line := n.audit.wait(t, `/`+method+`"`, `"code":"`+code+`"`)
	var r map[string]any
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Fatalf("audit line %q: %v", line, err)
	}
	return r
}
