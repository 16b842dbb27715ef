package trustd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"talos/api/security"
	signerapi "talos/api/signer"
	"talos/internal/door"
)

// signTimeout bounds what a request may take in machined.
const signTimeout = 10 * time.Second

// service answers securityapi.SecurityService.
type service struct {
	security.UnimplementedSecurityServiceServer
	log    *slog.Logger
	signer signerapi.SignerClient
	pace   *pace
	lines  *rate.Limiter // of the log: a flood of requests must not become one of lines
	muted  *atomic.Int64 // lines left out since the last one
}

func newService(log *slog.Logger, signer signerapi.SignerClient, member func(netip.Addr) bool) *service {
	return &service{
		log: log, signer: signer, pace: newPace(time.Now, member),
		lines: rate.NewLimiter(20, 100), muted: new(atomic.Int64),
	}
}

// caller is who asks: where from, with which token, and over which connection.
type caller struct {
	addr  netip.Addr
	token string
	conn  *door.Conn
}

// admit paces callers and finds out what they show.
func (s *service) admit(ctx context.Context) (caller, error) {
	addr, conn, err := peerOf(ctx)
	if err != nil {
		return caller{}, err
	}
	token, err := tokenOf(ctx)
	if !s.pace.allow(addr, token) { // without a token too
		return caller{}, s.refuse(addr, status.Errorf(codes.ResourceExhausted, "too many requests from %s: try again in some seconds", addr))
	}
	if err != nil {
		return caller{}, s.refuse(addr, err)
	}
	return caller{addr: addr, token: token, conn: conn}, nil
}

// accepted notes that machined accepted a caller's token: he is no stranger any
// more, and a member perhaps.
func (s *service) accepted(c caller) error {
	s.pace.right(c.token)
	if err := c.conn.Admit(""); err != nil {
		return status.Errorf(codes.ResourceExhausted, "%s: %v", c.addr, err)
	}
	return nil
}

// refuse writes down why somebody got nothing. That this node can't tell yet is
// no news: those who ask do so again and again.
func (s *service) refuse(addr netip.Addr, err error) error {
	level := slog.LevelWarn
	if status.Code(err) == codes.Unavailable {
		level = slog.LevelDebug
	}
	if !s.lines.Allow() {
		s.muted.Add(1)
		return err
	}
	attrs := []any{"peer", addr, "reason", status.Convert(err).Message()}
	if n := s.muted.Swap(0); n > 0 {
		attrs = append(attrs, "unlogged", n)
	}
	s.log.Log(context.Background(), level, "request refused", attrs...)
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
	if err := s.accepted(c); err != nil {
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

func peerOf(ctx context.Context) (netip.Addr, *door.Conn, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}, nil, status.Error(codes.Unauthenticated, "the call has no peer")
	}
	addr, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return netip.Addr{}, nil, status.Errorf(codes.Unauthenticated, "the call comes from %s, which is no address", p.Addr)
	}
	v, ok := p.AuthInfo.(visitor)
	if !ok {
		return netip.Addr{}, nil, status.Error(codes.Unauthenticated, "the call has no TLS peer")
	}
	return addr.Addr().Unmap().WithZone(""), v.conn, nil
}

// doorman does TLS handshakes, and lets calls know their connection.
type doorman struct {
	credentials.TransportCredentials
}

// visitor is a connection with its TLS.
type visitor struct {
	credentials.AuthInfo
	conn *door.Conn
}

// ServerHandshake is credentials.TransportCredentials.
func (d doorman) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := d.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	own, ok := raw.(*door.Conn)
	if !ok {
		conn.Close()
		return nil, nil, fmt.Errorf("connection is a %T", raw)
	}
	return conn, visitor{info, own}, nil
}

// Clone is credentials.TransportCredentials.
func (d doorman) Clone() credentials.TransportCredentials {
	return doorman{d.TransportCredentials.Clone()}
}

func tokenOf(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("token")
	if len(values) != 1 || values[0] == "" {
		return "", status.Error(codes.Unauthenticated, "the call needs one token in its metadata")
	}
	return values[0], nil
}
