package provision

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"talos/client/talosconfig"
	"talos/internal/balance"
	"talos/internal/layout"
	"talos/internal/loop"
	"talos/internal/provision/dhcp"
	"talos/internal/provision/registry"
	"talos/internal/provision/resolver"
)

const (
	leaseTime   = 24 * time.Hour
	servicePort = 53 // of the resolver
	hostServers = "/etc/resolv.conf"

	// endpointHold is how long a connection to the endpoint waits while no API
	// server is well: as long as the others take to go on without one.
	endpointHold = 2 * time.Second
)

// service is one thing that the supervisor serves: it calls ready once it
// listens, and returns nil only when ctx has ended.
type service struct {
	name string
	run  func(ctx context.Context, ready func()) error
}

// serve starts all services and returns when all listen, or with the error of
// the first that cannot. After that, one that ends is started again.
func (s *supervisor) serve(ctx context.Context, wg *sync.WaitGroup) error {
	services := []service{
		{"registry", s.registry},
		{"balancer", s.balancer},
		{"trust", s.trust},
		{"resolver", s.resolver},
		{"dhcp", s.dhcp},
	}
	services = append(services, s.cluster.backend().services(s)...)
	up := make(chan error, len(services))
	for _, svc := range services {
		wg.Go(func() { s.keepServing(ctx, svc, up) })
	}
	for range services {
		select {
		case err := <-up:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// keepServing reports the first outcome to up, and starts a service again that ended.
func (s *supervisor) keepServing(ctx context.Context, svc service, up chan<- error) {
	var once sync.Once
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		err := loop.Protect(func() error {
			return svc.run(ctx, func() { once.Do(func() { up <- nil }) })
		})
		if ctx.Err() != nil {
			return
		}
		once.Do(func() { up <- fmt.Errorf("serve %s: %w", svc.name, err) })
		s.log.Error("service ended", "service", svc.name, "err", err, "pause", pause)
		if !loop.Sleep(ctx, pause) {
			return
		}
	}
}

func (s *supervisor) listen(ctx context.Context, port uint16) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(s.cluster.Gateway, port).String())
}

func (s *supervisor) registry(ctx context.Context, ready func()) error {
	cert, err := tls.LoadX509KeyPair(s.cluster.dirs.registryCert(), s.cluster.dirs.registryKey())
	if err != nil {
		return err
	}
	l, err := s.listen(ctx, RegistryPort)
	if err != nil {
		return err
	}
	ready()
	log := s.log.With("service", "registry")
	return registry.Serve(ctx, log, l, cert, registry.New(log, s.cluster.Assets.Images))
}

// balancer is the Kubernetes endpoint: connections go to the API servers that
// are well, and wait a moment while there is none.
func (s *supervisor) balancer(ctx context.Context, ready func()) error {
	kube, err := newKube(s.cluster.dirs.kubeconfig())
	if err != nil {
		return err
	}
	defer kube.close()
	check, stop := balance.Ready(kube.roots, s.cluster.Gateway.String())
	defer stop()
	l, err := s.listen(ctx, kubePort)
	if err != nil {
		return err
	}
	pool := balance.New(s.log.With("service", "balancer"), check)
	addresses := s.cluster.controlPlanesAt(kubePort)
	pool.Set(targets(addresses)...)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return pool.Run(ctx) })
	g.Go(func() error {
		return pool.Serve(ctx, balance.Door{Listener: l, Hold: endpointHold, Anyway: func() []string { return addresses }})
	})
	ready()
	return g.Wait()
}

func targets(addresses []string) []balance.Target {
	var out []balance.Target
	for _, a := range addresses {
		out = append(out, balance.Target{Address: a})
	}
	return out
}

// controlPlanesAt are the addresses of a port of all control plane nodes.
func (c *Cluster) controlPlanesAt(port uint16) []string {
	var out []string
	for _, n := range c.controlPlanes() {
		out = append(out, netip.AddrPortFrom(n.Address, port).String())
	}
	return out
}

// trust keeps the port on which nodes get their certificates forwarded to those
// control plane nodes that give any: by the kernel, because they look at who
// asks.
func (s *supervisor) trust(ctx context.Context, ready func()) error {
	ready()
	if len(s.cluster.Nodes) == 1 {
		<-ctx.Done()
		return nil
	}
	cfg, err := talosconfig.Load(s.cluster.Talosconfig())
	if err != nil {
		return err
	}
	access, err := cfg.Select(s.cluster.Name)
	if err != nil {
		return err
	}
	roots, err := access.Authorities()
	if err != nil {
		return err
	}
	pool := balance.New(s.log.With("service", "trust"), balance.Handshake(roots))
	addresses := s.cluster.controlPlanesAt(layout.TrustPort)
	pool.Set(targets(addresses)...)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return pool.Run(ctx) })
	g.Go(func() error {
		for {
			well, changed := pool.Well()
			if len(well) == 0 {
				well = addresses
			}
			if err := s.forward(well); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	})
	return g.Wait()
}

func (s *supervisor) forward(to []string) error {
	var backends []netip.Addr
	for _, a := range to {
		address, err := netip.ParseAddrPort(a)
		if err != nil {
			return err
		}
		backends = append(backends, address.Addr())
	}
	return s.cluster.network().Forward(backends)
}

func (s *supervisor) resolver(ctx context.Context, ready func()) error {
	tcp, err := s.listen(ctx, servicePort)
	if err != nil {
		return err
	}
	udp, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", netip.AddrPortFrom(s.cluster.Gateway, servicePort).String())
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	ready()
	f := resolver.New(s.log.With("service", "resolver"), func() []netip.AddrPort { return resolver.HostServers(hostServers) })
	return f.Serve(ctx, udp, tcp)
}

func (s *supervisor) dhcp(ctx context.Context, ready func()) error {
	c := s.cluster
	var leases []dhcp.Lease
	for _, n := range c.Nodes {
		leases = append(leases, dhcp.Lease{MAC: n.MAC, Address: n.Address, Hostname: n.Name})
	}
	var ntp []netip.Addr
	if c.VM != nil { // others have the clock of this host
		ntp = append(ntp, c.Gateway)
	}
	return dhcp.Serve(ctx, s.log.With("service", "dhcp"), c.network().Bridge, dhcp.Config{
		Server: c.Gateway, Router: c.Gateway, Prefix: c.CIDR, DNS: []netip.Addr{c.Gateway}, NTP: ntp, Duration: leaseTime, Leases: leases,
	}, ready)
}
