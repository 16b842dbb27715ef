package timed

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/ntp"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	api "talos/api/time"
	"talos/internal/resources/network"
	"talos/internal/resources/timesync"
	"talos/internal/store"
)

// fakeClock notes what is done to it.
type fakeClock struct {
	mu    sync.Mutex // guards the fields below
	steps []time.Duration
	slews []time.Duration
	fail  error
}

func (c *fakeClock) Adjtime(t *unix.Timex) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.Modes&adjOffset != 0 {
		c.slews = append(c.slews, time.Duration(t.Offset))
	}
	return 0, c.fail
}

func (c *fakeClock) Step(by time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, by)
	return c.fail
}

// ntpServer answers with our clock plus ahead; mangle bends the answer.
func ntpServer(t *testing.T, ahead time.Duration, mangle func([]byte)) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if n < 48 {
				continue
			}
			out := make([]byte, 48)
			out[0], out[1], out[2], out[3] = 4<<3|4, 2, 6, 0xec // version 4, server; stratum 2
			copy(out[24:32], buf[40:48])                        // origin = what the client sent
			now := time.Now().Add(ahead)
			for _, at := range []int{16, 32, 40} {
				binary.BigEndian.PutUint32(out[at:], uint32(now.Unix()+2208988800))
				binary.BigEndian.PutUint32(out[at+4:], uint32(uint64(now.Nanosecond())<<32/1e9))
			}
			if mangle != nil {
				mangle(out)
			}
			conn.WriteTo(out, from)
		}
	}()
	return conn.LocalAddr().String()
}

func TestQuery(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ahead  time.Duration
		mangle func([]byte)
		ok     bool
	}{
		{"honest", time.Second, nil, true},
		{"kiss of death", 0, func(b []byte) { b[1] = 0; copy(b[12:], "RATE") }, false},
		{"not synchronised", 0, func(b []byte) { b[0] |= 3 << 6 }, false},
		{"stratum 16", 0, func(b []byte) { b[1] = 16 }, false},
		{"another's answer", 0, func(b []byte) { b[24]++ }, false},
		{"long ago", -20 * 365 * 24 * time.Hour, nil, false},
	} {
		got, err := query(t.Context(), ntpServer(t, tt.ahead, tt.mangle))
		if (err == nil) != tt.ok {
			t.Errorf("%s: query() = %v, want ok %v", tt.name, err, tt.ok)
		}
		if tt.ok && err == nil && (got.ClockOffset-tt.ahead).Abs() > 500*time.Millisecond+got.RTT { // the way there and back is not known apart
			t.Errorf("%s: offset = %v, want about %v", tt.name, got.ClockOffset, tt.ahead)
		}
	}
	if _, err := query(t.Context(), ""); err == nil {
		t.Error("query of no server succeeded")
	}
}

func FuzzQuery(f *testing.F) {
	f.Add([]byte{0x24, 2, 6, 0xec})
	f.Fuzz(func(t *testing.T, bend []byte) {
		server := ntpServer(t, 0, func(b []byte) {
			for i, x := range bend {
				if i < 24 || i >= 32 { // the origin stays, or nothing is read further
					b[i%48] ^= x
				}
			}
		})
		answer, err := query(t.Context(), server)
		if err == nil {
			if now := time.Now().Add(answer.ClockOffset); now.Before(earliest) || now.After(latest) {
				t.Errorf("believed %v", now)
			}
		}
	})
}

func TestAdjust(t *testing.T) {
	for _, tt := range []struct {
		offset  time.Duration
		stepped bool
	}{{100 * time.Millisecond, false}, {-399 * time.Millisecond, false}, {400 * time.Millisecond, true}, {-time.Hour, true}} {
		c := &fakeClock{}
		stepped, err := adjust(c, &ntp.Response{ClockOffset: tt.offset})
		if err != nil || stepped != tt.stepped {
			t.Errorf("adjust(%v) = %v, %v, want %v", tt.offset, stepped, err, tt.stepped)
		}
		want := tt.offset
		if tt.stepped {
			if len(c.steps) != 1 || c.steps[0] != tt.offset {
				t.Errorf("adjust(%v) stepped %v", tt.offset, c.steps)
			}
			want = 0
		}
		if len(c.slews) != 1 || c.slews[0] != want {
			t.Errorf("adjust(%v) slewed %v, want %v", tt.offset, c.slews, want)
		}
	}
	if _, err := adjust(&fakeClock{fail: unix.EPERM}, &ntp.Response{}); !errors.Is(err, unix.EPERM) {
		t.Errorf("adjust without the right = %v, want EPERM", err)
	}
}

func TestFilter(t *testing.T) {
	var f filter
	for range 6 {
		if f.spike(time.Millisecond, 10*time.Millisecond) {
			t.Fatal("a steady offset is taken for a spike")
		}
	}
	var got []bool
	for range 4 {
		got = append(got, f.spike(time.Second, 10*time.Millisecond))
	}
	if !got[0] || !got[1] || !got[2] || got[3] {
		t.Errorf("four offsets of 1s = %v, want three spikes, then belief", got)
	}
}

// start runs a daemon over a store.
func start(t *testing.T, maySet bool, servers *network.TimeServerStatusSpec) (state.State, *fakeClock) {
	t.Helper()
	return startAsking(t, maySet, servers, query)
}

// startAsking runs a daemon that asks servers by ask.
func startAsking(t *testing.T, maySet bool, servers *network.TimeServerStatusSpec, ask func(context.Context, string) (*ntp.Response, error)) (state.State, *fakeClock) {
	t.Helper()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if servers != nil {
		r := network.NewTimeServerStatus(network.TimeServerID)
		*r.TypedSpec() = *servers
		if err := st.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	c := &fakeClock{}
	d := &daemon{log: slog.New(slog.NewTextHandler(t.Output(), nil)), state: st, query: ask, clock: c, maySet: maySet}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return st, c
}

func eventually(t *testing.T, st state.State, what string, ok func(timesync.TimeStatusSpec) bool) {
	t.Helper()
	var last timesync.TimeStatusSpec
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, err := safe.StateGetByID[*timesync.TimeStatus](t.Context(), st, timesync.StatusID)
		if err == nil {
			last = *got.TypedSpec()
			if ok(last) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30s, TimeStatus = %+v, %v", what, last, err)
		}
	}
}

func TestContainer(t *testing.T) {
	silent := func(ctx context.Context, _ string) (*ntp.Response, error) {
		<-ctx.Done() // whoever waits for it waits for ever
		return nil, ctx.Err()
	}
	st, _ := startAsking(t, false, &network.TimeServerStatusSpec{TimeServers: []string{"silent"}}, silent)
	eventually(t, st, "synced without an answer", func(s timesync.TimeStatusSpec) bool { return s.Synced && !s.SyncDisabled })
	st, c := start(t, false, &network.TimeServerStatusSpec{TimeServers: []string{ntpServer(t, time.Hour, nil)}})
	eventually(t, st, "synced with the host's clock", func(s timesync.TimeStatusSpec) bool { return s.Synced })
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.steps)+len(c.slews) > 0 {
		t.Errorf("the host's clock was changed: %v %v", c.steps, c.slews)
	}
}

func TestSync(t *testing.T) {
	st, c := start(t, true, nil)
	eventually(t, st, "not synced without servers", func(s timesync.TimeStatusSpec) bool { return !s.Synced })
	r := network.NewTimeServerStatus(network.TimeServerID)
	*r.TypedSpec() = network.TimeServerStatusSpec{TimeServers: []string{"", ntpServer(t, time.Hour, nil)}}
	if err := st.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	eventually(t, st, "synced by a step", func(s timesync.TimeStatusSpec) bool { return s.Synced && s.Epoch == 1 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.steps) != 1 || (c.steps[0]-time.Hour).Abs() > 10*time.Second { // a busy machine measures badly
		t.Errorf("steps = %v, want one of an hour", c.steps)
	}
}

// TestRetries: a clock that was never right is not left so for minutes, however
// long no server has answered.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		st, err := store.New(ctx)
		if err != nil {
			t.Fatal(err)
		}
		r := network.NewTimeServerStatus(network.TimeServerID)
		r.TypedSpec().TimeServers = []string{"silent"}
		if err := st.Create(ctx, r); err != nil {
			t.Fatal(err)
		}
		last, longest, asked := time.Now(), time.Duration(0), 0
		d := &daemon{log: slog.New(slog.DiscardHandler), state: st, clock: &fakeClock{}, maySet: true}
		d.query = func(context.Context, string) (*ntp.Response, error) {
			longest, last, asked = max(longest, time.Since(last)), time.Now(), asked+1
			return nil, errors.New("no answer")
		}
		if err := d.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("run = %v, want it to end with its time", err)
		}
		if longest != pollRetryNew || asked < 40 || asked > 50 {
			t.Errorf("asked %d times in 20 minutes with pauses up to %v, want about 44 and %v", asked, longest, pollRetryNew)
		}
	})
}

func TestDisabledAndTimeout(t *testing.T) {
	st, _ := start(t, true, &network.TimeServerStatusSpec{TimeServers: []string{""}, Disabled: true})
	eventually(t, st, "disabled", func(s timesync.TimeStatusSpec) bool { return s.Synced && s.SyncDisabled })
	synctest.Test(t, func(t *testing.T) { // else the time could be over before anybody looks
		st, _ := start(t, true, &network.TimeServerStatusSpec{TimeServers: []string{""}, BootTimeout: 300 * time.Millisecond})
		eventually(t, st, "not yet", func(s timesync.TimeStatusSpec) bool { return !s.Synced })
		eventually(t, st, "boot no longer waits", func(s timesync.TimeStatusSpec) bool { return s.Synced })
	})
}

func TestService(t *testing.T) {
	server := ntpServer(t, time.Minute, nil)
	st, _ := start(t, false, &network.TimeServerStatusSpec{TimeServers: []string{server}})
	s := &service{d: &daemon{state: st, query: query}}
	got, err := s.Time(t.Context(), &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	m := got.Messages[0]
	if ahead := m.Remotetime.AsTime().Sub(m.Localtime.AsTime()); m.Server != server || (ahead-time.Minute).Abs() > 10*time.Second {
		t.Errorf("Time() = %v, want %s, a minute ahead", m, server)
	}
	if _, err := s.TimeCheck(t.Context(), &api.TimeRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("TimeCheck of no server = %v, want InvalidArgument", err)
	}
	if _, err := s.TimeCheck(t.Context(), &api.TimeRequest{Server: server}); err != nil {
		t.Errorf("TimeCheck = %v", err)
	}
}

func TestReadAdjtime(t *testing.T) {
	got, err := readAdjtime(systemClock{})
	if err != nil {
		t.Fatal(err)
	}
	if got.State == "" || got.FrequencyAdjustmentRatio < 0.99 || got.FrequencyAdjustmentRatio > 1.01 {
		t.Errorf("readAdjtime() = %+v", got)
	}
}
