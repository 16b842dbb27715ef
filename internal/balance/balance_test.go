package balance

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		name  string
		list  []candidate
		turn  int
		limit int
		want  []int
	}{
		{"nobody", nil, 0, 0, nil},
		{"well ones only", []candidate{{0, well}, {0, ill}, {0, unknown}}, 0, 0, []int{0}},
		{"turn by turn", []candidate{{0, well}, {0, well}, {0, well}}, 1, 0, []int{2, 0, 1}},
		{"the lower class first", []candidate{{1, well}, {0, well}, {2, well}}, 2, 0, []int{1, 0, 2}},
		{"suspects last", []candidate{{0, suspect}, {1, well}}, 0, 0, []int{1, 0}},
		{"suspects rather than nobody", []candidate{{0, suspect}, {1, ill}}, 5, 0, []int{0}},
		{"classes below the limit", []candidate{{0, ill}, {1, well}}, 0, 1, nil},
	} {
		if diff := cmp.Diff(tc.want, choose(tc.list, tc.turn, tc.limit)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestHealthNext(t *testing.T) {
	for _, tc := range []struct {
		from     health
		ok, lost bool
		want     health
	}{
		{unknown, true, false, well}, {unknown, false, true, unknown},
		{well, true, false, well}, {well, false, false, suspect}, {well, false, true, ill},
		{suspect, true, false, well}, {suspect, false, false, suspect}, {suspect, false, true, ill},
		{ill, true, false, well}, {ill, false, false, ill},
	} {
		if got := tc.from.next(tc.ok, tc.lost); got != tc.want {
			t.Errorf("health %d after ok=%v, lost=%v = %d, want %d", tc.from, tc.ok, tc.lost, got, tc.want)
		}
	}
}

// TestLimitFollowsAnswers: where answers are slow, silence counts later.
func TestLimitFollowsAnswers(t *testing.T) {
	p := New(slog.New(slog.DiscardHandler), nil)
	for _, step := range []struct{ took, want time.Duration }{
		{time.Millisecond, checkTime}, {800 * time.Millisecond, 2400 * time.Millisecond}, {4 * time.Second, checkTimeMax}, {time.Millisecond, checkTimeMax},
	} {
		if p.took(step.took); p.limit() != step.want {
			t.Errorf("limit after an answer in %v = %v, want %v", step.took, p.limit(), step.want)
		}
	}
	for range 30 {
		p.took(time.Millisecond)
	}
	if p.limit() != checkTime {
		t.Errorf("limit after thirty quick answers = %v, want %v", p.limit(), checkTime)
	}
}

// server is an API server that can be stopped in its tracks: the kernel goes
// on accepting connections for it and taking in what is sent.
type server struct {
	name   string
	http   *httptest.Server
	frozen sync.RWMutex
	status atomic.Int32 // of /readyz
	slow   atomic.Bool  // /readyz does not answer
}

type frozenListener struct {
	net.Listener
	s *server
}

func (l frozenListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return frozenConn{c, l.s}, err
}

type frozenConn struct {
	net.Conn
	s *server
}

func (c frozenConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.s.frozen.RLock()
	defer c.s.frozen.RUnlock()
	return n, err
}

func (c frozenConn) Write(b []byte) (int, error) {
	c.s.frozen.RLock()
	defer c.s.frozen.RUnlock()
	return c.Conn.Write(b)
}

func newServer(t *testing.T, name, address string) *server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{name: name}
	s.status.Store(http.StatusOK)
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if s.slow.Load() {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(int(s.status.Load()))
	})
	mux.HandleFunc("/ticks", func(w http.ResponseWriter, r *http.Request) {
		for {
			fmt.Fprintln(w, name)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	mux.HandleFunc("/name", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
	mux.HandleFunc("/watch", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, name)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	s.http = httptest.NewUnstartedServer(mux)
	s.http.Listener.Close()
	s.http.Listener = frozenListener{l, s}
	s.http.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.http.StartTLS()
	t.Cleanup(s.stop)
	return s
}

func (s *server) address() string { return s.http.Listener.Addr().String() }

func (s *server) stop() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// world is a pool behind a door, and a client that trusts its servers.
type world struct {
	pool    *Pool
	address string
	roots   *x509.CertPool
}

func newWorld(t *testing.T, d Door, some *server, targets ...Target) *world {
	t.Helper()
	w := &world{roots: x509.NewCertPool()}
	w.roots.AddCert(some.http.Certificate()) // httptest's, which all have
	check, stop := Ready(w.roots, "127.0.0.1")
	w.pool = New(slog.New(slog.DiscardHandler), check)
	w.pool.Set(targets...)
	var err error
	if d.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.address = d.Listener.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- w.pool.Run(ctx) }()
	go func() { ended <- w.pool.Serve(ctx, d) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
		stop()
	})
	return w
}

// ask makes a connection of its own and returns who answered, and after how long.
func (w *world) ask(t *testing.T) (string, time.Duration, error) {
	t.Helper()
	began := time.Now()
	resp, err := w.get(t, "/name")
	if err != nil {
		return "", time.Since(began), err
	}
	defer resp.Body.Close()
	name, err := io.ReadAll(resp.Body)
	return string(name), time.Since(began), err
}

func (w *world) get(t *testing.T, path string) (*http.Response, error) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: w.roots}}
	return (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Get("https://" + w.address + path)
}

// patience is what takes three seconds may take on a busy machine; it is less
// than what a client waits for.
const patience = 12 * time.Second

func (w *world) mustAsk(t *testing.T) string {
	t.Helper()
	name, took, err := w.ask(t)
	if err != nil {
		t.Fatal(err)
	}
	if took > patience {
		t.Errorf("an answer took %v, want at most %v", took, patience)
	}
	return name
}

func (w *world) awaitWell(t *testing.T, want int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		list, changed := w.pool.Well()
		if len(list) == want {
			return
		}
		select {
		case <-changed:
		case <-time.After(time.Until(end)):
			t.Fatalf("%d servers are well, want %d", len(list), want)
		}
	}
}

// steady does something while want servers are well from its beginning to its
// end: a check that is late on a busy machine makes another one answer.
func (w *world) steady(t *testing.T, want int, do func()) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		w.awaitWell(t, want)
		list, changed := w.pool.Well()
		if len(list) != want {
			continue
		}
		do()
		select {
		case <-changed:
			if time.Now().Before(end) {
				continue
			}
		default:
		}
		return
	}
}

const local = "127.0.0.1:0"

func TestOneDiesAndComesBack(t *testing.T) {
	t.Parallel()
	one, two := newServer(t, "one", "127.0.0.7:0"), newServer(t, "two", local) // nobody takes its port while it is away
	w := newWorld(t, Door{}, one, Target{Address: one.address()}, Target{Address: two.address()})
	var seen map[string]int
	count := func() {
		seen = map[string]int{}
		for range 20 {
			seen[w.mustAsk(t)]++
		}
	}
	w.steady(t, 2, count)
	if diff := cmp.Diff(map[string]int{"one": 10, "two": 10}, seen); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	address := one.address()
	one.stop()
	for range 10 {
		if got := w.mustAsk(t); got != "two" {
			t.Errorf("with one stopped, %q answered", got)
		}
	}
	w.awaitWell(t, 1)
	newServer(t, "one again", address)
	w.steady(t, 2, count)
	if diff := cmp.Diff(map[string]int{"one again": 10, "two": 10}, seen); diff != "" {
		t.Errorf("answers after it came back (-want +got):\n%s", diff)
	}
}

// TestOneHangs: a server that accepts and never answers loses its connections
// to another within seconds, and gets new ones when it goes on.
func TestOneHangs(t *testing.T) {
	t.Parallel()
	one, two := newServer(t, "one", local), newServer(t, "two", local)
	w := newWorld(t, Door{}, one, Target{Address: one.address()}, Target{Address: two.address(), Class: 1})
	w.awaitWell(t, 2)
	watch, err := w.get(t, "/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	lines := bufio.NewReader(watch.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != "one\n" {
		t.Fatalf("the watch began with %q, %v; want the preferred server", line, err)
	}
	one.frozen.Lock()
	began := time.Now()
	if _, err := lines.ReadString('\n'); err == nil {
		t.Error("a frozen server has sent something")
	}
	if took := time.Since(began); took > patience {
		t.Errorf("the watch was cut after %v, want about 3s", took)
	}
	if got := w.mustAsk(t); got != "two" {
		t.Errorf("with one frozen, %q answered", got)
	}
	one.frozen.Unlock()
	var got string
	w.steady(t, 2, func() { got = w.mustAsk(t) })
	if got != "one" {
		t.Errorf("after the preferred server went on, %q answered", got)
	}
}

// TestNewConnectionWhileOneHangs: one that comes right when the server stops
// is served by another soon, if its client tries again.
func TestNewConnectionWhileOneHangs(t *testing.T) {
	t.Parallel()
	one, two := newServer(t, "one", local), newServer(t, "two", local)
	w := newWorld(t, Door{}, one, Target{Address: one.address()}, Target{Address: two.address(), Class: 1})
	w.awaitWell(t, 2)
	one.frozen.Lock()
	defer one.frozen.Unlock()
	began := time.Now()
	name, _, err := w.ask(t)
	for err != nil && time.Since(began) < patience {
		name, _, err = w.ask(t)
	}
	if took := time.Since(began); err != nil || name != "two" || took > patience {
		t.Errorf("answer of %q after %v, %v; want two's after about 3s", name, took, err)
	}
}

// TestAloneIsNotCut: with nobody else to go to, connections stay, and so do
// those to servers of which all say that they are not ready.
func TestAloneIsNotCut(t *testing.T) {
	t.Parallel()
	one := newServer(t, "one", local)
	w := newWorld(t, Door{Anyway: func() []string { return []string{one.address()} }}, one, Target{Address: one.address()})
	w.awaitWell(t, 1)
	watch, err := w.get(t, "/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	one.status.Store(http.StatusInternalServerError)
	w.awaitWell(t, 0)
	time.Sleep(2*checkTime + interval) // nothing tells that something has not happened
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, watch.Body)
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Errorf("the watch ended with %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if got := w.mustAsk(t); got != "one" {
		t.Errorf("with nobody well, %q answered, want the one that there is", got)
	}
}

// TestSlowIsNotCut: a server that does not answer in time, and sends on what it
// was asked for, keeps its connections, while new ones go to another.
func TestSlowIsNotCut(t *testing.T) {
	t.Parallel()
	one, two := newServer(t, "one", local), newServer(t, "two", local)
	w := newWorld(t, Door{}, one, Target{Address: one.address()}, Target{Address: two.address(), Class: 1})
	w.awaitWell(t, 2)
	ticks, err := w.get(t, "/ticks")
	if err != nil {
		t.Fatal(err)
	}
	defer ticks.Body.Close()
	one.slow.Store(true)
	w.awaitWell(t, 1)
	lines := bufio.NewReader(ticks.Body)
	for began := time.Now(); time.Since(began) < 2*(2*checkTime+interval); {
		if line, err := lines.ReadString('\n'); err != nil || line != "one\n" {
			t.Fatalf("%v after the server became slow: %q, %v; want what it sends", time.Since(began), line, err)
		}
	}
	var got string
	w.steady(t, 1, func() { got = w.mustAsk(t) })
	if got != "two" {
		t.Errorf("with one slow, %q answered", got)
	}
	one.slow.Store(false)
	w.awaitWell(t, 2)
	if line, err := lines.ReadString('\n'); err != nil || line != "one\n" {
		t.Errorf("after the server is quick again: %q, %v; want what it sends", line, err)
	}
}

// TestNobodyMayTakeIt: a connection that may go nowhere else is not cut, however
// silent its server and however well others.
func TestNobodyMayTakeIt(t *testing.T) {
	t.Parallel()
	one, two := newServer(t, "one", local), newServer(t, "two", local)
	w := newWorld(t, Door{Classes: 1}, one, Target{Address: one.address()}, Target{Address: two.address(), Class: 1})
	w.awaitWell(t, 2)
	ticks, err := w.get(t, "/ticks")
	if err != nil {
		t.Fatal(err)
	}
	defer ticks.Body.Close()
	one.frozen.Lock()
	w.awaitWell(t, 1)
	time.Sleep(2*checkTime + interval) // nothing tells that something has not happened
	one.frozen.Unlock()
	w.awaitWell(t, 2)
	lines := bufio.NewReader(ticks.Body)
	for range 100 { // more than was under way
		if line, err := lines.ReadString('\n'); err != nil || line != "one\n" {
			t.Fatalf("after the server went on: %q, %v; want what it sends", line, err)
		}
	}
}

// TestLost: what makes connections to a server not worth keeping, with what it
// has sent last and when it began to fail.
func TestLost(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	silent, _ := pair(t) // nothing has ever come
	said := time.Now()
	if _, err := server.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // the kernel counts in milliseconds
	heard, fresh := &link{out: client}, &link{out: silent}
	if ago, ok := heard.heard(); !ok || ago <= 0 || ago > time.Since(said)+10*time.Millisecond {
		t.Errorf("heard = %v, %t, want at most %v", ago, ok, time.Since(said))
	}
	if ago, ok := fresh.heard(); ok {
		t.Errorf("heard = %v of what has never said anything", ago)
	}
	refused, unready := errors.New("connection refused"), fmt.Errorf("check: %w", NotReady("500"))
	for _, tc := range []struct {
		name    string
		links   []*link
		failing time.Duration
		err     error
		want    bool
	}{
		{"a moment", nil, checkTime, refused, false},
		{"without connections", nil, 2 * checkTime, refused, true},
		{"silent on all", []*link{fresh}, 2 * checkTime, context.DeadlineExceeded, true},
		{"heard on one", []*link{fresh, heard}, time.Hour, context.DeadlineExceeded, false},
		{"not ready for a moment", []*link{fresh}, 2 * checkTime, unready, false},
		{"not ready for long", []*link{heard}, unreadyTime, unready, true},
	} {
		p := New(slog.New(slog.DiscardHandler), nil)
		be := &backend{failing: time.Now().Add(-tc.failing), links: map[*link]struct{}{}}
		for _, l := range tc.links {
			be.links[l] = struct{}{}
		}
		if got := p.lostLocked(be, tc.err); got != tc.want {
			t.Errorf("%s: lost = %t, want %t", tc.name, got, tc.want)
		}
	}
}

// pair are both ends of a connection.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// TestWaitsForTheFirst: a connection that comes before anybody is well is held.
func TestWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	one := newServer(t, "one", local)
	one.status.Store(http.StatusForbidden) // its roles are not there yet
	w := newWorld(t, Door{Hold: 20 * time.Second}, one, Target{Address: one.address()})
	began := time.Now()
	timer := time.AfterFunc(500*time.Millisecond, func() { one.status.Store(http.StatusOK) })
	defer timer.Stop()
	name, _, err := w.ask(t)
	if took := time.Since(began); err != nil || name != "one" || took < 500*time.Millisecond {
		t.Errorf("answer of %q after %v, %v; want one's when it is ready", name, took, err)
	}
}

// TestRefusal: who may not wait is told at once.
func TestRefusal(t *testing.T) {
	t.Parallel()
	one := newServer(t, "one", local)
	w := newWorld(t, Door{Hold: time.Hour, Patient: func() bool { return false }, Refusal: []byte("nobody")}, one)
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "nobody" {
		t.Errorf("read %q, %v; want the refusal", got, err)
	}
}

// TestEndOfOneSide: the answer still arrives after the question ended.
func TestEndOfOneSide(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	some := newServer(t, "some", local)
	w := newWorld(t, Door{}, some, Target{Address: l.Addr().String(), Well: true})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // also the checks come here
				defer c.Close()
				data, _ := io.ReadAll(c)
				fmt.Fprintf(c, "got %s", data)
			}()
		}
	}()
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte("all"))
	if err := errors.Join(err, conn.(*net.TCPConn).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "got all" {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestStrangerIsNotWell: a server of another authority gets no connections.
func TestStrangerIsNotWell(t *testing.T) {
	t.Parallel()
	one := newServer(t, "one", local)
	check, stop := Ready(x509.NewCertPool(), "127.0.0.1")
	defer stop()
	var unknown *tls.CertificateVerificationError
	if err := check(t.Context(), one.address()); !errors.As(err, &unknown) {
		t.Errorf("check = %v, want that the certificate is not trusted", err)
	}
	if err := Handshake(x509.NewCertPool())(t.Context(), one.address()); !errors.As(err, &unknown) {
		t.Errorf("handshake = %v, want that the certificate is not trusted", err)
	}
}
