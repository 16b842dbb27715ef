package etcd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrQuorum is wrapped by every refusal of what would leave the cluster without
// a majority of its voting members.
var ErrQuorum = errors.New("etcd would lose its quorum")

// Peer is a member of the cluster as this node sees it.
type Peer struct {
	ID       uint64
	Name     string // "" before its first start
	PeerURLs []string
	URLs     []string // for clients; none before its first start
	Learner  bool     // copies, does not vote
	Up       bool     // answers, and knows a leader
	Err      string   // why it is not up
}

// String names the member as a person would.
func (p Peer) String() string {
	if p.Name != "" {
		return p.Name
	}
	return fmt.Sprintf("%016x (never started, %s)", p.ID, strings.Join(p.PeerURLs, ","))
}

// View is the cluster as this node sees it.
type View struct {
	ClusterID uint64
	Local     uint64 // this node's member, 0 when it has none
	Leader    uint64 // 0 when the member that was asked knows none
	Peers     []Peer // in the order of their names
}

// Quorum counts: Voters vote, Need of them decide, Up of them are there.
type Quorum struct{ Voters, Need, Up int }

// Quorum counts the cluster's members. Learners do not matter to it.
func (v View) Quorum() Quorum {
	q := Quorum{}
	for _, p := range v.Peers {
		if p.Learner {
			continue
		}
		q.Voters++
		if p.Up {
			q.Up++
		}
	}
	q.Need = q.Voters/2 + 1
	return q
}

// CanLose is how many more of the voters may be gone.
func (q Quorum) CanLose() int { return max(0, q.Up-q.Need) }

// String is what users read: quorum 2 of 3, can lose 0.
func (q Quorum) String() string {
	return fmt.Sprintf("%d of %d voters up, quorum %d of %d, can lose %d", q.Up, q.Voters, q.Need, q.Voters, q.CanLose())
}

// Find returns the member with that id.
func (v View) Find(id uint64) (Peer, bool) {
	i := slices.IndexFunc(v.Peers, func(p Peer) bool { return p.ID == id })
	if i < 0 {
		return Peer{}, false
	}
	return v.Peers[i], true
}

// down names the voters that are not up, with the reason.
func (v View) down() string {
	var names []string
	for _, p := range v.Peers {
		if !p.Learner && !p.Up {
			names = append(names, p.String()+": "+p.Err)
		}
	}
	return strings.Join(names, "; ")
}

// MayStop is nil when the cluster goes on without the member for a while. The
// only voter may always stop: there is no other whom it could leave alone. One
// that takes no part, because it is a learner or knows no leader, may as well.
func (v View) MayStop(id uint64) error {
	p, found := v.Find(id)
	if q := v.Quorum(); !found || p.Learner || !p.Up || q.Voters == 1 || q.CanLose() > 0 {
		return nil
	}
	return v.refuse(p.String() + " must not stop now")
}

// MayRemove is nil when the cluster goes on without the member for good: a
// majority of those that stay must be up. The last voter stays.
func (v View) MayRemove(id uint64) error {
	p, found := v.Find(id)
	if !found || p.Learner {
		return nil
	}
	after := View{Peers: slices.DeleteFunc(slices.Clone(v.Peers), func(p Peer) bool { return p.ID == id })}.Quorum()
	switch {
	case after.Voters == 0:
		return fmt.Errorf("%w: %s is the only voting member, its data is the cluster", ErrQuorum, p)
	case after.Up < after.Need:
		return v.refuse(fmt.Sprintf("without %s, %d of the %d voters that stay would be up, and %d are needed", p, after.Up, after.Voters, after.Need))
	}
	return nil
}

func (v View) refuse(what string) error {
	text := ""
	if down := v.down(); down != "" {
		text = " (not up: " + down + ")"
	}
	return fmt.Errorf("%w: %s: %v%s", ErrQuorum, what, v.Quorum(), text)
}

// SafeToReboot says whether the cluster works and goes on working while the
// member is away. A node may be rebooted as well where there is nothing to lose
// any more; safe is another word.
func (v View) SafeToReboot(id uint64) bool {
	q := v.Quorum()
	return q.Up >= q.Need && v.MayStop(id) == nil
}

// Verdict says in words how the cluster is, and whether the member's node may
// be rebooted: quorum 2 of 3, can lose 0, safe to reboot: no.
func (v View) Verdict(id uint64) string {
	q := v.Quorum()
	answer := "no"
	switch p, found := v.Find(id); {
	case q.Up < q.Need:
		answer = "no, the majority is lost already"
	case found && !p.Learner && q.Voters == 1:
		answer = "yes, the API is away meanwhile"
	case v.SafeToReboot(id):
		answer = "yes"
	}
	return fmt.Sprintf("%v, safe to reboot: %s", q, answer)
}
