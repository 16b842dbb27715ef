package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"golang.org/x/sys/unix"
)

// Held is a lease with the clock that it is measured by: time since boot,
// which neither NTP nor a suspended machine disturbs, and which survives a
// restart of the daemon.
type Held struct {
	Lease
	Granted time.Duration // since boot
}

// Left is how long the lease still holds.
func (h *Held) Left() time.Duration { return h.Granted + h.Expire - SinceBoot() }

// SinceBoot is CLOCK_BOOTTIME.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // only on kernels before 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Client keeps one lease for one link.
type Client struct {
	Link   string
	Log    *slog.Logger
	Known  *Held           // what an earlier run held; asked for again
	Report func(*Held)     // called with each lease, renewed or new, and with nil when it is lost
	Wake   <-chan struct{} // the link came up: ask now
}

// errRefused is a server's DHCPNAK.
var errRefused = errors.New("the server refused")

// Run keeps the lease until ctx ends. It leaves the lease as it is then:
// whoever runs next asks for it again.
func (c *Client) Run(ctx context.Context) {
	held := c.Known
	if held != nil && held.Left() <= 0 {
		c.Report(nil)
		held = nil
	}
	for ctx.Err() == nil {
		if held == nil {
			held = c.acquire(ctx)
			continue
		}
		held = c.keep(ctx, held, held == c.Known)
	}
}

// acquire asks until there is a lease, ever more slowly.
func (c *Client) acquire(ctx context.Context) *Held {
	for pause := time.Second; ; pause = min(2*pause, 32*time.Second) {
		held, err := c.discover(ctx)
		if err == nil {
			c.Log.Info("lease granted", "link", c.Link, "address", held.Address, "server", held.Server, "for", held.Expire)
			c.Report(held)
			return held
		}
		if ctx.Err() != nil {
			return nil
		}
		c.Log.Info("no lease yet", "link", c.Link, "err", err, "retry", pause)
		if !c.wait(ctx, pause/2+rand.N(pause)) {
			return nil
		}
	}
}

// keep waits until the lease is to be confirmed and confirms it; it returns
// nil when the lease is lost. Unsure leases, those of an earlier run, are
// confirmed at once.
func (c *Client) keep(ctx context.Context, held *Held, unsure bool) *Held {
	if !unsure && !c.wait(ctx, held.Granted+held.Renew-SinceBoot()) {
		return held
	}
	for {
		renewed, err := c.confirm(ctx, held, unsure)
		if err == nil {
			c.Log.Debug("lease renewed", "link", c.Link, "address", renewed.Address, "for", renewed.Expire)
			c.Report(renewed)
			return renewed
		}
		if ctx.Err() != nil {
			return held
		}
		left := held.Left()
		c.Log.Warn("lease not renewed", "link", c.Link, "address", held.Address, "err", err, "left", left.Round(time.Second))
		if errors.Is(err, errRefused) || left <= 0 {
			c.Log.Warn("lease lost", "link", c.Link, "address", held.Address)
			c.Report(nil)
			return nil
		}
		// RFC 2131 4.4.5: half of what is left, but not more often than each minute; sooner when little is left.
		if !c.wait(ctx, min(max(left/2, time.Second), time.Minute)) {
			return held
		}
	}
}

// wait sleeps, or returns early when the link came up. False: ctx ended.
func (c *Client) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-c.Wake:
	}
	return true
}

// wanted are the options that we can make use of.
var wanted = dhcpv4.WithRequestedOptions(
	dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName, dhcpv4.OptionDomainName,
	dhcpv4.OptionInterfaceMTU, dhcpv4.OptionNTPServers, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionClasslessStaticRoute,
	dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
)

// open makes a socket for one exchange: nothing is held over link flaps.
func (c *Client) open() (*nclient4.Client, error) {
	link, err := net.InterfaceByName(c.Link)
	if err != nil {
		return nil, err
	}
	if link.Flags&net.FlagUp == 0 {
		return nil, fmt.Errorf("%s is down", c.Link)
	}
	conn, err := nclient4.NewRawUDPConn(c.Link, nclient4.ClientPort)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	client, err := nclient4.NewWithConn(conn, link.HardwareAddr, nclient4.WithTimeout(time.Second), nclient4.WithRetry(3))
	if err != nil {
		conn.Close()
	}
	return client, err
}

func (c *Client) discover(ctx context.Context) (*Held, error) {
	client, err := c.open()
	if err != nil {
		return nil, fmt.Errorf("discover: %w", err)
	}
	defer client.Close()
	granted := SinceBoot()
	offer, err := client.DiscoverOffer(ctx, wanted)
	if err != nil {
		return nil, fmt.Errorf("discover: %w", err)
	}
	if _, err := Parse(offer); err != nil {
		return nil, fmt.Errorf("discover: offer of %s: %w", offer.ServerIdentifier(), err)
	}
	lease, err := client.RequestFromOffer(ctx, offer, wanted)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", offer.YourIPAddr, err)
	}
	return accept(lease.ACK, granted)
}

// confirm asks any server for the same address again: as after a reboot where
// we do not know whether the lease still stands (RFC 2131 4.3.2, INIT-REBOOT),
// else as a rebinding client. Both are broadcast, so that it works without
// routes and with the server's stand-in.
func (c *Client) confirm(ctx context.Context, held *Held, unsure bool) (*Held, error) {
	client, err := c.open()
	if err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	defer client.Close()
	ip := net.IP(held.Address.Addr().AsSlice())
	which := dhcpv4.WithClientIP(ip)
	if unsure {
		which = dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip))
	}
	request, err := dhcpv4.New(
		dhcpv4.WithHwAddr(client.InterfaceAddr()), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), wanted, which,
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)))
	if err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	granted := SinceBoot()
	answer, err := client.SendAndRead(ctx, client.RemoteAddr(), request, func(m *dhcpv4.DHCPv4) bool {
		// Another server's refusal says nothing about our lease.
		server, _ := usable(m.ServerIdentifier())
		return m.MessageType() == dhcpv4.MessageTypeAck || m.MessageType() == dhcpv4.MessageTypeNak && server == held.Server
	})
	if err != nil {
		return nil, fmt.Errorf("renew %s: %w", ip, err)
	}
	if answer.MessageType() == dhcpv4.MessageTypeNak {
		return nil, fmt.Errorf("renew %s: %w: %s", ip, errRefused, answer.Message())
	}
	return accept(answer, granted)
}

func accept(ack *dhcpv4.DHCPv4, granted time.Duration) (*Held, error) {
	lease, err := Parse(ack)
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", ack.ServerIdentifier(), err)
	}
	return &Held{Lease: lease, Granted: granted}, nil
}

// Resume is what a later run needs to know of a lease, besides what was made
// of it.
type Resume struct {
	Address netip.Prefix  `json:"address"`
	Server  netip.Addr    `json:"server"`
	Granted time.Duration `json:"granted"`
	Expire  time.Duration `json:"expire"`
}

// Resume gives the facts to store.
func (h *Held) Resume() Resume {
	return Resume{Address: h.Address, Server: h.Server, Granted: h.Granted, Expire: h.Expire}
}

// Held gives the lease to start a Client from; Client asks for it at once.
func (r Resume) Held() *Held {
	return &Held{Granted: r.Granted, Lease: Lease{Address: r.Address, Server: r.Server, Expire: r.Expire, Renew: r.Expire / 2, Rebind: r.Expire / 8 * 7}}
}
