// Package host makes and undoes what a cluster changes on the machine that it
// runs on: a bridge, veth pairs, an nftables table, kernel settings. Everything
// is found by name and made or removed only where it differs, so that a call
// can be repeated at any time and by anybody.
package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Network is a cluster's network.
type Network struct {
	Bridge  string // link name
	Table   string // nftables table
	Prefix  netip.Prefix
	Gateway netip.Addr

	// Connections to Port of the gateway go to one of Backends, and keep the
	// address that they come from; one from a backend goes to another. Nodes are
	// those that can be backends; with none, nothing is forwarded.
	Port     uint16
	Nodes    []netip.Addr
	Backends []netip.Addr

	Cuts []Cut // ports that are cut off, fully or one way
}

// Ensure makes the bridge with its address and the rules.
func (n Network) Ensure() error {
	link, err := n.bridge()
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: n.Gateway.AsSlice(), Mask: net.CIDRMask(n.Prefix.Bits(), 32)}}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", n.Bridge, addr, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", n.Bridge, err)
	}
	return errors.Join(n.ensureRules(), n.ensureForward(), n.EnsureCuts())
}

func (n Network) bridge() (netlink.Link, error) {
	link, err := netlink.LinkByName(n.Bridge)
	if err == nil {
		if link.Type() != "bridge" {
			return nil, fmt.Errorf("link %s exists and is a %s, not a bridge", n.Bridge, link.Type())
		}
		return link, nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.Bridge
	// A fixed address: without one it would follow the ports as they come and go.
	attrs.HardwareAddr = MAC(n.Gateway)
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("add bridge %s: %w", n.Bridge, err)
	}
	return netlink.LinkByName(n.Bridge)
}

// Exists reports whether the bridge is there.
func (n Network) Exists() bool {
	_, err := netlink.LinkByName(n.Bridge)
	return err == nil
}

// Remove removes the bridge and the rules. Ports go with the nodes.
func (n Network) Remove() error {
	return errors.Join(RemoveLink(n.Bridge), n.removeRules(), n.removeForward(), n.removeCuts())
}

// MAC is the hardware address that belongs to an address of a cluster: stable,
// and locally administered.
func MAC(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x54, b[0], b[1], b[2], b[3]}
}

// RemoveLink removes a link; none is fine.
func RemoveLink(name string) error {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for link %s: %w", name, err)
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}

// Attach makes a network namespace with an interface eth0 that is a port of the
// bridge, and returns the namespace: it lives as long as the file is open or a
// process is in it. A port of the same name is replaced.
func (n Network) Attach(port string, mac net.HardwareAddr) (*os.File, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	if err := n.attach(ns, port, mac); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

func (n Network) attach(ns *os.File, port string, mac net.HardwareAddr) error {
	bridge, err := netlink.LinkByName(n.Bridge)
	if err != nil {
		return fmt.Errorf("look for bridge %s: %w", n.Bridge, err)
	}
	// The one of a node that just ended may not have gone yet.
	if err := RemoveLink(port); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = port
	attrs.MasterIndex = bridge.Attrs().Index
	attrs.Flags = net.FlagUp
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "eth0"
	veth.PeerHardwareAddr = mac
	veth.PeerNamespace = netlink.NsFd(ns.Fd())
	for range 50 { // its name is taken until the kernel has cleared the old one away
		if err = netlink.LinkAdd(veth); !errors.Is(err, unix.EEXIST) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("add link %s: %w", port, err)
	}
	link, err := netlink.LinkByName(port)
	if err != nil {
		return fmt.Errorf("look for link %s: %w", port, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", port, err)
	}
	return nil
}

// newNamespace makes a network namespace whose loopback is up, as container
// runtimes do.
func newNamespace() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		f, err := unshare()
		made <- result{f, err}
	}()
	r := <-made
	return r.file, r.err
}

func unshare() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("new network namespace: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return nil, fmt.Errorf("set lo up in a new network namespace: %w", err)
	}
	return os.Open("/proc/thread-self/ns/net")
}

// AttachTap makes a tap that is a port of the bridge, for a virtual machine to
// open. One that is there is kept, with who has it open.
func (n Network) AttachTap(port string) error {
	bridge, err := netlink.LinkByName(n.Bridge)
	if err != nil {
		return fmt.Errorf("look for bridge %s: %w", n.Bridge, err)
	}
	link, err := netlink.LinkByName(port)
	if isNotFound(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = port
		// As QEMU opens it: with the header by which checksums are left to the other side.
		tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_DEFAULTS | netlink.TUNTAP_VNET_HDR}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("add tap %s: %w", port, err)
		}
		link, err = netlink.LinkByName(port)
	}
	if err != nil {
		return fmt.Errorf("look for link %s: %w", port, err)
	}
	if err := netlink.LinkSetMasterByIndex(link, bridge.Attrs().Index); err != nil {
		return fmt.Errorf("make %s a port of %s: %w", port, n.Bridge, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", port, err)
	}
	return nil
}
