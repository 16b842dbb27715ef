package machine

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/cluster"
	"talos/client"
	"talos/client/talosconfig"
	"talos/config"
	"talos/internal/authz"
	"talos/internal/health"
	"talos/internal/pki"
	clusterres "talos/internal/resources/cluster"
	"talos/internal/resources/runtime"
	"talos/internal/resources/secrets"
)

const (
	healthDefault = 20 * time.Minute // when the caller sets no limit
	healthMax     = 24 * time.Hour
	healthNodes   = 1024 // that a caller may name: each is a connection of machined's
)

// HealthCheck goes through the checks of a healthy cluster, waits for each, and
// tells how it goes. It ends with the first that is not fulfilled in time, and
// with its last error. A worker, which may ask nobody, checks itself alone.
func (s *Server) HealthCheck(req *cluster.HealthCheckRequest, stream grpc.ServerStreamingServer[cluster.HealthCheckProgress]) error {
	if err := mayName(req.GetClusterInfo()); err != nil {
		return err
	}
	limit := healthDefault
	if req.GetWaitTimeout() != nil {
		limit = min(req.GetWaitTimeout().AsDuration(), healthMax)
	}
	ctx, cancel := context.WithTimeout(stream.Context(), limit)
	defer cancel()
	checks, done, err := s.checks(ctx, req.GetClusterInfo(), limit)
	if err != nil {
		return err
	}
	defer done()
	err = health.Run(ctx, checks, func(check, state string) error {
		return stream.Send(&cluster.HealthCheckProgress{Message: "waiting for " + check + ": " + state})
	})
	if late := (*health.Error)(nil); errors.As(err, &late) {
		return status.Error(codes.DeadlineExceeded, late.Error())
	}
	return err
}

// mayName bounds the nodes that a caller names.
func mayName(info *cluster.ClusterInfo) error {
	if n := len(info.GetControlPlaneNodes()) + len(info.GetWorkerNodes()); n > healthNodes {
		return status.Errorf(codes.InvalidArgument, "health: %d nodes are named, at most %d; without any it is all members", n, healthNodes)
	}
	return nil
}

// checks are what this node can tell of its cluster. done closes the connections.
func (s *Server) checks(ctx context.Context, info *cluster.ClusterInfo, limit time.Duration) (checks []health.Check, done func(), err error) {
	cfg := s.Config.Active()
	if cfg == nil {
		return []health.Check{{Name: "a machine configuration", Try: func(context.Context) error {
			return fmt.Errorf("none has been applied")
		}}}, func() {}, nil
	}
	if !cfg.IsControlPlane() {
		return []health.Check{{Name: "this worker to be ready; ask a control plane node for the others", Try: s.machineReady}}, func() {}, nil
	}
	secret, err := safe.StateGetByID[*secrets.KubernetesSecrets](ctx, s.State, "k8s-secrets")
	if state.IsNotFoundError(err) {
		return nil, nil, status.Error(codes.FailedPrecondition, "health: this node has no access to Kubernetes yet; see `talosctl services`")
	} else if err != nil {
		return nil, nil, err
	}
	kubernetes, closeKubernetes, err := health.Access([]byte(secret.TypedSpec().LocalhostAdminKubeconfig), info.GetForceEndpoint())
	if errors.Is(err, health.ErrEndpoint) {
		return nil, nil, status.Error(codes.InvalidArgument, "health: "+err.Error())
	} else if err != nil {
		return nil, nil, err
	}
	peers, err := s.newPeers(ctx, limit)
	if err != nil {
		closeKubernetes()
		return nil, nil, err
	}
	c := &health.Cluster{Kubernetes: kubernetes, NoProxy: off(cfg), NoDNS: cfg.Cluster.CoreDNS != nil && config.Bool(cfg.Cluster.CoreDNS.Disabled, false)}
	if network := config.Of(cfg.Cluster.Network); network.CNI != nil {
		c.NoNetwork = network.CNI.Name == "none"
	}
	c.Nodes = func(ctx context.Context) ([]health.Node, error) { return s.nodes(ctx, info, peers) }
	return c.Checks(), func() { peers.close(); closeKubernetes() }, nil
}

func off(cfg *config.Config) bool {
	return cfg.Cluster.Proxy != nil && config.Bool(cfg.Cluster.Proxy.Disabled, false)
}

func (s *Server) machineReady(ctx context.Context) error {
	res, err := safe.StateGetByID[*runtime.MachineStatus](ctx, s.State, "machine")
	if err != nil {
		return err
	}
	for _, unmet := range res.TypedSpec().Status.UnmetConditions {
		return fmt.Errorf("%s", unmet.Reason)
	}
	return nil
}

// nodes are those that the caller names, else all members of the cluster.
func (s *Server) nodes(ctx context.Context, info *cluster.ClusterInfo, p *peers) ([]health.Node, error) {
	var out []health.Node
	add := func(name string, controlPlane bool, addresses ...string) error {
		c, err := p.dial(ctx, addresses[0])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, health.Node{Name: name, ControlPlane: controlPlane, Addresses: addresses, Machine: c.Machine, Resources: c.Resources})
		return nil
	}
	for _, name := range info.GetControlPlaneNodes() {
		if err := add(name, true, name); err != nil {
			return nil, err
		}
	}
	for _, name := range info.GetWorkerNodes() {
		if err := add(name, false, name); err != nil {
			return nil, err
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	members, err := safe.StateListAll[*clusterres.Member](ctx, s.State)
	if err != nil {
		return nil, err
	}
	for m := range members.All() {
		spec := m.TypedSpec()
		if len(spec.Addresses) == 0 {
			return nil, fmt.Errorf("%s has no address yet", spec.Hostname)
		}
		if err := add(spec.Hostname, spec.MachineType != clusterres.TypeWorker, texts(spec.Addresses)...); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the members of the cluster are not known yet")
	}
	return out, nil
}

func texts(addresses []netip.Addr) []string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return out
}

// peers are connections to the APIs of all nodes as a reader, for one run.
type peers struct {
	config *talosconfig.Config

	mu    sync.Mutex // guards conns
	conns map[string]*client.Client
}

// newPeers issues a reader's certificate that lives no longer than the run: this
// node holds the CA's key.
func (s *Server) newPeers(ctx context.Context, limit time.Duration) (*peers, error) {
	root, err := safe.StateGetByID[*secrets.OSRootSecrets](ctx, s.State, "os")
	if err != nil {
		return nil, err
	}
	if root.TypedSpec().IssuingCA == nil {
		return nil, status.Error(codes.FailedPrecondition, "health: this node does not hold the CA's key; ask another control plane node")
	}
	ca, err := pki.ParseCA(root.TypedSpec().IssuingCA.Crt, root.TypedSpec().IssuingCA.Key)
	if err != nil {
		return nil, err
	}
	reader := string(authz.Reader)
	pair, err := ca.Issue(pki.Template{CommonName: "health", Organization: []string{reader}, Client: true, Lifetime: limit + time.Minute}, time.Now())
	if err != nil {
		return nil, err
	}
	encode := base64.StdEncoding.EncodeToString
	return &peers{conns: map[string]*client.Client{}, config: &talosconfig.Config{
		Context:  "health",
		Contexts: map[string]*talosconfig.Context{"health": {Endpoints: []string{"named below"}, CA: encode(ca.CrtPEM), Crt: encode(pair.Crt), Key: encode(pair.Key)}},
	}}, nil
}

func (p *peers) dial(ctx context.Context, address string) (*client.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.conns[address]; c != nil {
		return c, nil
	}
	c, err := client.New(ctx, client.Options{Config: p.config, Endpoints: []string{address}})
	if err != nil {
		return nil, err
	}
	p.conns[address] = c
	return c, nil
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close() // nothing is to be saved
	}
}
