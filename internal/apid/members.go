package apid

import (
	"net/netip"
	"reflect"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/internal/resources/cluster"
)

// member is a node of the cluster as calls reach it.
type member struct {
	hostname     string
	addresses    []string // host and port
	controlPlane bool
}

// members are the nodes by their names, in lower case. Two of one name are not
// told apart: no call goes there by name.
type members struct {
	byName    atomic.Pointer[map[string][]member]
	addresses atomic.Pointer[map[netip.Addr]bool] // true: a control plane node's
}

// set replaces the list, and returns the names and addresses by which another
// is meant now, or the same as something else.
func (m *members) set(specs []*cluster.MemberSpec) (changed []string) {
	byName := make(map[string][]member, len(specs))
	addresses := make(map[netip.Addr]bool, len(specs))
	for _, s := range specs {
		controlPlane := s.MachineType == cluster.TypeControlPlane
		for _, addr := range s.Addresses {
			addresses[addr.Unmap()] = addresses[addr.Unmap()] || controlPlane
		}
		name := canonical(s.Hostname)
		if name == "" || len(s.Addresses) == 0 {
			continue
		}
		one := member{hostname: name, controlPlane: controlPlane}
		for _, addr := range s.Addresses[:min(len(s.Addresses), maxAddresses)] {
			one.addresses = append(one.addresses, apiAddress(addr))
		}
		byName[name] = append(byName[name], one)
	}
	if before := m.byName.Swap(&byName); before != nil {
		for name, had := range *before {
			if !reflect.DeepEqual(had, byName[name]) {
				changed = append(changed, name)
			}
		}
	}
	if before := m.addresses.Swap(&addresses); before != nil {
		for addr := range *before {
			if _, ok := addresses[addr]; !ok {
				changed = append(changed, addr.String())
			}
		}
		for addr, is := range addresses {
			if was, ok := (*before)[addr]; !ok || is != was { // of an unknown one there may be a connection too
				changed = append(changed, addr.String())
			}
		}
	}
	return changed
}

// controlPlane says whether what a call names is a control plane node.
func (m *members) controlPlane(name string) bool {
	if addr, ok := parseAddr(name); ok {
		addresses := m.addresses.Load()
		return addresses != nil && (*addresses)[addr.WithZone("")]
	}
	found, err := m.find(name)
	return err == nil && found.controlPlane
}

// has says whether an address is a member's.
func (m *members) has(addr netip.Addr) bool {
	addresses := m.addresses.Load()
	if addresses == nil {
		return false
	}
	_, ok := (*addresses)[addr]
	return ok
}

func (m *members) find(name string) (member, error) {
	var found []member
	if byName := m.byName.Load(); byName != nil {
		found = (*byName)[canonical(name)]
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return member{}, status.Errorf(codes.NotFound, "no node of the cluster is called %q: `get members` lists them", name)
	}
	return member{}, status.Errorf(codes.FailedPrecondition, "%d nodes of the cluster are called %q: name the address", len(found), name)
}
