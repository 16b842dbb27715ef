// Package join is the asking side of trustd: it gets a node's certificates
// signed, watches the list of members, and says goodbye.
//
// It owns how trustd is reached and what is sent; what a node is certified
// for, trustd's side decides (internal/trustd/signer). A private key is never
// sent. A Client is safe for concurrent use.
package join

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/api/membership"
	"talos/config"
	"talos/internal/identity"
	"talos/internal/layout"
	"talos/internal/pki"
)

const (
	dialTimeout = 3 * time.Second
	callTimeout = 10 * time.Second
	// behindEndpoint is how many connections are made to the endpoint's host
	// before the next: a balancer there may choose another node each time.
	behindEndpoint = 3
	maxAnswer      = 16 << 20 // bytes; a list of ten thousand members has two millions
)

// Cluster is what the configuration says of the cluster, as far as trustd goes.
type Cluster struct {
	Roots    *x509.CertPool // who may sign for a trustd
	Token    string
	Secret   string   // cluster.secret; never sent
	Endpoint string   // host of the cluster's endpoint
	Known    []string // addresses of control plane nodes last seen
	Unlisted bool     // cluster.discovery.enabled is false
}

// ClusterOf reads the configuration.
func ClusterOf(cfg *config.Config, known []netip.Addr) (Cluster, error) {
	bundles := [][]byte{cfg.Machine.CA.Crt}
	for _, c := range cfg.Machine.AcceptedCAs {
		bundles = append(bundles, c.Crt)
	}
	roots, err := pki.Pool(bundles...)
	if err != nil {
		return Cluster{}, fmt.Errorf("machine.ca and machine.acceptedCAs: %w", err)
	}
	c := Cluster{Roots: roots, Token: cfg.Machine.Token, Secret: cfg.Cluster.Secret, Endpoint: cfg.Endpoint().Hostname()}
	if d := cfg.Cluster.Discovery; d != nil && d.Enabled != nil {
		c.Unlisted = !*d.Enabled
	}
	for _, addr := range known {
		c.Known = append(c.Known, addr.String())
	}
	return c, nil
}

// candidates are the hosts to ask: that of the endpoint, then those last seen.
func (c Cluster) candidates() []string {
	var out []string
	for _, host := range append([]string{c.Endpoint}, c.Known...) {
		if host != "" && !slices.Contains(out, host) {
			out = append(out, host)
		}
	}
	return out
}

// Client asks for one node.
type Client struct {
	Identity *identity.Identity
	// Dial, if set, replaces the network; from is the address to call from, if valid.
	Dial func(ctx context.Context, from netip.Addr, host string) (net.Conn, error)
}

// dial connects from one of the node's addresses, any if it is not valid.
func dial(ctx context.Context, from netip.Addr, host string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if from.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	return d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(layout.TrustPort)))
}

// connect makes a connection that is made at the first call, once: a call
// fails when it cannot be made.
func (c *Client) connect(cluster Cluster, from netip.Addr, host string) (*grpc.ClientConn, error) {
	reach := c.Dial
	if reach == nil {
		reach = dial
	}
	return grpc.NewClient("passthrough:///"+host,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: cluster.Roots, ServerName: layout.TrustName,
		})),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return reach(ctx, from, host) }),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: dialTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(), grpc.WithUserAgent("machined"),
	)
}

// withToken is a call's context that shows the token.
func (c Cluster) withToken(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "token", c.Token)
}

// mac shows that the sender knows the cluster's secret.
func (c Cluster) mac(statement []byte) []byte { return MAC(c.Secret, statement) }

// MAC is the authentication code of a statement under cluster.secret.
func MAC(secret string, statement []byte) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write(statement)
	return h.Sum(nil)
}

// ask calls fn with a connection to one candidate after the other until one
// succeeds; its error tells what each said.
func (c *Client) ask(ctx context.Context, cluster Cluster, from netip.Addr, fn func(context.Context, *grpc.ClientConn) error) error {
	hosts := cluster.candidates()
	if len(hosts) == 0 {
		return errors.New("no control plane node is known: cluster.controlPlane.endpoint names no host")
	}
	var problems []error
	for i, host := range hosts {
		err := c.askOne(ctx, cluster, from, host, fn)
		// Behind the endpoint may be several: others may know more.
		for again := 1; i == 0 && again < behindEndpoint && status.Code(err) == codes.Unavailable && answered(err); again++ {
			err = c.askOne(ctx, cluster, from, host, fn)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(append(problems, ctx.Err())...)
		}
		problems = append(problems, fmt.Errorf("trustd at %s: %w", host, said(err)))
	}
	return errors.Join(problems...)
}

// answered says whether an error is a trustd's answer, not the lack of one.
func answered(err error) bool {
	s, ok := status.FromError(err)
	return ok && !strings.HasPrefix(s.Message(), "connection error") && !strings.HasPrefix(s.Message(), "name resolver error")
}

func (c *Client) askOne(ctx context.Context, cluster Cluster, from netip.Addr, host string, fn func(context.Context, *grpc.ClientConn) error) error {
	conn, err := c.connect(cluster, from, host)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(cluster.withToken(ctx), conn)
}

// said leaves out of an error of gRPC what only programmers want to see.
func said(err error) error {
	if s, ok := status.FromError(err); ok {
		return &refusal{s}
	}
	return err
}

type refusal struct{ *status.Status }

// Error is what the other side said.
func (r *refusal) Error() string { return r.Message() }

// GRPCStatus keeps the code for who asks.
func (r *refusal) GRPCStatus() *status.Status { return r.Status }

// Watch hands the list of members to apply, at once and after each change,
// until the connection ends. It returns nil only with ctx.
func (c *Client) Watch(ctx context.Context, cluster Cluster, apply func([]*membership.Member)) error {
	err := c.ask(ctx, cluster, netip.Addr{}, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		// The first list must come soon, the others when they come.
		first := time.AfterFunc(callTimeout, cancel)
		defer first.Stop()
		stream, err := membership.NewMembershipServiceClient(conn).Watch(ctx, &membership.WatchRequest{})
		if err != nil {
			return err
		}
		for {
			list, err := stream.Recv()
			if err != nil {
				return err
			}
			first.Stop()
			apply(list.GetMembers())
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Leave takes this node off the list and sets its names free.
func (c *Client) Leave(ctx context.Context, cluster Cluster, now time.Time) error {
	request := &membership.LeaveRequest{Identity: c.Identity.Public, Time: now.Unix()}
	request.Signature = c.Identity.Sign(identity.LeaveStatement(request.Identity, request.Time))
	return c.ask(ctx, cluster, netip.Addr{}, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err := membership.NewMembershipServiceClient(conn).Leave(ctx, request)
		return err
	})
}
