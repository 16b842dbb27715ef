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

	"talos/internal/loop"
	"talos/internal/provision/balance"
	"talos/internal/provision/dhcp"
	"talos/internal/provision/registry"
	"talos/internal/provision/resolver"
)

const (
	leaseTime   = 24 * time.Hour
	servicePort = 53 // of the resolver
	hostServers = "/etc/resolv.conf"
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
		{"resolver", s.resolver},
		{"dhcp", s.dhcp},
	}
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

func (s *supervisor) balancer(ctx context.Context, ready func()) error {
	l, err := s.listen(ctx, kubePort)
	if err != nil {
		return err
	}
	var backends []string
	for _, n := range s.cluster.controlPlanes() {
		backends = append(backends, netip.AddrPortFrom(n.Address, kubePort).String())
	}
	ready()
	return balance.New(s.log.With("service", "balancer"), backends...).Serve(ctx, l)
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
	return dhcp.Serve(ctx, s.log.With("service", "dhcp"), c.network().Bridge, dhcp.Config{
		Server: c.Gateway, Router: c.Gateway, Prefix: c.CIDR, DNS: []netip.Addr{c.Gateway}, Duration: leaseTime, Leases: leases,
	}, ready)
}
