// Package localapi gives every node the Kubernetes API on addresses of its own:
// on a control plane node that is its API server, and the cluster's endpoint
// while that is down; on a worker the cluster's endpoint. The kubelet has
// 127.0.0.1:7445 by default (machine.features.kubePrism), the controller manager
// and the scheduler the port after it.
//
// A connection that comes before the API server is ready waits for it instead
// of being refused. All of them start at the same time as the API server, and
// would otherwise sleep through its first seconds, ever longer after each
// refusal. With the kubelet there is a limit: one that finds pods of an earlier
// boot asks for its Node before it mounts anything, also for the API server's
// own pod, and must be told at once that nobody is there.
//
// It forwards bytes and looks at none. One goroutine serves each connection.
package localapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"golang.org/x/sync/errgroup"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/kube/api"
	"talos/internal/layout"
	"talos/internal/loop"
	"talos/internal/reconcile"
	"talos/internal/resources/secrets"
)

// DefaultPort is where the API is when the configuration says nothing.
const DefaultPort = 7445

// Times of a connection's wait for the API.
const (
	hold     = 9 * time.Second       // clients give up their handshake after 10 s
	interval = 50 * time.Millisecond // between attempts
	dialTime = 2 * time.Second       // of one attempt
	patience = 20 * time.Second      // with the local API server, before the endpoint is asked
)

// Address is the server for the kubelet's kubeconfig. Without the local
// addresses it is the node's API server or the cluster's endpoint.
func Address(cfg *config.Config) string { return address(cfg, 0) }

// ComponentAddress is the server for the kubeconfigs of the control plane's
// components.
func ComponentAddress(cfg *config.Config) string { return address(cfg, 1) }

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

// Controller keeps the forwarder running as the configuration wants it.
func Controller(log *slog.Logger) controller.Controller {
	var task reconcile.Task
	first := sync.OnceValue(firstBoot)
	return &reconcile.Controller{
		ID:    "k8s.LocalAPIController",
		Log:   log,
		In:    []controller.Input{active.Input(), reconcile.Input[*secrets.KubernetesSecrets]()},
		Close: task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil || port(cfg) == 0 {
				task.Stop()
				return err
			}
			f := &Forwarder{Log: log, Kubelet: listenOn(port(cfg)), Endpoint: cfg.Endpoint().Host}
			if cfg.IsControlPlane() {
				sec, err := reconcile.Get[*secrets.KubernetesSecrets](ctx, r, "k8s-secrets")
				if err != nil || sec == nil || sec.TypedSpec().LocalhostAdminKubeconfig == "" {
					return err // nobody has credentials yet
				}
				f.Local, f.Components = local(cfg), listenOn(port(cfg)+1)
				f.FirstBoot = first()
				f.Ready = readyCheck(sec.TypedSpec().LocalhostAdminKubeconfig)
			}
			task.Ensure(ctx, log, f.Kubelet+" "+f.Local+" "+f.Endpoint, f.Run)
			return nil
		},
	}
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
	Log        *slog.Logger
	Kubelet    string // host:port to listen on for the kubelet
	Components string // the same for the control plane's components; "" for none
	Local      string // this node's API server, "" on a worker
	Endpoint   string // the cluster's
	// FirstBoot: the kubelet finds no pods of its own and may wait like others.
	FirstBoot bool
	// Ready, if set, must succeed once before anything is forwarded to Local.
	Ready func(ctx context.Context) error

	ready chan struct{} // closed when Ready has succeeded

	mu   sync.Mutex // guards good
	good time.Time  // when Local answered last
}

// Run serves until ctx ends; then it closes what is open and waits.
func (f *Forwarder) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	defer func() { _ = group.Wait() }() // its error is returned below
	defer cancel()
	f.good, f.ready = time.Now(), make(chan struct{})
	group.Go(func() error { f.awaitReady(ctx); return nil })
	for _, on := range []struct {
		address string
		patient func() bool
	}{{f.Kubelet, f.kubeletMayWait}, {f.Components, func() bool { return true }}} {
		if on.address == "" {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", on.address)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { l.Close() })
		group.Go(func() error { return f.accept(ctx, l, on.patient) })
	}
	return group.Wait()
}

func (f *Forwarder) accept(ctx context.Context, l net.Listener, patient func() bool) error {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		group.Go(func() { f.serve(ctx, conn, patient) })
	}
}

// awaitReady closes ready when the local API server has said so.
func (f *Forwarder) awaitReady(ctx context.Context) {
	for f.Local != "" && f.Ready != nil && f.Ready(ctx) != nil {
		if !loop.Sleep(ctx, interval) {
			return
		}
	}
	close(f.ready)
}

func (f *Forwarder) isReady() bool {
	select {
	case <-f.ready:
		return true
	default:
		return false
	}
}

// kubeletMayWait: on its first boot, or when the API server's pod runs already.
func (f *Forwarder) kubeletMayWait() bool {
	if f.Local == "" || f.isReady() {
		return false
	}
	if f.FirstBoot {
		return true
	}
	conn, err := net.DialTimeout("tcp", f.Local, dialTime)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// refusal is a TLS alert, internal_error. Clients take the end of a connection
// for a hiccup and try again ten times before they believe it.
var refusal = []byte{21, 3, 1, 0, 2, 2, 80}

func (f *Forwarder) serve(ctx context.Context, in net.Conn, patient func() bool) {
	defer in.Close()
	out, err := f.dial(ctx, patient)
	if err != nil {
		f.Log.Debug("no API to forward to", "err", err)
		_, _ = in.Write(refusal) // the client may be gone
		return
	}
	defer out.Close()
	defer context.AfterFunc(ctx, func() { in.Close(); out.Close() })()
	done := make(chan struct{})
	go func() { // ends when either side closes; serve waits for it
		defer close(done)
		pipe(out, in)
	}()
	pipe(in, out)
	<-done
}

// pipe copies until the end of from, and tells to. A side that went away is how
// connections end, not an error.
func pipe(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if c, ok := to.(*net.TCPConn); ok && err == nil {
		_ = c.CloseWrite() // it may be closed already
		return
	}
	to.Close()
	from.Close()
}

func (f *Forwarder) dial(ctx context.Context, patient func() bool) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, hold)
	defer cancel()
	last := errors.New("the API server is not ready")
	for {
		for _, to := range f.targets() {
			d := net.Dialer{Timeout: dialTime}
			conn, err := d.DialContext(ctx, "tcp", to)
			if err == nil {
				f.note(to)
				return conn, nil
			}
			last = err
		}
		if !patient() {
			return nil, last
		}
		if !loop.Sleep(ctx, interval) {
			return nil, errors.Join(ctx.Err(), last)
		}
	}
}

// targets are where to try now, best first.
func (f *Forwarder) targets() []string {
	if f.Local == "" {
		return []string{f.Endpoint}
	}
	var out []string
	if f.isReady() {
		out = append(out, f.Local)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.good) > patience {
		out = append(out, f.Endpoint)
	}
	return out
}

func (f *Forwarder) note(to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if to == f.Local {
		f.good = time.Now()
	}
}
