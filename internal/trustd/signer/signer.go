// Package signer is machined's side of issuing certificates to nodes: it
// knows the token, holds the CA's key, and signs what the asking node can
// prove. trustd, which faces the network, reaches it over a unix socket and
// tells it which address a request came from.
//
// A certificate proves a node's API server and nothing else: it lives a day,
// is for servers, carries no organization (so no role), and names only the
// address that the call came from and one host name that is no control plane
// node's. The package keeps no state; a Server is safe for concurrent use.
package signer

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	signerapi "talos/api/signer"
	"talos/internal/door"
	"talos/internal/layout"
	"talos/internal/linux/peercred"
	"talos/internal/pki"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
)

const (
	rootID   = "os"
	lifetime = 24 * time.Hour
	grace    = 2 * time.Second
)

// Server answers talos.v1.Signer from what the store holds.
type Server struct {
	signerapi.UnimplementedSignerServer
	state state.State
	log   *slog.Logger
	now   func() time.Time
}

// New makes the server; the store is machined's own.
func New(st state.State, log *slog.Logger) *Server {
	return &Server{state: st, log: log, now: time.Now}
}

// Serve listens on the signer's socket for trustd's user until ctx ends.
func Serve(ctx context.Context, st state.State, log *slog.Logger) error {
	listener, err := peercred.Listen(layout.SignerSocket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", layout.SignerSocket, err)
	}
	server := grpc.NewServer(append(door.Recover(log), grpc.Creds(peercred.Credentials(layout.TrustUID)), grpc.MaxRecvMsgSize(1<<20))...)
	signerapi.RegisterSignerServer(server, New(st, log))
	stop := context.AfterFunc(ctx, func() { door.Stop(server, grace) })
	defer stop()
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", layout.SignerSocket, err)
	}
	return nil
}

// Sign checks the token first: who has none learns nothing about the rest.
func (s *Server) Sign(ctx context.Context, r *signerapi.SignRequest) (*signerapi.SignResponse, error) {
	root, err := safe.StateGetByID[*secrets.OSRootSecrets](ctx, s.state, rootID)
	if state.IsNotFoundError(err) {
		return nil, status.Error(codes.Unavailable, "this node has no certificate authority yet")
	} else if err != nil {
		return nil, status.Errorf(codes.Internal, "read the certificate authority: %v", err)
	}
	spec := root.TypedSpec()
	if !sameToken(spec.Token, r.GetToken()) {
		return nil, status.Error(codes.PermissionDenied, "the token is not this cluster's")
	}
	if r.GetUsage() != signerapi.Usage_USAGE_SERVER {
		return nil, status.Errorf(codes.InvalidArgument, "usage %v is not issued", r.GetUsage())
	}
	peer, err := netip.ParseAddr(r.GetPeer())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "peer: %v", err)
	}
	request, err := DecodeRequest(r.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	taken, err := s.reserved(ctx, spec)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "read this node's names: %v", err)
	}
	if err := request.Check(peer, taken); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	crt, err := s.issue(spec, request, peer)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "sign for %s: %v", peer, err)
	}
	s.log.Info("certificate signed", "peer", peer, "names", request.Names, "serial", crt.serial)
	return &signerapi.SignResponse{Ca: spec.IssuingCA.Crt, Crt: crt.pem}, nil
}

// sameToken takes the same time whatever differs; an empty token matches
// nothing.
func sameToken(want, got string) bool {
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(got))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && want != ""
}

// reserved are names and addresses of control plane nodes, as far as this one
// knows them.
func (s *Server) reserved(ctx context.Context, spec *secrets.OSRootSecretsSpec) (Reserved, error) {
	taken := Reserved{Names: spec.CertSANDNSNames, Addresses: spec.CertSANIPs}
	hosts, err := safe.StateListAll[*network.HostnameStatus](ctx, s.state)
	if err != nil {
		return Reserved{}, err
	}
	for h := range hosts.All() {
		taken.Names = append(taken.Names, h.TypedSpec().Hostname)
	}
	addresses, err := safe.StateListAll[*network.NodeAddress](ctx, s.state)
	if err != nil {
		return Reserved{}, err
	}
	for a := range addresses.All() {
		for _, prefix := range a.TypedSpec().Addresses {
			taken.Addresses = append(taken.Addresses, prefix.Addr())
		}
	}
	k8s, err := safe.StateGetByID[*secrets.KubernetesRootSecrets](ctx, s.state, "k8s")
	if err == nil {
		taken.Names = append(taken.Names, k8s.TypedSpec().Endpoint.Hostname())
	} else if !state.IsNotFoundError(err) {
		return Reserved{}, err
	}
	return taken, nil
}

type issued struct {
	pem    []byte
	serial string
}

func (s *Server) issue(spec *secrets.OSRootSecretsSpec, request *Request, peer netip.Addr) (issued, error) {
	if spec.IssuingCA == nil || len(spec.IssuingCA.Key) == 0 {
		return issued{}, errors.New("this node holds no CA key")
	}
	ca, err := pki.ParseCA(spec.IssuingCA.Crt, spec.IssuingCA.Key)
	if err != nil {
		return issued{}, fmt.Errorf("certificate authority: %w", err)
	}
	peer = peer.Unmap()
	template := pki.Template{
		CommonName: peer.String(), DNSNames: request.Names, IPs: []netip.Addr{peer}, Server: true, Lifetime: lifetime,
	}
	if len(request.Names) > 0 {
		template.CommonName = request.Names[0]
	}
	text, err := ca.Sign(request.Key, template, s.now())
	if err != nil {
		return issued{}, err
	}
	crt, err := pki.ParseCertificate(text)
	if err != nil {
		return issued{}, err
	}
	return issued{pem: text, serial: fmt.Sprintf("%x", crt.SerialNumber)}, nil
}
