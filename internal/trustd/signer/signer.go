// Package signer is machined's side of trustd: it knows the token, holds the
// CA's key, and signs what the asking node can prove. trustd, which faces the
// network, reaches it over a unix socket and tells it which address a request
// came from.
//
// A certificate proves a node's API server and nothing else: it lives a day,
// is for servers, carries no organization (so no role), and names only
// addresses that calls came from and one host name that is no other node's:
// names are bound to the identity of the node that first claimed them, in
// etcd. The package keeps no state of its own; a Server is safe for concurrent
// use.
package signer

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	signerapi "talos/api/signer"
	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/door"
	"talos/internal/identity"
	"talos/internal/join"
	"talos/internal/layout"
	"talos/internal/linux/peercred"
	"talos/internal/members"
	"talos/internal/pki"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
)

const (
	rootID   = "os"
	lifetime = 24 * time.Hour
	grace    = 2 * time.Second
)

// Registry keeps whose names are whose. members.Facts is one.
type Registry interface {
	Admit(ctx context.Context, claim members.Claim) error
	Holds(ctx context.Context, id identity.ID) (addresses []netip.Addr, controlPlane bool, err error)
	Remove(ctx context.Context, node string) (removed []string, err error)
}

// Options are what a Server works with.
type Options struct {
	State    state.State // machined's own
	Registry Registry
	List     *members.List
	Log      *slog.Logger
	Now      func() time.Time // nil: the clock
	Lifetime time.Duration    // of certificates; 0: a day
}

// Server answers talos.v1.Signer from what the store holds.
type Server struct {
	signerapi.UnimplementedSignerServer
	Options
}

// New makes the server.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lifetime == 0 {
		o.Lifetime = lifetime
	}
	return &Server{Options: o}
}

// Serve listens on the signer's socket for trustd's user until ctx ends.
func Serve(ctx context.Context, o Options) error {
	listener, err := peercred.Listen(layout.SignerSocket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", layout.SignerSocket, err)
	}
	server := grpc.NewServer(append(door.Recover(o.Log), grpc.Creds(peercred.Credentials(layout.TrustUID)), grpc.MaxRecvMsgSize(1<<20))...)
	signerapi.RegisterSignerServer(server, New(o))
	stop := context.AfterFunc(ctx, func() { door.Stop(server, grace) })
	defer stop()
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", layout.SignerSocket, err)
	}
	return nil
}

// admit checks the token first: who has none learns nothing about the rest.
// It returns the authority and the caller's address.
func (s *Server) admit(ctx context.Context, token, from string) (*secrets.OSRootSecretsSpec, netip.Addr, error) {
	root, err := safe.StateGetByID[*secrets.OSRootSecrets](ctx, s.State, rootID)
	if state.IsNotFoundError(err) {
		return nil, netip.Addr{}, status.Error(codes.Unavailable, "this node has no certificate authority yet")
	} else if err != nil {
		return nil, netip.Addr{}, status.Errorf(codes.Internal, "read the certificate authority: %v", err)
	}
	spec := root.TypedSpec()
	if !sameToken(spec.Token, token) {
		return nil, netip.Addr{}, status.Error(codes.PermissionDenied, "the token is not this cluster's: compare machine.token with that of a control plane node")
	}
	peer, err := netip.ParseAddr(from)
	if err != nil {
		return nil, netip.Addr{}, status.Errorf(codes.InvalidArgument, "peer: %v", err)
	}
	return spec, peer.Unmap(), nil
}

// errNoEtcd is the answer of a node that can't know what the cluster knows.
var errNoEtcd = status.Error(codes.Unavailable,
	"this control plane node has no part in etcd: the cluster is not bootstrapped, or the node has not joined yet, or most members are away")

// Sign has a certificate made for who can prove what the request says.
func (s *Server) Sign(ctx context.Context, r *signerapi.SignRequest) (*signerapi.SignResponse, error) {
	spec, peer, err := s.admit(ctx, r.GetToken(), r.GetPeer())
	if err != nil {
		return nil, err
	}
	if r.GetUsage() != signerapi.Usage_USAGE_SERVER {
		return nil, status.Errorf(codes.InvalidArgument, "usage %v is not issued", r.GetUsage())
	}
	request, err := DecodeRequest(r.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	id, err := s.identify(ctx, r, request)
	if err != nil {
		return nil, err
	}
	proven, err := s.proven(spec, id, peer, r.GetProofs())
	if err != nil {
		return nil, err
	}
	taken, err := s.reserved(ctx, spec)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "read this node's names: %v", err)
	}
	if err := request.Check(proven, taken); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	if err := s.register(ctx, r, request, members.Record{NodeID: id, Addresses: proven}); err != nil {
		return nil, err
	}
	crt, err := s.issue(spec, request, proven)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "sign for %s: %v", peer, err)
	}
	s.Log.Info("certificate signed", "peer", peer, "names", request.Names, "addresses", proven, "node", id, "serial", crt.serial)
	return &signerapi.SignResponse{Ca: spec.IssuingCA.Crt, Crt: crt.pem}, nil
}

// register binds what was proven to the node.
func (s *Server) register(ctx context.Context, r *signerapi.SignRequest, request *Request, claim members.Record) error {
	if _, live, _ := s.List.Now(); !live {
		return errNoEtcd
	}
	claim.Hostname, claim.MachineType, claim.OperatingSystem = request.Names[0], config.TypeWorker, r.GetOperatingSystem()
	if err := claim.Check(); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	err := s.Registry.Admit(ctx, members.Claim{
		Record: claim, Names: request.Names, Unlisted: r.GetUnlisted(), Until: s.Now().Add(s.Lifetime + time.Minute), // it is signed a moment later
	})
	switch {
	case errors.Is(err, members.ErrTaken):
		return status.Error(codes.PermissionDenied, err.Error())
	case err != nil:
		return status.Errorf(codes.Unavailable, "this control plane node can't write to etcd now: %v", err)
	}
	return nil
}

// identify finds out which node asks: the holder of the identity that signed
// the request, or, without one, of the key that it is for.
func (s *Server) identify(ctx context.Context, r *signerapi.SignRequest, request *Request) (identity.ID, error) {
	statement := identity.Request{
		CSR: r.GetCsr(), Identity: r.GetIdentity(), Proofs: r.GetProofs(), OperatingSystem: r.GetOperatingSystem(), Unlisted: r.GetUnlisted(),
	}.Statement()
	cfg, err := active.Config(ctx, s.State)
	if err != nil {
		return "", status.Errorf(codes.Internal, "read the configuration: %v", err)
	}
	if cfg != nil && cfg.Cluster.Secret != "" && !hmac.Equal(r.GetMac(), join.MAC(cfg.Cluster.Secret, statement)) {
		return "", status.Error(codes.PermissionDenied, "the request does not show the cluster's secret: compare cluster.secret with that of a control plane node")
	}
	public := r.GetIdentity()
	if len(public) == 0 {
		if public, err = x509.MarshalPKIXPublicKey(request.Key); err != nil {
			return "", status.Error(codes.InvalidArgument, err.Error())
		}
		return identity.Of(public), nil
	}
	if err := identity.Verify(public, statement, r.GetSignature()); err != nil {
		return "", status.Error(codes.PermissionDenied, err.Error())
	}
	return identity.Of(public), nil
}

// proven are the addresses at which the caller is: that of the call first.
func (s *Server) proven(spec *secrets.OSRootSecretsSpec, id identity.ID, peer netip.Addr, proofs [][]byte) ([]netip.Addr, error) {
	out := []netip.Addr{peer}
	if len(proofs) > maxAddresses {
		return nil, status.Errorf(codes.InvalidArgument, "%d proofs of addresses, over %d", len(proofs), maxAddresses)
	}
	for _, proof := range proofs {
		key, err := proofKey(spec)
		if err != nil {
			return nil, status.Errorf(codes.Internal, "certificate authority: %v", err)
		}
		addr, err := checkProof(key, proof, id, s.Now())
		if err != nil {
			return nil, status.Error(codes.PermissionDenied, err.Error())
		}
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out, nil
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
	taken := Reserved{Names: slices.Clone(spec.CertSANDNSNames), Addresses: slices.Clone(spec.CertSANIPs)}
	hosts, err := safe.StateListAll[*network.HostnameStatus](ctx, s.State)
	if err != nil {
		return Reserved{}, err
	}
	for h := range hosts.All() {
		taken.Names = append(taken.Names, h.TypedSpec().Hostname)
	}
	addresses, err := safe.StateListAll[*network.NodeAddress](ctx, s.State)
	if err != nil {
		return Reserved{}, err
	}
	for a := range addresses.All() {
		for _, prefix := range a.TypedSpec().Addresses {
			taken.Addresses = append(taken.Addresses, prefix.Addr())
		}
	}
	k8s, err := safe.StateGetByID[*secrets.KubernetesRootSecrets](ctx, s.State, "k8s")
	if err == nil {
		host := k8s.TypedSpec().Endpoint.Hostname()
		taken.Names = append(taken.Names, host)
		if addr, err := netip.ParseAddr(host); err == nil {
			taken.Addresses = append(taken.Addresses, addr)
		}
	} else if !state.IsNotFoundError(err) {
		return Reserved{}, err
	}
	for i, a := range taken.Addresses {
		taken.Addresses[i] = a.Unmap()
	}
	return taken, nil
}

type issued struct {
	pem    []byte
	serial string
}

func (s *Server) issue(spec *secrets.OSRootSecretsSpec, request *Request, proven []netip.Addr) (issued, error) {
	if spec.IssuingCA == nil || len(spec.IssuingCA.Key) == 0 {
		return issued{}, errors.New("this node holds no CA key")
	}
	ca, err := pki.ParseCA(spec.IssuingCA.Crt, spec.IssuingCA.Key)
	if err != nil {
		return issued{}, fmt.Errorf("certificate authority: %w", err)
	}
	text, err := ca.Sign(request.Key, pki.Template{
		CommonName: request.Names[0], DNSNames: request.Names, IPs: proven, Server: true, Lifetime: s.Lifetime,
	}, s.Now())
	if err != nil {
		return issued{}, err
	}
	crt, err := pki.ParseCertificate(text)
	if err != nil {
		return issued{}, err
	}
	return issued{pem: text, serial: fmt.Sprintf("%x", crt.SerialNumber)}, nil
}
