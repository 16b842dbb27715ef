package apid

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cosi-project/runtime/api/v1alpha1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	_ "talos/api/cluster"
	_ "talos/api/configuration"
	_ "talos/api/health"
	_ "talos/api/inspect"
	_ "talos/api/integrity"
	"talos/api/machine"
	_ "talos/api/network"
	_ "talos/api/roster"
	_ "talos/api/security"
	_ "talos/api/signer"
	_ "talos/api/storage"
	_ "talos/api/time"
	"talos/config"
	"talos/internal/audit"
	"talos/internal/authz"
	"talos/internal/pki"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
)

// newBlank is a node without a configuration.
func newBlank(t testing.TB) *node {
	t.Helper()
	ca := newAuthority(t, "os")
	return startNode(t, identity{
		ca: ca, listen: "127.0.0.1:0", hostname: "blank", server: ca.server(t), maintenance: true,
		addresses: []netip.Prefix{netip.MustParsePrefix("10.5.0.9/24")},
	})
}

// configured gives the node what it gets with its first configuration.
func (n *node) configured(t *testing.T) {
	t.Helper()
	n.certify(t, func(s *secrets.ApiCertificateSpec) {
		*s = secrets.ApiCertificateSpec{Server: n.ca.server(t), AcceptedCAs: []*respem.Certificate{{Crt: n.ca.pem}}}
	})
	n.log.wait(t, "certificates changed", "maintenance=false")
}

// TestMaintenance: whoever comes is a reader of little, whatever he shows and
// claims.
func TestMaintenance(t *testing.T) {
	n := newBlank(t)
	for name, client := range map[string]machine.MachineServiceClient{
		"without a certificate":                machine.NewMachineServiceClient(n.dial(t, nil)),
		"an administrator's of the CA to come": n.client(t, "os:admin"),
		"an impersonator's of the CA to come":  n.client(t, "os:impersonator"),
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "talos-role", "os:admin", "talos-subject", "root", "proxyfrom", "10.5.0.2")
		if _, err := client.Version(ctx, &emptypb.Empty{}); err != nil {
			t.Errorf("%s: Version = %v", name, err)
		}
		if got := n.machined.identity; got.Roles != authz.NewRoles("os:reader") || got.Subject != "maintenance" || got.Serial != "" {
			t.Errorf("%s: machined saw %+v, want a reader", name, got)
		}
		_, err := client.Reboot(ctx, &machine.RebootRequest{})
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "not offered in maintenance mode") {
			t.Errorf("%s: Reboot = %v, want PermissionDenied and the reason", name, err)
		}
	}
	guest := machine.NewMachineServiceClient(n.dial(t, nil))
	if _, err := guest.ApplyConfiguration(t.Context(), &machine.ApplyConfigurationRequest{Data: make([]byte, config.MaxSize)}); err != nil {
		t.Errorf("the largest configuration = %v", err)
	}
	if _, err := guest.ApplyConfiguration(t.Context(), &machine.ApplyConfigurationRequest{Data: make([]byte, guestMessage+1)}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a configuration of more than %d bytes = %v, want ResourceExhausted", guestMessage, err)
	}
	if r := n.record(t, "Reboot", "PermissionDenied"); r["subject"] != "maintenance" || r["peer"] == "" {
		t.Errorf("record = %v", r)
	}
}

// TestMaintenanceForwardsNothing: the node answers for itself alone.
func TestMaintenanceForwardsNothing(t *testing.T) {
	n := newBlank(t)
	client := machine.NewMachineServiceClient(n.dial(t, nil))
	for _, own := range []string{"10.5.0.9", "blank", "127.0.0.1"} {
		if _, err := client.Version(metadata.AppendToOutgoingContext(t.Context(), "node", own), &emptypb.Empty{}); err != nil {
			t.Errorf("Version of %s itself = %v", own, err)
		}
	}
	_, err := client.Version(metadata.AppendToOutgoingContext(t.Context(), "node", "10.5.0.2"), &emptypb.Empty{})
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "in maintenance mode passes nothing on") {
		t.Errorf("Version of another node = %v, want PermissionDenied", err)
	}
}

// TestMaintenanceOffersNothingElse calls every method of every service that is
// compiled in, over TLS: what the list of package authz has not, is denied by
// apid; what it has gets through to the daemons.
func TestMaintenanceOffersNothingElse(t *testing.T) {
	n := newBlank(t)
	conn := n.dial(t, nil)
	_ = v1alpha1.State_ServiceDesc // registers cosi.resource.State
	called, passed := 0, 0
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				name := fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(j).Name())
				method, _ := authz.Lookup(name)
				err := invoke(t, conn, name)
				called++
				switch denied := status.Code(err) == codes.PermissionDenied; {
				case denied == method.Maintenance:
					t.Errorf("%s = %v, offered: %v", name, err, method.Maintenance)
				case !denied:
					passed++
				case method.Roles != 0 && !strings.Contains(err.Error(), "not offered in maintenance mode"):
					t.Errorf("%s = %v, want the reason", name, err)
				}
			}
		}
		return true
	})
	if called < 80 || passed < 10 {
		t.Errorf("%d methods were called and %d passed, want all there are, and those that are offered", called, passed)
	}
}

// invoke calls a method, whatever its shape, with an empty message.
func invoke(t *testing.T, conn *grpc.ClientConn, method string) error {
	t.Helper()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		if err := stream.RecvMsg(&emptypb.Empty{}); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestGuestsAreCounted by where they come from, so that one leaves room for others.
func TestGuestsAreCounted(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{"10.5.0.9:1", "10.5.0.9:2", true}, {"10.5.0.9:1", "10.5.0.10:1", false}, {"[fd00::1]:1", "[fd00::2]:1", true},
		{"[fd00::1]:1", "[fd00:0:0:1::1]:1", false}, {"[::ffff:10.5.0.9]:1", "10.5.0.9:1", true}, {"[fe80::1%eth0]:1", "[fe80::2%eth1]:1", true},
	} {
		a, b := who(&audit.Record{Peer: tc.a}), who(&audit.Record{Peer: tc.b})
		if (a == b) != tc.same {
			t.Errorf("who(%s) = %q, who(%s) = %q, want the same: %v", tc.a, a, tc.b, b, tc.same)
		}
	}
	var c calls
	for range maxCallsPerGuest {
		if _, err := c.begin(who(&audit.Record{Peer: "10.5.0.9:1"}), 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.begin(who(&audit.Record{Peer: "10.5.0.9:2"}), 1); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("call %d of a guest = %v, want ResourceExhausted", maxCallsPerGuest+1, err)
	}
	if _, err := c.begin(who(&audit.Record{Peer: "10.5.0.10:1"}), 1); err != nil {
		t.Errorf("the first call of another guest = %v", err)
	}
	if who(&audit.Record{Print: "ab", Peer: "10.5.0.9:1"}) != "ab" {
		t.Error("a caller with a certificate is counted by something else")
	}
}

// TestMaintenanceEnds: the answer to the call that brings the configuration
// arrives; then the connection is closed, a stream that nobody ends too, and
// who comes anew needs a certificate.
func TestMaintenanceEnds(t *testing.T) {
	n := newBlank(t)
	n.machined.block = make(chan struct{})
	conn := n.dial(t, nil)
	client := machine.NewMachineServiceClient(conn)
	stream, err := machine.NewMachineServiceClient(n.dial(t, nil)).Events(t.Context(), &machine.EventsRequest{TailEvents: 1, TailId: "follow"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		reply, err := client.ApplyConfiguration(t.Context(), &machine.ApplyConfigurationRequest{})
		if err == nil && reply.GetMessages()[0].GetModeDetails() != "applied" {
			err = fmt.Errorf("answer %v", reply)
		}
		answer <- err
	}()
	eventually(t, func() error {
		n.machined.mu.Lock()
		defer n.machined.mu.Unlock()
		if n.machined.identity.Subject != "maintenance" {
			return errors.New("machined was not asked")
		}
		return nil
	})
	n.configured(t)
	if _, err := n.client(t, "os:reader").Version(t.Context(), &emptypb.Empty{}); err != nil {
		t.Errorf("Version with a certificate, while a guest still waits = %v", err)
	}
	// A guest who is still there gets nothing new.
	if _, err := client.Version(t.Context(), &emptypb.Empty{}); err == nil {
		t.Error("Version of a guest after the end of maintenance mode went through")
	}
	close(n.machined.block)
	if err := <-answer; err != nil {
		t.Errorf("ApplyConfiguration = %v, want its answer", err)
	}
	began := time.Now()
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream of a guest goes on")
	}
	if took := time.Since(began); took > 10*grace { // on a busy machine
		t.Errorf("the stream of a guest ended after %v, want %v at most", took, grace)
	}
	_, err = machine.NewMachineServiceClient(n.dial(t, nil)).Version(t.Context(), &emptypb.Empty{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("Version without a certificate = %v, want Unavailable", err)
	}
}

// TestMaintenanceEndsWithoutCertificate: a worker has its configuration before
// it has a certificate of its own. It serves nobody in between.
func TestMaintenanceEndsWithoutCertificate(t *testing.T) {
	n := newBlank(t)
	guest := machine.NewMachineServiceClient(n.dial(t, nil))
	if _, err := guest.Version(t.Context(), &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	certificate := secrets.NewApiCertificate("api")
	if err := n.store.Destroy(t.Context(), certificate.Metadata()); err != nil {
		t.Fatal(err)
	}
	n.log.wait(t, "certificate of maintenance mode gone")
	for name, client := range map[string]machine.MachineServiceClient{"a guest": guest, "another": machine.NewMachineServiceClient(n.dial(t, nil)), "an administrator": n.client(t, "os:admin")} {
		eventually(t, func() error { // a guest's connection is refused calls first, and ends then
			_, err := client.Version(t.Context(), &emptypb.Empty{})
			if err == nil {
				t.Errorf("Version of %s before there is a certificate went through", name)
			}
			if status.Code(err) != codes.Unavailable {
				return fmt.Errorf("Version of %s before there is a certificate = %w, want Unavailable", name, err)
			}
			return nil
		})
	}
	*certificate.TypedSpec() = secrets.ApiCertificateSpec{Server: n.ca.server(t), AcceptedCAs: []*respem.Certificate{{Crt: n.ca.pem}}}
	if err := n.store.Create(t.Context(), certificate); err != nil { // its version is that of the first one
		t.Fatal(err)
	}
	client := n.client(t, "os:admin")
	eventually(t, func() error {
		_, err := client.Version(t.Context(), &emptypb.Empty{})
		return err
	})
}

// TestNoWayBackToMaintenance: not even if the certificate says so.
func TestNoWayBackToMaintenance(t *testing.T) {
	for name, n := range map[string]*node{"configured at the start": newNode(t), "configured later": newBlank(t)} {
		t.Run(name, func(t *testing.T) {
			n.configured(t)
			n.certify(t, func(s *secrets.ApiCertificateSpec) { s.SkipVerifyingClientCert, s.AcceptedCAs = true, nil })
			n.log.wait(t, "certificates not usable", "this node had a configuration already")
			if _, err := machine.NewMachineServiceClient(n.dial(t, nil)).Version(t.Context(), &emptypb.Empty{}); status.Code(err) != codes.Unavailable {
				t.Errorf("Version without a certificate = %v, want Unavailable", err)
			}
			if _, err := n.client(t, "os:reader").Version(t.Context(), &emptypb.Empty{}); err != nil {
				t.Errorf("Version with a certificate = %v", err)
			}
		})
	}
}

// TestForwardingToABlankNode: who goes through another node is told what is the
// matter, and that node's certificate opens nothing.
func TestForwardingToABlankNode(t *testing.T) {
	nodes, _ := newNodes(t, 1)
	made, err := pki.NewMaintenance(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	addr := loopback(9)
	blank := startNode(t, identity{
		ca: nodes[0].ca, listen: apiAddress(addr), hostname: "blank", maintenance: true,
		server: &respem.CertificateAndKey{Crt: made.Crt, Key: made.Key}, addresses: []netip.Prefix{netip.PrefixFrom(addr, 8)},
	})
	_, err = nodes[0].client(t, "os:admin").Version(toNode(t.Context(), addr.String()), &emptypb.Empty{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), errBlank.Error()) {
		t.Errorf("Version = %v, want Unavailable and the reason", err)
	}
	if strings.Contains(blank.audit.String(), "Version") {
		t.Errorf("the call reached the node:\n%s", blank.audit)
	}
}
