package apid

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/internal/authz"
	"talos/internal/proxy"
)

// Metadata that names targets.
const (
	metadataNode      = "node"      // exactly one; the answer comes unchanged
	metadataNodes     = "nodes"     // several; answers are merged and marked
	metadataProxyFrom = "proxyfrom" // set by a forwarding node
)

const (
	maxNodes = 256 // in one call
	maxName  = 255 // bytes in a node's name
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

// director finds the servers of a call. The error is a gRPC status; a target
// that cannot be reached carries its own.
type director interface {
	targets(d destination, local string) ([]proxy.Target, error)
}

// selfDirector serves what is meant for this node and refuses the rest.
type selfDirector struct {
	self    *self
	backend *proxy.Backend
}

func (d *selfDirector) targets(to destination, local string) ([]proxy.Target, error) {
	if len(to.names) == 0 {
		return []proxy.Target{{Backend: d.backend}}, nil
	}
	targets := make([]proxy.Target, 0, len(to.names))
	for _, name := range to.names {
		target := proxy.Target{Name: name, Backend: d.backend}
		if !d.self.is(name, local) {
			target.Backend = nil
			target.Err = status.Errorf(codes.Unavailable, "node %q is not this one, and this release does not forward calls to other nodes: use its own address as the endpoint", name)
		}
		targets = append(targets, target)
	}
	return targets, nil
}

// self is what this node is called.
type self struct {
	addresses atomic.Pointer[map[netip.Addr]bool]
	names     atomic.Pointer[map[string]bool] // lower case, without a final dot
}

// is tells whether name means this node; local is the address that the call
// came in on, which is ours whatever the resources say.
func (s *self) is(name, local string) bool {
	if addr, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		addr = addr.Unmap().WithZone("")
		if addr.IsLoopback() {
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
