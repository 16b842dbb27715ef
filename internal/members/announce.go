package members

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"talos/config"
	"talos/internal/identity"
)

// Conflict is a name, or an address, of a control plane node for which a worker
// has a certificate that may not have expired.
type Conflict struct {
	What   string
	Holder identity.ID
	At     []netip.Addr // where the holder was
	Until  time.Time    // when the certificate expires
	Name   bool         // What is a name: addresses are lent and change hands
}

// Announce writes a control plane node's own record. Its names are its own
// whatever others claimed before, and so are its addresses: a worker that had
// one has it no more. The conflicts are those of now and, of names, those of
// before, for as long as there may be a certificate.
func (f *Facts) Announce(ctx context.Context, own Record, now time.Time) (conflicts []Conflict, err error) {
	if err := own.Check(); err != nil {
		return nil, fmt.Errorf("announce this node: %w", err)
	}
	err = f.change(ctx, readAll, func(s *state) ([]clientv3.Op, error) {
		names := s.takes(own, now)
		conflicts = s.conflicts(own, now)
		return s.write(own, names, true, time.Time{})
	})
	return conflicts, err
}

// readAll gets all records and all bindings.
func readAll(ctx context.Context, c *clientv3.Client) (*state, error) {
	s, err := readRecords(ctx, c)
	if err != nil {
		return nil, err
	}
	all, err := c.Get(ctx, namesPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read the holders of names from etcd: %w", err)
	}
	s.guards = append(s.guards, none(namesPrefix, all.Header.Revision))
	for _, kv := range all.Kvs {
		var b binding
		if json.Unmarshal(kv.Value, &b) == nil { // what is not one binds nobody
			s.names[strings.TrimPrefix(string(kv.Key), namesPrefix)] = &b
		}
	}
	return s, nil
}

// takes are the names that a control plane node binds: its own, and those that
// workers have of what it is also known by. It notes whose they were.
func (s *state) takes(own Record, now time.Time) []string {
	names := []string{own.Hostname}
	for _, n := range own.AlsoKnown {
		if ValidHostname(n) && !slices.Contains(names, n) && shortOf(n) == shortOf(own.Hostname) {
			names = append(names, n)
		}
	}
	before := map[identity.ID]bool{own.NodeID: true} // what this node was before it was wiped, too
	for _, r := range s.records {
		if r.controlPlane() && r.Hostname == own.Hostname {
			before[r.NodeID] = true
		}
	}
	for name, b := range s.names {
		if (!b.ControlPlane || before[b.NodeID]) && own.known(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	s.before = map[string]*binding{}
	for _, name := range names {
		worker := s.names[name]
		if worker != nil && worker.ControlPlane {
			worker = worker.Before
		}
		if worker != nil && worker.Until.After(now) && !overlap(worker.Addresses, own.Addresses) { // else it is the same machine
			s.before[name] = worker
		}
	}
	slices.Sort(names)
	return names
}

// conflicts are what others may have certificates for.
func (s *state) conflicts(own Record, now time.Time) []Conflict {
	var out []Conflict
	for name, b := range s.before {
		out = append(out, Conflict{What: name, Holder: b.NodeID, At: b.Addresses, Until: b.Until, Name: true})
	}
	for _, r := range s.records {
		b := s.names[r.Hostname]
		if r.NodeID == own.NodeID || !own.outranks(r) || b == nil || !b.Until.After(now) {
			continue
		}
		left := own.leave(r)
		for _, a := range r.Addresses {
			if !slices.Contains(left, a) {
				out = append(out, Conflict{What: a.String(), Holder: r.NodeID, At: r.Addresses, Until: b.Until})
			}
		}
	}
	slices.SortFunc(out, func(a, b Conflict) int { return strings.Compare(a.What, b.What) })
	return out
}

// outranks says that a node takes from another whatever it is known by.
func (r Record) outranks(o Record) bool { return r.controlPlane() && !o.controlPlane() }

// leave is what a node leaves of another's addresses.
func (r Record) leave(o Record) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(o.Addresses), func(a netip.Addr) bool {
		return slices.Contains(r.Addresses, a) || r.outranks(o) && r.has(a)
	})
}

// addEtcd notes who is a member of etcd. A control plane node becomes one, under
// its host name, before it announces itself.
func (s *state) addEtcd(ctx context.Context, c *clientv3.Client) error {
	list, err := c.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("list etcd's members: %w", err)
	}
	for _, m := range list.Members {
		r := Record{Hostname: m.Name, MachineType: config.TypeControlPlane} // without a name until it has started
		for _, text := range m.PeerURLs {
			if u, err := url.Parse(text); err == nil {
				r.AlsoKnown = append(r.AlsoKnown, u.Hostname())
			}
		}
		s.etcd = append(s.etcd, r)
	}
	return nil
}
