package members

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/api/membership"
	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/identity"
	"talos/internal/join"
	"talos/internal/loop"
	"talos/internal/reconcile"
	"talos/internal/resources/cluster"
	"talos/internal/resources/network"
	"talos/internal/resources/runtime"
	"talos/internal/resources/v1alpha1"
	"talos/internal/version"
)

// Ids of the resources that this package makes; a Member's is its host name,
// an Affiliate's its node id.
const (
	IdentityID = "local"
	InfoID     = "current"
)

const (
	etcdService      = "etcd"
	memberController = "cluster.MemberController"
)

// Pauses between attempts to hear of the others.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
	settle     = 200 * time.Millisecond // changes come in groups when a fleet starts
)

// Options are what the parts work with.
type Options struct {
	Log      *slog.Logger
	Identity *identity.Identity
	Facts    *Facts
	List     *List
	Ask      *join.Client
}

// Controllers makes the package's controllers.
func Controllers(opts Options) []controller.Controller {
	k := &keeper{Options: opts, ticks: make(chan struct{}, 1)}
	return []controller.Controller{
		// Which node this is, of which cluster.
		&reconcile.Controller{
			ID: "cluster.IdentityController", Log: opts.Log,
			In:  []controller.Input{active.Input()},
			Out: []resource.Kind{reconcile.Kind[*cluster.Identity](), reconcile.Kind[*cluster.Info]()},
			Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
				return identityStep(ctx, r, opts.Identity.ID)
			},
		},
		// Who is in the cluster.
		&reconcile.Controller{
			ID: memberController, Log: opts.Log,
			In: []controller.Input{
				active.Input(), reconcile.Input[*network.NodeAddress](), reconcile.Input[*network.HostnameStatus](),
				reconcile.InputID[*v1alpha1.Service](etcdService),
			},
			Out:    []resource.Kind{reconcile.Kind[*cluster.Member](), reconcile.Kind[*cluster.Affiliate]()},
			Shared: []resource.Type{runtime.DiagnosticType},
			Ticks:  k.ticks,
			Step:   k.step,
			Close:  k.close,
		},
	}
}

func identityStep(ctx context.Context, r controller.Runtime, id identity.ID) error {
	if err := reconcile.Put(ctx, r, cluster.NewIdentity(IdentityID), cluster.IdentitySpec{NodeID: string(id)}); err != nil {
		return err
	}
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil {
		return err
	}
	return reconcile.Put(ctx, r, cluster.NewInfo(InfoID), cluster.InfoSpec{ClusterID: cfg.Cluster.ID, ClusterName: cfg.ClusterName()})
}

// keeper keeps the list and the resources up to date.
type keeper struct {
	Options
	ticks chan struct{}
	feed  reconcile.Task // hears of the others
	tell  reconcile.Task // of changes of the list, the controller

	conflicts atomic.Pointer[[]Conflict] // of this node's names, as last announced
}

func (k *keeper) close() {
	k.feed.Stop()
	k.tell.Stop()
}

func (k *keeper) step(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
	cfg, err := active.Config(ctx, r)
	if err != nil {
		return err
	}
	if cfg == nil {
		k.close()
		return nil
	}
	k.tell.Ensure(ctx, log, "", k.follow)
	own, err := k.own(ctx, r, cfg)
	if err != nil {
		return err
	}
	if own == nil {
		return fmt.Errorf("%w: a name or an address of the node is missing", reconcile.ErrKeep)
	}
	service, err := reconcile.Get[*v1alpha1.Service](ctx, r, etcdService)
	if err != nil {
		return err
	}
	inEtcd := cfg.IsControlPlane() && service != nil && service.TypedSpec().Healthy
	if err := k.listen(ctx, log, cfg, own, inEtcd); err != nil {
		return err
	}
	list, _, _ := k.List.Now()
	if err := publish(ctx, r, Merge(list, own)); err != nil {
		return err
	}
	return reconcile.Output(ctx, r, memberController, runtime.NewDiagnostic, k.diagnostics(time.Now()), nil)
}

// diagnostics are the names of this node that may still serve somebody else.
func (k *keeper) diagnostics(now time.Time) map[resource.ID]runtime.DiagnosticSpec {
	out := map[resource.ID]runtime.DiagnosticSpec{}
	all := k.conflicts.Load()
	if all == nil {
		return out
	}
	for _, c := range *all {
		if c.Name && c.Until.After(now) {
			out["name-conflict-"+c.What] = runtime.DiagnosticSpec{
				Message: fmt.Sprintf("until %s a worker may show a certificate for this node's name %q", c.Until.Format(time.RFC3339), c.What),
				Details: []string{fmt.Sprintf("node %s, which was at %s, had the name before this control plane node was announced", c.Holder, text(c.At))},
			}
		}
	}
	return out
}

// announce writes this node's record, and tells of whom it takes what from.
func (k *keeper) announce(ctx context.Context, log *slog.Logger, own Record) error {
	conflicts, err := k.Facts.Announce(ctx, own, time.Now())
	if err != nil {
		return err
	}
	for _, c := range conflicts {
		log.Warn("a worker has a certificate for what is this control plane node's; it is not renewed",
			"what", c.What, "node", c.Holder, "at", text(c.At), "until", c.Until)
	}
	k.conflicts.Store(&conflicts)
	k.tick()
	return nil
}

// tick lets the controller take a step.
func (k *keeper) tick() {
	select {
	case k.ticks <- struct{}{}:
	default: // one is on its way
	}
}

// follow lets the controller take a step with every change of the list, and
// keeps the list now and then.
func (k *keeper) follow(ctx context.Context) error {
	defer k.List.Save()
	for {
		_, _, changed := k.List.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		k.tick()
		k.List.Save()
		if !loop.Sleep(ctx, settle) {
			return nil
		}
	}
}

// own is what this node is to the others; nil while its name or its addresses
// are not known.
func (k *keeper) own(ctx context.Context, r controller.Reader, cfg *config.Config) (*Record, error) {
	hostname, err := reconcile.Get[*network.HostnameStatus](ctx, r, network.HostnameID)
	if err != nil || hostname == nil {
		return nil, err
	}
	addresses, err := reconcile.Get[*network.NodeAddress](ctx, r, network.NodeAddressRoutedID)
	if err != nil || addresses == nil {
		return nil, err
	}
	own := &Record{
		NodeID: k.Identity.ID, Hostname: hostname.TypedSpec().Hostname, MachineType: cfg.Machine.Type, OperatingSystem: OperatingSystem(),
	}
	for _, p := range addresses.TypedSpec().Addresses {
		if Usable(p.Addr()) {
			own.Addresses = append(own.Addresses, p.Addr().Unmap())
		}
	}
	if cfg.IsControlPlane() {
		own.APIServerPort = cfg.APIServerPort()
		own.AlsoKnown = alsoKnown(cfg, hostname.TypedSpec())
	}
	if own.Check() != nil { // a name or an address is still to come
		return nil, nil
	}
	return own, nil
}

// OperatingSystem is what this node runs, as members show it.
func OperatingSystem() string { return fmt.Sprintf("%s (%s)", version.Name, version.Tag) }

// alsoKnown are the other names and addresses of a control plane node, and
// those of the cluster.
func alsoKnown(cfg *config.Config, h *network.HostnameStatusSpec) []string {
	out := append([]string{cfg.Endpoint().Hostname()}, cfg.Machine.CertSANs...)
	if h.Domainname != "" {
		out = append(out, h.Hostname+"."+h.Domainname)
	}
	if a := cfg.Cluster.APIServer; a != nil {
		out = append(out, a.CertSANs...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// listen sees to it that this node hears of the others: from its own etcd, or
// through the trustd of another.
func (k *keeper) listen(ctx context.Context, log *slog.Logger, cfg *config.Config, own *Record, inEtcd bool) error {
	if inEtcd {
		text, err := json.Marshal(own)
		if err != nil {
			return err
		}
		record := *own
		k.feed.Ensure(ctx, log, "etcd "+string(text), func(ctx context.Context) error { return k.fromEtcd(ctx, log, record) })
		return nil
	}
	asked, err := join.ClusterOf(cfg, nil)
	if err != nil {
		return err
	}
	key := fmt.Sprintf("trustd %s %x", asked.Endpoint, join.MAC(asked.Token, cfg.Machine.CA.Crt))
	k.feed.Ensure(ctx, log, key, func(ctx context.Context) error { return k.fromTrustd(ctx, log, cfg) })
	return nil
}

func (k *keeper) fromEtcd(ctx context.Context, log *slog.Logger, own Record) error {
	defer k.List.Stale()
	return persist(ctx, log, func(ctx context.Context) error {
		defer k.List.Stale()
		if k.List.leaving.Load() {
			<-ctx.Done()
			return nil
		}
		if err := k.announce(ctx, log, own); err != nil {
			return err
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		err := k.Facts.Watch(ctx, func(records []Record) {
			k.List.Set(records, true)
			if !slices.ContainsFunc(records, own.equal) && !k.List.leaving.Load() {
				cancel(errGone)
			}
		})
		return cmp.Or(context.Cause(ctx), err)
	})
}

// errGone says that somebody took this node off the list, while it is there.
var errGone = errors.New("this node's record is gone or changed: announcing it again")

// Leave takes this node off the list and sets its names free, for when its
// STATE is to be wiped. It is announced again with the next start.
func (o *Options) Leave(ctx context.Context, st controller.Reader) error {
	cfg, err := active.Config(ctx, st)
	if err != nil || cfg == nil {
		return err
	}
	if cfg.IsControlPlane() {
		o.List.leaving.Store(true)
		_, err := o.Facts.Remove(ctx, string(o.Identity.ID))
		return err
	}
	asked, err := join.ClusterOf(cfg, o.ControlPlanes())
	if err != nil {
		return err
	}
	return o.Ask.Leave(ctx, asked, time.Now())
}

func (k *keeper) fromTrustd(ctx context.Context, log *slog.Logger, cfg *config.Config) error {
	return persist(ctx, log, func(ctx context.Context) error {
		cluster, err := join.ClusterOf(cfg, k.ControlPlanes())
		if err != nil {
			return err
		}
		return k.Ask.Watch(ctx, cluster, func(list []*membership.Member) {
			records, err := FromWire(list)
			if err != nil {
				log.Warn("members left out", "reason", err)
			}
			k.List.Set(records, false)
		})
	})
}

// ControlPlanes are the addresses of the control plane nodes last seen, other
// than this one.
func (o *Options) ControlPlanes() []netip.Addr {
	var out []netip.Addr
	list, _, _ := o.List.Now()
	for _, r := range list {
		if r.controlPlane() && r.NodeID != o.Identity.ID {
			out = append(out, r.Addresses...)
		}
	}
	return out
}

// Certificate has a certificate signed for this node.
func (o *Options) Certificate(ctx context.Context, cfg *config.Config, want join.Want, now time.Time) (join.Granted, error) {
	cluster, err := join.ClusterOf(cfg, o.ControlPlanes())
	if err != nil {
		return join.Granted{}, err
	}
	want.OperatingSystem = OperatingSystem()
	return o.Ask.Certificate(ctx, cluster, want, now)
}

// persist calls fn until ctx ends, ever more slowly while it fails at once. An
// error is logged when it is another than before.
func persist(ctx context.Context, log *slog.Logger, fn func(context.Context) error) error {
	last := ""
	for pause := firstPause; ; pause = min(pause*3/2, lastPause) {
		began := time.Now()
		err := loop.Protect(func() error { return fn(ctx) })
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > lastPause { // it worked for a while
			pause, last = firstPause, ""
		}
		if text := fmt.Sprint(err); text != last {
			log.Info("the members are as last seen", "reason", text)
			last = text
		}
		if !loop.Sleep(ctx, pause) {
			return nil
		}
	}
}

// publish writes the resources.
func publish(ctx context.Context, r controller.Runtime, all []Record) error {
	for _, m := range all {
		var port *cluster.ControlPlane
		if m.APIServerPort > 0 {
			port = &cluster.ControlPlane{Port: m.APIServerPort}
		}
		kind := cluster.ParseMachineType(m.MachineType)
		if err := reconcile.Put(ctx, r, cluster.NewMember(m.Hostname), cluster.MemberSpec{
			NodeID: string(m.NodeID), Addresses: m.Addresses, Hostname: m.Hostname, MachineType: kind,
			OperatingSystem: m.OperatingSystem, ControlPlane: port,
		}); err != nil {
			return err
		}
		if err := reconcile.Put(ctx, r, cluster.NewAffiliate(string(m.NodeID)), cluster.AffiliateSpec{
			NodeID: string(m.NodeID), Addresses: m.Addresses, Hostname: m.Hostname, Nodename: m.Hostname, MachineType: kind,
			OperatingSystem: m.OperatingSystem, ControlPlane: port,
		}); err != nil {
			return err
		}
	}
	return nil
}
