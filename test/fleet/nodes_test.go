//go:build !race

package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/internal/layout"
	"talos/internal/pki"
	"talos/internal/resources/network"
	"talos/internal/resources/pem"
	"talos/internal/resources/secrets"
	"talos/internal/store"
)

// authority signs for the fleet.
type authority struct {
	*pki.CA
	crt []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	pair, err := pki.NewCA(pki.Ed25519, pki.Subject{Organization: []string{"talos"}}, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.ParseCA(pair.Crt, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{CA: ca, crt: pair.Crt}
}

func (a *authority) server(t testing.TB, addr netip.Addr) pki.Pair {
	return a.issue(t, pki.Template{CommonName: addr.String(), Server: true, IPs: []netip.Addr{addr}})
}

func (a *authority) person(t testing.TB, name, role string) pki.Pair {
	return a.issue(t, pki.Template{CommonName: name, Client: true, Organization: []string{role}})
}

func (a *authority) issue(t testing.TB, template pki.Template) pki.Pair {
	t.Helper()
	template.Lifetime = time.Hour
	pair, err := a.Issue(template, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// address is the n-th of the loopback addresses that no other test process
// uses at the same time.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(200 + os.Getpid()%50), byte(n / 250), byte(n%250 + 1)})
}

func endpoint(addr netip.Addr) string {
	return net.JoinHostPort(addr.String(), strconv.Itoa(layout.APIPort))
}

// gateway is a node of real programs, or its apid alone.
type gateway struct {
	*process // apid
	store    state.State
	ca       *authority
	address  string
}

func startGateway(t testing.TB, ca *authority, addr netip.Addr, whole bool) *gateway {
	t.Helper()
	dir := t.TempDir()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	certificate := secrets.NewApiCertificate("api")
	*certificate.TypedSpec() = secrets.ApiCertificateSpec{
		Server: resourcePair(ca.server(t, addr)), Client: resourcePair(ca.person(t, "gateway", "os:impersonator")),
		AcceptedCAs: []*pem.Certificate{{Crt: ca.crt}},
	}
	own := network.NewNodeAddress("current")
	own.TypedSpec().Addresses = []netip.Prefix{netip.PrefixFrom(addr, 8)}
	hostname := network.NewHostnameStatus("hostname")
	hostname.TypedSpec().Hostname = "gateway"
	for _, err := range []error{st.Create(t.Context(), certificate), st.Create(t.Context(), own), st.Create(t.Context(), hostname)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Serve(ctx, st, filepath.Join(dir, storeSocket), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { cancel(); <-done }) // it says that it was stopped
	if whole {
		startProcess(t, "machined", dir)
		startProcess(t, "routerd", dir)
	}
	g := &gateway{store: st, ca: ca, address: endpoint(addr)}
	g.process = startProcess(t, "apid", dir, addrVariable+"="+g.address)
	eventually(t, time.Minute, func() error {
		conn, err := net.Dial("tcp", g.address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return g
}

func resourcePair(p pki.Pair) *pem.CertificateAndKey {
	return &pem.CertificateAndKey{Crt: p.Crt, Key: p.Key}
}

// renew gives the gateway another certificate to speak to nodes.
func (g *gateway) renew(t testing.TB) {
	t.Helper()
	if _, err := safe.StateUpdateWithConflicts(t.Context(), g.store, secrets.NewApiCertificate("api").Metadata(), func(r *secrets.ApiCertificate) error {
		r.TypedSpec().Client = resourcePair(g.ca.person(t, "gateway", "os:impersonator"))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func (g *gateway) dial(t testing.TB) machine.MachineServiceClient {
	t.Helper()
	pair, err := pki.TLS(g.ca.person(t, "alice", "os:reader"))
	if err != nil {
		t.Fatal(err)
	}
	roots, err := pki.Pool(g.ca.crt)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+g.address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32<<20)), grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return machine.NewMachineServiceClient(conn)
}

// fleet are light nodes: one server behind many addresses, each with its own
// certificate. It believes a gateway as apid does.
type fleet struct {
	machine.UnimplementedMachineServiceServer
	names []string
	kinds map[string]kind // by address
}

// willing are the nodes that answer.
func (f *fleet) willing() []string {
	var names []string
	for _, name := range f.names {
		if f.kinds[name] == good {
			names = append(names, name)
		}
	}
	return names
}

// kind is how a node of the fleet behaves.
type kind int

const (
	good    kind = iota
	slow         // takes the call and does not answer
	absent       // nothing listens
	dropped      // packets vanish
)

// startFleet starts count nodes from address first on.
func startFleet(t testing.TB, ca *authority, first, count int, behaves func(i int) kind) *fleet {
	t.Helper()
	f := &fleet{kinds: map[string]kind{}}
	certificates := make(map[string]*tls.Certificate, count)
	var listeners []net.Listener
	for i := range count {
		addr := address(first + i)
		f.names = append(f.names, addr.String())
		f.kinds[addr.String()] = behaves(i)
		switch behaves(i) {
		case absent:
			continue
		case dropped:
			swallow(t, addr)
			continue
		}
		pair, err := pki.TLS(ca.server(t, addr))
		if err != nil {
			t.Fatal(err)
		}
		certificates[addr.String()] = &pair
		l, err := net.Listen("tcp", endpoint(addr))
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
	}
	roots, err := pki.Pool(ca.crt)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, SessionTicketsDisabled: true,
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return certificates[hostOf(hello.Conn.LocalAddr())], nil
			},
		})),
		grpc.ReadBufferSize(2<<10), grpc.WriteBufferSize(2<<10), grpc.NumStreamWorkers(8),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	machine.RegisterMachineServiceServer(server, f)
	for _, l := range listeners {
		go server.Serve(l)
	}
	t.Cleanup(server.Stop)
	return f
}

func hostOf(addr net.Addr) string {
	host, _, _ := strings.Cut(addr.String(), ":")
	return host
}

// swallow makes a socket whose queue is full: the kernel drops what comes,
// as a network does in which nobody is there.
func swallow(t testing.TB, addr netip.Addr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	to := &unix.SockaddrInet4{Port: layout.APIPort, Addr: addr.As4()}
	if err := unix.Bind(fd, to); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for { // until no more fits
		conn, err := net.DialTimeout("tcp", endpoint(addr), 50*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
	}
}

// Version answers a gateway that speaks for alice, and nobody else.
func (f *fleet) Version(ctx context.Context, _ *emptypb.Empty) (*machine.VersionResponse, error) {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	md, _ := metadata.FromIncomingContext(ctx)
	if !ok || !speaksFor(info.State.PeerCertificates[0], md, "alice") {
		return nil, status.Errorf(codes.PermissionDenied, "called by %v", p.Addr)
	}
	own := hostOf(p.LocalAddr)
	if f.kinds[own] == slow {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return version(own), nil
}

func speaksFor(crt *x509.Certificate, md metadata.MD, name string) bool {
	return fmt.Sprint(crt.Subject.Organization) == "[os:impersonator]" && fmt.Sprint(md["talos-subject"]) == "["+name+"]" &&
		fmt.Sprint(md["talos-role"]) == "[os:reader]" && len(md["proxyfrom"]) == 1 && len(md["nodes"]) == 0
}
