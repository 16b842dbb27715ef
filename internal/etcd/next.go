package etcd

import (
	"fmt"
	"slices"
	"strings"
)

// facts are what the decision about a member's start is made of.
type facts struct {
	data    bool   // there is a log of it on disk
	ended   bool   // it ran with that since the node booted, and ended
	marked  bool   // Bootstrap has promised that it founds the cluster
	fresh   uint64 // what this process has added for it; 0 when nothing
	name    string
	url     string // at which the others find it
	seen    *View  // the cluster, as others tell; nil when nobody did
	unheard string // why nobody did, one line; "" when nobody else is known
}

// verb is what to do next.
type verb int

const (
	wait   verb = iota // look again later
	resume             // start with the data that is there
	found              // start as the first of a new cluster
	remove             // take a member of an earlier life off the list
	add                // be added, as a learner
	join               // start as the member that was added
)

func (v verb) String() string {
	return [...]string{"wait", "resume", "found", "remove", "add", "join"}[v]
}

// decision is a verb with the member it is about, and why in words.
type decision struct {
	do  verb
	id  uint64
	why string
}

func waitFor(format string, args ...any) decision {
	return decision{why: "for " + fmt.Sprintf(format, args...)}
}

// next decides about the start of a member from facts alone. A member without
// data founds a cluster only when Bootstrap has said so and no cluster answers;
// where one answers, it joins that.
func next(f facts) decision {
	switch {
	case f.data && f.ended && f.seen != nil && f.expelled():
		return waitFor("somebody to decide: this node's member was removed from the cluster while it had data; "+
			"`talosctl etcd leave -n %s --confirm=%s` deletes that, and after a reboot the node joins anew", f.name, f.name)
	case f.data:
		return decision{do: resume}
	case f.seen != nil:
		return f.enter(*f.seen)
	case f.marked:
		return decision{do: found}
	}
	text := "bootstrap: run `talosctl bootstrap -n " + f.name + "` once, on one control plane node"
	if f.unheard != "" {
		text += "; or for an etcd to join (" + f.unheard + ")"
	}
	return waitFor("%s", text)
}

// mine is what the list has of the node: the members of its name or address.
func (f facts) mine() []Peer {
	return slices.DeleteFunc(slices.Clone(f.seen.Peers), func(p Peer) bool {
		return p.Name != f.name && !slices.Contains(p.PeerURLs, f.url)
	})
}

// expelled says that a working cluster knows nothing of the node.
func (f facts) expelled() bool {
	q := f.seen.Quorum()
	return q.Up >= q.Need && len(f.mine()) == 0
}

// replace is about a member that this node is, or was in an earlier life.
func (f facts) replace(v View, p Peer) decision {
	switch {
	case p.ID == f.fresh && p.Name == "":
		return decision{do: join, id: p.ID}
	case p.Up:
		return waitFor("another host name: a member %q is up at %s", p, strings.Join(p.URLs, ","))
	}
	if err := v.MayRemove(p.ID); err != nil {
		return waitFor("the member of this node's earlier life to be removed: %v", err)
	}
	return decision{do: remove, id: p.ID, why: "this node has none of its data"}
}

// enter is the way into a cluster that exists.
func (f facts) enter(v View) decision {
	if q := v.Quorum(); q.Up < q.Need {
		return waitFor("the cluster to have a majority again: %v (not up: %s)", q, v.down())
	}
	if mine := f.mine(); len(mine) > 0 { // one after the other, each with a new look
		return f.replace(v, mine[0])
	}
	for _, p := range v.Peers {
		if p.Learner {
			return waitFor("%s to catch up: etcd takes in one member at a time; `talosctl etcd remove-member %016x` if it never comes back", p, p.ID)
		}
	}
	return decision{do: add}
}
