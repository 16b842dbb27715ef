// Package client is the Go client of the node API: it connects to the
// endpoints of a cluster with the certificates of a talosconfig, picks target
// nodes, and turns failures into typed errors.
//
// It owns connections and metadata; the calls themselves are the generated
// stubs, which it exposes as fields. A Client is safe for concurrent use.
//
//	c, err := client.New(ctx, client.Options{})
//	if err != nil { … }
//	defer c.Close()
//	for _, a := range client.Collect(ctx, c, func(ctx context.Context) (*machine.MemoryResponse, error) {
//		return c.Machine.Memory(ctx, &emptypb.Empty{})
//	}) {
//		fmt.Println(a.Node, a.Message.GetMeminfo().GetMemtotal(), a.Err)
//	}
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/proto"

	"talos/api/cluster"
	"talos/api/configuration"
	"talos/api/inspect"
	"talos/api/integrity"
	"talos/api/machine"
	"talos/api/network"
	"talos/api/roster"
	"talos/api/storage"
	timeapi "talos/api/time"
	"talos/client/talosconfig"
)

// Port is where endpoints listen unless they say otherwise.
const Port = 50000

// maxMessage bounds one answer, as the API's gateway does.
const maxMessage = 32 << 20

// window is the flow control window, in bytes: what may be under way.
const window = 2 << 20

// Options say what to connect to. The zero value means: the current context of
// the talosconfig in its usual place.
type Options struct {
	Config    *talosconfig.Config // read from Path if nil
	Path      string              // of the talosconfig; found by talosconfig.Find if empty
	Context   string              // the current one if empty
	Endpoints []string            // instead of the context's
	Nodes     []string            // instead of the context's

	// First connects to the first endpoint only. Without it the client spreads
	// its calls over all endpoints that work, so that a call without a target
	// is answered by any of them.
	First bool

	// Insecure connects to one machine that waits for its first configuration:
	// the one of Nodes, else of Endpoints. No talosconfig is read and no client
	// certificate shown; the machine's own is not verified, but its key must have
	// one of Fingerprints, if there are any: the SHA-256 that its console shows,
	// base64 or hexadecimal. Without, Seen is told the one that the machine has.
	Insecure     bool
	Fingerprints []string
	Seen         func(fingerprint string)
}

// Client is a set of connections to the endpoints of one cluster.
type Client struct {
	Machine        machine.MachineServiceClient
	Cluster        cluster.ClusterServiceClient
	Time           timeapi.TimeServiceClient
	Network        network.NetworkServiceClient
	Storage        storage.StorageServiceClient
	Inspect        inspect.InspectServiceClient
	Configurations configuration.ConfigurationServiceClient
	Roster         roster.RosterServiceClient
	Integrity      integrity.IntegrityServiceClient
	Resources      cosi.StateClient // wrap it with cosi-project/runtime's client adapter for typed resources

	conn    *grpc.ClientConn
	dials   *dials
	display []string // endpoints as the user wrote them
	nodes   []string
	name    string // of the context
	roles   []string

	insecure bool
}

// New prepares a client. It reads files, but connects only with the first call.
func New(_ context.Context, o Options) (*Client, error) {
	if o.Insecure {
		return newInsecure(o)
	}
	ctx, name, err := o.context()
	if err != nil {
		return nil, err
	}
	c := &Client{dials: newDials(), display: ctx.Endpoints, nodes: ctx.Nodes, name: name}
	if len(o.Endpoints) > 0 {
		c.display = o.Endpoints
	}
	if len(o.Nodes) > 0 {
		c.nodes = o.Nodes
	}
	if len(c.display) == 0 {
		return nil, fmt.Errorf("context %q names no endpoint: give one with --endpoints, or store it with `config endpoint`", name)
	}
	if o.First {
		c.display = c.display[:1]
	}
	creds, err := c.credentials(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := c.connect(creds); err != nil {
		return nil, err
	}
	return c, nil
}

// context answers the talosconfig's context to use and its name.
func (o Options) context() (*talosconfig.Context, string, error) {
	cfg := o.Config
	if cfg == nil {
		path, err := talosconfig.Find(o.Path, os.Getenv)
		if err != nil {
			return nil, "", err
		}
		if cfg, err = talosconfig.Load(path); err != nil {
			return nil, "", fmt.Errorf("read talosconfig: %w", err)
		}
	}
	ctx, err := cfg.Select(o.Context)
	if err != nil {
		return nil, "", err
	}
	name := o.Context
	if name == "" {
		name = cfg.Context
	}
	return ctx, name, nil
}

func (c *Client) credentials(ctx *talosconfig.Context, name string) (credentials.TransportCredentials, error) {
	pool, err := ctx.Authorities()
	if err != nil {
		return nil, fmt.Errorf("context %q: %w", name, err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}
	pair, err := ctx.Certificate()
	if err != nil {
		return nil, fmt.Errorf("context %q: %w", name, err)
	}
	if pair != nil {
		c.roles = pair.Leaf.Subject.Organization
		if err := checkValidity(pair, name); err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{*pair}
	}
	return &recorder{TransportCredentials: credentials.NewTLS(conf), dials: c.dials}, nil
}

// checkValidity saves a round trip, and tells more than a server's alert does.
func checkValidity(pair *tls.Certificate, name string) error {
	now, leaf := time.Now(), pair.Leaf
	text := ""
	switch {
	case now.After(leaf.NotAfter):
		text = "expired on " + leaf.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(leaf.NotBefore.Add(-time.Minute)):
		text = "is valid only from " + leaf.NotBefore.UTC().Format(time.RFC3339)
	default:
		return nil
	}
	return &Error{Kind: ExpiredClient, Method: "connect", Endpoint: "context " + strconv.Quote(name),
		Text: "the client certificate " + text}
}

// connect prepares gRPC: every endpoint is a known address, all are connected
// to at the same time, and calls go to those that work by turns. One that goes
// silent in a call is left (see hedged), or noticed by its pings within thirteen
// seconds.
func (c *Client) connect(creds credentials.TransportCredentials) error {
	addrs := make([]resolver.Address, 0, len(c.display))
	for _, e := range c.display {
		host, port, err := splitEndpoint(e)
		if err != nil {
			return err
		}
		addrs = append(addrs, resolver.Address{Addr: net.JoinHostPort(host, port), ServerName: host})
	}
	endpoints := manual.NewBuilderWithScheme("talos")
	endpoints.InitialState(resolver.State{Addresses: addrs})
	conn, err := grpc.NewClient("talos:///endpoints",
		grpc.WithResolvers(endpoints),
		grpc.WithContextDialer(c.dials.dial),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+spreadName+`":{}}]}`),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// Fixed windows: else every call is followed by a ping that measures.
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithUnaryInterceptor(c.unary),
		grpc.WithStreamInterceptor(c.stream),
	)
	if err != nil {
		return fmt.Errorf("prepare connection to %s: %w", strings.Join(c.display, ","), err)
	}
	c.use(conn)
	return nil
}

func (c *Client) use(conn *grpc.ClientConn) {
	c.conn = conn
	c.Machine = machine.NewMachineServiceClient(conn)
	c.Cluster = cluster.NewClusterServiceClient(conn)
	c.Time = timeapi.NewTimeServiceClient(conn)
	c.Network = network.NewNetworkServiceClient(conn)
	c.Storage = storage.NewStorageServiceClient(conn)
	c.Inspect = inspect.NewInspectServiceClient(conn)
	c.Configurations = configuration.NewConfigurationServiceClient(conn)
	c.Roster = roster.NewRosterServiceClient(conn)
	c.Integrity = integrity.NewIntegrityServiceClient(conn)
	c.Resources = cosi.NewStateClient(conn)
}

// Close ends every connection; calls under way fail.
func (c *Client) Close() error { return c.conn.Close() }

// Endpoints are what the client connects to, as they were named.
func (c *Client) Endpoints() []string { return slices.Clone(c.display) }

// Nodes are the targets; none means that the endpoint itself answers.
func (c *Client) Nodes() []string { return slices.Clone(c.nodes) }

// Context is the name of the talosconfig's context, which is that of the cluster
// where the system named it.
func (c *Client) Context() string { return c.name }

// Roles are those of the client's certificate.
func (c *Client) Roles() []string { return slices.Clone(c.roles) }

// splitEndpoint takes host, host:port, [v6]:port, a bare IPv6 address or a URL.
func splitEndpoint(s string) (host, port string, err error) {
	text := strings.TrimSuffix(strings.TrimPrefix(s, "https://"), "/")
	if host, port, err = net.SplitHostPort(text); err == nil && host != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", "", fmt.Errorf("endpoint %q: %q is not a port number", s, port)
		}
		return host, port, nil
	}
	host = strings.Trim(text, "[]")
	if host == "" || strings.ContainsAny(host, "/ ") || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return "", "", fmt.Errorf("endpoint %q: not a host name or address with an optional port", s)
	}
	return host, strconv.Itoa(Port), nil
}

func (c *Client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	for attempt := 1; ; attempt++ {
		err := c.wrap(ctx, method, c.once(ctx, method, req, reply, cc, invoke, opts))
		if attempt == attempts || !errors.Is(err, Lost) || !reads(method) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(attempt) * retryPause):
		}
	}
}

// once makes the call on one endpoint, or on two if it may be.
func (c *Client) once(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts []grpc.CallOption) error {
	if m, ok := reply.(proto.Message); ok && len(c.display) > 1 && reads(method) && hedgeable(opts) {
		return c.hedged(ctx, method, req, m, cc, invoke, opts)
	}
	return invoke((&route{dials: c.dials}).context(ctx), method, req, reply, cc, opts...)
}

// A call that only reads is repeated when the connection broke under it:
// another endpoint may have the answer.
const (
	attempts   = 3
	retryPause = 100 * time.Millisecond
)

// reads reports whether a method changes nothing.
func reads(method string) bool {
	switch service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/"); service {
	case "time.TimeService", "network.NetworkService", "inspect.InspectService":
		return true
	case "cosi.resource.State":
		return name == "Get"
	case "talos.v1.ConfigurationService":
		return name == "History" || name == "Get"
	case "machine.MachineService":
		return slices.Contains([]string{
			"Containers", "EtcdMemberList", "EtcdStatus", "Hostname", "LogsContainers", "Memory", "Processes", "ServiceList", "Stats", "SystemStat", "Version",
		}, name)
	}
	return false
}

func (c *Client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open((&route{dials: c.dials}).context(ctx), desc, cc, method, opts...)
	if err != nil {
		return nil, c.wrap(ctx, method, err)
	}
	return &wrappedStream{ClientStream: s, wrap: func(err error) error {
		if errors.Is(err, io.EOF) {
			return err
		}
		return c.wrap(ctx, method, err)
	}}, nil
}

type wrappedStream struct {
	grpc.ClientStream
	wrap func(error) error
}

func (s *wrappedStream) RecvMsg(m any) error { return s.wrap(s.ClientStream.RecvMsg(m)) }
func (s *wrappedStream) SendMsg(m any) error { return s.wrap(s.ClientStream.SendMsg(m)) }
