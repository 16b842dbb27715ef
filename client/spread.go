package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	// spreadName is what gRPC knows our way to pick an endpoint by.
	spreadName = "talos_spread"
	// hedgeAfter is how long an endpoint may be silent in a call that only reads
	// before another one is asked too.
	hedgeAfter = 500 * time.Millisecond
	// avoidFor is how long an endpoint is passed over after another one answered
	// in its place.
	avoidFor = 5 * time.Second
)

// gRPC takes balancers only while a program is initialized.
func init() {
	balancer.Register(base.NewBalancerBuilder(spreadName, pickerBuilder{}, base.Config{}))
}

// route says where a call goes, to the picker and back.
type route struct {
	dials  *dials
	not    string // an endpoint that is not to be used
	picked atomic.Pointer[string]
}

type routeKey struct{}

func (r *route) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, routeKey{}, r)
}

type pickerBuilder struct{}

// Build is base.PickerBuilder.
func (pickerBuilder) Build(info base.PickerBuildInfo) balancer.Picker {
	if len(info.ReadySCs) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	p := &picker{}
	for conn, of := range info.ReadySCs {
		p.ready = append(p.ready, endpointConn{conn, of.Address.Addr})
	}
	return p
}

type endpointConn struct {
	conn    balancer.SubConn
	address string
}

// picker takes the endpoints that work by turns, save those that were silent
// a moment ago.
type picker struct {
	ready []endpointConn
	next  atomic.Uint32
}

// Pick is balancer.Picker.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	r, _ := info.Ctx.Value(routeKey{}).(*route)
	first := int(p.next.Add(1)) % len(p.ready)
	choice := -1
	for i := range p.ready {
		at := (first + i) % len(p.ready)
		if r == nil {
			choice = at
			break
		}
		if p.ready[at].address == r.not {
			continue
		}
		if choice < 0 {
			choice = at // better one that was silent than none
		}
		if !r.dials.avoided(p.ready[at].address) {
			choice = at
			break
		}
	}
	if choice < 0 {
		return balancer.PickResult{}, status.Error(codes.Unavailable, errNoOther.Error())
	}
	if r != nil {
		r.picked.Store(&p.ready[choice].address)
	}
	return balancer.PickResult{SubConn: p.ready[choice].conn}, nil
}

var errNoOther = errors.New("no other endpoint works")

// avoid passes an endpoint over for a while.
func (d *dials) avoid(endpoint string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silentUntil[endpoint] = time.Now().Add(avoidFor)
}

func (d *dials) avoided(endpoint string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.silentUntil[endpoint])
}

// attempt is one way of a call.
type attempt struct {
	route *route
	reply proto.Message
	err   error
}

// hedged makes a call that only reads. When the endpoint stays silent, another
// one is asked too, and whoever answers first counts: an endpoint that froze
// costs half a second, once.
func (c *Client) hedged(ctx context.Context, method string, req any, reply proto.Message, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts []grpc.CallOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan *attempt, 2)
	begin := func(not string) *attempt {
		a := &attempt{route: &route{dials: c.dials, not: not}, reply: reply.ProtoReflect().New().Interface()}
		go func() { // ends with ctx at the latest
			a.err = invoke(a.route.context(ctx), method, req, a.reply, cc, opts...)
			ended <- a
		}()
		return a
	}
	first := begin("")
	timer := time.NewTimer(hedgeAfter)
	defer timer.Stop()
	open, answered := 1, (*attempt)(nil)
	for open > 0 {
		select {
		case <-timer.C:
			if at := first.route.picked.Load(); at != nil {
				begin(*at)
				open++
			} else { // no endpoint has been found yet
				timer.Reset(hedgeAfter)
			}
		case a := <-ended:
			open--
			if a != first && a.err == nil {
				c.dials.avoid(*first.route.picked.Load())
			}
			if a == first || a.err == nil {
				answered = a
			}
			if a.err == nil || a == first && status.Code(a.err) != codes.Unavailable {
				open = 0
			}
		}
	}
	if answered.err == nil {
		proto.Merge(reply, answered.reply)
	}
	return answered.err
}

// hedgeable tells whether a call's options let it be made twice at once.
func hedgeable(opts []grpc.CallOption) bool {
	for _, o := range opts {
		switch o.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption, grpc.OnFinishCallOption:
			return false
		}
	}
	return true
}
