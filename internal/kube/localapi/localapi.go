// Package localapi gives every node the Kubernetes API on one address of its
// own, 127.0.0.1:7445 by default (machine.features.kubePrism): on a control
// plane node that is its API server, and the cluster's endpoint while that is
// down; on a worker the cluster's endpoint.
//
// A connection that comes before the API server is ready waits for it instead
// of being refused. The kubelet, the controller manager and the scheduler start
// at the same time as the API server and would otherwise sleep through its
// first seconds, ever longer after each refusal.
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
	"strconv"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"

	"talos/config"
	"talos/internal/kube/api"
	"talos/internal/kube/reconcile"
	resconfig "talos/internal/resources/config"
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

// Address is the server for kubeconfigs of this node. Without the local
// address it is the node's API server or the cluster's endpoint.
func Address(cfg *config.Config) string {
	if port := port(cfg); port != 0 {
		return "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	if cfg.IsControlPlane() {
		return "https://" + local(cfg)
	}
	return cfg.Endpoint().String()
}

func port(cfg *config.Config) int {
	p := reconcile.Of(reconcile.Of(reconcile.Of(cfg.Machine).Features).KubePrism)
	if !reconcile.Or(p.Enabled, true) {
		return 0
	}
	if p.Port != 0 {
		return p.Port
	}
	return DefaultPort
}

func local(cfg *config.Config) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.APIServerPort()))
}

// Controller keeps the forwarder running as the configuration wants it.
func Controller(log *slog.Logger) controller.Controller {
	var task reconcile.Task
	return &reconcile.Controller{
		ID:    "k8s.LocalAPIController",
		Log:   log,
		In:    []controller.Input{reconcile.InputID[*resconfig.MachineConfig](resconfig.ActiveID), reconcile.Input[*secrets.KubernetesSecrets]()},
		Close: task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			cfg, err := reconcile.Config(ctx, r)
			if err != nil || cfg == nil || port(cfg) == 0 {
				task.Stop()
				return err
			}
			f := &Forwarder{Log: log, Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port(cfg)))}
			f.Endpoint = cfg.Endpoint().Host
			var admin string
			if cfg.IsControlPlane() {
				f.Local = local(cfg)
				sec, err := reconcile.Get[*secrets.KubernetesSecrets](ctx, r, "k8s-secrets")
				if err != nil {
					return err
				}
				if sec != nil {
					admin = sec.TypedSpec().LocalhostAdminKubeconfig
				}
				if admin == "" { // nobody has credentials yet
					return nil
				}
				f.Ready = readyCheck(admin)
			}
			task.Ensure(ctx, log, f.Listen+" "+f.Local+" "+f.Endpoint, f.Run)
			return nil
		},
	}
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
	Log      *slog.Logger
	Listen   string // host:port
	Local    string // this node's API server, "" on a worker
	Endpoint string // the cluster's
	// Ready, if set, must succeed once before anything is forwarded to Local.
	Ready func(ctx context.Context) error

	mu   sync.Mutex // guards good
	good time.Time  // when Local answered last
}

// Run serves until ctx ends; then it closes what is open and waits.
func (f *Forwarder) Run(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", f.Listen)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	f.good = time.Now()
	ready := make(chan struct{})
	group.Go(func() { f.awaitReady(ctx, ready) })
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept on %s: %w", f.Listen, err)
		}
		group.Go(func() { f.serve(ctx, conn, ready) })
	}
}

// awaitReady closes ready when the local API server has said so.
func (f *Forwarder) awaitReady(ctx context.Context, ready chan<- struct{}) {
	for f.Local != "" && f.Ready != nil {
		if f.Ready(ctx) == nil {
			break
		}
		if !sleep(ctx, interval) {
			return
		}
	}
	close(ready)
}

func (f *Forwarder) serve(ctx context.Context, in net.Conn, ready <-chan struct{}) {
	defer in.Close()
	waitCtx, cancel := context.WithTimeout(ctx, hold)
	out, err := f.dial(waitCtx, ready)
	cancel()
	if err != nil {
		f.Log.Debug("no API to forward to", "err", err)
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

func (f *Forwarder) dial(ctx context.Context, ready <-chan struct{}) (net.Conn, error) {
	var last error
	for {
		for _, to := range f.targets(ready) {
			d := net.Dialer{Timeout: dialTime}
			conn, err := d.DialContext(ctx, "tcp", to)
			if err == nil {
				f.note(to)
				return conn, nil
			}
			last = err
		}
		if !sleep(ctx, interval) {
			return nil, errors.Join(ctx.Err(), last)
		}
	}
}

// targets are where to try now, best first.
func (f *Forwarder) targets(ready <-chan struct{}) []string {
	if f.Local == "" {
		return []string{f.Endpoint}
	}
	var out []string
	select {
	case <-ready:
		out = append(out, f.Local)
	default:
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

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
