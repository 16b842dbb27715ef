package networkd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"sync"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/networkd/dhcp"
	"talos/internal/reconcile"
	"talos/internal/resources/network"
)

// leaseAnnotation of a leased AddressSpec holds a dhcp.Resume, so that the
// lease outlives this process.
const leaseAnnotation = "networkd.talos.dev/lease"

const operatorsName = "network.OperatorSpecController"

// defaultMetric is what routes of a lease get when the operator's spec says nothing.
const defaultMetric = 1024

// operators runs a DHCP client for every OperatorSpec and turns its leases
// into specs of the operator layer.
type operators struct {
	log     *slog.Logger
	running map[resource.ID]*operator // by id of the OperatorSpec, dhcp4/eth0
	wg      sync.WaitGroup
	ticks   chan struct{} // capacity 1: there are results

	mu      sync.Mutex // guards results
	results []result
}

type operator struct {
	spec  network.OperatorSpecSpec
	stop  context.CancelFunc // nil until the client was started
	wake  chan struct{}
	up    bool
	known bool       // lease below is a result, not just the lack of one
	lease *dhcp.Held // nil: none
}

type result struct {
	id    resource.ID
	from  *operator
	lease *dhcp.Held
}

func operatorController(log *slog.Logger) controller.Controller {
	o := &operators{log: log, running: map[resource.ID]*operator{}, ticks: make(chan struct{}, 1)}
	return &reconcile.Controller{
		ID: operatorsName, Log: log, Ticks: o.ticks, Step: o.step, Close: o.close,
		In: []controller.Input{reconcile.Input[*network.OperatorSpec](), reconcile.Input[*network.LinkStatus]()},
		Shared: []resource.Type{
			network.AddressSpecType, network.RouteSpecType, network.LinkSpecType, network.ResolverSpecType,
			network.HostnameSpecType, network.TimeServerSpecType,
		},
	}
}

// close ends the clients; the leases stay.
func (c *operators) close() {
	for _, op := range c.running {
		if op.stop != nil {
			op.stop()
		}
	}
	c.wg.Wait()
	clear(c.running)
}

// report hands a result to the next step.
func (c *operators) report(res result) {
	c.mu.Lock()
	c.results = append(c.results, res)
	c.mu.Unlock()
	select {
	case c.ticks <- struct{}{}:
	default:
	}
}

// collect takes what the clients reported.
func (c *operators) collect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, res := range c.results {
		if op := c.running[res.id]; op == res.from { // not of one that was stopped meanwhile
			op.known, op.lease = true, res.lease
		}
	}
	c.results = nil
}

// step keeps a client running for each spec.
func (c *operators) step(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	c.collect()
	list, err := safe.ReaderList[*network.OperatorSpec](ctx, r, network.NewOperatorSpec(network.Namespace, "").Metadata())
	if err != nil {
		return err
	}
	links, err := safe.ReaderList[*network.LinkStatus](ctx, r, network.NewLinkStatus("").Metadata())
	if err != nil {
		return err
	}
	up := map[string]bool{}
	for l := range links.All() {
		up[l.Metadata().ID()] = l.TypedSpec().LinkState
	}
	wanted := map[resource.ID]network.OperatorSpecSpec{}
	for item := range list.All() {
		if s := *item.TypedSpec(); s.Operator == network.OperatorDHCP4 {
			wanted[item.Metadata().ID()] = s
		}
	}
	for id, op := range c.running {
		if s, ok := wanted[id]; !ok || !reflect.DeepEqual(s, op.spec) {
			if op.stop != nil {
				op.stop()
			}
			delete(c.running, id)
		}
	}
	for id, s := range wanted {
		if err := c.tend(ctx, r, id, s, up[s.LinkName]); err != nil {
			return err
		}
	}
	return c.publish(ctx, r)
}

// tend starts the client when its link is up for the first time, and wakes it
// when the link comes up again.
func (c *operators) tend(ctx context.Context, r controller.Runtime, id resource.ID, s network.OperatorSpecSpec, up bool) error {
	op := c.running[id]
	if op == nil {
		op = &operator{spec: s, wake: make(chan struct{}, 1)}
		c.running[id] = op
	}
	came := up && !op.up
	op.up = up
	switch {
	case !came:
	case op.stop != nil:
		select {
		case op.wake <- struct{}{}:
		default:
		}
	default:
		known, err := c.resume(ctx, r, id)
		if err != nil {
			op.up = false // so that it is tried again
			return err
		}
		c.start(ctx, id, op, known)
	}
	return nil
}

func (c *operators) start(ctx context.Context, id resource.ID, op *operator, known *dhcp.Held) {
	ctx, op.stop = context.WithCancel(ctx)
	client := &dhcp.Client{Link: op.spec.LinkName, Log: c.log, Known: known, Wake: op.wake, Report: func(lease *dhcp.Held) {
		c.report(result{id: id, from: op, lease: lease})
	}}
	c.wg.Go(func() { client.Run(ctx) })
}

// resume reads what an earlier run leased.
func (c *operators) resume(ctx context.Context, r controller.Runtime, id resource.ID) (*dhcp.Held, error) {
	list, err := safe.ReaderList[*network.AddressSpec](ctx, r, network.NewAddressSpec(network.ConfigNamespace, "").Metadata())
	if err != nil {
		return nil, err
	}
	for item := range list.All() {
		text, ok := item.Metadata().Annotations().Get(leaseAnnotation)
		if !ok || item.Metadata().Owner() != operatorsName || !strings.HasPrefix(item.Metadata().ID(), prefix(id)) {
			continue
		}
		var saved dhcp.Resume
		if err := json.Unmarshal([]byte(text), &saved); err != nil || !saved.Address.IsValid() {
			c.log.Warn("lease of an earlier run is unreadable", "id", item.Metadata().ID(), "err", err)
			return nil, nil
		}
		return saved.Held(), nil
	}
	return nil, nil
}

// prefix starts the ids of all that an operator gives.
func prefix(id resource.ID) string { return "operator/" + id + "/" }

// given is what the leases amount to.
type given struct {
	addresses   map[resource.ID]network.AddressSpecSpec
	routes      map[resource.ID]network.RouteSpecSpec
	links       map[resource.ID]network.LinkSpecSpec
	resolvers   map[resource.ID]network.ResolverSpecSpec
	hostnames   map[resource.ID]network.HostnameSpecSpec
	timeServers map[resource.ID]network.TimeServerSpecSpec
}

func newGiven() given {
	return given{
		map[resource.ID]network.AddressSpecSpec{}, map[resource.ID]network.RouteSpecSpec{}, map[resource.ID]network.LinkSpecSpec{},
		map[resource.ID]network.ResolverSpecSpec{}, map[resource.ID]network.HostnameSpecSpec{}, map[resource.ID]network.TimeServerSpecSpec{},
	}
}

// add turns one lease into specs.
func (g given) add(id resource.ID, op network.OperatorSpecSpec, l dhcp.Lease) {
	const layer = network.LayerOperator
	at := prefix(id)
	metric := cmp.Or(op.Dhcp4.RouteMetric, defaultMetric)
	g.addresses[at+"address"] = network.AddressSpecSpec{
		Address: l.Address, LinkName: op.LinkName, Family: network.FamilyInet4, Scope: network.ScopeGlobal, Layer: layer,
	}
	if !op.Dhcp4.SkipRoutes {
		for _, r := range l.Routes {
			s := network.RouteSpecSpec{
				Family: network.FamilyInet4, Dst: r.Dst, Src: l.Address.Addr(), Gateway: r.Gateway, OutLinkName: op.LinkName, Table: network.TableMain,
				Priority: metric, Scope: network.ScopeGlobal, Type: network.RouteUnicast, Protocol: network.ProtocolDHCP, Layer: layer,
			}
			if !r.Gateway.IsValid() {
				s.Scope = network.ScopeLink
			}
			if r.Dst.Bits() == 0 {
				s.Dst = netip.Prefix{}
			}
			g.routes[at+"route/"+r.Dst.String()] = s
		}
	}
	if l.MTU != 0 {
		g.links[at+"link"] = network.LinkSpecSpec{Name: op.LinkName, Up: true, MTU: l.MTU, Layer: layer}
	}
	if len(l.DNS) > 0 || len(l.Search) > 0 {
		g.resolvers[at+"resolvers"] = network.ResolverSpecSpec{DNSServers: l.DNS, SearchDomains: l.Search, Layer: layer}
	}
	if l.Hostname != "" && !op.Dhcp4.SkipHostnameRequest {
		g.hostnames[at+"hostname"] = network.HostnameSpecSpec{Hostname: l.Hostname, Domainname: l.Domain, Layer: layer}
	}
	if len(l.NTP) > 0 {
		s := network.TimeServerSpecSpec{Layer: layer}
		for _, a := range l.NTP {
			s.TimeServers = append(s.TimeServers, a.String())
		}
		g.timeServers[at+"timeservers"] = s
	}
}

// publish writes what the leases give and takes away what lost leases gave.
// Of an operator that has not said anything yet, what an earlier run wrote stays.
func (c *operators) publish(ctx context.Context, r controller.Runtime) error {
	g := newGiven()
	for id, op := range c.running {
		if op.lease != nil {
			g.add(id, op.spec, op.lease.Lease)
		}
	}
	keep := func(id resource.ID) bool {
		for running, op := range c.running {
			if !op.known && strings.HasPrefix(id, prefix(running)) {
				return true
			}
		}
		return false
	}
	in := network.ConfigNamespace
	// Routes and MTU before the address: then all is there when the address says so.
	if err := reconcile.Output(ctx, r, operatorsName, func(id resource.ID) *network.RouteSpec { return network.NewRouteSpec(in, id) }, g.routes, keep); err != nil {
		return err
	}
	if err := reconcile.Output(ctx, r, operatorsName, func(id resource.ID) *network.LinkSpec { return network.NewLinkSpec(in, id) }, g.links, keep); err != nil {
		return err
	}
	if err := reconcile.Output(ctx, r, operatorsName, func(id resource.ID) *network.ResolverSpec { return network.NewResolverSpec(in, id) }, g.resolvers, keep); err != nil {
		return err
	}
	if err := reconcile.Output(ctx, r, operatorsName, func(id resource.ID) *network.HostnameSpec { return network.NewHostnameSpec(in, id) }, g.hostnames, keep); err != nil {
		return err
	}
	if err := reconcile.Output(ctx, r, operatorsName, func(id resource.ID) *network.TimeServerSpec { return network.NewTimeServerSpec(in, id) }, g.timeServers, keep); err != nil {
		return err
	}
	if err := reconcile.Output(ctx, r, operatorsName, func(id resource.ID) *network.AddressSpec { return network.NewAddressSpec(in, id) }, g.addresses, keep); err != nil {
		return err
	}
	return c.remember(ctx, r)
}

// remember notes on the address what a later run needs to keep the lease.
func (c *operators) remember(ctx context.Context, r controller.Runtime) error {
	for id, op := range c.running {
		if op.lease == nil {
			continue
		}
		text, err := json.Marshal(op.lease.Resume())
		if err != nil {
			return err
		}
		address := network.NewAddressSpec(network.ConfigNamespace, prefix(id)+"address")
		have, err := safe.ReaderGet[*network.AddressSpec](ctx, r, address.Metadata())
		if err != nil && !state.IsNotFoundError(err) {
			return err
		}
		if have != nil {
			if old, _ := have.Metadata().Annotations().Get(leaseAnnotation); old == string(text) {
				continue
			}
		}
		if err := safe.WriterModify(ctx, r, address, func(a *network.AddressSpec) error {
			a.Metadata().Annotations().Set(leaseAnnotation, string(text))
			return nil
		}); err != nil {
			return fmt.Errorf("note lease of %s: %w", id, err)
		}
	}
	return nil
}
