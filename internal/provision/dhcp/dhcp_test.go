package dhcp

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const mac = "02:00:00:00:00:02"

var config = Config{
	Server:   netip.MustParseAddr("10.99.0.1"),
	Router:   netip.MustParseAddr("10.99.0.1"),
	Prefix:   netip.MustParsePrefix("10.99.0.0/24"),
	DNS:      []netip.Addr{netip.MustParseAddr("10.99.0.1")},
	Duration: time.Hour,
	Leases:   []Lease{{MAC: mac, Address: netip.MustParseAddr("10.99.0.2"), Hostname: "demo-controlplane-1"}},
}

func TestReply(t *testing.T) {
	known, _ := net.ParseMAC(mac)
	stranger, _ := net.ParseMAC("02:00:00:00:00:99")
	for _, tc := range []struct {
		name string
		mac  net.HardwareAddr
		mods []dhcpv4.Modifier
		want dhcpv4.MessageType // none: no answer
	}{
		{"discover", known, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)}, dhcpv4.MessageTypeOffer},
		{"request", known, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 99, 0, 2)))}, dhcpv4.MessageTypeAck},
		{"renewal", known, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(net.IPv4(10, 99, 0, 2))}, dhcpv4.MessageTypeAck},
		{"other address", known, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 99, 0, 3)))}, dhcpv4.MessageTypeNak},
		{"other server", known, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 99, 0, 9)))}, dhcpv4.MessageTypeNone},
		{"stranger", stranger, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)}, dhcpv4.MessageTypeNone},
		{"release", known, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease)}, dhcpv4.MessageTypeNone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := dhcpv4.New(append(tc.mods, dhcpv4.WithHwAddr(tc.mac))...)
			if err != nil {
				t.Fatal(err)
			}
			reply, err := config.Reply(req)
			if tc.want == dhcpv4.MessageTypeNone {
				if err == nil {
					t.Fatalf("Reply = %s, want none", reply.Summary())
				}
				return
			}
			if err != nil || reply.MessageType() != tc.want {
				t.Fatalf("Reply = %v, %v, want %s", reply, err, tc.want)
			}
			if tc.want != dhcpv4.MessageTypeNak && !reply.YourIPAddr.Equal(net.IPv4(10, 99, 0, 2)) {
				t.Errorf("address = %s, want 10.99.0.2", reply.YourIPAddr)
			}
		})
	}
}

// TestServe asks over a veth pair in a network namespace of its own.
func TestServe(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread dies with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("new network namespace: %v", err)
	}
	hw, _ := net.ParseMAC(mac)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "srv"}, PeerName: "cli", PeerHardwareAddr: hw}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"srv", "cli"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
		if name == "srv" {
			addr, _ := netlink.ParseAddr("10.99.0.1/24")
			if err := netlink.AddrAdd(l, addr); err != nil {
				t.Fatal(err)
			}
		}
	}
	cli, err := nclient4.New("cli") // its socket belongs to this thread's namespace
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type result struct {
		lease *nclient4.Lease
		err   error
	}
	asked := make(chan result, 1)
	ask := func() {
		lease, err := cli.Request(ctx)
		asked <- result{lease, err}
		cancel()
	}
	if err := Serve(ctx, slog.New(slog.DiscardHandler), "srv", config, func() { go ask() }); err != nil {
		t.Fatalf("Serve = %v, want nil", err)
	}
	r := <-asked
	if r.err != nil {
		t.Fatalf("Request: %v", r.err)
	}
	ack := r.lease.ACK
	if !ack.YourIPAddr.Equal(net.IPv4(10, 99, 0, 2)) || ack.HostName() != "demo-controlplane-1" || len(ack.DNS()) != 1 || len(ack.Router()) != 1 {
		t.Errorf("lease = %s", ack.Summary())
	}
}
