package etcd

import (
	"strings"
	"testing"
)

// seen makes a view of members "name@state": + up, - down, ? a learner that is
// up, ! one that never started. Ids count from 1, addresses are their names.
func seen(members ...string) *View {
	v := &View{}
	for i, m := range members {
		name, state := m[:len(m)-1], m[len(m)-1]
		p := Peer{ID: uint64(i + 1), Name: name, PeerURLs: []string{name + ":2380"}, URLs: []string{name + ":2379"}, Up: state == '+' || state == '?'}
		p.Learner = state == '?' || state == '!'
		if state == '!' {
			p.Name, p.URLs = "", nil
		}
		v.Peers = append(v.Peers, p)
	}
	return v
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		name  string
		facts facts // of the node "me"
		want  verb
		id    uint64
		says  string
	}{
		{"alone, not bootstrapped", facts{}, wait, 0, "for bootstrap: run `talosctl bootstrap -n me` once"},
		{"others known, none answers", facts{unheard: "10.5.0.3: connection refused"}, wait, 0, "or for an etcd to join (10.5.0.3: connection refused)"},
		{"bootstrapped", facts{marked: true}, found, 0, ""},
		{"bootstrapped, others known but silent", facts{marked: true, unheard: "no answer"}, found, 0, ""},
		{"bootstrapped, but a cluster answers", facts{marked: true, seen: seen("a+")}, add, 0, ""},
		{"bootstrapped, but a cluster without majority answers", facts{marked: true, seen: seen("a+", "b-")}, wait, 0, "quorum 2 of 2"},
		{"with data", facts{data: true}, resume, 0, ""},
		{"with data, ended once, nobody knows", facts{data: true, ended: true}, resume, 0, ""},
		{"with data, ended once, still a member", facts{data: true, ended: true, seen: seen("a+", "b+", "me-")}, resume, 0, ""},
		{"with data, but removed", facts{data: true, ended: true, seen: seen("a+", "b+")}, wait, 0, "was removed from the cluster"},
		{"with data, others without majority", facts{data: true, ended: true, seen: seen("a+", "b-")}, resume, 0, ""},
		{"new node", facts{seen: seen("a+", "b+")}, add, 0, ""},
		{"added just now", facts{fresh: 2, seen: seen("a+", "me!")}, join, 2, ""},
		{"killed between added and started", facts{seen: seen("a+", "me!")}, remove, 2, ""},
		{"learner that lost its disk", facts{seen: seen("a+", "me?")}, wait, 0, "another host name"},
		{"voter that lost its disk", facts{seen: seen("a+", "b+", "me-")}, remove, 3, "has none of its data"},
		{"added, started, and lost its disk", facts{fresh: 3, seen: seen("a+", "b+", "me-")}, remove, 3, ""},
		{"lost its disk, and another one is down", facts{seen: seen("a+", "b-", "me-")}, wait, 0, "a majority again: 1 of 3 voters up"},
		{"one of two that lost its disk", facts{seen: seen("a+", "me-")}, wait, 0, "a majority again: 1 of 2 voters up"},
		{"one of five that lost its disk, another down", facts{seen: seen("a+", "b+", "c+", "d-", "me-")}, remove, 5, ""},
		{"name of somebody alive", facts{seen: seen("a+", "b+", "me+")}, wait, 0, `another host name: a member "me" is up`},
		{"another joins", facts{seen: seen("a+", "b?")}, wait, 0, "b to catch up: etcd takes in one member at a time"},
		{"another was added and never came", facts{seen: seen("a+", "b!")}, wait, 0, "remove-member 0000000000000002"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.facts.name, c.facts.url = "me", "me:2380"
			got := next(c.facts)
			if got.do != c.want || got.id != c.id || !strings.Contains(got.why, c.says) {
				t.Errorf("next = %v %x %q, want %v %x %q", got.do, got.id, got.why, c.want, c.id, c.says)
			}
		})
	}
}

// TestNextByAddress: a node that came back under another name has its address.
func TestNextByAddress(t *testing.T) {
	got := next(facts{name: "new", url: "me:2380", seen: seen("a+", "b+", "me-")})
	if got.do != remove || got.id != 3 {
		t.Errorf("next = %v %x, want remove 3", got.do, got.id)
	}
}

// TestNeverFoundsByAccident: whatever else is known, no cluster is founded
// without a promise, none beside one that answers, and none over data.
func TestNeverFoundsByAccident(t *testing.T) {
	views := []*View{nil, seen("a+"), seen("a+", "b-"), seen("a+", "me-"), seen("me-"), seen("a-"), {}}
	for _, v := range views {
		for bits := range 8 {
			f := facts{name: "me", url: "me:2380", seen: v, data: bits&1 > 0, ended: bits&2 > 0, marked: bits&4 > 0}
			if got := next(f); got.do == found && (!f.marked || f.data || v != nil) {
				t.Errorf("next(%+v) = found", f)
			}
		}
	}
}

func TestInitialCluster(t *testing.T) {
	got := initialCluster(*seen("a+", "b!", "me!"), 3, "me")
	if want := "a=a:2380,0000000000000002=b:2380,me=me:2380"; got != want {
		t.Errorf("initialCluster = %q, want %q", got, want)
	}
}
