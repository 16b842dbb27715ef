package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"talos/internal/loop"
	"talos/internal/resources/cluster"
	"talos/internal/resources/etcd"
	"talos/internal/resources/network"
	"talos/internal/service"
)

// Pauses between looks at the other nodes, and the time for one look.
const (
	firstLook   = 500 * time.Millisecond
	lastLook    = 2 * time.Second
	lookTimeout = 3 * time.Second
)

// start is how the program is started.
type start struct {
	initialCluster string // "" is the member alone
	founds         bool
}

// state is etcd's word for whether the program may make a new cluster.
func (s start) state() string {
	if s.founds {
		return "new"
	}
	return "existing"
}

// decide looks, decides and acts until the program may be started.
func (m *Member) decide(ctx context.Context, spec *etcd.EtcdSpecSpec) error {
	m.acting.Lock()
	m.starting = false
	m.acting.Unlock()
	for pause := firstLook; ; {
		ready, reason, err := m.advance(ctx, spec)
		if ready || err != nil {
			return err
		}
		if reason == "" { // that was a step: look at what came of it
			pause = firstLook
			continue
		}
		service.SetReason(ctx, reason)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.changed:
			pause = firstLook
		case <-time.After(pause):
			pause = min(pause*3/2, lastLook)
		}
	}
}

// advance takes one step, or says what is waited for. The error is of this node.
func (m *Member) advance(ctx context.Context, spec *etcd.EtcdSpecSpec) (ready bool, reason string, err error) {
	f, err := m.look(ctx, spec)
	if err != nil {
		return false, "", err
	}
	d := next(f)
	if d.do == wait {
		return false, d.why, nil
	}
	m.log.Info("etcd's start", "do", d.do, "member", fmt.Sprintf("%016x", d.id), "why", d.why)
	if d.do == add || d.do == remove {
		// Others wait while this one is on the way in: not for the download.
		service.SetReason(ctx, "for image "+spec.Image)
		err = m.fetch(ctx, spec.Image)
	}
	if err == nil {
		ready, err = m.act(ctx, f, d)
	}
	switch {
	case errors.Is(err, errDisk):
		return false, "", err
	case errors.Is(err, errRecovering):
		return false, "for " + err.Error(), nil
	case err != nil:
		return false, "for the next try: " + err.Error(), nil
	}
	return ready, "", nil
}

// errRecovering keeps a member from starting while its data is made.
var errRecovering = errors.New("a snapshot to be restored")

// errDisk marks what no patience with the others will mend.
var errDisk = errors.New("etcd's data folder")

// act does what was decided; ready says that the program may be started.
func (m *Member) act(ctx context.Context, f facts, d decision) (ready bool, err error) {
	m.acting.Lock()
	defer m.acting.Unlock()
	if m.recovering {
		return false, errRecovering
	}
	defer func() { m.starting = ready }()
	switch d.do {
	case resume:
		m.prepare(start{})
		return true, nil
	case found, join:
		// A program killed in its very first moments leaves files without a log.
		if err := removeContents(m.dataDir); err != nil {
			return false, fmt.Errorf("%w: %w", errDisk, err)
		}
		if d.do == found {
			m.prepare(start{founds: true})
			return true, nil
		}
		if err := os.Remove(m.marker); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("%w: %w", errDisk, err)
		}
		m.prepare(start{initialCluster: initialCluster(*f.seen, d.id, f.name)})
		return true, nil
	case remove, add:
		client, err := m.through(ctx, *f.seen, d.id)
		if err != nil {
			return false, err
		}
		defer client.Close()
		if d.do == remove {
			return false, removeMember(ctx, client, d.id)
		}
		return false, m.addSelf(ctx, client, f.url)
	}
	return false, nil
}

func (m *Member) prepare(s start) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.start = s
}

// addSelf adds this node as a learner. etcd refuses while it has another.
func (m *Member) addSelf(ctx context.Context, client *clientv3.Client, peerURL string) error {
	return change(ctx, func(ctx context.Context) error {
		added, err := client.MemberAddAsLearner(ctx, []string{peerURL})
		if errors.Is(err, rpctypes.ErrTooManyLearners) {
			return errors.New("another node joins just now, and etcd takes in one at a time")
		}
		if err != nil {
			return fmt.Errorf("add %s as a learner: %w", peerURL, err)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.fresh = added.Member.ID
		return nil
	})
}

// initialCluster is how etcd wants the list of members, this node's own among
// them. It matches the others by their URLs alone: one without a name gets some.
func initialCluster(v View, self uint64, name string) string {
	var out []string
	for _, p := range v.Peers {
		as := cmp.Or(p.Name, fmt.Sprintf("%016x", p.ID))
		if p.ID == self {
			as = name
		}
		for _, u := range p.PeerURLs {
			out = append(out, as+"="+u)
		}
	}
	return strings.Join(out, ",")
}

// look gathers the facts. The others are asked only when it matters: a member
// with data starts without them.
func (m *Member) look(ctx context.Context, spec *etcd.EtcdSpecSpec) (facts, error) {
	m.mu.Lock()
	f := facts{ended: m.started, fresh: m.fresh}
	m.mu.Unlock()
	f.data, f.marked = m.hasData(), exists(m.marker)
	f.name, f.url = spec.Name, urlOf(spec.AdvertisedAddresses[0].String(), peerPort)
	if f.data && !f.ended {
		return f, nil
	}
	var err error
	f.seen, f.unheard, err = m.others(ctx)
	return f, err
}

// others asks the other control plane nodes for the cluster. The error is of
// this node's own store; why nobody answered is text.
func (m *Member) others(ctx context.Context) (*View, string, error) {
	candidates, err := m.candidates(ctx)
	if err != nil || len(candidates) == 0 {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	views, errs := make([]*View, len(candidates)), make([]string, len(candidates))
	var wg sync.WaitGroup
	for i, address := range candidates {
		wg.Go(func() {
			err := loop.Protect(func() (err error) {
				views[i], err = m.viewFrom(ctx, address)
				return err
			})
			if err != nil {
				errs[i] = address + ": " + short(err)
			}
		})
	}
	wg.Wait()
	var seen *View
	for i, v := range views {
		switch {
		case v == nil || seen != nil && v.ClusterID == seen.ClusterID && v.Quorum().Up <= seen.Quorum().Up:
		case seen != nil && v.ClusterID != seen.ClusterID:
			return nil, fmt.Sprintf("the members at %s and others are of different clusters: one of them must be reset", candidates[i]), nil
		default:
			seen = v
		}
	}
	return seen, strings.Join(slices.DeleteFunc(errs, func(s string) bool { return s == "" }), "; "), nil
}

// viewFrom asks the member at an address for the cluster.
func (m *Member) viewFrom(ctx context.Context, address string) (*View, error) {
	at := urlOf(address, clientPort)
	if err := knock(ctx, at); err != nil {
		return nil, err
	}
	client, err := m.dial(ctx, at)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	list, err := client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return nil, err
	}
	v := view(list)
	m.askAll(ctx, client, &v)
	return &v, nil
}

// candidates are the addresses at which a member of the cluster may be found:
// the control plane nodes', and the host of the cluster's endpoint. This node's
// own are not among them.
func (m *Member) candidates(ctx context.Context) ([]string, error) {
	members, err := safe.StateListAll[*cluster.Member](ctx, m.st)
	if err != nil {
		return nil, fmt.Errorf("list the cluster's nodes: %w", err)
	}
	var found []netip.Addr
	for member := range members.All() {
		if member.TypedSpec().ControlPlane != nil {
			found = append(found, member.TypedSpec().Addresses...)
		}
	}
	cfg, err := m.config(ctx)
	if err != nil {
		return nil, err
	}
	found = append(found, endpointAddresses(ctx, cfg.Cluster.ControlPlane.Endpoint)...)
	own, err := m.ownAddresses(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, a := range found {
		if text := a.Unmap().String(); !slices.Contains(own, a.Unmap()) && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out, nil
}

// endpointAddresses are those of the cluster's endpoint; none when its name is
// not known now.
func endpointAddresses(ctx context.Context, endpoint string) []netip.Addr {
	at, err := url.Parse(endpoint)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", at.Hostname())
	if err != nil {
		return nil
	}
	return addresses
}

// ownAddresses are what other nodes may know this one by.
func (m *Member) ownAddresses(ctx context.Context) ([]netip.Addr, error) {
	spec, err := safe.StateGetByID[*etcd.EtcdSpec](ctx, m.st, SpecID)
	if err != nil && !state.IsNotFoundError(err) {
		return nil, err
	}
	var own []netip.Addr
	if err == nil {
		own = append(own, spec.TypedSpec().AdvertisedAddresses...)
		own = append(own, spec.TypedSpec().ListenClientAddresses...)
	}
	all, err := safe.StateGetByID[*network.NodeAddress](ctx, m.st, network.NodeAddressCurrentID)
	if state.IsNotFoundError(err) {
		return own, nil
	}
	if err != nil {
		return nil, err
	}
	for _, p := range all.TypedSpec().Addresses {
		own = append(own, p.Addr())
	}
	return own, nil
}

// settle makes a learner that has caught up a voter, and tells the others the
// address that it has now. It answers the member's id; 0 while there is none
// that votes, with the reason.
func (m *Member) settle(ctx context.Context, spec *etcd.EtcdSpecSpec) (uint64, error) {
	client, err := m.Client(ctx)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	st, err := client.Status(ctx, client.Endpoints()[0])
	if err != nil {
		return 0, fmt.Errorf("etcd status: %w", err)
	}
	self := st.Header.MemberId
	if st.IsLearner {
		return 0, m.promote(ctx, self)
	}
	return self, m.announce(ctx, client, self, urlOf(spec.AdvertisedAddresses[0].String(), peerPort))
}

// errLearner is why a member that runs does not count yet.
var errLearner = errors.New("this node's member catches up with the others, it does not vote yet")

// promote asks the voters; they refuse while the learner lags behind.
func (m *Member) promote(ctx context.Context, self uint64) error {
	seen, unheard, err := m.others(ctx)
	if err != nil {
		return err
	}
	if seen == nil {
		return fmt.Errorf("%w: nobody can make it a voter (%s)", errLearner, unheard)
	}
	client, err := m.through(ctx, *seen, self)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.MemberPromote(ctx, self)
	switch {
	case err == nil:
		m.log.Info("etcd's member votes now", "member", fmt.Sprintf("%016x", self))
		return errLearner // until it knows it itself
	case errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
		return errLearner
	}
	return fmt.Errorf("%w: make it a voter: %w", errLearner, err)
}

// announce tells the others a new address of this node.
func (m *Member) announce(ctx context.Context, client *clientv3.Client, self uint64, peerURL string) error {
	list, err := client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return fmt.Errorf("list etcd's members: %w", err)
	}
	p, found := view(list).Find(self)
	if !found || slices.Contains(p.PeerURLs, peerURL) {
		return nil
	}
	m.log.Info("etcd's member has another address", "old", p.PeerURLs, "new", peerURL)
	if _, err := client.MemberUpdate(ctx, self, []string{peerURL}); err != nil {
		return fmt.Errorf("tell the other members the address %s: %w", peerURL, err)
	}
	return nil
}
