package members

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"talos/internal/identity"
)

// etcd starts a real one and returns a client, or skips the test where there is
// none.
func etcd(t *testing.T) func(context.Context) (*clientv3.Client, error) {
	t.Helper()
	binary := component(t)
	dir := t.TempDir()
	// Loopback addresses of this process alone: on 127.0.0.1 others take ports all
	// the time.
	port := func(last byte) string {
		own := netip.AddrFrom4([4]byte{127, 128 | byte(os.Getpid()>>8), byte(os.Getpid()), last})
		l, err := net.Listen("tcp", netip.AddrPortFrom(own, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return "http://" + l.Addr().String()
	}
	clients, peers := port(1), port(2)
	cmd := exec.Command(binary, "--name=cp-9", "--data-dir="+dir, "--listen-client-urls="+clients, "--advertise-client-urls="+clients,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=cp-9="+peers, "--log-level=error", "--unsafe-no-fsync")
	cmd.Env = append(os.Environ(), "PATH=/usr/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it holds nothing of value
		_ = cmd.Wait()         // says that it was killed
	})
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{clients}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	// A client that nobody answers gives up after some seconds.
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err = client.Get(t.Context(), "up"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("etcd does not come up: %v", err)
		}
	}
	return func(context.Context) (*clientv3.Client, error) { return client, nil }
}

// component is the newest build of etcd; without one the test is skipped.
func component(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	found, _ := filepath.Glob(filepath.Join(cache, "talos/components/etcd/*/etcd")) // the pattern is right
	var newest string
	var at time.Time
	for _, f := range found {
		if info, err := os.Stat(f); err == nil && info.ModTime().After(at) {
			newest, at = f, info.ModTime()
		}
	}
	if newest == "" {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal("needs etcd built: make components")
		}
		t.Skip("needs etcd built: make components")
	}
	return newest
}

// node makes an id from a word.
func node(word string) identity.ID { return identity.Of([]byte(word)) }

func worker(word, hostname string, addresses ...string) Record {
	r := Record{NodeID: node(word), Hostname: hostname, MachineType: "worker", OperatingSystem: "Talos (v0)"}
	for _, a := range addresses {
		r.Addresses = append(r.Addresses, netip.MustParseAddr(a))
	}
	return r
}

func controlPlane(word, hostname string, addresses ...string) Record {
	r := worker(word, hostname, addresses...)
	r.MachineType, r.APIServerPort = "controlplane", 6443
	return r
}

func list(t *testing.T, f *Facts) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out []string
	if err := f.Watch(ctx, func(all []Record) {
		for _, r := range all {
			out = append(out, r.Hostname+" "+text(r.Addresses))
		}
		cancel()
	}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Watch = %v", err)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// TestWhoseNameIsIt plays a cluster's life: who gets which name and address,
// and what becomes of those that had it before.
func TestWhoseNameIsIt(t *testing.T) {
	f := NewFacts(etcd(t))
	cp := controlPlane("cp", "cp-1", "10.0.0.1")
	cp.AlsoKnown = []string{"api.example.org", "10.0.0.100", "cp-1.example.org"}
	if _, err := f.Announce(t.Context(), cp, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what     string
		claim    Record
		names    []string // besides the host name
		unlisted bool
		refused  string // words of the error
		list     string // then; empty: as before
	}{
		{what: "a worker joins", claim: worker("a", "w-1", "10.0.0.2", "10.1.0.2"), names: []string{"w-1.example.org"}, list: "cp-1 10.0.0.1; w-1 10.0.0.2, 10.1.0.2"},
		{what: "and renews", claim: worker("a", "w-1", "10.0.0.2", "10.1.0.2"), names: []string{"w-1.example.org"}},
		{what: "another joins", claim: worker("b", "w-2", "10.0.0.3"), list: "cp-1 10.0.0.1; w-1 10.0.0.2, 10.1.0.2; w-2 10.0.0.3"},
		{what: "another's name", claim: worker("b", "w-1", "10.0.0.3"), refused: "talosctl forget w-1"},
		{what: "another's name with its domain", claim: worker("b", "w-1.example.org", "10.0.0.3"), refused: "at 10.0.0.2, 10.1.0.2"},
		{what: "a control plane node's name", claim: worker("b", "cp-1", "10.0.0.3"), refused: "control plane"},
		{what: "the same in a domain", claim: worker("b", "cp-1.elsewhere.org", "10.0.0.3"), refused: "control plane"},
		{what: "another name of it", claim: worker("b", "api.example.org", "10.0.0.3"), refused: "control plane"},
		{what: "its address", claim: worker("b", "w-2", "10.0.0.1"), refused: "control plane node's address"},
		{what: "another address of it", claim: worker("b", "w-2", "10.0.0.100"), refused: "control plane node's address"},
		{what: "the name of a member of etcd that is not announced", claim: worker("b", "cp-9", "10.0.0.3"), refused: "control plane"},
		{what: "the same in a domain", claim: worker("b", "w-2", "10.0.0.3"), names: []string{"cp-9.example.org"}, refused: "control plane"},
		{what: "its identity", claim: worker("cp", "w-9", "10.0.0.9"), refused: "identity"},
		{what: "no address", claim: worker("b", "w-2"), refused: "0 addresses"},
		{what: "localhost", claim: worker("b", "w-2", "127.0.0.1"), refused: "no node's"},
		{what: "no name", claim: worker("b", "W 2", "10.0.0.3"), refused: "no host name"},
		{what: "wiped, it comes back under its name", claim: worker("a2", "w-1", "10.0.0.2"), names: []string{"w-1.example.org"}, list: "cp-1 10.0.0.1; w-1 10.0.0.2; w-2 10.0.0.3"},
		{what: "as what it was before", claim: worker("a", "w-1", "10.1.0.2"), refused: "10.0.0.2"},
		{what: "an address moves", claim: worker("c", "w-3", "10.0.0.3"), list: "cp-1 10.0.0.1; w-1 10.0.0.2; w-3 10.0.0.3"},
		{what: "one wants no record", claim: worker("d", "w-4", "10.0.0.4"), unlisted: true},
		{what: "but has its name", claim: worker("e", "w-4", "10.0.0.5"), refused: "w-4"},
		{what: "one wants none any more", claim: worker("c", "w-3", "10.0.0.3"), unlisted: true, list: "cp-1 10.0.0.1; w-1 10.0.0.2"},
	} {
		before := list(t, f)
		err := f.Admit(t.Context(), Claim{Record: step.claim, Names: append([]string{step.claim.Hostname}, step.names...), Unlisted: step.unlisted})
		if step.refused == "" && err != nil || step.refused != "" && (err == nil || !strings.Contains(err.Error(), step.refused)) {
			t.Errorf("%s: Admit = %v, want %q", step.what, err, step.refused)
		}
		want := step.list
		if want == "" {
			want = before
		}
		if got := list(t, f); got != want {
			t.Errorf("%s: members are %s, want %s", step.what, got, want)
		}
	}
	if removed, err := f.Remove(t.Context(), "w-4"); err != nil || !slices.Equal(removed, []string{"w-4"}) {
		t.Errorf("Remove(w-4) = %q, %v", removed, err)
	}
	if err := f.Admit(t.Context(), Claim{Record: worker("e", "w-4", "10.0.0.5"), Names: []string{"w-4"}}); err != nil {
		t.Errorf("its name is not free: %v", err)
	}
	if removed, err := f.Remove(t.Context(), "nobody"); err != nil || len(removed) > 0 {
		t.Errorf("Remove(nobody) = %q, %v", removed, err)
	}
	// A control plane node takes its name whoever has it, and replaces itself.
	if _, err := f.Announce(t.Context(), controlPlane("cp2", "w-4", "10.0.0.6"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Announce(t.Context(), controlPlane("cp3", "cp-1", "10.0.0.1"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, f), "cp-1 10.0.0.1; w-1 10.0.0.2; w-4 10.0.0.6"; got != want {
		t.Errorf("members are %s, want %s", got, want)
	}
}

// TestUnannounced: a worker that took a name or an address before the control
// plane node came has neither any more when it has come; the control plane node is
// told of the certificates that are left, for as long as they are good, and
// across its own being wiped.
func TestUnannounced(t *testing.T) {
	f := NewFacts(etcd(t))
	now := time.Now().UTC()
	claims := map[string]Claim{
		"its name":          {Record: worker("a", "cp-3", "10.0.0.66"), Names: []string{"cp-3", "cp-3.evil.org"}},
		"another of it":     {Record: worker("b", "api", "10.0.0.67"), Names: []string{"api"}},
		"its address":       {Record: worker("c", "w-3", "10.0.0.4"), Names: []string{"w-3"}},
		"one that it lends": {Record: worker("d", "w-4", "10.0.0.68", "10.0.0.100"), Names: []string{"w-4"}},
		"a name unlisted":   {Record: worker("e", "vip", "10.0.0.69"), Names: []string{"vip", "vip.example.org"}, Unlisted: true},
		"nothing of it":     {Record: worker("f", "w-5", "10.0.0.70"), Names: []string{"w-5"}},
	}
	admit := func(what string) error {
		claim := claims[what]
		claim.Until = now.Add(24 * time.Hour)
		return f.Admit(t.Context(), claim)
	}
	for what := range claims {
		if err := admit(what); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	announce := func(word string, at time.Time, addresses ...string) string {
		cp := controlPlane(word, "cp-3", addresses...)
		cp.AlsoKnown = []string{"api.example.org", "10.0.0.100", "vip.example.org"}
		conflicts, err := f.Announce(t.Context(), cp, at)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range conflicts {
			if c.Until.Sub(now).Round(time.Minute) != 24*time.Hour {
				t.Errorf("%s until %v", c.What, c.Until)
			}
			out = append(out, c.What+" of "+text(c.At))
		}
		return strings.Join(out, "; ")
	}
	names := "api of 10.0.0.67; cp-3 of 10.0.0.66; cp-3.evil.org of 10.0.0.66; vip of 10.0.0.69; vip.example.org of 10.0.0.69"
	if got, want := announce("cp", now, "10.0.0.4"), "10.0.0.100 of 10.0.0.68, 10.0.0.100; 10.0.0.4 of 10.0.0.4; "+names; got != want {
		t.Errorf("conflicts are %s, want %s", got, want)
	}
	if got, want := list(t, f), "cp-3 10.0.0.4; w-4 10.0.0.68; w-5 10.0.0.70"; got != want {
		t.Errorf("members are %s, want %s", got, want)
	}
	for what := range claims {
		if err := admit(what); (err == nil) != (what == "nothing of it") || err != nil && !errors.Is(err, ErrTaken) {
			t.Errorf("%s, renewed: %v", what, err)
		}
	}
	for _, c := range []struct {
		what, word string
		at         time.Time
		want       string
	}{
		{"again", "cp", now.Add(time.Hour), names},
		{"wiped", "cp-new", now.Add(2 * time.Hour), names},
		{"when they have expired", "cp-new", now.Add(25 * time.Hour), ""},
		{"earlier again", "cp-new", now, ""}, // what had expired is forgotten
	} {
		if got := announce(c.word, c.at, "10.0.0.4"); got != c.want {
			t.Errorf("%s: conflicts are %q, want %q", c.what, got, c.want)
		}
	}
	// A machine that becomes a control plane node is in conflict with nobody.
	cp := controlPlane("f2", "w-5", "10.0.0.70")
	if conflicts, err := f.Announce(t.Context(), cp, now); err != nil || len(conflicts) > 1 || len(conflicts) == 1 && conflicts[0].Name {
		t.Errorf("a worker that became a control plane node: %v, %v", conflicts, err)
	}
}

// TestManyAtOnce: of many that claim one name at the same time, one gets it.
func TestManyAtOnce(t *testing.T) {
	f := NewFacts(etcd(t))
	const many = 12
	results := make(chan error, many)
	for i := range many {
		go func() {
			results <- f.Admit(t.Context(), Claim{Record: worker("n"+strconv.Itoa(i), "one", "10.0.1."+strconv.Itoa(i+1)), Names: []string{"one"}})
		}()
	}
	got := 0
	for range many {
		err := <-results
		if err == nil {
			got++
		} else if !errors.Is(err, ErrTaken) && !strings.Contains(err.Error(), "again and again") {
			t.Errorf("Admit = %v", err)
		}
	}
	if got != 1 {
		t.Errorf("%d got the name, want 1", got)
	}
}

// TestListIsKept: the members last seen are there after a restart, and one that
// is broken is left out.
func TestListIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "members.json")
	quiet := slog.New(slog.DiscardHandler)
	l := NewList(file, quiet)
	_, live, changed := l.Now()
	if live {
		t.Error("a list that nobody told is live")
	}
	l.Set([]Record{worker("a", "w-1", "10.0.0.2"), worker("b", "no name", "10.0.0.3")}, true)
	select {
	case <-changed:
	default:
		t.Error("nobody is told of the change")
	}
	l.Save()
	l.Set(nil, false) // helps nobody after a restart
	l.Save()
	got, live, _ := NewList(file, quiet).Now()
	if live || len(got) != 1 || got[0].Hostname != "w-1" {
		t.Errorf("kept are %v, live %v; want w-1 alone", got, live)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := NewList(file, quiet).Now(); len(got) != 0 {
		t.Errorf("from a broken file: %v", got)
	}
}

// People write addresses in many ways: each is the control plane's.
func TestAddressesAsPeopleWriteThem(t *testing.T) {
	cp := controlPlane("cp", "cp-1", "10.0.0.1")
	cp.AlsoKnown = []string{"2001:DB8:0::1", "::ffff:10.0.0.100", "[2001:db8::2]", "api.example.org"}
	for _, text := range []string{"10.0.0.1", "2001:db8::1", "2001:db8::2", "10.0.0.100"} {
		if !cp.has(netip.MustParseAddr(text)) {
			t.Errorf("%s is not known to be %v's", text, cp.AlsoKnown)
		}
	}
	if cp.has(netip.MustParseAddr("10.0.0.2")) {
		t.Error("10.0.0.2 is nobody's")
	}
}
