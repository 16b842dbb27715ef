package trustd

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"talos/api/security"
	signerapi "talos/api/signer"
)

// signTimeout bounds what a request may take in machined.
const signTimeout = 10 * time.Second

// service answers securityapi.SecurityService.
type service struct {
	security.UnimplementedSecurityServiceServer
	log    *slog.Logger
	signer signerapi.SignerClient
	pace   *pace
}

func newService(log *slog.Logger, signer signerapi.SignerClient) *service {
	return &service{log: log, signer: signer, pace: newPace(time.Now)}
}

// caller is who asks: where from, and with which token.
type caller struct {
	addr  netip.Addr
	token string
}

// admit paces callers and finds out what they show.
func (s *service) admit(ctx context.Context) (caller, error) {
	addr, err := peerOf(ctx)
	if err != nil {
		return caller{}, err
	}
	if !s.pace.allow(addr) {
		return caller{}, s.refuse(addr, status.Errorf(codes.ResourceExhausted, "too many requests from %s: try again in some seconds", addr))
	}
	token, err := tokenOf(ctx)
	if err != nil {
		return caller{}, s.refuse(addr, err)
	}
	return caller{addr: addr, token: token}, nil
}

// refuse writes down why somebody got nothing. That this node can't tell yet is
// no news: those who ask do so again and again.
func (s *service) refuse(addr netip.Addr, err error) error {
	level := slog.LevelWarn
	if status.Code(err) == codes.Unavailable {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, "request refused", "peer", addr, "reason", status.Convert(err).Message())
	return err
}

// Certificate has a certificate signed for whoever shows the token, for what
// the address of the call and further proofs prove.
func (s *service) Certificate(ctx context.Context, r *security.CertificateRequest) (*security.CertificateResponse, error) {
	c, err := s.admit(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	signed, err := s.signer.Sign(ctx, &signerapi.SignRequest{
		Csr: r.GetCsr(), Peer: c.addr.String(), Usage: signerapi.Usage_USAGE_SERVER, Token: c.token,
		Identity: r.GetIdentity(), Signature: r.GetSignature(), Proofs: r.GetProofs(), Mac: r.GetMac(),
		OperatingSystem: r.GetOperatingSystem(), Unlisted: r.GetUnlisted(),
	})
	if err != nil {
		return nil, s.refuse(c.addr, err)
	}
	s.log.Info("certificate issued", "peer", c.addr)
	return &security.CertificateResponse{Ca: signed.GetCa(), Crt: signed.GetCrt()}, nil
}

// ReadFile is part of the protocol and never of ours: a node's files are not
// for whoever has a token.
func (s *service) ReadFile(context.Context, *security.ReadFileRequest) (*security.ReadFileResponse, error) {
	return nil, status.Error(codes.PermissionDenied, "files are not read over this service")
}

// WriteFile is refused like ReadFile.
func (s *service) WriteFile(context.Context, *security.WriteFileRequest) (*security.WriteFileResponse, error) {
	return nil, status.Error(codes.PermissionDenied, "files are not written over this service")
}

func peerOf(ctx context.Context) (netip.Addr, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}, status.Error(codes.Unauthenticated, "the call has no peer")
	}
	addr, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return netip.Addr{}, status.Errorf(codes.Unauthenticated, "the call comes from %s, which is no address", p.Addr)
	}
	return addr.Addr().Unmap().WithZone(""), nil
}

func tokenOf(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("token")
	if len(values) != 1 || values[0] == "" {
		return "", status.Error(codes.Unauthenticated, "the call needs one token in its metadata")
	}
	return values[0], nil
}
