// Package netargs is what the kernel's command line says of the network, in the
// arguments that the kernel itself and dracut have for it.
//
// It is pure. An argument with an error in it counts for nothing, and is told,
// never fatal: a machine with a typing error there still boots.
package netargs

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"talos/internal/cmdline"
	"talos/internal/netsetup"
	"talos/internal/resources/network"
)

// Read finds what a command line says of the network, and what in it is wrong.
func Read(l cmdline.Line) (netsetup.Network, []error) {
	n := netsetup.Network{}
	var problems []error
	for _, a := range l.Args {
		var err error
		switch {
		case a.Key == "ip":
			err = ip(&n, a.Value)
		case a.Key == "vlan":
			err = vlan(&n, a.Value)
		case a.Key == "bond":
			err = bond(&n, a.Value)
		case a.Key == "nameserver":
			var server netip.Addr
			if server, err = address(a.Value); err == nil {
				n.Nameservers = append(n.Nameservers, server)
			}
		case a.Is("talos.network.interface.ignore"):
			if _, err = path.Match(a.Value, ""); err == nil && a.Value != "" {
				n.Ignore = append(n.Ignore, a.Value)
			}
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("kernel argument %s=%s: %w", a.Key, a.Value, err))
		}
	}
	if name := l.Hostname(); name != "" {
		if err := netsetup.CheckHostname(name); err != nil {
			problems = append(problems, fmt.Errorf("kernel argument talos.hostname=%s: %w", name, err))
		} else {
			n.Hostname = name
		}
	}
	return n, problems
}

// How addresses are got, in the words of the kernel (nfsroot.txt) and of dracut.
// Protocols that we don't speak are not in here.
var methods = map[string]bool{
	"": false, "off": false, "none": false, "static": false,
	"dhcp": true, "dhcp4": true, "on": true, "any": true, "both": true, "single-dhcp": true, "either6": true,
}

// unspoken are methods that are known and not spoken.
var unspoken = map[string]string{
	"bootp": "BOOTP", "rarp": "RARP", "dhcp6": "DHCPv6", "ibft": "iBFT", "link6": "a link-local address alone", "auto6": "IPv6 autoconfiguration",
}

func method(text string) (dhcp bool, err error) {
	dhcp, ok := methods[text]
	if ok {
		return dhcp, nil
	}
	if what, known := unspoken[text]; known {
		return false, fmt.Errorf("method %q: this system does not do %s", text, what)
	}
	return false, fmt.Errorf("method %q is not known", text)
}

func isMethod(text string) bool {
	_, spoken := methods[text]
	_, known := unspoken[text]
	return (spoken || known) && text != ""
}

// ip reads the argument in each of its forms:
//
//	ip=dhcp
//	ip=eth0:dhcp[:mtu[:hardware address]]
//	ip=client:server:gateway:netmask:host:device:method[:dns0[:dns1[:ntp0]]]
//	ip=client/length:peer:gateway:netmask:host:device:method[:mtu[:hardware address]]
//
// IPv6 addresses stand in brackets.
func ip(n *netsetup.Network, value string) error {
	fields, err := split(value)
	if err != nil {
		return err
	}
	if len(fields) == 1 {
		dhcp, err := method(fields[0])
		switch {
		case err == nil && value != "":
			n.Static = !dhcp // DHCP is what links do anyhow
			return nil
		case strings.ContainsAny(value, "./["):
			return linkOf(n, fields)
		case err == nil:
			return fmt.Errorf("nothing is said")
		}
		return err
	}
	if isMethod(fields[1]) {
		return short(n, fields)
	}
	return linkOf(n, fields)
}

// short is the form that begins with a device.
func short(n *netsetup.Network, fields []string) error {
	dhcp, err := method(fields[1])
	if err != nil {
		return err
	}
	link := netsetup.Link{DHCP: dhcp}
	if link.Match, err = match(fields[0]); err != nil {
		return err
	}
	if err := mtuAndAddress(&link, fields[2:]); err != nil {
		return err
	}
	n.Links = append(n.Links, link)
	return nil
}

// linkOf is the form of the kernel, with what dracut allows in it.
func linkOf(n *netsetup.Network, fields []string) error {
	at := func(i int) string {
		if i < len(fields) {
			return fields[i]
		}
		return ""
	}
	dhcp, err := method(at(6))
	if err != nil {
		return err
	}
	link := netsetup.Link{}
	if at(5) != "" {
		if link.Match, err = match(at(5)); err != nil {
			return err
		}
	}
	// As in the kernel: what is given is not asked for, unless it is DHCP by name.
	link.DHCP = dhcp && at(0) == "" || at(6) == "dhcp" || at(6) == "" && at(0) == ""
	if err := static(&link, at(0), at(2), at(3)); err != nil {
		return err
	}
	if name := at(4); name != "" {
		if err := netsetup.CheckHostname(name); err != nil {
			return fmt.Errorf("host name: %w", err)
		}
	}
	extra := netsetup.Network{}
	if err := tail(&extra, &link, fields); err != nil {
		return err
	}
	if at(4) != "" {
		n.Hostname = at(4)
	}
	n.Nameservers = append(n.Nameservers, extra.Nameservers...)
	n.TimeServers = append(n.TimeServers, extra.TimeServers...)
	n.Links = append(n.Links, link)
	return nil
}

// static reads client, gateway and netmask.
func static(link *netsetup.Link, client, gateway, mask string) error {
	var prefix netip.Prefix
	if client != "" {
		var err error
		if prefix, err = clientPrefix(client, mask); err != nil {
			return err
		}
		link.Addresses = append(link.Addresses, prefix)
	}
	if gateway == "" {
		return nil
	}
	gw, err := address(gateway)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if client == "" {
		return nil // of a lease, which names its own
	}
	if gw.Is4() != prefix.Addr().Is4() {
		return fmt.Errorf("gateway %s and client %s are of different families", gw, prefix.Addr())
	}
	link.Routes = append(link.Routes, netsetup.Route{Gateway: gw, OnLink: !prefix.Contains(gw) && !gw.IsLinkLocalUnicast()})
	return nil
}

// clientPrefix is the address with the length that it has itself, or that the
// mask tells, or that the kernel would take: that of its class, or all of an
// IPv6 address.
func clientPrefix(client, mask string) (netip.Prefix, error) {
	if inner, found := strings.CutPrefix(client, "["); found && strings.HasSuffix(inner, "]") {
		client = strings.TrimSuffix(inner, "]")
	}
	text, length, found := strings.Cut(client, "/")
	a, err := address(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("client: %w", err)
	}
	if found {
		mask = length
	}
	bits := a.BitLen()
	switch {
	case mask == "" && a.Is4():
		bits = class(a)
	case mask == "":
	case strings.Contains(mask, "."):
		m, err := netip.ParseAddr(mask)
		if err != nil || !m.Is4() || !a.Is4() {
			return netip.Prefix{}, fmt.Errorf("netmask %q is none", mask)
		}
		ones, size := net.IPMask(m.AsSlice()).Size()
		if size == 0 {
			return netip.Prefix{}, fmt.Errorf("netmask %s has holes", mask)
		}
		bits = ones
	default:
		if bits, err = strconv.Atoi(mask); err != nil || bits < 0 || bits > a.BitLen() {
			return netip.Prefix{}, fmt.Errorf("netmask %q: want a mask or a length of at most %d", mask, a.BitLen())
		}
	}
	return netip.PrefixFrom(a, bits), nil
}

// class is the length of an address without a netmask (nfsroot.txt).
func class(a netip.Addr) int {
	switch first := a.As4()[0]; {
	case first < 128:
		return 8
	case first < 192:
		return 16
	}
	return 24
}

// tail is what stands behind the method: either servers, or MTU and hardware
// address.
func tail(n *netsetup.Network, link *netsetup.Link, fields []string) error {
	if len(fields) <= 7 {
		return nil
	}
	rest := fields[7:]
	if _, err := strconv.Atoi(rest[0]); err == nil || len(rest) > 3 {
		return mtuAndAddress(link, rest)
	}
	for i, text := range rest {
		if text == "" {
			continue
		}
		if i == 2 {
			n.TimeServers = append(n.TimeServers, strings.Trim(text, "[]"))
			continue
		}
		server, err := address(text)
		if err != nil {
			return fmt.Errorf("name server: %w", err)
		}
		n.Nameservers = append(n.Nameservers, server)
	}
	return nil
}

// mtuAndAddress reads [mtu][:hardware address], the one that the link is to have.
func mtuAndAddress(link *netsetup.Link, fields []string) error {
	if len(fields) == 0 {
		return nil
	}
	if fields[0] != "" {
		mtu, err := parseMTU(fields[0])
		if err != nil {
			return err
		}
		link.MTU = mtu
	}
	if text := strings.Join(fields[1:], ":"); text != "" {
		mac, err := net.ParseMAC(text)
		if err != nil {
			return fmt.Errorf("hardware address %q is none", text)
		}
		link.HardwareAddr = network.HardwareAddr(mac)
	}
	return nil
}

func parseMTU(text string) (uint32, error) {
	mtu, err := strconv.ParseUint(text, 10, 32)
	if err != nil || mtu < 68 || mtu > 65535 {
		return 0, fmt.Errorf("MTU %q: want 68 to 65535", text)
	}
	return uint32(mtu), nil
}

// address reads an address that may stand in brackets.
func address(text string) (netip.Addr, error) {
	if inner, found := strings.CutPrefix(text, "["); found {
		if text, found = strings.CutSuffix(inner, "]"); !found {
			return netip.Addr{}, fmt.Errorf("address %q: bracket without its other", inner)
		}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an address", text)
	}
	return a.Unmap(), nil
}

// match is the link of a name. One that udev makes of a hardware address is
// found by that, whatever the link is called.
func match(name string) (netsetup.Match, error) {
	m := netsetup.Match{Name: name}
	if text, ok := strings.CutPrefix(name, "enx"); ok && len(text) == 12 {
		if mac, err := hex.DecodeString(text); err == nil {
			m.HardwareAddr = mac
		}
	}
	return m, device(name)
}

// device checks the name of a link (dev_valid_name).
func device(name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsAny(name, "/:*?[ \t\n") {
		return fmt.Errorf("%q is not a name of a link", name)
	}
	return nil
}

// split cuts at colons outside of brackets.
func split(s string) ([]string, error) {
	var out []string
	depth, start := 0, 0
	for i := range len(s) {
		switch {
		case s[i] == '[':
			depth++
		case s[i] == ']':
			depth--
		case s[i] == ':' && depth == 0:
			out = append(out, s[start:i])
			start = i + 1
		}
		if depth < 0 || depth > 1 {
			return nil, fmt.Errorf("brackets do not match")
		}
	}
	if depth != 0 {
		return nil, fmt.Errorf("brackets do not match")
	}
	return append(out, s[start:]), nil
}
