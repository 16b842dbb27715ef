// Package dhcp hands out the addresses of a cluster's nodes: one fixed lease
// per MAC address, nothing for anybody else. It holds no state, so that it can
// be restarted at any time.
package dhcp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
)

// Lease is what a node gets.
type Lease struct {
	MAC      string // lower case, colons
	Address  netip.Addr
	Hostname string // may be empty
}

// Config is what a Server hands out.
type Config struct {
	Server   netip.Addr // the server's own address
	Router   netip.Addr
	Prefix   netip.Prefix // of the network
	DNS      []netip.Addr
	NTP      []netip.Addr
	Duration time.Duration // of leases
	Leases   []Lease
}

// Serve answers requests that come in on an interface until ctx ends. ready is
// called once it listens.
func Serve(ctx context.Context, log *slog.Logger, iface string, c Config, ready func()) error {
	srv, err := server4.NewServer(iface, &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ServerPort}, func(conn net.PacketConn, peer net.Addr, req *dhcpv4.DHCPv4) {
		defer func() { // the request is hostile bytes, run through a library
			if p := recover(); p != nil {
				log.Error("answer request", "peer", peer.String(), "panic", p)
			}
		}()
		reply, err := c.Reply(req)
		if err != nil {
			log.Debug("ignored request", "mac", req.ClientHWAddr.String(), "err", err)
			return
		}
		if _, err := conn.WriteTo(reply.ToBytes(), peer); err != nil {
			log.Warn("send reply", "peer", peer.String(), "err", err)
			return
		}
		log.Info("answered", "mac", req.ClientHWAddr.String(), "type", reply.MessageType().String(), "address", reply.YourIPAddr.String())
	})
	if err != nil {
		return fmt.Errorf("listen for dhcp on %s: %w", iface, err)
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	ready()
	err = srv.Serve()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve dhcp on %s: %w", iface, err)
}

// Reply decides what to answer; the error says why nothing.
func (c Config) Reply(req *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	lease, ok := c.lease(req.ClientHWAddr)
	if !ok {
		return nil, fmt.Errorf("no lease for %s", req.ClientHWAddr)
	}
	if id := req.ServerIdentifier(); id != nil && !id.Equal(ip(c.Server)) {
		return nil, fmt.Errorf("meant for server %s", id)
	}
	var kind dhcpv4.MessageType
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		kind = dhcpv4.MessageTypeAck
		if want := wanted(req); want != nil && !want.Equal(ip(lease.Address)) {
			return dhcpv4.NewReplyFromRequest(req,
				dhcpv4.WithMessageType(dhcpv4.MessageTypeNak),
				dhcpv4.WithServerIP(ip(c.Server)),
				dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip(c.Server))))
		}
	default:
		return nil, fmt.Errorf("nothing to answer to %s", req.MessageType())
	}
	return c.grant(req, kind, lease)
}

func (c Config) grant(req *dhcpv4.DHCPv4, kind dhcpv4.MessageType, lease Lease) (*dhcpv4.DHCPv4, error) {
	reply, err := dhcpv4.NewReplyFromRequest(req,
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithYourIP(ip(lease.Address)),
		dhcpv4.WithServerIP(ip(c.Server)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip(c.Server))),
		dhcpv4.WithNetmask(net.CIDRMask(c.Prefix.Bits(), 32)),
		dhcpv4.WithRouter(ip(c.Router)),
		dhcpv4.WithLeaseTime(uint32(c.Duration/time.Second)))
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", kind, err)
	}
	if lease.Hostname != "" {
		reply.UpdateOption(dhcpv4.OptHostName(lease.Hostname))
	}
	if len(c.DNS) > 0 {
		reply.UpdateOption(dhcpv4.OptDNS(ips(c.DNS)...))
	}
	if len(c.NTP) > 0 {
		reply.UpdateOption(dhcpv4.OptNTPServers(ips(c.NTP)...))
	}
	return reply, nil
}

func (c Config) lease(mac net.HardwareAddr) (Lease, bool) {
	for _, l := range c.Leases {
		if l.MAC == mac.String() {
			return l, true
		}
	}
	return Lease{}, false
}

// wanted is the address that a REQUEST is about (RFC 2131, 4.3.2).
func wanted(req *dhcpv4.DHCPv4) net.IP {
	if want := req.RequestedIPAddress(); want != nil {
		return want
	}
	if !req.ClientIPAddr.IsUnspecified() {
		return req.ClientIPAddr
	}
	return nil
}

func ips(list []netip.Addr) []net.IP {
	var out []net.IP
	for _, a := range list {
		out = append(out, ip(a))
	}
	return out
}

func ip(a netip.Addr) net.IP { return net.IP(a.AsSlice()) }
