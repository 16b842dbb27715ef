// Package localapi gives every node the Kubernetes API on addresses of its own,
// whichever API servers there are at the time. The kubelet, kube-proxy and the
// pod network have 127.0.0.1:7445 by default (machine.features.kubePrism): on a
// control plane node that leads to its own API server, and while that is down,
// as on a worker, to any of the others that is well, or to the cluster's
// endpoint. Which others there are, the members of the cluster tell. The
// controller manager and the scheduler have the port after it, which leads to
// the node's own API server and nowhere else: should it be down, others lead.
//
// A connection that comes before an API server is ready waits for it instead
// of being refused. All of them start at the same time as the API server, and
// would otherwise sleep through its first seconds, ever longer after each
// refusal. With the kubelet there is a limit: one that finds pods of an earlier
// boot asks for its Node before it mounts anything, also for the API server's
// own pod, and must be told at once that nobody is there.
//
// Package balance forwards the connections and watches over the servers.
package localapi

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/safe"
	"golang.org/x/sync/errgroup"

	"talos/config"
	"talos/internal/balance"
	"talos/internal/configstore/active"
	"talos/internal/kube/api"
	"talos/internal/layout"
	"talos/internal/loop"
	"talos/internal/reconcile"
	"talos/internal/resources/cluster"
	"talos/internal/resources/secrets"
)

// DefaultPort is where the API is when the configuration says nothing.
const DefaultPort = 7445

// Times of a connection's wait for the API.
const (
	hold     = 9 * time.Second       // clients give up their handshake after 10 s
	interval = 50 * time.Millisecond // between questions whether the local API server is ready
	dialTime = 2 * time.Second       // of one attempt to reach it
	patience = 20 * time.Second      // with the local API server, before the endpoint is asked
)

// Address is the server for the kubelet's kubeconfig. Without the local
// addresses it is the node's API server or the cluster's endpoint.
func Address(cfg *config.Config) string { return address(cfg, 0) }

// ComponentAddress is the server for the kubeconfigs of the control plane's
// components.
func ComponentAddress(cfg *config.Config) string { return address(cfg, 1) }

// Shared is the server for pods that share the network of their node: the same
// on every node, although it leads elsewhere on each.
func Shared(cfg *config.Config) *url.URL {
	if port := port(cfg); port != 0 {
		return &url.URL{Scheme: "https", Host: listenOn(port)}
	}
	return cfg.Endpoint()
}

func address(cfg *config.Config, offset int) string {
	if port := port(cfg); port != 0 {
		return "https://" + listenOn(port+offset)
	}
	if cfg.IsControlPlane() {
		return "https://" + local(cfg)
	}
	return cfg.Endpoint().String()
}

func listenOn(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func port(cfg *config.Config) int {
	p := config.Of(config.Of(config.Of(cfg.Machine).Features).KubePrism)
	if !config.Or(p.Enabled, true) {
		return 0
	}
	if p.Port != 0 {
		return p.Port
	}
	return DefaultPort
}

func local(cfg *config.Config) string {
	return listenOn(cfg.APIServerPort())
}

// Controller keeps the forwarder running as the configuration wants it, and
// tells it who the API servers are.
func Controller(log *slog.Logger) controller.Controller {
	var (
		task    reconcile.Task
		current *Forwarder
	)
	first := sync.OnceValue(firstBoot)
	return &reconcile.Controller{
		ID:  "k8s.LocalAPIController",
		Log: log,
		In: []controller.Input{
			active.Input(), reconcile.Input[*secrets.KubernetesSecrets](), reconcile.Input[*cluster.Member](), reconcile.Input[*cluster.Identity](),
		},
		Close: task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil || port(cfg) == 0 {
				task.Stop()
				current = nil
				return err
			}
			f := &Forwarder{Log: log, Kubelet: listenOn(port(cfg)), Endpoint: endpoint(cfg), Authorities: authorities(cfg), FirstBoot: first()}
			if cfg.IsControlPlane() {
				sec, err := reconcile.Get[*secrets.KubernetesSecrets](ctx, r, "k8s-secrets")
				if err != nil || sec == nil || sec.TypedSpec().LocalhostAdminKubeconfig == "" {
					return err // nobody has credentials yet
				}
				f.Local, f.Components = local(cfg), listenOn(port(cfg)+1)
				f.Ready = readyCheck(sec.TypedSpec().LocalhostAdminKubeconfig)
			}
			if current == nil || current.key() != f.key() {
				current = f
			}
			servers, err := servers(ctx, r)
			if err != nil {
				return err
			}
			current.SetServers(servers)
			task.Ensure(ctx, log, current.key(), current.Run)
			return nil
		},
	}
}

// endpoint is the cluster's, with a port.
func endpoint(cfg *config.Config) string {
	u := cfg.Endpoint()
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return u.Host
}

// authorities are those that an API server's certificate may be of.
func authorities(cfg *config.Config) []byte {
	cl := config.Of(cfg.Cluster)
	out := bytes.Clone(config.Of(cl.CA).Crt)
	for _, c := range cl.AcceptedCAs {
		out = append(append(out, '\n'), c.Crt...)
	}
	return out
}

// servers are the addresses of the other nodes' API servers, of each node's
// together, the first of them the best.
func servers(ctx context.Context, r controller.Reader) ([][]string, error) {
	members, err := safe.ReaderListAll[*cluster.Member](ctx, r)
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	self, err := safe.ReaderListAll[*cluster.Identity](ctx, r)
	if err != nil {
		return nil, fmt.Errorf("read own identity: %w", err)
	}
	own := ""
	if self.Len() > 0 {
		own = self.Get(0).TypedSpec().NodeID
	}
	var out [][]string
	for m := range members.All() {
		if list := apiServers(*m.TypedSpec(), own); len(list) > 0 {
			out = append(out, list)
		}
	}
	return out, nil
}

// apiServers are a member's; none of a worker or of this node.
func apiServers(m cluster.MemberSpec, own string) (out []string) {
	if m.ControlPlane == nil || m.ControlPlane.Port == 0 || own != "" && m.NodeID == own {
		return nil
	}
	for _, a := range m.Addresses {
		out = append(out, net.JoinHostPort(a.String(), strconv.Itoa(m.ControlPlane.Port)))
	}
	return out
}

// firstBoot tells whether no kubelet has run here before.
func firstBoot() bool {
	pods, err := os.ReadDir(layout.KubeletDir + "/pods")
	return len(pods) == 0 && (err == nil || errors.Is(err, os.ErrNotExist))
}

func readyCheck(kubeconfig string) func(context.Context) error {
	var client *api.Client
	return func(ctx context.Context) (err error) {
		if client == nil {
			if client, err = api.New([]byte(kubeconfig)); err != nil {
				return err
			}
		}
		return client.Ready(ctx)
	}
}

// Forwarder forwards connections to the API.
type Forwarder struct {
	Log         *slog.Logger
	Kubelet     string // host:port to listen on for the kubelet
	Components  string // the same for the control plane's components; "" for none
	Local       string // this node's API server, "" on a worker
	Endpoint    string // the cluster's
	Authorities []byte // PEM, of the API servers' certificates
	// FirstBoot: the kubelet finds no pods of its own and may wait like others.
	FirstBoot bool
	// Ready, if set, must succeed once before anything is forwarded to Local.
	Ready func(ctx context.Context) error

	mu        sync.Mutex // guards the fields below
	servers   [][]string
	ready     bool // Ready has succeeded
	impatient bool // the endpoint may be asked, though this node has an API server
	pool      *balance.Pool
}

// key tells forwarders apart that differ in more than the servers.
func (f *Forwarder) key() string {
	return strings.Join([]string{f.Kubelet, f.Components, f.Local, f.Endpoint, string(f.Authorities)}, " ")
}

// SetServers says where the other nodes' API servers are: a list of addresses
// for each node.
func (f *Forwarder) SetServers(servers [][]string) {
	f.update(func() { f.servers = servers })
}

// update changes something on which the targets depend.
func (f *Forwarder) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	if f.pool != nil {
		local := ""
		if f.ready {
			local = f.Local
		}
		endpoint := ""
		if f.Local == "" || f.impatient {
			endpoint = f.Endpoint
		}
		f.pool.Set(targets(local, f.servers, endpoint)...)
	}
}

// targets orders the API servers by how near they are: this node's own, those
// of other nodes by their first and by further addresses, whatever is behind
// the endpoint. What is "" is left out. The node's own is known to be well.
func targets(local string, servers [][]string, endpoint string) []balance.Target {
	var out []balance.Target
	seen := map[string]bool{"": true}
	add := func(address string, class int) {
		if !seen[address] {
			seen[address] = true
			out = append(out, balance.Target{Address: address, Class: class, Well: class == classLocal})
		}
	}
	add(local, classLocal)
	for _, addresses := range servers {
		add(addresses[0], classServer)
	}
	for _, addresses := range servers {
		for _, a := range addresses[1:] {
			add(a, classFurther)
		}
	}
	add(endpoint, classEndpoint)
	return out
}

// Classes of targets, the best first.
const (
	classLocal = iota
	classServer
	classFurther
	classEndpoint
)

// Run serves until ctx ends; then it closes what is open and waits.
func (f *Forwarder) Run(ctx context.Context) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.Authorities)
	host, _, err := net.SplitHostPort(f.Kubelet)
	if err != nil {
		return err
	}
	check, stop := balance.Ready(roots, host)
	defer stop()
	pool := balance.New(f.Log, check)
	f.update(func() { f.pool, f.ready, f.impatient = pool, false, false })
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return pool.Run(ctx) })
	group.Go(func() error { f.awaitReady(ctx); return nil })
	group.Go(func() error {
		if f.Local != "" && loop.Sleep(ctx, patience) {
			f.update(func() { f.impatient = true })
		}
		return nil
	})
	for _, d := range []struct {
		address string
		door    balance.Door
	}{
		{f.Kubelet, balance.Door{Patient: f.kubeletMayWait, Anyway: f.anyway}},
		{f.Components, balance.Door{Classes: classLocal + 1}},
	} {
		if d.address == "" {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", d.address)
		if err != nil {
			group.Go(func() error { return err })
			break
		}
		d.door.Listener, d.door.Hold, d.door.Refusal = l, hold, refusal
		group.Go(func() error { return pool.Serve(ctx, d.door) })
	}
	return group.Wait()
}

// refusal is a TLS alert, internal_error. Clients take the end of a connection
// for a hiccup and try again ten times before they believe it.
var refusal = []byte{21, 3, 1, 0, 2, 2, 80}

// awaitReady lets connections go to the local API server when that says that
// it is ready. From then on it is checked like the others.
func (f *Forwarder) awaitReady(ctx context.Context) {
	if f.Local == "" {
		return
	}
	for f.Ready != nil && f.Ready(ctx) != nil {
		if !loop.Sleep(ctx, interval) {
			return
		}
	}
	f.update(func() { f.ready = true })
}

func (f *Forwarder) isReady() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready
}

// kubeletMayWait: on its first boot, or when the API server's pod runs already.
func (f *Forwarder) kubeletMayWait() bool {
	if f.isReady() {
		return false
	}
	if f.FirstBoot || f.Local == "" {
		return f.FirstBoot
	}
	conn, err := net.DialTimeout("tcp", f.Local, dialTime)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// anyway is where a connection goes for which nobody is well: to whom it may
// concern, if they only answer.
func (f *Forwarder) anyway() []string {
	switch {
	case f.Local == "":
		return []string{f.Endpoint}
	case f.isReady():
		return []string{f.Local}
	default:
		return nil
	}
}
