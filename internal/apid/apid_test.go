package apid

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
	networkapi "talos/api/network"
	"talos/internal/authz"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
)

func TestClientCertificates(t *testing.T) {
	n := newNode(t)
	other := newAuthority(t, "os") // the same name, another key
	admin := []string{"os:admin"}
	for _, c := range []struct {
		name   string
		crt    *respem.CertificateAndKey
		write  bool
		want   codes.Code
		reason string // in the log, when the handshake is refused
	}{
		{name: "admin reads", crt: n.ca.issue(t, "a", admin, nil), want: codes.OK},
		{name: "admin writes", crt: n.ca.issue(t, "a", admin, nil), write: true, want: codes.OK},
		{name: "reader reads", crt: n.ca.issue(t, "r", []string{"os:reader"}, nil), want: codes.OK},
		{name: "reader writes", crt: n.ca.issue(t, "r", []string{"os:reader"}, nil), write: true, want: codes.PermissionDenied},
		{name: "no role", crt: n.ca.issue(t, "x", []string{"system:masters"}, nil), want: codes.PermissionDenied},
		{name: "other CA", crt: other.issue(t, "evil", admin, nil), want: codes.Unavailable, reason: "signed by unknown authority"},
		{name: "none", want: codes.Unavailable, reason: "didn't provide a certificate"},
		{name: "expired", want: codes.Unavailable, reason: "expired", crt: n.ca.issue(t, "old", admin, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Minute)
		})},
		{name: "not yet valid", want: codes.Unavailable, reason: "not yet valid", crt: n.ca.issue(t, "new", admin, func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(time.Minute)
		})},
		{name: "for servers", want: codes.Unavailable, reason: "incompatible key usage", crt: n.ca.issue(t, "srv", admin, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})},
		{name: "for servers too", want: codes.Unavailable, reason: "not client authentication alone", crt: n.ca.issue(t, "both", admin, func(c *x509.Certificate) {
			c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		})},
		{name: "for anything", want: codes.Unavailable, reason: "not client authentication alone", crt: n.ca.issue(t, "any", admin, func(c *x509.Certificate) {
			c.ExtKeyUsage = nil
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := machine.NewMachineServiceClient(n.dial(t, c.crt))
			var err error
			if c.write {
				_, err = client.Reboot(t.Context(), &machine.RebootRequest{})
			} else {
				_, err = client.Version(t.Context(), &emptypb.Empty{})
			}
			if got := status.Code(err); got != c.want {
				t.Errorf("call = %v, want %v", err, c.want)
			}
			if c.reason != "" {
				n.log.wait(t, "handshake refused", "peer=127.0.0.1:", c.reason)
			}
		})
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	n := newNode(t)
	conn, err := tls.Dial("tcp", n.address, &tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true})
	if err == nil {
		conn.Close()
		t.Fatal("a handshake with TLS 1.2 succeeds")
	}
	n.log.wait(t, "handshake refused", "unsupported versions")
}

func TestRotationUnderLoad(t *testing.T) {
	n := newNode(t)
	crt := n.ca.issue(t, "alice", []string{"os:reader"}, nil)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			conn := n.dial(t, crt)
			for ctx.Err() == nil {
				if worker%2 == 1 { // half of them come anew every time; a peer has only so many connections
					conn.Close()
					conn = n.dial(t, crt)
				}
				if _, err := machine.NewMachineServiceClient(conn).Version(t.Context(), &emptypb.Empty{}); err != nil {
					t.Errorf("worker %d: %v", worker, err)
					return
				}
			}
		})
	}
	last := n.ca
	for i := range 20 {
		last = newAuthority(t, fmt.Sprint("next", i))
		n.certify(t, func(s *secrets.ApiCertificateSpec) {
			s.Server = n.ca.server(t)
			s.AcceptedCAs = []*respem.Certificate{{Crt: n.ca.pem}, {Crt: last.pem}}
		})
		time.Sleep(5 * time.Millisecond) // calls between, not a condition
	}
	stop()
	wg.Wait()

	// Who comes from the newest CA is admitted, and an open connection ends
	// with the CA it came in by.
	client := n.client(t, "os:reader")
	if _, err := client.Version(t.Context(), &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	n.certify(t, func(s *secrets.ApiCertificateSpec) { s.AcceptedCAs = []*respem.Certificate{{Crt: last.pem}} })
	newer := machine.NewMachineServiceClient(n.dial(t, last.issue(t, "bob", []string{"os:reader"}, nil)))
	eventually(t, func() error { // it takes effect a moment later
		_, err := newer.Version(t.Context(), &emptypb.Empty{})
		if err != nil {
			err = fmt.Errorf("client of the new CA: %w", err)
		}
		return err
	})
	eventually(t, func() error {
		_, err := client.Version(t.Context(), &emptypb.Empty{})
		if status.Code(err) != codes.Unauthenticated {
			return fmt.Errorf("open connection of a CA that was taken away = %v, want Unauthenticated", err)
		}
		return nil
	})
}

func TestUnusableCertificatesChangeNothing(t *testing.T) {
	n := newNode(t)
	n.certify(t, func(s *secrets.ApiCertificateSpec) { s.AcceptedCAs = nil })
	n.log.wait(t, "certificates not usable", "no accepted CA")
	if _, err := n.client(t, "os:reader").Version(t.Context(), &emptypb.Empty{}); err != nil {
		t.Errorf("Version = %v", err)
	}
}

func TestExpiryEndsAnOpenConnection(t *testing.T) {
	k := &keys{}
	c := &caller{chain: []*x509.Certificate{{}}, expires: time.Unix(1000, 0)}
	c.verified.Store(k)
	if err := c.check(k, time.Unix(999, 0)); err != nil {
		t.Errorf("check before the end = %v", err)
	}
	if err := c.check(k, time.Unix(1001, 0)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("check after the end = %v, want Unauthenticated", err)
	}
}

// TestSmuggledMetadata claims in every way to be more than the certificate
// says.
func TestSmuggledMetadata(t *testing.T) {
	n := newNode(t)
	client := n.client(t, "os:reader")
	ctx := metadata.AppendToOutgoingContext(t.Context(),
		"talos-role", "os:admin", "Talos-Role", "os:operator", "talos-subject", "root", "talos-serial", "1", "talos-peer", "1.1.1.1",
		"talos-new", "x", "proxyfrom", "other", "x-mine", "kept")
	if _, err := client.Reboot(ctx, &machine.RebootRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Reboot = %v, want PermissionDenied", err)
	}
	if _, err := client.Version(ctx, &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	got := n.machined.identity
	if got.Roles != authz.NewRoles("os:reader") || got.Subject != "alice" || got.Serial == "1" || !strings.HasPrefix(got.Peer, "127.0.0.1:") {
		t.Errorf("machined saw %+v", got)
	}
	if len(n.machined.incoming["talos-new"]) > 0 || len(n.machined.incoming["proxyfrom"]) > 0 {
		t.Errorf("machined got %v", n.machined.incoming)
	}
	if !slices.Equal(n.machined.incoming["x-mine"], []string{"kept"}) {
		t.Errorf("x-mine = %v", n.machined.incoming["x-mine"])
	}
}

func TestImpersonator(t *testing.T) {
	n := newNode(t)
	client := n.client(t, "os:impersonator", "os:admin")
	said := metadata.AppendToOutgoingContext(t.Context(),
		"talos-role", "os:reader", "talos-role", "os:impersonator", "talos-subject", "carol", "talos-serial", "c0", "talos-peer", "192.0.2.9:1",
		"proxyfrom", "10.5.0.3", "nodes", "10.5.0.9") // it is for us: where it was sent to before does not count
	if _, err := client.Version(said, &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	want := authz.Identity{Roles: authz.NewRoles("os:reader"), Subject: "carol", Serial: "c0", Peer: "192.0.2.9:1"}
	if got := n.machined.identity; got != want {
		t.Errorf("machined saw %+v, want %+v", got, want)
	}
	if r := n.record(t, "Version", "OK"); r["subject"] != "carol" || !strings.HasPrefix(fmt.Sprint(r["via"]), "alice ") {
		t.Errorf("record = %v", r)
	}
	if _, err := client.Reboot(said, &machine.RebootRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Reboot for a reader = %v, want PermissionDenied", err)
	}
	alone := n.client(t, "os:impersonator")
	if _, err := alone.Version(t.Context(), &emptypb.Empty{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Version by an impersonator for itself = %v, want PermissionDenied", err)
	}
}

func TestUnknownMethodIsDenied(t *testing.T) {
	n := newNode(t)
	conn := n.dial(t, n.ca.issue(t, "a", []string{"os:admin"}, nil))
	for _, method := range []string{"/machine.MachineService/Nothing", "/securityapi.SecurityService/Certificate", "/talos.v1.Signer/Sign", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
		err := conn.Invoke(t.Context(), method, &emptypb.Empty{}, &emptypb.Empty{})
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s = %v, want PermissionDenied", method, err)
		}
	}
	n.record(t, "Nothing", "PermissionDenied")
	// What the table has and this release does not serve is not "denied".
	err := conn.Invoke(t.Context(), "/machine.MDService/Destroy", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a method of later = %v, want Unimplemented", err)
	}
}

func TestAudit(t *testing.T) {
	n := newNode(t)
	client := n.client(t, "os:reader")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "nodes", "10.5.0.2")
	if _, err := client.Version(ctx, &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	secret := "TOP-SECRET-PAYLOAD"
	if _, err := client.ApplyConfiguration(t.Context(), &machine.ApplyConfigurationRequest{Data: []byte(secret)}); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("ApplyConfiguration = %v, want PermissionDenied", err)
	}
	r := n.record(t, "Version", "OK")
	if r["subject"] != "alice" || fmt.Sprint(r["roles"]) != "[os:reader]" || fmt.Sprint(r["nodes"]) != "[10.5.0.2]" ||
		r["serial"] == "" || len(fmt.Sprint(r["fingerprint"])) != 64 || !strings.HasPrefix(fmt.Sprint(r["peer"]), "127.0.0.1:") || r["ms"].(float64) <= 0 {
		t.Errorf("record of a read = %v", r)
	}
	if r = n.record(t, "ApplyConfiguration", "PermissionDenied"); !strings.Contains(fmt.Sprint(r["reason"]), "os:admin") {
		t.Errorf("record of a denial = %v", r)
	}
	if strings.Contains(n.audit.String(), secret) || strings.Contains(n.log.String(), secret) {
		t.Error("what was sent is in the log")
	}
}

// TestNodesOfAWorker: a node without a certificate for others answers for
// itself alone, under all its names.
func TestNodesOfAWorker(t *testing.T) {
	n := newNode(t)
	client := n.client(t, "os:reader")
	for _, c := range []struct {
		key   string
		nodes []string
		want  string // host:error of each message
		code  codes.Code
	}{
		{"", nil, ":", codes.OK},
		{"node", []string{"10.5.0.2"}, ":", codes.OK},
		{"node", []string{"10.5.0.3"}, "", codes.PermissionDenied},
		{"node", []string{"10.5.0.2", "10.5.0.3"}, "", codes.InvalidArgument},
		{"nodes", []string{"10.5.0.2"}, "10.5.0.2:", codes.OK},
		{"nodes", []string{"127.0.0.1"}, "127.0.0.1:", codes.OK},
		{"nodes", []string{"fd00:0::2"}, "fd00:0::2:", codes.OK},
		{"nodes", []string{"CP-1"}, "CP-1:", codes.OK},
		{"nodes", []string{"cp-1.example.org."}, "cp-1.example.org.:", codes.OK},
		{"nodes", []string{"cp-1.example.com"}, "cp-1.example.com:not forwarded", codes.OK},
		{"nodes", []string{"cp-1", "10.5.0.2"}, "cp-1: 10.5.0.2:", codes.OK},
		{"nodes", []string{"cp-1", "cp-2"}, "cp-1: cp-2:not forwarded", codes.OK},
		{"node", []string{"cp-2"}, "", codes.PermissionDenied},
		{"nodes", []string{strings.Repeat("x", 300)}, "", codes.InvalidArgument},
	} {
		ctx := t.Context()
		for _, name := range c.nodes {
			ctx = metadata.AppendToOutgoingContext(ctx, c.key, name)
		}
		r, err := client.Version(ctx, &emptypb.Empty{})
		if status.Code(err) != c.code {
			t.Errorf("%s %v = %v, want %v", c.key, c.nodes, err, c.code)
			continue
		}
		var got []string
		for _, m := range r.GetMessages() {
			failed := m.GetMetadata().GetError()
			if strings.Contains(failed, "no request forwarding") {
				failed = "not forwarded"
			} else if m.GetVersion().GetTag() != "v1.2.3" {
				t.Errorf("%s %v: message %v lost its content", c.key, c.nodes, m)
			}
			if failed != "" && codes.Code(m.GetMetadata().GetStatus().GetCode()) != codes.PermissionDenied {
				t.Errorf("%s %v: status = %v", c.key, c.nodes, m.GetMetadata().GetStatus())
			}
			got = append(got, m.GetMetadata().GetHostname()+":"+failed)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s %v: messages %q, want %q", c.key, c.nodes, s, c.want)
		}
	}
	both := metadata.AppendToOutgoingContext(t.Context(), "node", "cp-1", "nodes", "cp-1")
	if _, err := client.Version(both, &emptypb.Empty{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("node and nodes = %v, want InvalidArgument", err)
	}
	if got := n.machined.incoming; len(got["node"])+len(got["nodes"]) > 0 {
		t.Errorf("machined got targets: %v", got)
	}
}

func TestStreams(t *testing.T) {
	n := newNode(t)
	client := n.client(t, "os:admin")
	read := func(ctx context.Context, want int) (hosts map[string]int) {
		t.Helper()
		stream, err := client.Events(ctx, &machine.EventsRequest{TailEvents: int32(want)})
		if err != nil {
			t.Fatal(err)
		}
		hosts = map[string]int{}
		for {
			event, err := stream.Recv()
			if err != nil {
				if status.Code(err) != codes.DataLoss && status.Code(err) != codes.OK && err.Error() != "EOF" {
					t.Fatalf("stream ended with %v", err)
				}
				return hosts
			}
			if event.GetMetadata().GetError() == "" {
				hosts[event.GetMetadata().GetHostname()]++
			}
		}
	}
	if got := read(t.Context(), 1000); got[""] != 1000 {
		t.Errorf("events = %v, want 1000", got)
	}
	one := metadata.AppendToOutgoingContext(t.Context(), "nodes", "cp-1")
	if got := read(one, 1000); got["cp-1"] != 1000 {
		t.Errorf("marked events = %v, want 1000 of cp-1", got)
	}
	two := metadata.AppendToOutgoingContext(one, "nodes", "10.5.0.2")
	if got := read(two, 500); got["cp-1"] != 500 || got["10.5.0.2"] != 500 {
		t.Errorf("merged events = %v, want 500 of each", got)
	}

	up, err := client.EtcdRecover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if err := up.Send(&common.Data{Bytes: make([]byte, 100<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := up.CloseAndRecv()
	if err != nil {
		t.Fatal(err)
	}
	if got := r.GetMessages()[0].GetMetadata().GetError(); got != fmt.Sprint(300*100<<10) {
		t.Errorf("the server received %s bytes", got)
	}
}

func TestCancelReachesTheServer(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := n.client(t, "os:reader").Events(ctx, &machine.EventsRequest{TailEvents: 1, TailId: "follow"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	n.record(t, "Events", "Canceled")
}

func TestHeadersTrailersDeadline(t *testing.T) {
	n := newNode(t)
	client := n.client(t, "os:reader")
	var header, trailer metadata.MD
	if _, err := client.Hostname(t.Context(), &emptypb.Empty{}, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(header["x-head"], []string{"1"}) || !slices.Equal(trailer["x-tail"], []string{"2"}) {
		t.Errorf("header %v, trailer %v", header, trailer)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if _, err := client.Version(ctx, &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	want, _ := ctx.Deadline()
	if off := want.Sub(n.machined.deadline).Abs(); off > 10*time.Second {
		t.Errorf("machined's deadline is %v off", off)
	}
}

func TestHugeMessages(t *testing.T) {
	n := newNode(t)
	client := n.client(t, "os:admin")
	_, err := client.ApplyConfiguration(t.Context(), &machine.ApplyConfigurationRequest{Data: make([]byte, 33<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("33 MiB up = %v, want ResourceExhausted", err)
	}
	_, err = client.ApplyConfiguration(t.Context(), &machine.ApplyConfigurationRequest{Data: make([]byte, 31<<20)})
	if err != nil {
		t.Errorf("31 MiB up = %v", err)
	}
	up, err := client.EtcdRecover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = up.Send(&common.Data{Bytes: make([]byte, 33<<20)}) // the answer shows
	if _, err := up.CloseAndRecv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("33 MiB streamed up = %v, want ResourceExhausted", err)
	}
	for size, want := range map[int32]codes.Code{33 << 20: codes.ResourceExhausted, 31 << 20: codes.OK} {
		stream, err := client.Logs(t.Context(), &machine.LogsRequest{TailLines: size})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != want {
			t.Errorf("%d bytes down = %v, want %v", size, err, want)
		}
	}
}

func TestBackendRestart(t *testing.T) {
	n := newNode(t)
	conn := n.dial(t, n.ca.issue(t, "a", []string{"os:reader"}, nil))
	client := machine.NewMachineServiceClient(conn)
	version := func() error {
		_, err := client.Version(t.Context(), &emptypb.Empty{})
		return err
	}
	if err := version(); err != nil {
		t.Fatal(err)
	}
	n.stopMachined()
	os.Remove(n.machineSocket)
	isDown := func(name string) {
		t.Helper()
		eventually(t, func() error { // the first may still find the connection
			err := version()
			if status.Code(err) != codes.Unavailable {
				t.Fatalf("%s down: %v", name, err)
			}
			if !strings.Contains(err.Error(), name+" is not running (dial unix") {
				return fmt.Errorf("%s down: %w", name, err)
			}
			return nil
		})
	}
	isDown("machined")
	n.machined.serve(t, n.machineSocket)
	began := time.Now()
	if err := version(); err != nil {
		t.Errorf("machined back: %v", err)
	}
	n.stopRouter()
	isDown("routerd")
	// A call that comes while it restarts waits for it.
	var starting sync.WaitGroup
	starting.Go(func() {
		time.Sleep(20 * time.Millisecond) // a call waits for little more than a second
		n.startRouter(t)
	})
	if err := version(); err != nil {
		t.Errorf("routerd on its way: %v", err)
	}
	starting.Wait()
	if spent := time.Since(began); spent > 20*time.Second {
		t.Errorf("recovery took %v", spent)
	}
	_, err := networkapi.NewNetworkServiceClient(conn).Routes(t.Context(), &emptypb.Empty{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "networkd is not running (") {
		t.Errorf("Routes without networkd = %v", err)
	}
}

func TestShutdownLetsCallsFinish(t *testing.T) {
	n := newNode(t)
	n.machined.block = make(chan struct{})
	client := n.client(t, "os:admin")
	result := make(chan error, 1)
	go func() {
		_, err := client.Reboot(context.Background(), &machine.RebootRequest{})
		result <- err
	}()
	eventually(t, func() error {
		n.machined.mu.Lock()
		defer n.machined.mu.Unlock()
		if n.machined.identity.Roles == 0 {
			return fmt.Errorf("the call did not arrive")
		}
		return nil
	})
	time.AfterFunc(100*time.Millisecond, func() { close(n.machined.block) })
	n.stopAPI()
	if err := <-result; err != nil {
		t.Errorf("the call in flight = %v", err)
	}
	if _, err := net.Dial("tcp", n.address); err == nil {
		t.Error("the port is still open")
	}
}

func eventually(t testing.TB, try func() error) {
	t.Helper()
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Error(err)
}
