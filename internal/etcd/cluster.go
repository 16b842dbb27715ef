package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/internal/loop"
	"talos/internal/resources/etcd"
	"talos/internal/resources/v1alpha1"
)

// Limits of what asks other members.
const (
	statusTimeout = 2 * time.Second
	changeTimeout = 10 * time.Second // a change of the membership, each try
	settleTime    = 3 * time.Second  // an election may be going on
)

// View looks at the cluster from this node's member.
func (m *Member) View(ctx context.Context) (View, error) {
	client, err := m.Client(ctx)
	if err != nil {
		return View{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*statusTimeout)
	defer cancel()
	list, err := client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return View{}, fmt.Errorf("list etcd's members: %w", err)
	}
	v := view(list)
	v.Local = list.Header.MemberId
	m.askAll(ctx, client, &v)
	return v, nil
}

// view is what a list of members tells by itself.
func view(list *clientv3.MemberListResponse) View {
	v := View{ClusterID: list.Header.ClusterId}
	for _, p := range list.Members {
		v.Peers = append(v.Peers, peer(p))
	}
	slices.SortFunc(v.Peers, func(a, b Peer) int { return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return v
}

func peer(p *etcdserverpb.Member) Peer {
	return Peer{ID: p.ID, Name: p.Name, PeerURLs: p.PeerURLs, URLs: p.ClientURLs, Learner: p.IsLearner, Err: "it never started"}
}

// askAll asks every member at once how it is. The leader is what the first that
// knows one says.
func (m *Member) askAll(ctx context.Context, client *clientv3.Client, v *View) {
	leaders := make([]uint64, len(v.Peers))
	var wg sync.WaitGroup
	for i := range v.Peers {
		p := &v.Peers[i]
		urls := p.URLs
		if p.ID == v.Local {
			urls = client.Endpoints()
		}
		wg.Go(func() {
			if err := loop.Protect(func() error { return ask(ctx, client, p, urls, &leaders[i]) }); err != nil {
				p.Err = err.Error()
			}
		})
	}
	wg.Wait()
	for i, leader := range leaders {
		if v.Peers[i].ID == v.Local || v.Leader == 0 {
			v.Leader = cmp.Or(leader, v.Leader)
		}
	}
}

func ask(ctx context.Context, client *clientv3.Client, p *Peer, urls []string, leader *uint64) error {
	for _, at := range urls {
		if err := knock(ctx, at); err != nil {
			p.Err = short(err)
			continue
		}
		tryCtx, cancel := context.WithTimeout(ctx, statusTimeout)
		st, err := client.Status(tryCtx, at)
		cancel()
		switch {
		case err != nil:
			p.Err = short(err)
		case st.Header.MemberId != p.ID:
			p.Err = fmt.Sprintf("at %s another member answers, %016x", at, st.Header.MemberId)
		case st.Leader == 0:
			p.Err = "it knows no leader"
			return nil
		default:
			*leader = st.Leader
			p.Up, p.Err = true, ""
			return nil
		}
	}
	return nil
}

// knock says at once that nobody listens: a client would try until its time is
// over, and then not know why.
func knock(ctx context.Context, at string) error {
	u, err := url.Parse(at)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	return conn.Close()
}

// short leaves out of an error what gRPC says of itself.
func short(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err.Error()
	}
	text := err.Error()
	for _, mark := range []string{"desc = ", "connection error: desc = ", "transport: "} {
		if _, after, found := strings.Cut(text, mark); found {
			text = after
		}
	}
	return strings.Trim(text, `"`)
}

// runs says whether this node's member is running.
func (m *Member) runs(ctx context.Context) (bool, error) {
	svc, err := safe.StateGetByID[*v1alpha1.Service](ctx, m.st, ServiceID)
	if state.IsNotFoundError(err) {
		return false, nil
	}
	return err == nil && svc.TypedSpec().Running, err
}

// MayStop is nil when the cluster survives that this node's etcd is gone for a
// while (a reboot, a shutdown), also when none runs here; otherwise an error
// that wraps ErrQuorum and says in words why not. The only member of a cluster
// may stop.
func (m *Member) MayStop(ctx context.Context) error {
	runs, err := m.runs(ctx)
	if err != nil || !runs {
		return err
	}
	for end := time.Now().Add(settleTime); ; {
		v, err := m.View(ctx)
		if err != nil {
			return nil // what does not answer on this node takes no part
		}
		err = v.MayStop(v.Local)
		if p, _ := v.Find(v.Local); err == nil && p.Up {
			return nil
		}
		if time.Now().After(end) || !loop.Sleep(ctx, settleTime/6) {
			return err
		}
	}
}

// ForfeitLeadership makes another voter the leader if this node's member is.
// It answers the new leader's name; "" when there was nothing to hand over.
func (m *Member) ForfeitLeadership(ctx context.Context) (string, error) {
	v, err := m.View(ctx)
	if err != nil {
		return "", err
	}
	if v.Leader != v.Local {
		return "", nil
	}
	i := slices.IndexFunc(v.Peers, func(p Peer) bool { return p.ID != v.Local && p.Up && !p.Learner })
	if i < 0 {
		return "", nil
	}
	client, err := m.Client(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if _, err := client.MoveLeader(ctx, v.Peers[i].ID); err != nil {
		return "", fmt.Errorf("make %s etcd's leader: %w", v.Peers[i], err)
	}
	return v.Peers[i].Name, nil
}

// Leave takes this node's member out of its cluster for good, stops it and
// deletes its data. It refuses, with ErrQuorum, what would leave the others
// without a majority. The last member of a cluster only stops and deletes: who
// calls has made sure that this is wanted. Without a member it does nothing.
// After a reboot the node joins again, unless it is wiped.
func (m *Member) Leave(ctx context.Context) error {
	if m.hasData() {
		if err := m.resign(ctx); err != nil {
			return fmt.Errorf("leave etcd's cluster: %w", err)
		}
	}
	return m.forget(ctx)
}

// resign hands over what the member leads and removes it from the cluster.
func (m *Member) resign(ctx context.Context) error {
	v, err := m.Wide(ctx)
	if err != nil {
		return err
	}
	self, found := v.Find(v.Local)
	switch {
	case !found:
		return nil // removed already
	case !self.Learner && v.Quorum().Voters == 1:
		return nil
	}
	if err := v.MayRemove(v.Local); err != nil {
		return err
	}
	if v.Leader == v.Local {
		if _, err := m.ForfeitLeadership(ctx); err != nil {
			return err
		}
	}
	return m.remove(ctx, v, v.Local)
}

// Wide is the cluster from this node's member, or, when that is down or
// only a learner, from the others.
func (m *Member) Wide(ctx context.Context) (View, error) {
	v, err := m.View(ctx)
	if err == nil {
		return v, nil
	}
	spec, specErr := safe.StateGetByID[*etcd.EtcdSpec](ctx, m.st, SpecID)
	if specErr != nil {
		return View{}, errors.Join(err, specErr)
	}
	f := facts{name: spec.TypedSpec().Name, url: urlOf(spec.TypedSpec().AdvertisedAddresses[0].String(), peerPort)}
	var storeErr error
	if f.seen, f.unheard, storeErr = m.others(ctx); f.seen == nil {
		return View{}, errors.Join(fmt.Errorf("this node's member does not answer (%w), nor does another (%s)", err, f.unheard), storeErr)
	}
	for _, p := range f.mine() {
		f.seen.Local = p.ID
	}
	return *f.seen, nil
}

// remove takes a member off the list, through those that stay. It is done when
// the member is not on the list any more.
func (m *Member) remove(ctx context.Context, v View, id uint64) error {
	client, err := m.through(ctx, v, id)
	if err != nil {
		return err
	}
	defer client.Close()
	return removeMember(ctx, client, id)
}

// through makes a client of the members that are up, without the one that goes.
func (m *Member) through(ctx context.Context, v View, without uint64) (*clientv3.Client, error) {
	var urls []string
	for _, p := range v.Peers {
		if p.ID != without && p.Up && !p.Learner {
			urls = append(urls, p.URLs...)
		}
	}
	if len(urls) == 0 {
		return nil, fmt.Errorf("no other member can be asked: %v (not up: %s)", v.Quorum(), v.down())
	}
	return m.dial(ctx, urls...)
}

// change makes one try to change the membership, in its own time.
func change(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return do(ctx)
}

// temporary says whether a change may succeed a little later.
func temporary(err error) bool {
	for _, passing := range []error{
		rpctypes.ErrUnhealthy, rpctypes.ErrMemberNotEnoughStarted, rpctypes.ErrTooManyLearners, rpctypes.ErrMemberLearnerNotReady,
		rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrNotLeader, rpctypes.ErrStopped, rpctypes.ErrTimeout,
		rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost, context.DeadlineExceeded,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return status.Code(err) == codes.Unavailable
}

// removeMember tries until the member is gone: a cluster that has just changed
// may say that it is not healthy, for some seconds.
func removeMember(ctx context.Context, client *clientv3.Client, id uint64) error {
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := change(ctx, func(ctx context.Context) error {
			_, err := client.MemberRemove(ctx, id)
			return err
		})
		if err == nil || errors.Is(err, rpctypes.ErrMemberNotFound) {
			return nil
		}
		if !temporary(err) || !loop.Sleep(ctx, pause) {
			return fmt.Errorf("remove member %016x: %w", id, err)
		}
	}
}

// forget stops the service and deletes what the member has on disk.
func (m *Member) forget(ctx context.Context) error {
	m.mu.Lock()
	m.left, m.fresh = true, 0 // before the service's last event
	m.mu.Unlock()
	if m.services != nil {
		if err := m.services.Stop(ctx, ServiceID); err != nil {
			return err
		}
	}
	if err := os.Remove(m.marker); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return removeContents(m.dataDir)
}

func (m *Member) hasLeft() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left
}

// removeContents empties a folder, which may be a mount.
func removeContents(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(folder, e.Name())))
	}
	return errors.Join(errs...)
}

// ErrNoMember is returned for a name or id that no member has.
var ErrNoMember = errors.New("no such etcd member")

// Remove takes another member out of the cluster for good. It refuses, with
// ErrQuorum, what would leave the others without a majority.
func (m *Member) Remove(ctx context.Context, id uint64) error {
	v, err := m.Wide(ctx)
	if err != nil {
		return err
	}
	p, found := v.Find(id)
	if !found {
		return fmt.Errorf("%w: %016x", ErrNoMember, id)
	}
	if err := v.MayRemove(id); err != nil {
		return fmt.Errorf("remove %s: %w", p, err)
	}
	return m.remove(ctx, v, id)
}

// MayLeave is nil when this node's member may leave for good, an error that
// wraps ErrQuorum when the others would have no majority, or when there are
// none: the last voter's data is the cluster.
func (m *Member) MayLeave(ctx context.Context) error {
	if !m.hasFiles() {
		return fmt.Errorf("%w on this node", ErrNoMember)
	}
	v, err := m.Wide(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrQuorum, err)
	}
	return v.MayRemove(v.Local)
}

// Abandon stops this node's member and deletes its data, whatever becomes of the
// others. It is taken off their list if they let it.
func (m *Member) Abandon(ctx context.Context) error {
	try, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	v, err := m.Wide(try)
	if _, found := v.Find(v.Local); err == nil && found {
		err = m.remove(try, v, v.Local)
	}
	if err != nil {
		m.log.Warn("etcd's member stays on the list of the others", "err", err)
	}
	return m.forget(ctx)
}

// List is the members as the cluster agrees on them, or as this node's member
// has them. Whether they are up is not asked.
func (m *Member) List(ctx context.Context, local bool) ([]Peer, error) {
	client, err := m.Client(ctx)
	if err != nil {
		return nil, err
	}
	var opts []clientv3.OpOption
	if local {
		opts = append(opts, clientv3.WithSerializable())
	}
	tryCtx, cancel := context.WithTimeout(ctx, 2*statusTimeout)
	defer cancel()
	list, err := client.MemberList(tryCtx, opts...)
	if err == nil {
		return view(list).Peers, nil
	}
	if local {
		return nil, err
	}
	v, err := m.Wide(ctx)
	return v.Peers, err
}
