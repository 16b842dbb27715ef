package apid

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/internal/authz"
	"talos/internal/layout"
	"talos/internal/proxy"
)

// Metadata that names targets.
const (
	metadataNode      = "node"      // exactly one; the answer comes unchanged
	metadataNodes     = "nodes"     // several; answers are merged and marked
	metadataProxyFrom = "proxyfrom" // set by a forwarding node
)

const (
	maxNodes     = 2048 // in one call
	maxName      = 255  // bytes in a node's name
	maxAddresses = 8    // of a node, that are tried
)

// destination is what a caller wants of whom.
type destination struct {
	names  []string // as the caller wrote them; empty means this node
	merged bool
}

// parseDestination reads the target metadata. A call that another node
// forwarded is meant for us, whatever else it says.
func parseDestination(md metadata.MD, method authz.Method, forwarded bool) (destination, error) {
	if forwarded {
		return destination{}, nil
	}
	one, many := md[metadataNode], md[metadataNodes]
	switch {
	case len(one) > 0 && len(many) > 0:
		return destination{}, status.Error(codes.InvalidArgument, "metadata names targets both as node and as nodes")
	case len(one) > 1:
		return destination{}, status.Errorf(codes.InvalidArgument, "metadata node names %d targets, it takes one", len(one))
	case len(many) > maxNodes:
		return destination{}, status.Errorf(codes.InvalidArgument, "metadata nodes names %d targets, at most %d", len(many), maxNodes)
	}
	for _, name := range append(one, many...) {
		if name == "" || len(name) > maxName {
			return destination{}, status.Errorf(codes.InvalidArgument, "a target's name has %d bytes, it takes 1 to %d", len(name), maxName)
		}
		if !utf8.ValidString(name) { // it would spoil the answer
			return destination{}, status.Errorf(codes.InvalidArgument, "a target's name is no text: %q", name)
		}
	}
	if len(many) == 0 {
		return destination{names: one}, nil
	}
	if !method.Wrapped {
		if len(many) > 1 {
			return destination{}, status.Errorf(codes.InvalidArgument, "this method takes one node, not %d: its answers do not say which node they are from", len(many))
		}
		return destination{names: many}, nil
	}
	return destination{names: many, merged: true}, nil
}

// director finds the servers of a call.
type director struct {
	self    *self
	members *members
	local   proxy.Server
	peers   *proxy.Peers
}

// targets answers one for each name, in their order; one that there is no way
// to carries the reason, a gRPC status. local is the address that the call
// came in on.
func (d *director) targets(to destination, k *keys, local string) (targets []proxy.Target, remote bool) {
	if len(to.names) == 0 {
		return []proxy.Target{{Server: d.local}}, false
	}
	targets = make([]proxy.Target, 0, len(to.names))
	for _, name := range to.names {
		target := proxy.Target{Name: name}
		switch {
		case d.self.is(name, local):
			target.Server = d.local
		case k.maintenance:
			target.Err = status.Errorf(codes.PermissionDenied, "no request forwarding: %q is another node, and one in maintenance mode passes nothing on", name)
		case k.client == nil:
			target.Err = status.Errorf(codes.PermissionDenied, "no request forwarding: %q is another node, and only control plane nodes pass calls on; use one of them as the endpoint", name)
		default:
			target.Server, target.Err = d.node(name)
			remote = remote || target.Err == nil
		}
		targets = append(targets, target)
	}
	return targets, remote
}

// node finds another node: by its address, whatever that is, since whoever
// answers there must show a certificate of ours for it; else by its name among
// the members of the cluster.
func (d *director) node(name string) (proxy.Server, error) {
	if addr, ok := parseAddr(name); ok {
		if addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return nil, status.Errorf(codes.InvalidArgument, "%s is no address of a node", name)
		}
		return d.peers.Node(addr.WithZone("").String(), []string{apiAddress(addr)}), nil
	}
	found, err := d.members.find(name)
	if err != nil {
		return nil, err
	}
	return d.peers.Node(found.hostname, found.addresses), nil
}

// parseAddr reads an address, with or without brackets.
func parseAddr(name string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return addr.Unmap(), err == nil
}

func apiAddress(addr netip.Addr) string {
	return net.JoinHostPort(addr.String(), strconv.Itoa(layout.APIPort))
}

// self is what this node is called.
type self struct {
	addresses atomic.Pointer[map[netip.Addr]bool]
	names     atomic.Pointer[map[string]bool] // lower case, without a final dot
}

// is tells whether name means this node; local is the address that the call
// came in on, which is ours whatever the resources say.
func (s *self) is(name, local string) bool {
	if addr, ok := parseAddr(name); ok {
		addr = addr.WithZone("")
		if addr == ipv4Loopback || addr == netip.IPv6Loopback() {
			return true
		}
		if own := s.addresses.Load(); own != nil && (*own)[addr] {
			return true
		}
		host, _, err := net.SplitHostPort(local)
		if err != nil {
			return false
		}
		in, err := netip.ParseAddr(host)
		return err == nil && in.Unmap().WithZone("") == addr
	}
	name = canonical(name)
	if name == "localhost" {
		return true
	}
	own := s.names.Load()
	return own != nil && (*own)[name]
}

var ipv4Loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func (s *self) setAddresses(prefixes []netip.Prefix) {
	own := make(map[netip.Addr]bool, len(prefixes))
	for _, p := range prefixes {
		own[p.Addr().Unmap().WithZone("")] = true
	}
	s.addresses.Store(&own)
}

func (s *self) setHostname(host, domain string) {
	own := map[string]bool{}
	if host = canonical(host); host != "" {
		own[host] = true
		if domain = canonical(domain); domain != "" {
			own[host+"."+domain] = true
		}
	}
	s.names.Store(&own)
}
