package members

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
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
	Until        time.Time    `json:"until,omitzero"`   // when the last certificate for it expires; a worker's
	Before       *binding     `json:"before,omitempty"` // the worker that had it until a control plane node took it
}

// Claim is what a worker wants to have.
type Claim struct {
	Record
	Names    []string  // the host name, and the same with its domain
	Unlisted bool      // the names are kept, but there is no record
	Until    time.Time // when the certificate expires that it gets for them
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
	before  map[string]*binding // whose a name was before
	etcd    []Record            // names and addresses of etcd's members: of control plane nodes that may not have announced themselves
	guards  []clientv3.Cmp      // that nothing of it has changed
}

// readRecords gets all records.
func readRecords(ctx context.Context, c *clientv3.Client) (*state, error) {
	s := &state{records: map[string]Record{}, names: map[string]*binding{}}
	all, err := c.Get(ctx, membersPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read the members from etcd: %w", err)
	}
	s.guards = append(s.guards, none(membersPrefix, all.Header.Revision))
	for _, kv := range all.Kvs {
		if r, err := DecodeRecord(kv.Value); err == nil { // what is not one binds nobody
			s.records[string(kv.Key)] = r
		}
	}
	return s, nil
}

// none guards what comes below a prefix while we decide: none may be newer than
// what was read.
func none(prefix string, read int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(prefix).WithPrefix(), "<", read+1)
}

// read gets all records, and the bindings of some names.
func read(ctx context.Context, c *clientv3.Client, names []string) (*state, error) {
	s, err := readRecords(ctx, c)
	if err != nil {
		return nil, err
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
func (f *Facts) change(ctx context.Context, read func(context.Context, *clientv3.Client) (*state, error), decide func(*state) ([]clientv3.Op, error)) error {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	c, err := f.client(ctx)
	if err != nil {
		return err
	}
	for range attempts {
		s, err := read(ctx, c)
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

func shortOf(name string) string {
	short, _, _ := strings.Cut(name, ".")
	return short
}

// Admit gives a worker the names and addresses that it has proven, unless they
// are another's. A name follows its holder's address: a machine that was wiped
// comes back under its name.
func (f *Facts) Admit(ctx context.Context, claim Claim) error {
	if err := claim.Check(); err != nil {
		return err
	}
	return f.change(ctx, func(ctx context.Context, c *clientv3.Client) (*state, error) {
		s, err := read(ctx, c, claim.Names)
		if err == nil {
			err = s.addEtcd(ctx, c)
		}
		return s, err
	}, func(s *state) ([]clientv3.Op, error) {
		if err := s.admissible(claim.Record, claim.Names); err != nil {
			return nil, err
		}
		return s.write(claim.Record, claim.Names, !claim.Unlisted, claim.Until.UTC().Truncate(time.Second))
	})
}

// admissible holds a claim against what others have.
func (s *state) admissible(claim Record, names []string) error {
	for _, r := range append(slices.Collect(maps.Values(s.records)), s.etcd...) {
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
// nobody else has its name or addresses. What is so already is left alone. For
// until see binding.
func (s *state) write(own Record, names []string, listed bool, until time.Time) ([]clientv3.Op, error) {
	var ops []clientv3.Op
	put := func(key string, value any) error {
		data, err := json.Marshal(value)
		if err == nil {
			ops = append(ops, clientv3.OpPut(key, string(data)))
		}
		return err
	}
	for _, name := range names {
		want := &binding{NodeID: own.NodeID, Addresses: own.Addresses, ControlPlane: own.controlPlane(), Until: until, Before: s.before[name]}
		if reflect.DeepEqual(s.names[name], want) {
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
		left := own.leave(r)
		switch {
		case r.Hostname == own.Hostname || own.outranks(r) && own.known(r.Hostname) || len(left) == 0: // the same machine before it was wiped, or one whose name or addresses are this one's now
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
	s, err := readRecords(ctx, c)
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
