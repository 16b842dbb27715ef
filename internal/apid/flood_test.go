package apid

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/internal/door/doortest"
	"talos/internal/resources/cluster"
	respem "talos/internal/resources/pem"
)

// dialFrom makes a client that calls from an address.
func (n *node) dialFrom(t testing.TB, from net.IP, client *respem.CertificateAndKey) *grpc.ClientConn {
	t.Helper()
	pair, err := tls.X509KeyPair(client.Crt, client.Key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}}
	config.RootCAs.AddCert(n.ca.crt)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	conn, err := grpc.NewClient("passthrough:///"+n.address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestFlood: while strangers connect as fast as they can, each time from
// another address in another network, whoever has a certificate gets in: from
// where nobody has been, from where he has been, from a member's address; who is
// in already notices nothing; and what strangers take of memory is bounded.
func TestFlood(t *testing.T) {
	member := net.IPv4(127, 6, 0, 1)
	ca := newAuthority(t, "os")
	n := startNode(t, identity{
		ca: ca, listen: "127.0.0.1:0", hostname: "cp-1", server: ca.server(t),
		members: []*cluster.MemberSpec{{Hostname: "worker-1", Addresses: []netip.Addr{netip.MustParseAddr(member.String())}}},
	})
	alice := ca.issue(t, "alice", []string{"os:reader"}, nil)
	call := func(conn *grpc.ClientConn) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		_, err := machine.NewMachineServiceClient(conn).Version(ctx, &emptypb.Empty{}, grpc.WaitForReady(true))
		return time.Since(began), err
	}
	office := net.IPv4(127, 5, 0, 1)
	open := n.dialFrom(t, office, alice)
	bound := time.Second
	for range 10 { // on a busy machine all takes longer
		conn := n.dialFrom(t, office, alice)
		took, err := call(conn)
		if err != nil {
			t.Fatal(err)
		}
		bound = max(bound, time.Second+3*took)
		conn.Close()
	}
	heap, goroutines := doortest.Heap(), runtime.NumGoroutine()
	flood := doortest.Start(t, n.address)
	for flood.Tries.Load() < 2000 {
		time.Sleep(10 * time.Millisecond)
	}
	const times = 12
	for _, c := range []struct {
		what string
		conn func(i int) *grpc.ClientConn
		late int // how many may take longer than a second
	}{
		{"over an open connection", func(int) *grpc.ClientConn { return open }, 1},
		{"from where she was before", func(int) *grpc.ClientConn { return n.dialFrom(t, office, alice) }, 2},
		{"from a member's address", func(int) *grpc.ClientConn { return n.dialFrom(t, member, alice) }, 2},
		{"from where nobody was", func(i int) *grpc.ClientConn { return n.dialFrom(t, net.IPv4(127, 7, byte(i), 1), alice) }, times / 3},
	} {
		late := 0
		for i := range times {
			conn := c.conn(i)
			took, err := call(conn)
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			if took > bound {
				late++
			}
			if conn != open {
				conn.Close()
			}
		}
		if late > c.late {
			t.Errorf("%s: %d of %d calls took longer than %v", c.what, late, times, bound)
		}
	}
	eventually(t, func() error { // those of who was just sent away still have to end
		if now := runtime.NumGoroutine(); now > goroutines+strangers.Total+neighbours.Total+100 {
			return fmt.Errorf("goroutines grew from %d to %d", goroutines, now)
		}
		return nil
	})
	if now := doortest.Heap(); now > heap+64<<20 {
		t.Errorf("memory grew from %d kB to %d kB", heap>>10, now>>10)
	}
	t.Logf("%d strangers knocked", flood.Tries.Load())
}
