package members

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"talos/internal/identity"
)

// Keys of etcd.
const (
	membersPrefix = "/talos/members/" // and the node's id
	namesPrefix   = "/talos/names/"   // and a host name: whose it is
)

const (
	etcdTimeout = 5 * time.Second
	attempts    = 8 // at a transaction that others interfere with
)

// ErrTaken says that a name or an address is another node's.
var ErrTaken = errors.New("taken")

// binding is whose a name is.
type binding struct {
	NodeID       identity.ID  `json:"nodeId"`
	Addresses    []netip.Addr `json:"addresses"` // that the holder had proven
	ControlPlane bool         `json:"controlPlane,omitempty"`
}

// Facts are the cluster's facts about its members, in etcd.
type Facts struct {
	client func(context.Context) (*clientv3.Client, error)
}

// NewFacts reaches etcd through client, which may fail for as long as this
// node has no part in it.
func NewFacts(client func(context.Context) (*clientv3.Client, error)) *Facts {
	return &Facts{client: client}
}

// state is what a transaction decides by.
type state struct {
	records map[string]Record   // by key
	names   map[string]*binding // by name, those asked for
	guards  []clientv3.Cmp      // that nothing of it has changed
}

// read gets all records, and the bindings of some names.
func (f *Facts) read(ctx context.Context, c *clientv3.Client, names []string) (*state, error) {
	s := &state{records: map[string]Record{}, names: map[string]*binding{}}
	all, err := c.Get(ctx, membersPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read the members from etcd: %w", err)
	}
	// Records that come while we decide: none may be newer than what was read.
	s.guards = append(s.guards, clientv3.Compare(clientv3.ModRevision(membersPrefix).WithPrefix(), "<", all.Header.Revision+1))
	for _, kv := range all.Kvs {
		if r, err := DecodeRecord(kv.Value); err == nil { // what is not one binds nobody
			s.records[string(kv.Key)] = r
		}
	}
	for _, name := range names {
		got, err := c.Get(ctx, namesPrefix+name)
		if err != nil {
			return nil, fmt.Errorf("read the holder of %s from etcd: %w", name, err)
		}
		var revision int64
		if len(got.Kvs) == 1 {
			var b binding
			if err := json.Unmarshal(got.Kvs[0].Value, &b); err != nil {
				return nil, fmt.Errorf("holder of %s in etcd: %w", name, err)
			}
			s.names[name], revision = &b, got.Kvs[0].ModRevision
		}
		s.guards = append(s.guards, clientv3.Compare(clientv3.ModRevision(namesPrefix+name), "=", revision))
	}
	return s, nil
}

// change reads, decides, and writes in one transaction; when others were
// faster it decides again.
func (f *Facts) change(ctx context.Context, names []string, decide func(*state) ([]clientv3.Op, error)) error {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	c, err := f.client(ctx)
	if err != nil {
		return err
	}
	for range attempts {
		s, err := f.read(ctx, c, names)
		if err != nil {
			return err
		}
		ops, err := decide(s)
		if err != nil || len(ops) == 0 {
			return err
		}
		done, err := c.Txn(ctx).If(s.guards...).Then(ops...).Commit()
		if err != nil {
			return fmt.Errorf("write members to etcd: %w", err)
		}
		if done.Succeeded {
			return nil
		}
	}
	return errors.New("write members to etcd: others wrote at the same time, again and again")
}

// Announce writes a control plane node's own record. Its names are its own
// whatever others claimed before, and so are its addresses.
func (f *Facts) Announce(ctx context.Context, own Record) error {
	if err := own.Check(); err != nil {
		return fmt.Errorf("announce this node: %w", err)
	}
	names := []string{own.Hostname}
	for _, n := range own.AlsoKnown {
		if ValidHostname(n) && !slices.Contains(names, n) && shortOf(n) == shortOf(own.Hostname) {
			names = append(names, n)
		}
	}
	return f.change(ctx, names, func(s *state) ([]clientv3.Op, error) {
		return s.write(own, names, true)
	})
}

func shortOf(name string) string {
	short, _, _ := strings.Cut(name, ".")
	return short
}

// Admit gives a worker the names and addresses that it has proven, unless they
// are another's. A name follows its holder's address: a machine that was wiped
// comes back under its name. If unlisted, the names are kept but there is no
// record.
func (f *Facts) Admit(ctx context.Context, claim Record, names []string, unlisted bool) error {
	if err := claim.Check(); err != nil {
		return err
	}
	return f.change(ctx, names, func(s *state) ([]clientv3.Op, error) {
		if err := s.admissible(claim, names); err != nil {
			return nil, err
		}
		return s.write(claim, names, !unlisted)
	})
}

// admissible holds a claim against what others have.
func (s *state) admissible(claim Record, names []string) error {
	for _, r := range s.records {
		if !r.controlPlane() {
			continue
		}
		if r.NodeID == claim.NodeID {
			return fmt.Errorf("%w: this identity is that of control plane node %s", ErrTaken, r.Hostname)
		}
		for _, name := range names {
			if r.known(name) {
				return fmt.Errorf("%w: the name %q is a control plane node's", ErrTaken, name)
			}
		}
		for _, a := range claim.Addresses {
			if r.has(a) {
				return fmt.Errorf("%w: %s is a control plane node's address", ErrTaken, a)
			}
		}
	}
	for _, name := range names {
		b := s.names[name]
		switch {
		case b == nil || b.NodeID == claim.NodeID:
		case b.ControlPlane:
			return fmt.Errorf("%w: the name %q is a control plane node's", ErrTaken, name)
		case !overlap(b.Addresses, claim.Addresses):
			return fmt.Errorf("%w: the name %q is that of the node %.8s… at %s; if that one is gone, set its name free with `talosctl forget %s`",
				ErrTaken, name, b.NodeID, text(b.Addresses), name)
		}
	}
	return nil
}

// known says whether a name is a node's; one without a domain stands for the
// same in any.
func (r Record) known(name string) bool {
	return slices.ContainsFunc(append([]string{r.Hostname}, r.AlsoKnown...), func(n string) bool { return SameHost(n, name) })
}

// has says whether an address is a node's.
func (r Record) has(a netip.Addr) bool {
	return slices.Contains(r.Addresses, a) || slices.ContainsFunc(r.AlsoKnown, func(text string) bool {
		known, err := netip.ParseAddr(strings.Trim(text, "[]")) // as people write it
		return err == nil && known.Unmap() == a
	})
}

// SameHost compares names; one without a domain stands for that host in any.
func SameHost(taken, name string) bool {
	taken = strings.ToLower(strings.TrimSuffix(taken, "."))
	if taken == "" {
		return false
	}
	if taken == name {
		return true
	}
	takenHost, takenDomain, _ := strings.Cut(taken, ".")
	host, domain, _ := strings.Cut(name, ".")
	return takenHost == host && (takenDomain == "" || domain == "")
}

func overlap(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(x netip.Addr) bool { return slices.Contains(b, x) })
}

func text(addresses []netip.Addr) string {
	var all []string
	for _, a := range addresses {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}

// write is what has to change so that a node has its names and its record, and
// nobody else has its name or addresses. What is so already is left alone.
func (s *state) write(own Record, names []string, listed bool) ([]clientv3.Op, error) {
	var ops []clientv3.Op
	put := func(key string, value any) error {
		data, err := json.Marshal(value)
		if err == nil {
			ops = append(ops, clientv3.OpPut(key, string(data)))
		}
		return err
	}
	for _, name := range names {
		want := binding{NodeID: own.NodeID, Addresses: own.Addresses, ControlPlane: own.controlPlane()}
		if b := s.names[name]; b != nil && b.NodeID == want.NodeID && b.ControlPlane == want.ControlPlane && slices.Equal(b.Addresses, want.Addresses) {
			continue
		}
		if err := put(namesPrefix+name, want); err != nil {
			return nil, err
		}
	}
	key := membersPrefix + string(own.NodeID)
	have, there := s.records[key]
	switch {
	case listed && (!there || !have.equal(own)):
		if err := put(key, own); err != nil {
			return nil, err
		}
	case !listed && there:
		ops = append(ops, clientv3.OpDelete(key))
	}
	for other, r := range s.records {
		if other == key {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(r.Addresses), func(a netip.Addr) bool { return slices.Contains(own.Addresses, a) })
		switch {
		case r.Hostname == own.Hostname || len(left) == 0: // the same machine before it was wiped, or one whose addresses are this one's now
			ops = append(ops, clientv3.OpDelete(other))
		case len(left) < len(r.Addresses):
			r.Addresses = left
			if err := put(other, r); err != nil {
				return nil, err
			}
		}
	}
	return ops, nil
}

func (r Record) equal(o Record) bool {
	return r.NodeID == o.NodeID && r.Hostname == o.Hostname && r.MachineType == o.MachineType && r.OperatingSystem == o.OperatingSystem &&
		r.APIServerPort == o.APIServerPort && slices.Equal(r.Addresses, o.Addresses) && slices.Equal(r.AlsoKnown, o.AlsoKnown)
}

// Remove takes a node and all its names away, by its id or its name. There
// need not be one.
func (f *Facts) Remove(ctx context.Context, node string) (removed []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	c, err := f.client(ctx)
	if err != nil {
		return nil, err
	}
	s, err := f.read(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	bindings, err := c.Get(ctx, namesPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read the holders of names from etcd: %w", err)
	}
	ids := map[identity.ID]bool{identity.ID(node): true}
	for _, r := range s.records {
		if r.Hostname == node {
			ids[r.NodeID] = true
		}
	}
	var ops []clientv3.Op
	for _, kv := range bindings.Kvs {
		var b binding
		name := strings.TrimPrefix(string(kv.Key), namesPrefix)
		if json.Unmarshal(kv.Value, &b) != nil || name == node || ids[b.NodeID] {
			if name == node {
				ids[b.NodeID] = true
			} else if b.NodeID == "" {
				continue // not readable, and not asked for
			}
			ops = append(ops, clientv3.OpDelete(string(kv.Key)))
			removed = append(removed, name)
		}
	}
	for key, r := range s.records {
		if ids[r.NodeID] {
			ops = append(ops, clientv3.OpDelete(key))
			if !slices.Contains(removed, r.Hostname) {
				removed = append(removed, r.Hostname)
			}
		}
	}
	if len(ops) == 0 {
		return nil, nil
	}
	if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
		return nil, fmt.Errorf("remove %s from etcd: %w", node, err)
	}
	return removed, nil
}

// Holds says whether the node with an identity has a record or a name, and at
// which addresses.
func (f *Facts) Holds(ctx context.Context, id identity.ID) (addresses []netip.Addr, controlPlane bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	c, err := f.client(ctx)
	if err != nil {
		return nil, false, err
	}
	bindings, err := c.Get(ctx, namesPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, false, fmt.Errorf("read the holders of names from etcd: %w", err)
	}
	for _, kv := range bindings.Kvs {
		var b binding
		if json.Unmarshal(kv.Value, &b) == nil && b.NodeID == id {
			addresses, controlPlane = append(addresses, b.Addresses...), controlPlane || b.ControlPlane
		}
	}
	return addresses, controlPlane, nil
}

// Watch hands all records to apply, at once and after every change, until ctx
// ends or etcd cannot be trusted to be up to date.
func (f *Facts) Watch(ctx context.Context, apply func([]Record)) error {
	c, err := f.client(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	first, stop := context.WithTimeout(ctx, etcdTimeout)
	got, err := c.Get(first, membersPrefix, clientv3.WithPrefix())
	stop()
	if err != nil {
		return fmt.Errorf("read the members from etcd: %w", err)
	}
	have := map[string]Record{}
	set := func(key string, value []byte) {
		if r, err := DecodeRecord(value); err == nil {
			have[key] = r
		} else {
			delete(have, key)
		}
	}
	for _, kv := range got.Kvs {
		set(string(kv.Key), kv.Value)
	}
	apply(sorted(have))
	for answer := range c.Watch(ctx, membersPrefix, clientv3.WithPrefix(), clientv3.WithRev(got.Header.Revision+1)) {
		if err := answer.Err(); err != nil {
			return fmt.Errorf("watch the members in etcd: %w", err)
		}
		for _, e := range answer.Events {
			if e.Type == clientv3.EventTypeDelete {
				delete(have, string(e.Kv.Key))
			} else {
				set(string(e.Kv.Key), e.Kv.Value)
			}
		}
		if len(answer.Events) > 0 {
			apply(sorted(have))
		}
	}
	return ctx.Err()
}

func sorted(have map[string]Record) []Record {
	out := make([]Record, 0, len(have))
	for _, r := range have {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Record) int { return strings.Compare(string(a.NodeID), string(b.NodeID)) })
	return out
}
